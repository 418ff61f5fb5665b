"""What can this machine do? Its memory, its cores, and how fast it multiplies."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Barrier

import psutil
import torch

# ---------------------------------------------------------------- memory

UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def bytes_of(memory: str | float | None) -> float:
    """An amount of memory in bytes; None stands for what is free now.

        bytes_of("2GB") == bytes_of(2e9) == 2_000_000_000

    Raises ValueError for what is no amount.
    """
    if memory is None:
        return psutil.virtual_memory().available
    text = str(memory).strip().upper()
    unit = UNITS.get(text[-2:])
    try:
        amount = float(text) if unit is None else float(text[:-2]) * unit
    except ValueError:
        amount = 0.0
    if not amount > 0:  # NaN neither
        raise ValueError(f"memory {memory!r} is no amount: expected a number of bytes, or one like '2GB'")
    return amount


def check_memory(needed: float, what: str) -> None:
    """Raises MemoryError when `needed` bytes are more than what is free, naming `what` needs them."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(f"{what} needs about {needed / 1e9:.2g} GB of memory and {free / 1e9:.2g} GB are free")


# ---------------------------------------------------------------- cores


def one_core_pool(workers: int) -> ThreadPoolExecutor:
    """Run independent jobs one core each: faster than splitting every product over threads, which must keep
    synchronising.

        with one_core_pool(4) as pool:
            results = list(pool.map(job, jobs))

    A pool of `workers` threads. Outside it torch keeps its number of threads.
    """
    before, started = torch.get_num_threads(), Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()  # a new thread's first torch call copies the global count, so make that call first
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(workers, initializer=start)
    for _ in range(workers):
        pool.submit(int)  # a job that does nothing, so that each thread starts
    started.wait()
    torch.set_num_threads(before)
    return pool


# ---------------------------------------------------------------- speed


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products; without them they are slower than float32's."""
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(frozen=True)
class Device:
    """How fast a processor is, and how much it holds.

    bfloat16, float32: TFLOP/s of dense products (no sparsity, no TF32). memory: GB. bandwidth: GB/s of its memory.
    link: GB/s to the other devices, in one direction.
    """

    bfloat16: float
    float32: float
    memory: float
    bandwidth: float
    link: float


@cache
def this_machine() -> Device:
    """This machine's processor, measured for a fraction of a second with as many threads as torch uses.

    Its link is taken to be an Ethernet of 10 Gbit/s.
    """
    a, long = torch.randn(1024, 1024), torch.randn(2**24)
    b, copy = a.bfloat16(), torch.empty_like(long)
    float32 = _rate(2 * 1024**3, lambda: a @ a) / 1e12
    bfloat16 = _rate(2 * 1024**3, lambda: b @ b) / 1e12 if multiplies_bfloat16(a.device) else float32
    bandwidth = _rate(2 * long.nbytes, lambda: copy.copy_(long)) / 1e9
    return Device(bfloat16, float32, psutil.virtual_memory().total / 1e9, bandwidth, link=1.25)


def _rate(amount: float, work: Callable[[], object], seconds: float = 0.15) -> float:
    """Amount a second in the best of several calls: on a busy machine the others are interrupted."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return amount / best
