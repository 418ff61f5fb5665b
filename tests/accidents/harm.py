"""Files that want code run, and a watch over what reading a file does to the machine."""

import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

SENTINEL = Path(tempfile.gettempdir()) / f"hostile-{os.getpid()}"  # the code in these files would make it


class _Touch:
    """Whoever unpickles it makes the sentinel."""

    def __reduce__(self):
        return open, (str(SENTINEL), "w")


def pickles() -> list[bytes]:
    """Pickles: plain, in torch's zip, in an array of numpy's and in a zip of these."""
    found = [pickle.dumps({"W_enc": _Touch()}, protocol) for protocol in (0, 2, 4)]
    for save in (
        lambda file: torch.save({"W_enc": _Touch()}, file),
        lambda file: np.save(file, np.array([_Touch()], object), allow_pickle=True),
        lambda file: np.savez(file, W_enc=np.array([_Touch()], object)),
    ):
        file = BytesIO()
        save(file)
        found.append(file.getvalue())
    return found


PICKLES = pickles()
# Texts that YAML, a template, a chat template or `eval` would run.
CODE = [
    f"!!python/object/apply:builtins.open ['{SENTINEL}', w]",
    f"__import__('os').system('touch {SENTINEL}')",
    f"{{{{ cycler.__init__.__globals__.os.system('touch {SENTINEL}') }}}}",
    "{0.__class__.__init__.__globals__}",
]
MODULE = f"open({str(SENTINEL)!r}, 'w')\nclass Evil: pass\n"  # for a model's folder that names code of its own

# ---------------------------------------------------------------- a watch

RUNS_CODE = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}
CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_watch: tuple[str, list[str]] | None = None  # the folder that may be written to, and what else was done


def _hook(event: str, arguments: tuple) -> None:
    if _watch is None:
        return
    folder, done = _watch
    if event in RUNS_CODE:
        done.append(f"{event} {arguments!r:.200}")
    elif event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
        start = _folder(-1 if event == "open" else arguments[-1])
        for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            if isinstance(path, str | bytes | os.PathLike):
                whole = os.path.normpath(os.path.join(start, os.fsdecode(path)))
                done += [] if _may(whole, folder) else [f"{event} {whole}"]


def _folder(number: object) -> str:
    """Where a path starts from: an open folder, or the current one."""
    if isinstance(number, int) and os.path.isdir(f"/proc/self/fd/{number}"):
        return os.readlink(f"/proc/self/fd/{number}")
    return os.getcwd()


def _may(path: str, folder: str) -> bool:
    return path.startswith(folder) or "__pycache__" in path or path == os.devnull


sys.addaudithook(_hook)


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """A list of what the block does and should not: code that is run, files outside the folder that are changed."""
    global _watch
    done: list[str] = []
    _watch = os.path.abspath(folder), done
    try:
        yield done
    finally:
        _watch = None
        if SENTINEL.exists():
            SENTINEL.unlink()
            done.append("code of a file was run")


def listing(place: Path, but: Path) -> list[tuple[str, int, int]]:
    """All files of a folder but those in `but`: name, size and time of change."""
    found = []
    for path in sorted(place.rglob("*")):
        if path != but and but not in path.parents:
            about = path.lstat()
            found.append((str(path), about.st_size, about.st_mtime_ns))
    return found
