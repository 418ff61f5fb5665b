"""Files that something happened to, and what becomes of reading them.

    rng = random.Random(7)
    found = trial(READERS[0], place, rng)        # Outcome("refused", ...)

A trial writes a reader's good files, changes one of them, reads, and uses what was read:

    refused     one of the exceptions of the kit, in words that name the file or its folder
    loaded      read, and the first use gives finite numbers
    odd         anything else: another exception, no name in the message, NaN, a hang, much memory, code that is run,
                files outside the folder that are changed

A reader is a name, a function that writes a good example into a folder, and one that reads it and uses it once. Whoever
has another format adds a line to the table in `readers.py`. What happens to files is in `mutations.py` and, where that
asks for knowledge of the format, `tables.py`; what reading must not do is in `harm.py`.
"""

import random
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from .folders import mutate_folder
from .harm import listing, watched

REFUSALS = (ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, MemoryError)
SECONDS, BYTES_A_SECOND = 5.0, 1e6  # of computing, and of reading beside it: more is a hang
WAIT = 60.0  # of waiting: whatever takes longer is interrupted
MEMORY = 500e6  # bytes, beside what reading took before
WORDS = range(20, 3000)  # characters of a message


class Reader(NamedTuple):
    """One way in for files."""

    name: str
    write: Callable[[Path], None]
    "writes a good example into an empty folder"
    use: Callable[[Path], Any]
    "reads it and uses it once; returns a tensor or an array of numbers that should be finite, or None"


@dataclass
class Outcome:
    """What became of a trial."""

    kind: str
    "refused, loaded or odd"
    what: str
    "what was done to the files"
    error: BaseException | str | None = None


class Hang(BaseException):
    """Reading took too long."""


def kept(write: Callable[[Path], None]) -> Callable[[Path], None]:
    """Writes once, and copies from then on: most of the time would go into writing."""
    first: list[TemporaryDirectory] = []  # removed when Python ends

    def again(folder: Path) -> None:
        if not first:
            first.append(TemporaryDirectory(prefix="hostile-"))
            write(Path(first[0].name))
        shutil.copytree(first[0].name, folder, dirs_exist_ok=True)

    return again


def trial(reader: Reader, place: Path, rng: random.Random) -> Outcome:
    """Writes into a folder of `place`, which is empty, changes something there, reads and uses."""
    folder = place / "given"
    folder.mkdir()
    reader.write(folder)
    for name in ("outside", "outside.json", "outside.safetensors"):  # which the files may name
        (place / name).write_text("[]")
    what = mutate_folder(folder, rng)
    before = listing(place, folder)
    found = outcome(reader, folder, what)
    if listing(place, folder) != before:
        return Outcome("odd", what, "a file outside the folder was made, changed or removed")
    return found


def outcome(reader: Reader, folder: Path, what: str) -> Outcome:
    """What becomes of reading `folder`."""
    start, memory, error, numbers = time.process_time(), _peak_memory(), None, None
    allowed = SECONDS + sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / BYTES_A_SECOND
    with warnings.catch_warnings(), watched(folder) as harm:
        warnings.simplefilter("ignore")
        try:
            with _interrupted():
                numbers = reader.use(folder)
        except KeyboardInterrupt:
            raise
        except BaseException as caught:  # parts in Rust raise what is no Exception
            error = caught
    if harm:
        return Outcome("odd", what, f"did {harm[0]}")
    if time.process_time() - start > allowed:
        return Outcome("odd", what, f"took over {allowed:.0f} seconds")
    if _peak_memory() - memory > MEMORY:
        return Outcome("odd", what, f"took over {MEMORY / 1e6:.0f} MB")
    if error is not None:
        return Outcome("refused" if _is_refusal(error, folder) else "odd", what, error)
    if numbers is not None and not bool((abs(numbers) < float("inf")).all()):
        return Outcome("odd", what, "loaded, and its first use is not finite")
    return Outcome("loaded", what)


def _is_refusal(error: BaseException, folder: Path) -> bool:
    """Whether it is one of the kit's exceptions, in words that can be shown and name the folder or a file of it."""
    said = str(error)
    names = {path.name for path in folder.rglob("*")} | {
        str(folder),
        str(folder.parent / "outside"),
    }  # links lead there
    shown = all(c.isprintable() or c in "\n\t" for c in said)  # a terminal obeys control characters
    expected = type(error) in REFUSALS or isinstance(error, OSError)
    return expected and shown and len(said) in WORDS and any(name in said for name in names)


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _interrupted() -> Iterator[None]:
    """Raises Hang in a block that takes too long, where Python gets to it."""

    def ring(*_: object) -> None:
        raise Hang(f"took over {WAIT} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
