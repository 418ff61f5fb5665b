"""What a service answered, as plain lists, objects and numbers: from a client's object, JSON text, lines, or a file."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import Protocol, runtime_checkable

from ...formats.json import read_json
from ...storage.reading import read_text

LINES = (".jsonl", ".ndjson", ".txt", ".log")  # files of one answer, or part of one, a line
STREAM_ENDS, STREAM_NOTES = ("data: [DONE]", "data:[DONE]", "[DONE]"), ("event:", "id:", "retry:", ":")


@runtime_checkable
class Dumpable(Protocol):
    """An answer of `openai`'s client: a pydantic model."""

    def model_dump(self) -> dict[str, object]:
        """As dicts, lists and numbers."""
        ...


def plain(source: object) -> object:
    """Lists, dicts and numbers, whatever it came as; what comes in lines, or in parts, as the list of them.

    Raises FileNotFoundError, MemoryError for a file that is too large, and ValueError for text that is no JSON.
    """
    if isinstance(source, bytes | bytearray):
        source = _decoded(bytes(source))
    if isinstance(source, Path):
        return _of_file(source)
    if isinstance(source, str):
        return _of_text(source)
    if isinstance(source, Dumpable):
        return source.model_dump()
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, Iterable):
        return [_part(part) for part in source]
    return source


def _part(part: object) -> object:
    if isinstance(part, Dumpable):
        return part.model_dump()
    return dict(part) if isinstance(part, Mapping) else part


def _decoded(source: bytes) -> str:
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"bytes that are not UTF-8 ({error}): expected the JSON of a response") from None


def _of_text(source: str) -> object:
    text = source.strip().removeprefix("\ufeff")
    if not text:
        raise ValueError("an empty text: expected a response, JSON, or the path of a file")
    if text.startswith(("{", "[", "data:", *STREAM_NOTES)):
        return _of_json(text, "the text")
    try:
        os.stat(source)
    except FileNotFoundError:
        pass  # said with the file's name below
    except (OSError, ValueError):  # a name that no file can have
        raise ValueError(f"{shortened(source)} is neither JSON nor the path of a file: expected a response") from None
    return _of_file(Path(source))


def _of_file(path: Path) -> object:
    return _of_json(read_text(path), str(path)) if path.suffix.lower() in LINES else read_json(path)


def _of_json(text: str, where: str) -> object:
    """One JSON value, or several, a line each: as a server streams them, with or without "data:" before each."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{where}: lists or objects are nested without end") from None
    except ValueError as error:
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and line not in STREAM_ENDS and not line.startswith(STREAM_NOTES)]
        if len(lines) < 2 and text.lstrip().startswith("{"):
            raise ValueError(f"{where} is no JSON (is it cut short?): {error}") from None
    try:
        return [json.loads(line.removeprefix("data:")) for line in lines]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no JSON, nor is each of its lines (is it cut short?): {error}") from None
