"""What this machine can do: its memory, its cores, and how fast it multiplies."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Barrier

import psutil
import torch

# ---------------------------------------------------------------- memory

UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def bytes_of(memory: str | float | None) -> float:
    """ "2GB" or a number of bytes -> bytes; None -> what is free now.

    Raises ValueError for what is no amount.
    """
    if memory is None:
        return psutil.virtual_memory().available
    try:
        text = str(memory).strip().upper()
        amount = float(text[:-2]) * UNITS[text[-2:]] if text[-2:] in UNITS else float(text)
        if not amount > 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"memory {memory!r} is no amount: expected a number of bytes, or one like '2GB'") from None
    return amount


def check_memory(needed: float, what: str) -> None:
    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(f"{what} needs about {needed / 1e9:.2g} GB of memory and {free / 1e9:.2g} GB are free")


# ---------------------------------------------------------------- cores
# Independent jobs, one core each, are faster than every product split over threads, which must keep synchronising.


def one_core_pool(workers: int) -> ThreadPoolExecutor:
    """A pool of `workers` threads in which torch computes on one core each; outside it torch keeps its setting."""
    before, started = torch.get_num_threads(), Barrier(workers + 1)

    def start():
        torch.get_num_threads()  # a thread's first call copies the global count, so make that call first
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(workers, initializer=start)
    for _ in range(workers):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool


# ---------------------------------------------------------------- speed


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; without them it is slower than float32."""
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        return bool({"avx512_bf16", "amx_bf16"} & {name for name, has in torch.cpu.get_capabilities().items() if has})
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(frozen=True)
class Device:
    """TFLOP/s of dense products in bfloat16 and float32 (no sparsity, no TF32), GB of memory, GB/s of memory and of the
    link to the others, in one direction."""

    bfloat16: float
    float32: float
    memory: float
    bandwidth: float
    link: float


@cache
def this_machine() -> Device:
    """This machine's processor, measured for a fraction of a second with as many threads as torch uses. Its link is
    taken to be an Ethernet of 10 Gbit/s."""
    a, long = torch.randn(1024, 1024), torch.randn(2**24)
    b, copy = a.bfloat16(), torch.empty_like(long)
    float32 = _rate(2 * 1024**3, lambda: a @ a) / 1e12
    bfloat16 = _rate(2 * 1024**3, lambda: b @ b) / 1e12 if multiplies_bfloat16(a.device) else float32
    bandwidth = _rate(2 * long.nbytes, lambda: copy.copy_(long)) / 1e9
    return Device(bfloat16, float32, psutil.virtual_memory().total / 1e9, bandwidth, link=1.25)


def _rate(amount, work, seconds=0.15):
    """Amount a second in the best of several calls: on a busy machine the others are interrupted."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return amount / best
