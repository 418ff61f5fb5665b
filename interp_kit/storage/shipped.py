"""What ships with the kit, by name, and the folder it lies in.

A clone has all of `data/`. A wheel carries what belongs to `pocket`; what is larger is found in a clone, or fetched
once from an archive of the repository into the user's cache.
"""

import os
import re
import shutil
import tempfile
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from .atomic import cache_entry
from .reading import file_size, in_short

# The folders of data/ by the name that a reader loads them with: `load_transcoder("pocket")`.
TRANSCODERS = {"pocket": "pocket-transcoder", "smollm2": "smollm2-transcoder"}
FEATURES = {"pocket": "pocket-features", "smollm2": "smollm2-features"}
FETCHED = {"smollm2": ("smollm2-transcoder", "smollm2-features")}  # too large for a wheel
PART = 2**20  # bytes that are unpacked at a time


def data_folder() -> Path:
    """The folder with what ships: the one that the environment variable INTERP_KIT_DATA names, else `data/` of the
    clone, else what the wheel carries."""
    named, clone = os.environ.get("INTERP_KIT_DATA"), Path(__file__).parents[2] / "data"
    if named:
        return Path(named).expanduser()
    return clone if (clone / "pocket").is_dir() else Path(__file__).parents[1] / "data"


def cache_folder() -> Path:
    """Where the kit keeps what it made or fetched: $INTERP_KIT_CACHE, else interp_kit in the user's cache folder."""
    own = os.environ.get("INTERP_KIT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own).expanduser() if own else Path(base) / "interp_kit"


def shipped_folder(name: str) -> Path:
    """The folder `name` of data/, such as "pocket-transcoder".

    Raises FileNotFoundError, saying how to get it, where it neither ships nor was fetched.
    """
    places = [data_folder() / name, cache_folder() / "data" / name]
    for place in places:
        if place.is_dir():
            return place
    model = name.split("-")[0]
    remedy = f", or fetch it once: python -m interp_kit fetch {model} ADDRESS" if model in FETCHED else ""
    raise FileNotFoundError(
        f"{name} is not at {str(places[0])!r}: work in a clone of the repository, or set the environment variable "
        f"INTERP_KIT_DATA to the data folder of one{remedy}"
    )


def fetch(model: str, archive: str) -> list[Path]:
    """Copies the shipped folders of `model` from an archive of the repository into the cache; returns where they are.

    archive: a .zip of a clone or of the hosting site, as a path or a web address.

    Raises ValueError for a model that is not fetched or an archive without its folders, OSError where the archive
    cannot be read.

    Example: `fetch("smollm2", "https://github.com/interp-kit/interp_kit/archive/HEAD.zip")`
    """
    if model not in FETCHED:
        expected = ", ".join(FETCHED)
        raise ValueError(f"{model!r} is not fetched: expected one of {expected} (pocket comes with the package)")
    with tempfile.TemporaryDirectory() as scratch:
        is_address = re.match(r"https?://", archive)
        path = _downloaded(archive, Path(scratch) / "archive.zip") if is_address else Path(archive).expanduser()
        file_size(path)  # a pipe would wait for ever
        with _in_words(archive):
            file = zipfile.ZipFile(path)
        with file:
            return [_unpacked(file, name, archive) for name in FETCHED[model]]


def _downloaded(address, path):
    with urllib.request.urlopen(address) as answer, open(path, "wb") as file:
        size = int(answer.headers.get("Content-Length") or 0) or None
        with tqdm.wrapattr(answer, "read", total=size, desc="fetching") as counted:
            shutil.copyfileobj(counted, file)
    return path


def _unpacked(archive, name, source):
    """Only plain files that lie directly in data/`name` are taken, so no entry can lead elsewhere."""
    inside = re.compile(rf"(?:[^/]+/)?data/{re.escape(name)}/([A-Za-z0-9_][A-Za-z0-9_.-]*)")
    entries = {match[1]: entry for entry in archive.namelist() if (match := inside.fullmatch(entry))}
    if not entries:
        raise ValueError(f"{source} has no folder data/{name}: give an archive of the whole repository")
    folder = cache_folder() / "data" / name
    needed = sum(archive.getinfo(entry).file_size for entry in entries.values())
    with cache_entry(folder) as stage:
        if needed > (free := shutil.disk_usage(stage).free):
            raise OSError(f"{source}: its data/{name} needs {needed:,} bytes, and at {str(folder)!r} {free:,} are free")
        for filename, entry in entries.items():
            with open(stage / filename, "wb") as unpacked:
                unpacked.writelines(_parts(archive, entry, source))
    return folder


def _parts(archive, entry, source):
    """What an entry holds, some of it at a time; no more than the archive says of its size."""
    with _in_words(source), archive.open(entry) as opened:
        while part := opened.read(PART):
            yield part


@contextmanager
def _in_words(source):
    try:
        yield
    except Exception as error:  # parsers of zips and of what is packed in them raise all kinds
        raise ValueError(
            f"{source} is damaged or not a zip archive ({in_short(error)}): give one of the repository, clone or "
            "download"
        ) from error
