"""What can this machine do? Its memory, its cores, and how fast it multiplies.

Memory and cores are what this process may use: a container (its control group, cgroup) often has a small part of its
host's, and a process that takes more memory is killed without a word.
"""

import ctypes
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Barrier

import psutil
import torch

# ---------------------------------------------------------------- memory

log = logging.getLogger(__name__)
TOLD_BYTES = 50e6  # of which nobody has to be told, unless they ask for all (level DEBUG)
ROOT = Path("/")  # under which the system says what it has; tests put a folder of theirs in its place
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def bytes_of(memory: str | float | None) -> float:
    """An amount of memory in bytes; None stands for what is free now.

        bytes_of("2GB") == bytes_of(2e9) == 2_000_000_000

    Raises ValueError for what is no amount.
    """
    if memory is None:
        return free_memory()
    text = str(memory).strip().upper()
    unit = UNITS.get(text[-2:])
    try:
        amount = float(text) if unit is None else float(text[:-2]) * unit
    except ValueError:
        amount = 0.0
    if not amount > 0:  # NaN neither
        raise ValueError(f"memory {memory!r} is no amount: expected a number of bytes, or one like '2GB'")
    return amount


def check_memory(needed: float, what: str, remedy: str = "", free: float | None = None) -> None:
    """Logs how much memory `what` needs, and raises MemoryError when that is more than what is free. Before much is
    taken, what was freed goes back to the system.

    needed: bytes beside what the process holds already.
    remedy: a sentence for the error: what would fit.
    free: bytes, by default `free_memory()`.

    `logging.basicConfig(level="INFO")` shows what is logged:

        INFO:interp_kit.hardware:attribute() needs about 1.5 GB of memory, and 18 GB are free
    """
    if free is None:
        free = free_memory()
        if needed > min(TOLD_BYTES, free):
            give_back_freed()
            free = free_memory()
    level = logging.INFO if needed > TOLD_BYTES else logging.DEBUG
    amounts = (what, in_words(needed), in_words(free))
    log.log(level, "%s needs about %s of memory, and %s are free", *amounts, extra={"needed": needed})
    if needed > free:
        more = f". {remedy}" if remedy else ""
        raise MemoryError(f"{what} needs about {in_words(needed)} of memory and {in_words(free)} are free{more}")


def give_back_freed() -> None:
    """Returns to the system what this process has freed and the C library keeps for later: after small tensors, that
    can be hundreds of MB. Only glibc keeps as much, and offers this."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def in_words(n_bytes: float) -> str:
    """An amount of memory, in two digits.

    >>> in_words(1.53e9)
    '1.5 GB'
    """
    name, unit = next(((name, unit) for name, unit in reversed(UNITS.items()) if n_bytes >= unit), ("KB", 1e3))
    return f"{n_bytes / unit:.2g} {name}" if n_bytes < 99.5 * unit else f"{n_bytes / unit:,.0f} {name}"


def free_memory(root: Path | None = None) -> float:
    """Bytes that this process may still take: what is free on the host, or less where a control group leaves less."""
    left = [limit - used for limit, used in _memory_of_groups(root)]
    return max(0, min([psutil.virtual_memory().available, *left]))


def total_memory(root: Path | None = None) -> float:
    """Bytes of memory of the host, or of the control group with the least."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _memory_of_groups(root))])


# ---------------------------------------------------------------- control groups


def _memory_of_groups(root: Path | None) -> Iterator[tuple[int, int]]:
    """(limit, used) of each control group that holds this process and limits its memory, in bytes.

    The kernel drops files that it only keeps in case they are read again, so these do not count as used.
    """
    for folder in _groups(root or ROOT, "memory"):
        limit = _words(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _words(folder / "memory.current", folder / "memory.usage_in_bytes")
        numbers = _numbers(*limit, *used)
        if len(numbers) == 2:
            yield numbers[0], numbers[1] - _droppable(folder / "memory.stat")


def _droppable(statistics: Path) -> int:
    pairs = [line.split() for line in _lines(statistics)]
    found = {pair[0]: sum(_numbers(pair[1])) for pair in pairs if len(pair) == 2}
    return found.get("total_inactive_file", found.get("inactive_file", 0))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that hold this process, each with its parents.

    Version 2 has one tree for all, version 1 one for each controller; some hosts have both. A container may see its own
    group as the top of the tree, while the path is the host's: what of it does not exist is passed over.
    """
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        top = root / "sys/fs/cgroup"
        if number == "0" and not names:
            trees = [top, top / "unified"]
        elif controller in names.split(","):
            trees = [top / controller, top / names]
        else:
            continue
        parts = [part for part in path.split("/") if part]
        inside = [] if ".." in parts else parts  # a path out of the part of the tree that is seen here
        yield from (tree.joinpath(*inside[:n]) for tree in trees for n in range(len(inside) + 1))


def _lines(file: Path) -> list[str]:
    """No lines where a file cannot be read, as on systems without control groups."""
    try:
        return file.read_bytes().decode("utf-8", "surrogateescape").splitlines() if file.is_file() else []
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return []


def _words(*files: Path) -> list[str]:
    """Of the first of the files that there is, the words in its first line."""
    return next((lines[0].split() for file in files if (lines := _lines(file))), [])


def _numbers(*words: str) -> list[int]:
    """None at all where one is "max", which stands for no limit, or anything else that is no number of 64 bits."""
    good = all(word.isascii() and word.isdecimal() and len(word) < 20 for word in words)
    return [int(word) for word in words] if good else []


# ---------------------------------------------------------------- cores


def usable_cores(root: Path | None = None) -> int:
    """How many cores this process may use at once: those it is bound to, or fewer where a control group allows less
    processor time than they have."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *map(math.ceil, _cores_of_groups(root))]))


def _cores_of_groups(root: Path | None) -> Iterator[float]:
    """How many cores' time each control group that holds this process allows, where it limits that."""
    for folder in _groups(root or ROOT, "cpu"):
        older = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        numbers = _numbers(*(_words(folder / "cpu.max") or older))  # microseconds, in each so many
        if len(numbers) == 2 and numbers[1]:
            yield numbers[0] / numbers[1]


def leave_others_cores() -> None:
    """Torch starts a thread for each core of the host. Where a control group allows this process the time of fewer, the
    threads wait for each other: then torch gets as many as there are cores to use.

    Whoever has set OMP_NUM_THREADS has decided it. `models.load_model` calls this: a model comes before any long work.
    """
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


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
    return Device(bfloat16, float32, total_memory() / 1e9, bandwidth, link=1.25)


def _rate(amount: float, work: Callable[[], object], seconds: float = 0.15) -> float:
    """Amount a second in the best of several calls: on a busy machine the others are interrupted."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        work()
        best = min(best, time.perf_counter() - start)
    return amount / best
