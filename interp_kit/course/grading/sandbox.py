"""Run what a student wrote in a process of its own, with limits on time, memory, processes and what it writes.

Whatever the command starts belongs to it, also a process that leaves its group: orphans come back to this process
(Linux's subreaper) and are stopped with it. Root runs it as a user of its own without rights (`student_user`). What it
may read and write, the command closes itself before the student's part begins (landlock.py).
"""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from .landlock import landlock_version

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
FIRST_USER, N_USERS = 61_000, 4_000  # numbers that no machine gives to people: one for each process that runs commands
POLL_SECONDS = 0.05
FILE_BYTES = 4096  # that even an empty file counts
SHARED_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # where every user may write


@dataclass(frozen=True)
class Limits:
    """What a command may take, with all that it starts."""

    seconds: float = 600
    memory: float = 2 * 2**30
    "bytes that are resident"
    processes: int = 64
    written: float = 100 * 2**20
    "bytes, of all files together"


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None
    "what it returned; None where it was stopped"
    stopped: str
    "by which limit, in words; empty where it ended by itself"
    seconds: float
    memory: int
    "the most bytes that were resident"


def run_limited(
    command: Sequence[str],
    folder: Path,
    limits: Limits = Limits(),
    variables: Mapping[str, str] | None = None,
    output: int = subprocess.DEVNULL,
    user: int | None = None,
) -> Ended:
    """Runs `command` in `folder`, its home, and stops it, with all that it started, when it goes beyond a limit or
    ends. One at a time in a process: all children that were not there before are the command's.

    variables: of its environment, beside PATH and its folders; nothing else of this process's is passed on. output: the
    number of the open file to which it prints. user: the number of the user that it runs as, to whom `folder` is given;
    by default this process's.

    Raises OSError where the command cannot be started.

    >>> run_limited([sys.executable, "-c", "while True: pass"], folder, Limits(seconds=1)).stopped
    'it took over 1 seconds'
    """
    _adopt_orphans()
    others = {process.pid for process in _children()}
    _give(folder, user)
    before, start, peak, stopped = _size(folder), time.monotonic(), 0, ""
    system = _system_limits(limits, user)
    process = subprocess.Popen(
        [*as_user(user, command[0]), *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        start_new_session=True, env=_environment(folder) | dict(variables or {}), preexec_fn=lambda: _limit(system),
    )  # fmt: skip
    try:
        while process.poll() is None and not stopped:
            time.sleep(POLL_SECONDS)
            family = [each for each in _children() if each.pid not in others]
            memory, written = sum(map(_resident, family)), max(_size(folder) - before, sum(map(_written, family)))
            peak = max(peak, memory)
            stopped = _beyond(limits, time.monotonic() - start, memory, len(family), written)
    finally:
        _stop(others)
        _remove_leftovers(user, folder)
    return Ended(None if stopped else process.wait(), stopped, time.monotonic() - start, peak)


def _beyond(limits: Limits, seconds: float, memory: float, processes: int, written: float) -> str:
    """Which limit is passed, in words."""
    if seconds > limits.seconds:
        return f"it took over {limits.seconds:g} seconds"
    if memory > limits.memory:
        return f"it took over {limits.memory / 2**20:,.0f} MB of memory"
    if processes > limits.processes:
        return f"it started over {limits.processes} processes"
    if written > limits.written:
        return f"it wrote over {limits.written / 2**20:,.0f} MB"
    return ""


# ---------------------------------------------------------------------- as whom


def student_user() -> int | None:
    """The number of a user without rights, another for each process of root's. None for anybody else, who cannot
    become another."""
    return FIRST_USER + os.getpid() % N_USERS if os.geteuid() == 0 and sys.platform == "linux" else None


def as_user(user: int | None, program: str) -> list[str]:
    """What comes before a command so that it runs as `user`. Where others cannot reach the program or the kit (a clone
    in root's own folder) it keeps the right to read, which Landlock then narrows.

    Raises PermissionError where they cannot, and the system has no Landlock.
    """
    if user is None:
        return []
    kept, needed = "-all", [shutil.which(program) or program, Path(sys.prefix, "bin"), __file__]
    if not all(place.stat().st_mode & 0o001 for path in needed for place in Path(path).resolve().parents):
        if not landlock_version():
            raise PermissionError(
                f"other users cannot reach {program!r}, and a submission should not run as root: put Python and the "
                "kit where all may read (python3 -m venv /opt/course), or grade as a user without rights"
            )
        kept = "-all,+dac_read_search"
    rights = [f"--{what}-caps={kept}" for what in ("inh", "ambient")] + [f"--bounding-set={kept}"]
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs",
            "--pdeathsig=KILL", *rights, "--"]  # fmt: skip


def _give(folder: Path, user: int | None) -> None:
    (folder / "tmp").mkdir(exist_ok=True)
    if user is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the teacher's own, which may hold keys."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    place = {"HOME": str(folder), "TMPDIR": str(folder / "tmp"), "USER": "student", "LOGNAME": "student"}
    return {**kept, **place, "LANG": "C.UTF-8"}


# ---------------------------------------------------------------------- before it starts


def _adopt_orphans() -> None:
    """What a child leaves behind becomes a child of this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """This process is killed when the one that started it ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _system_limits(limits: Limits, user: int | None) -> dict[int, int]:
    """The system's own limits, which hold between two looks at what the command does. Processes, with their threads,
    are counted for each user: what this one runs already is allowed, too, and room for the threads."""
    held = {resource.RLIMIT_FSIZE: int(limits.written), resource.RLIMIT_CORE: 0}
    running = 0 if user is not None else sum(_threads(each, os.geteuid()) for each in psutil.process_iter())
    return held | {resource.RLIMIT_NPROC: running + 2 * limits.processes}


def _limit(system: Mapping[int, int]) -> None:
    """In the new process."""
    for what, most in system.items():
        resource.setrlimit(what, (most, most))
    os.nice(5)
    end_with_parent()


# ---------------------------------------------------------------------- while it runs, and after


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _threads(process: psutil.Process, user: int) -> int:
    """How many the process has, if it is this user's."""
    with suppress(psutil.Error):
        return process.num_threads() if process.uids().real == user else 0
    return 0


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def _written(process: psutil.Process) -> int:
    """To files, and to what is none; macOS does not count."""
    with suppress(psutil.Error, AttributeError):
        return getattr(process.io_counters(), "write_chars", 0)
    return 0


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it may be gone again
                blocks = os.lstat(os.path.join(place, name)).st_blocks  # of a file with holes what it takes
                total += max(512 * blocks, FILE_BYTES)
    return total


def _stop(others: set[int]) -> None:
    """Stops all children but `others`. First they are halted: none starts another while the rest are stopped."""
    while family := [process for process in _children() if process.pid not in others]:
        for kind in (signal.SIGSTOP, signal.SIGKILL):
            for process in family:
                with suppress(psutil.Error):
                    process.send_signal(kind)
        for process in family:
            with suppress(psutil.Error, ChildProcessError):
                if process.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(process.pid, os.WNOHANG)
        time.sleep(0.01)


def _remove_leftovers(user: int | None, folder: Path) -> None:
    """What the user left in places where everybody may write, but for its folder."""
    if user is None:
        return
    for path in [path for path in _owned_by(user) if not folder.resolve().is_relative_to(path)]:
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _owned_by(user: int) -> Iterator[Path]:
    for folder in filter(os.path.isdir, SHARED_FOLDERS):
        for entry in os.scandir(folder):
            with suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == user:
                    yield Path(entry.path)
