"""Arrays of an npz file: their sizes without unpacking, their numbers in the processor's order, damage in words."""

import zipfile

import numpy as np
import pytest

from interp_kit.storage.npz import npz_names, npz_shapes, read_npz


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(
        path, a=np.arange(6.0).reshape(2, 3), b=np.asfortranarray(np.ones((3, 4), ">f4")), c=np.arange(3)
    )
    return path


def test_names_shapes_and_numbers(saved):
    assert npz_names(saved) == ["a", "b", "c"]
    assert npz_shapes(saved, ["a", "b"]) == {"a": (2, 3), "b": (3, 4)}
    found = dict(read_npz(saved, ["b", "a"]))
    assert (found["a"] == np.arange(6.0).reshape(2, 3)).all() and (found["b"] == 1).all()
    assert found["b"].dtype.isnative


def test_what_is_no_array_of_floats(saved, tmp_path):
    with pytest.raises(ValueError, match="c should hold floating-point numbers, found int64"):
        npz_shapes(saved, ["c"])
    np.savez(tmp_path / "b.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="b.npz .*found objects, which are pickles .*allow_pickle=False"):
        npz_shapes(tmp_path / "b.npz", ["a"])


MAGIC = b"\x93NUMPY\x01\x00"
HEADERS = [b"", MAGIC, b"\x93NUMPY\x09\x00\x02\x00{}", MAGIC + b"\x64\x00" + b"(" * 100, MAGIC + b"\x03\x00{\n:"]


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_are_none(tmp_path, header):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", header)
    with pytest.raises(ValueError, match="a.npz is damaged or no npz of arrays"):
        npz_shapes(path, ["a"])


def test_damage_that_only_reading_shows(saved):
    """The checksum of what was unpacked."""
    np.savez(saved, a=np.arange(1e5))
    content = bytearray(saved.read_bytes())
    content[content.index(np.float64(99_998).tobytes())] ^= 1
    saved.write_bytes(content)
    assert npz_shapes(saved, ["a"]) == {"a": (100_000,)}
    with pytest.raises(ValueError, match="damaged"):
        list(read_npz(saved, ["a"]))


def test_two_arrays_of_one_name_and_no_file(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(FileNotFoundError, match="a.npz"):
        npz_names(path)
    with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("a.npy", b"")
        file.writestr("a.npy", b"")
    with pytest.raises(ValueError, match="two arrays of one name"):
        npz_names(path)
    for content in (b"", b"PK", b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.npz"):
            npz_names(path)
