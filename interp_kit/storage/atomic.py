"""Writing that never leaves half a file behind, and never takes the place of what is not ours.

`atomic_file` writes one file, `cache_entry` a folder of the kit's own cache; a folder that the user names is saved
with `folders.saved_folder`. What a killed process left unfinished is recognised by its name, and removed by the next
one that writes beside it.
"""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from .locking import lock_if_free, locked

PREFIX = ".interp_kit-"  # of every name that only the kit gives; a temporary file's does not grow with its target's
TEMPORARY = re.compile(re.escape(PREFIX) + "tmp-[0-9a-f]{8}")

Test = Callable[[Path], bool]


def never(_: Path) -> bool:
    """`replaces` of `atomic_file` where nothing that is there may be replaced."""
    return False


def always(_: Path) -> bool:
    """`replaces` of `atomic_file` where the place is the kit's own, as in its cache."""
    return True


@contextmanager
def atomic_file(path: str | Path, replaces: Test = never) -> Iterator[Path]:
    """Yields a temporary sibling of `path`; when the block ends well it takes the place of `path`, else it goes.

    with atomic_file("graph.json", replaces=is_graph_file) as temporary:
        temporary.write_text(text, encoding="utf-8")

    replaces: whether a file that is at `path` may go, being one of the same kind. A link is followed to its file.

    Raises FileExistsError for something at `path` that may not be replaced, OSError where it cannot be written.
    """
    path = resolved(path)
    check_replaceable(path, replaces)
    with in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary = path.with_name(_temporary_name())
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less what the umask takes away
            mode = stat.S_IMODE((path if path.exists() else temporary).stat().st_mode)
            with locked(temporary):
                yield temporary
                os.chmod(temporary, mode)
                check_replaceable(path, replaces)  # again: writing may have taken minutes
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def cache_entry(path: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `path`, in the kit's own cache, when the block ends well.

    Raises OSError where it cannot be written.
    """
    with in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary = path.with_name(_temporary_name())
        try:
            temporary.mkdir()
            with locked(temporary):
                yield temporary
                if path.exists():
                    shutil.rmtree(path)
                temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def resolved(path: str | Path) -> Path:
    """Where `path` leads, with "~" and links followed. Raises OSError for a link that leads to itself."""
    try:
        whole = Path(path).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # it may be still to be made
            return whole.resolve(strict=True)  # since Python 3.13 nothing else says so of such a link
        return whole.resolve()
    except (OSError, RuntimeError) as error:
        raise OSError(f"{str(path)!r} leads nowhere ({error}): check the name") from error


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left unfinished in `folder`: temporary files and folders that nobody holds."""
    for left in [entry for entry in folder.iterdir() if TEMPORARY.fullmatch(entry.name)]:
        with suppress(OSError), lock_if_free(left) as free:  # OSError: another process was first
            if free:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Says of an error of the system what could not be saved, and that nothing was changed."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(_failed(path, error)) from error
    except OSError as error:
        if error.errno is None:  # it is in words already
            raise
        raise type(error)(_failed(path, error.strerror)) from error


def _failed(path: Path, cause: object) -> str:
    return f"{str(path)!r} could not be saved: {cause}. What was there is unchanged"


def check_replaceable(path: Path, replaces: Test) -> None:
    """Raises FileExistsError for something at `path` that may not be replaced."""
    if path.exists() and not (path.is_file() and replaces(path)):
        what = "a folder" if path.is_dir() else "a file that is not of the kind that would be saved"
        raise FileExistsError(f"{str(path)!r} is {what}: it is left as it is; give another name, or move it away")


def _temporary_name() -> str:
    return f"{PREFIX}tmp-{secrets.token_hex(4)}"
