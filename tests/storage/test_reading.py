"""Every kind of file through its door: what it holds, or words that name the file."""

import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from interp_kit.storage.reading import (
    check_tensors,
    file_size,
    in_short,
    read_tensors,
    read_text,
    read_yaml,
    text_lines,
)


def test_text_with_a_mark_and_windows_line_ends_is_read(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffAustin\r\nПариж\n".encode())
    assert read_text(tmp_path / "a.txt") == "Austin\nПариж\n"
    assert list(text_lines(tmp_path / "a.txt")) == ["Austin\r\n", "Париж\n"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"good\nc\xe9t\xe9\n", r"line 2: byte 0xe9 is not UTF-8"),
        ("Austin".encode("utf-16"), r"line 1: is in UTF-16"),
        (b"good\n\0\0\n", r"line 2: holds a zero byte"),
    ],
)
def test_text_in_another_encoding_is_refused_with_its_line(tmp_path, raw, said):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(ValueError, match=said):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("read", [file_size, read_text, read_yaml, read_tensors])
def test_what_is_no_file_is_refused(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="a pipe or a device"):
        read(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing.*check the name"):
        read(tmp_path / "missing")


def test_what_a_library_repeats_of_a_file_neither_fills_nor_steers_the_terminal(tmp_path):
    header = json.dumps({"W": {"dtype": "\x1b[2J", "shape": [], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match=r"a.safetensors .* unknown variant `\\x1b\[2J`"):
        read_tensors(tmp_path / "a.safetensors")
    assert in_short(KeyError()) == "KeyError" and len(in_short(ValueError("x" * 10**6))) < 600


NESTED = "a: &a [x, x]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (NESTED, "alias"),
        ("[" * 5000, "no readable YAML"),
        ("a: !!python/object/apply:os.system ['true']", "no readable YAML"),
        ("a: 1" * 10**6, "over 1,048,576 bytes"),
        ("a: [", "no readable YAML"),
        ("d: 2026-99-99", "no readable YAML"),
    ],
)
def test_yaml_that_is_not_plain_is_refused(tmp_path, text, said):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_yaml(tmp_path / "a.yaml")


def test_plain_yaml_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("k: 8\nnames: [a, b]\n")
    assert read_yaml(tmp_path / "a.yaml") == {"k": 8, "names": ["a", "b"]}


def test_tensors_that_are_cut_short_or_a_pointer_are_refused(tmp_path):
    whole = tmp_path / "a.safetensors"
    save_file({"W": torch.ones(3, 4)}, whole, {"step": "1"})
    assert check_tensors(whole) == ({"W": (3, 4)}, {"step": "1"}) and (read_tensors(whole)["W"] == 1).all()
    whole.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a.safetensors \(\d+ bytes\) is damaged"):
        read_tensors(whole)
    whole.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        read_tensors(whole)
    whole.write_bytes(b"\x80\x04\x95")
    with pytest.raises(ValueError, match="damaged"):
        read_tensors(whole)
