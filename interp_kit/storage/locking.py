"""One process at a time: a lock on a folder or a file itself, which leaves nothing behind and goes with its process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there, two processes that save to one place are not kept apart
    fcntl = None


@contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[None]:
    """Inside the block nobody else holds `path`, a folder or a file (`shared`: nobody who writes). Waits its turn."""
    handle = _handle(path, wait=True, shared=shared)
    try:
        yield
    finally:
        _release(handle)


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Whether the lock could be had at once; inside the block it is held."""
    handle = _handle(path, wait=False, shared=False)
    try:
        yield handle is not None or fcntl is None
    finally:
        _release(handle)


def _handle(path: Path, wait: bool, shared: bool) -> int | None:
    """An open file that holds the lock. None where it is taken, or where a drive has no locks."""
    if fcntl is None:
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


def _release(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
