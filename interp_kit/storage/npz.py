"""Arrays of an .npz file: a zip, whose members say in a header how large they will be before they are unpacked."""

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from .reading import AGAIN, check_names, check_no_pointer, file_size, in_short

LARGEST_BYTES = 2**48  # of an array


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in the file.

    Raises FileNotFoundError; ValueError for a file that is damaged or no npz.
    """
    file_size(path)
    check_no_pointer(path)
    with _in_words(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if len(set(names)) < len(names):
            raise ValueError("it has two arrays of one name")
        check_names(path, names)
        return names


def npz_shapes(path: Path, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of these arrays, which should be of floats; nothing is unpacked but their headers.

    Raises ValueError for an array that is not of floats, or not as large as its header says.
    """
    with _in_words(path), zipfile.ZipFile(path) as archive:
        return {name: _shape(archive, name) for name in names}


def read_npz(path: Path, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of these names, which `npz_shapes` gave, in the processor's byte order."""
    with _in_words(path), zipfile.ZipFile(path) as archive:
        for name in names:
            with archive.open(f"{name}.npy") as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                if member.read(1):  # to the end, so that the checksum is looked at
                    raise ValueError(f"{name} is longer than its header says")
            yield name, array.astype(array.dtype.newbyteorder("="), copy=False)


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as member:
        shape, dtype = _header(member)
        size = entry.file_size - member.tell()
    if dtype.kind != "f":
        what = "objects, which are pickles and are not read (allow_pickle=False)" if dtype.hasobject else str(dtype)
        raise ValueError(f"{name} should hold floating-point numbers, found {what}")
    if min(shape, default=1) < 1 or math.prod(shape) * dtype.itemsize != size or size > LARGEST_BYTES:
        raise ValueError(f"{name} does not have the size that its header says, {list(shape)} of {dtype}")
    return shape


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its array is in version {version} of the format, expected 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # parsers of zips, of deflated data and of numpy's headers raise all kinds
        raise ValueError(f"{path} is damaged or no npz of arrays ({in_short(error)}); {AGAIN}") from error
