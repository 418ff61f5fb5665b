"""Folders that the user names: saved as a whole, and what is not ours in them is never touched.

    with saved_folder("my-transcoder") as stage:            # writes
        save_file(tensors, stage / "layer_0.safetensors")
    with opened_folder("my-transcoder") as folder:          # reads
        tensors = load_file(folder / "layer_0.safetensors")

A folder of ours holds a list of our files and of what they held, LIST. Saving writes everything into a folder of its
own inside, STAGE, and renames that to READY: from this moment on the save counts. Then the files are moved to their
places and the list comes last. A process that is killed before READY has changed nothing; one that is killed after it
leaves a save that whoever opens the folder next brings to its end, by the same moves.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .atomic import PREFIX, in_words, remove_leftovers, resolved
from .locking import locked

LIST, STAGE, READY = PREFIX + "files.json", PREFIX + "new", PREFIX + "ready"

Files = dict[str, str]  # by name, a digest of what the file holds


@contextmanager
def saved_folder(path: str | Path) -> Iterator[Path]:
    """Yields an empty folder; when the block ends well, the files in it are those that we have at `path`.

    Of an earlier save, files that are not among them go. Other files stay as they are. A link is followed.

    Raises FileExistsError, naming what is in the way: `path` is a file, a folder with entries that is not ours, or one
    where a file of ours was changed since or another has the name of a new one. Raises OSError where it cannot be
    written.
    """
    folder = resolved(path)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{str(folder)!r} is a file: it is left as it is; give the name of a folder")
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    with in_words(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                _finish(folder)
                before = _files_of_ours(folder)
                try:
                    (folder / STAGE).mkdir()
                    yield folder / STAGE
                    _make_ready(folder, before)
                finally:
                    shutil.rmtree(folder / STAGE, ignore_errors=True)
                _finish(folder)
        finally:
            for parent in made:
                with suppress(OSError):  # only one that was made for nothing is empty
                    parent.rmdir()


@contextmanager
def opened_folder(path: str | Path) -> Iterator[Path]:
    """Yields the folder at `path`, ours or any other, in which nobody saves meanwhile.

    Raises FileNotFoundError where there is no folder, OSError for a save that cannot be brought to its end.
    """
    folder = resolved(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}: check the name")
    if (folder / READY).exists():
        with in_words(folder), locked(folder):
            _finish(folder)
    with locked(folder, shared=True):
        yield folder


def _files_of_ours(folder: Path) -> Files:
    """What the list says. Raises FileExistsError where the folder is not ours, or one of its files no longer is."""
    files, entries = _listed(folder), sorted(entry.name for entry in folder.iterdir())
    others = [name for name in entries if not name.startswith(PREFIX)]
    if files is None and others:
        raise FileExistsError(
            f"{str(folder)!r} holds {others[0]!r} and was not saved by interp_kit: it is left as it is; give a new or "
            "an empty folder"
        )
    for name, digest in (files or {}).items():
        if (folder / name).exists() and _digest(folder / name) != digest:
            raise FileExistsError(
                f"{str(folder / name)!r} was changed since interp_kit saved it: it is left as it is; move it away, or "
                "give another folder"
            )
    return files or {}


def _listed(folder: Path) -> Files | None:
    """None for a folder without a list of ours."""
    if not (folder / LIST).is_file():  # a pipe would wait for ever
        return None
    try:
        files = json.loads((folder / LIST).read_text(encoding="utf-8"))["files"]
        good = all(isinstance(digest, str) and Path(name).name == name for name, digest in files.items())
        return files if good else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _make_ready(folder: Path, before: Files) -> None:
    """From here on the save counts."""
    stage = folder / STAGE
    files = {file.name: _digest(file) for file in sorted(stage.iterdir())}
    if taken := [name for name in files if name not in before and (folder / name).exists()]:
        raise FileExistsError(
            f"{str(folder / taken[0])!r} is there and was not saved by interp_kit: it is left as it is; move it away, "
            "or give another folder"
        )
    mode = stat.S_IMODE(stage.stat().st_mode) & 0o666  # a new folder's, by the user's umask
    for file in stage.iterdir():
        os.chmod(file, mode)
    (stage / LIST).write_text(json.dumps({"files": files}, indent=0), encoding="utf-8")
    stage.rename(folder / READY)


def _finish(folder: Path) -> None:
    """Brings a save that counts to its end, and removes what is left of one that does not. The lock is held."""
    ready = folder / READY
    if (new := _listed(ready)) is not None:
        for name in set(_listed(folder) or {}) - set(new):
            (folder / name).unlink(missing_ok=True)
        for name in [*new, LIST]:  # the list last: until then the next process begins here again
            with suppress(FileNotFoundError):  # moved before
                (ready / name).replace(folder / name)
    shutil.rmtree(ready, ignore_errors=True)
    shutil.rmtree(folder / STAGE, ignore_errors=True)
    remove_leftovers(folder)


def _digest(file: Path) -> str:
    """Of what the file holds; "" for what is no file, such as a pipe, which would wait for ever."""
    if not file.is_file():
        return ""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:32]
