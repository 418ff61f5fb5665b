"""Independent pieces of work side by side, each on a core of its own: less is lost than with threads inside each
product, which wait for one another hundreds of times a second."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch


def pool_of(workers: int) -> ThreadPoolExecutor:
    """A pool of `workers` threads in which torch computes on one core each; outside it torch keeps its setting."""
    before, started = torch.get_num_threads(), Barrier(workers + 1)

    def start():
        torch.get_num_threads()  # a thread's first call takes over the setting of all: let that be behind us
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(workers, initializer=start)
    for _ in range(workers):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)
    return pool
