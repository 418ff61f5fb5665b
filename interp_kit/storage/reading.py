"""Reading what may come from anywhere: each kind of file through one door, which either hands over what the file holds
or says which file it is, what is wrong with it and what to do.

Nothing is read of a pipe, a device or a folder (a pipe would wait for ever), and nothing is unpickled.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING

import yaml
from safetensors import SafetensorError, safe_open

from ..widgets.plain_text import printable

if TYPE_CHECKING:  # slow to import, and most files are not tensors
    import torch

LFS_POINTER = b"version https://git-lfs"
AGAIN = "copy or download it again"
NAME_CHARACTERS = 500  # of an array in a file
SAID_CHARACTERS = 500  # of what another library says of a file: it may repeat all of it
YAML_BYTES = 2**20  # a description of a transcoder has a few hundred


def file_size(path: Path) -> int:
    """The size in bytes of a regular file.

    Raises FileNotFoundError; ValueError for a folder, a pipe or a device.
    """
    try:
        about = os.stat(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no file {str(path)!r} (looked from {os.getcwd()!r}): check the name"
        ) from None
    if not stat.S_ISREG(about.st_mode):
        what = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
        raise ValueError(f"{str(path)!r} is {what}, expected a file")
    return about.st_size


def in_short(error: BaseException) -> str:
    """What another library says of a file, for a message of ours: it may not fill the screen, nor steer the terminal
    with what it repeats of the file."""
    said = printable(str(error)) or type(error).__name__
    return said if len(said) <= SAID_CHARACTERS else f"{said[:SAID_CHARACTERS]} ..."


@contextmanager
def no_panic() -> Iterator[None]:
    """A panic of a library in Rust, such as tokenizers, is no Exception; here it becomes one, a RuntimeError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # its module cannot be imported
            raise
        raise RuntimeError(in_short(error)) from error


# ---------------------------------------------------------------- text


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file in UTF-8, with their ends; a byte-order mark is passed over.

    Raises FileNotFoundError; ValueError, naming the line, for another encoding.
    """
    file_size(path)
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: {_encoding(line, error)}") from None
            if "\0" in text:
                raise ValueError(f"{path}, line {number}: holds a zero byte, which no text does; {_save_as_utf8()}")
            yield text


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, of any line ends, without its byte-order mark. Raises as `text_lines`."""
    return "".join(text_lines(path)).replace("\r\n", "\n")


def _encoding(line: bytes, error: UnicodeDecodeError) -> str:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"is in UTF-16, expected UTF-8; {_save_as_utf8()}"
    return f"byte {line[error.start]:#04x} is not UTF-8; {_save_as_utf8()}"


def _save_as_utf8() -> str:
    return "save the file as UTF-8, in an editor or with Path(new).write_text(text, encoding='utf-8')"


# ---------------------------------------------------------------- yaml


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases: nested ones unfold to more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which is not read")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> object:
    """What a small YAML file holds, by plain types alone.

    Raises FileNotFoundError; ValueError for what is no YAML, has aliases, or has over a mebibyte.
    """
    if file_size(path) > YAML_BYTES:
        raise ValueError(f"{path} has over {YAML_BYTES:,} bytes, expected a short description")
    try:
        return yaml.load(read_text(path), _PlainLoader)
    except Exception as error:  # `!!bool x` is a KeyError, `!!int ""` an IndexError
        raise ValueError(f"{path} is no readable YAML: {in_short(error)}; {AGAIN}") from None


# ---------------------------------------------------------------- arrays


def read_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """The tensors of a safetensors file, mapped into memory: nothing is read before it is used.

    Raises FileNotFoundError; ValueError for a file that is damaged, cut short, or only points at one.
    """
    from safetensors.torch import load_file

    check_tensors(path)
    try:
        return load_file(path)
    except Exception as error:  # each type of number that torch does not have is an error of its own
        raise ValueError(f"{path} has a tensor that cannot be read ({in_short(error)}); {AGAIN}") from error


def check_tensors(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The shapes and the notes in the header of a safetensors file, which says how long the file must be.

    Raises FileNotFoundError; ValueError for a file that is damaged, cut short, or only points at one.
    """
    size = file_size(path)
    check_no_pointer(path)
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            check_names(path, shapes)
            return shapes, file.metadata() or {}
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} ({size:,} bytes) is damaged or cut short, or no safetensors file ({in_short(error)}); {AGAIN}"
        ) from error


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raises ValueError for names of arrays that could not stand in a message."""
    for name in names:
        if len(name) > NAME_CHARACTERS or not name.isprintable():
            raise ValueError(f"{path} names an array {shortened(name)}, expected a short name of plain text; {AGAIN}")


def check_no_pointer(path: Path) -> None:
    """Raises ValueError for a file that Git LFS has not fetched."""
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder")
