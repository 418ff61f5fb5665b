"""Files that something happened to: one engine of mutations, and a table of readers to try them on.

    rng = random.Random(7)
    outcome = trial(READERS[0], folder, rng)        # Outcome("refused", ...)

A trial writes a reader's good files into an empty folder, changes one of them, reads, and uses what was read:

    refused     one of the exceptions of the kit, which names the file or its folder
    loaded      read, and the first use gives finite numbers
    odd         anything else: another exception, no name in the message, NaN

A reader is a name, a function that writes a good example into a folder, and one that reads it and uses it once. Whoever
has another format adds a line to the table. Nothing here knows what a format means; it knows JSON, safetensors, zip
and bytes.
"""

import json
import os
import random
import re
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

REFUSALS = (ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, MemoryError)
SECONDS = 5.0  # more is a hang

# ---------------------------------------------------------------- bytes


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))] if content else content


def flipped(content: bytes, rng: random.Random) -> bytes:
    """A few bytes are others, most of them near the start, where headers are."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        if changed:
            end = len(changed) if rng.random() < 0.5 else min(len(changed), 400)
            changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def lengthened(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.choice([1, 100]))


def doubled_part(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start : start + rng.randrange(200)] + content[start:]


def nothing(content: bytes, rng: random.Random) -> bytes:
    return b""


def junk(content: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        [
            b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x04exec\x94\x93\x94.",  # a pickle
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
            b"PK\x03\x04" + rng.randbytes(40),
            b"\xff\xfe" + "words".encode("utf-16-le"),
            b"\xef\xbb\xbf" + content,
            b"a: &a [1, 1, 1]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
            b"[" * 10_000,
            b"{" * 500 + b"}" * 500,
            struct.pack("<Q", 2**60) + b"{}",
            struct.pack("<Q", 2) + b"{}",
            b"null",
            b"\0" * 64,
            rng.randbytes(300),
        ]
    )


BYTES = (truncated, flipped, flipped, lengthened, doubled_part, nothing, junk)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content of a file after one accident."""
    return rng.choice(BYTES)(content, rng)


# ---------------------------------------------------------------- a JSON value

ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.0, 1e30, 1e308, -1e308, 10**9, 2**31, 2**63, -(2**63), 10**30, "",
    "0", "false", "true", "NaN", "../../etc/passwd", "/etc/passwd", "<script>alert(1)</script>", "x" * 100_000,
    "\ud800", "\u0000", [], {}, [[]], [None], [1, 1], [-1], {"": {}}, [[[[[[1]]]]]], "pickle", [10**9], ["a"],
]  # fmt: skip


def mutate_json(value: Any, rng: random.Random) -> Any:
    """The value with one place in it changed: another type, an odd number, a key that is lost, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        if rng.random() < 0.7:
            return value | {key: mutate_json(value[key], rng)}
        rest = {name: inner for name, inner in value.items() if name != key}
        return rng.choice(
            [rest, rest | {key + rng.choice(["s", " ", "_"]): value[key]}, rest | {key.upper(): value[key]}]
        )
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        changed = mutate_json(value[i], rng)
        return rng.choice(
            [
                [*value[:i], changed, *value[i + 1 :]],
                value[:i] + value[i + 1 :],
                [*value, value[i]],
                value[::-1],
                [*value, changed],
            ]
        )
    if isinstance(value, int | float) and rng.random() < 0.4:
        return rng.choice([-value, value + 1, value - 1, value * 10**6, str(value), float(value), [value]])
    return rng.choice(ODD_VALUES)


def json_text(value: Any, rng: random.Random) -> bytes:
    text = json.dumps(value, allow_nan=True)
    if rng.random() < 0.1:
        text = re.sub(r"(?<![\w.])\d+(?![\w.])", lambda m: rng.choice(["NaN", "Infinity", m[0]]), text, count=3)
    return text.encode(errors="surrogatepass")


def mutate_json_text(content: bytes, rng: random.Random) -> bytes:
    """A JSON file, one place in it changed."""
    try:
        value = json.loads(content)
    except ValueError:
        return mutate_bytes(content, rng)
    return json_text(mutate_json(value, rng), rng)


def mutate_yaml(content: bytes, rng: random.Random) -> bytes:
    """A YAML file; JSON is YAML too."""
    import yaml

    return json_text(mutate_json(yaml.safe_load(content), rng), rng)


# ---------------------------------------------------------------- a safetensors file

DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "U32": 4,
          "F8_E4M3": 1, "U16": 2, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8, "F4": 1, "F6_E2M3": 1, "X": 4}  # fmt: skip
ODD_FLOATS = [float("nan"), float("inf"), float("-inf"), 3e38, -3e38, 1e20, 1e-45, -1.0, 0.0]


def parts_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode(errors="surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


def mutate_tensors(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header or numbers are changed, its length staying right."""
    header, data = parts_of(content)
    return rng.choice((_other_type, _other_shape, _other_name, _lost, _other_number, _other_size, _other_header))(
        header, data, rng
    )


def _one(header, rng):
    return rng.choice([name for name in sorted(header) if name != "__metadata__"])


def _other_type(header, data, rng):
    """The same bits by another name, most of them of the same width."""
    about = header[_one(header, rng)]
    width = DTYPES.get(about["dtype"], 4)
    alike = [name for name, bytes_ in DTYPES.items() if bytes_ == width and name != about["dtype"]]
    about["dtype"] = rng.choice(alike if rng.random() < 0.8 else list(DTYPES))
    return joined(header, data)


def _other_shape(header, data, rng):
    """As many numbers in another arrangement, or a shape that the data does not have."""
    about = header[_one(header, rng)]
    shape, n = about["shape"], 1
    for size in shape:
        n *= size
    about["shape"] = rng.choice(
        [shape[::-1], [1, *shape], [*shape, 1], [n], [1, n], [n, 1], [*shape, 0], [2**40, *shape], [], [-1, *shape]]
    )
    return joined(header, data)


def _other_name(header, data, rng):
    """Two change places, or one is called otherwise."""
    a, b = _one(header, rng), _one(header, rng)
    if a != b and rng.random() < 0.6:
        header[a], header[b] = header[b], header[a]
    else:
        header[a + rng.choice(["s", "_0", ".x", "_scale"])] = header.pop(a)
    return joined(header, data)


def _lost(header, data, rng):
    """One tensor is cut out."""
    name = _one(header, rng)
    start, end = header.pop(name)["data_offsets"]
    for key, about in header.items():
        if key != "__metadata__" and about["data_offsets"][0] >= end:
            about["data_offsets"] = [place - (end - start) for place in about["data_offsets"]]
    return joined(header, data[:start] + data[end:])


def _other_size(header, data, rng):
    """One tensor has one number, or none."""
    name = _one(header, rng)
    about, width = header[name], DTYPES.get(header[name]["dtype"], 4)
    start, end = about["data_offsets"]
    n = rng.choice([0, 1])
    kept = min(n * width, end - start)
    about["shape"], about["data_offsets"] = rng.choice([[n], [1] * n]), [start, start + kept]
    if n == 0:
        about["shape"] = [0]
    for key, other in header.items():
        if key not in ("__metadata__", name) and other["data_offsets"][0] >= end:
            other["data_offsets"] = [place - (end - start - kept) for place in other["data_offsets"]]
    return joined(header, data[: start + kept] + data[end:])


def _other_number(header, data, rng):
    """A number is odd, or all are."""
    name = _one(header, rng)
    start, end = header[name]["data_offsets"]
    pack = {"F32": "<f", "F64": "<d", "F16": "<e"}.get(header[name]["dtype"])
    if pack is None or end == start:
        return joined(header, data[:start] + bytes([rng.randrange(256)]) * (end - start) + data[end:])
    odd = rng.choice(ODD_FLOATS)
    number = struct.pack(pack, odd if pack != "<e" or abs(odd) < 6e4 or odd != odd else float("inf"))
    count, width = (end - start) // len(number), len(number)
    if rng.random() < 0.3:
        return joined(header, data[:start] + number * count + data[end:])
    place = start + width * rng.randrange(count)
    return joined(header, data[:place] + number + data[place + width :])


def _other_header(header, data, rng):
    return joined(mutate_json(header, rng), data)


# ---------------------------------------------------------------- an npz file


def mutate_npz(content: bytes, rng: random.Random) -> bytes:
    """A zip of arrays of which one is another: its bytes, its name, its compression, its header's sizes."""
    members = {}
    with zipfile.ZipFile(BytesIO(content)) as file:
        for name in file.namelist():
            members[name] = file.read(name)
    name = rng.choice(sorted(members))
    kind = rng.randrange(6)
    if kind == 0:
        members[name] = mutate_bytes(members[name], rng)
    elif kind == 1:
        members.pop(name)
    elif kind == 2:
        members["../" + name] = members.pop(name)
    elif kind == 3:
        numbers = rng.choice([b"1", b"10", b"99999999999", b"-1", b"(1,)", b"3,3"])
        members[name] = re.sub(rb"\((\d+)", b"(" + numbers, members[name], count=1)
    elif kind == 4:
        members[name] = members[name].replace(b"<f4", rng.choice([b"<i4", b">f4", b"|O ", b"<U1", b"<u4", b"<f8"]), 1)
    else:
        members[name] = members[rng.choice(sorted(members))]
    out = BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as file:
        for name, inner in members.items():
            file.writestr(name, inner)
    return out.getvalue()


# ---------------------------------------------------------------- a file of a folder

BY_SUFFIX = {
    ".safetensors": mutate_tensors, ".json": mutate_json_text, ".jsonl": mutate_bytes, ".yaml": mutate_yaml,
    ".npz": mutate_npz,
}  # fmt: skip


def mutate_file(path: Path, rng: random.Random) -> str:
    """Changes a file where it lies; returns what was done, in words."""
    by_meaning = BY_SUFFIX.get(path.suffix)
    draw = rng.random()
    if by_meaning and draw < 0.65:
        path.write_bytes(by_meaning(path.read_bytes(), rng))
        return f"{by_meaning.__name__} of {path.name}"
    if draw < 0.93:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        return f"mutate_bytes of {path.name}"
    path.unlink()
    kind = rng.choice(["gone", "folder", "pipe", "link to itself", "link to nothing"])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind.startswith("link"):
        path.symlink_to(path if kind == "link to itself" else path.with_name("nothing"))
    return f"{path.name} is {kind}"


def mutate_folder(folder: Path, rng: random.Random) -> str:
    """Changes one of a folder's files; names of two of them may change places."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(files) > 1 and rng.random() < 0.05:
        a, b = rng.sample(files, 2)
        content = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(content)
        return f"{a.name} and {b.name} changed places"
    return mutate_file(rng.choice(files), rng)


# ---------------------------------------------------------------- readers


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


def trial(reader: Reader, folder: Path, rng: random.Random) -> Outcome:
    """Writes into `folder`, which is empty, changes something, reads and uses."""
    reader.write(folder)
    what = mutate_folder(folder, rng)
    return outcome(reader, folder, what)


def outcome(reader: Reader, folder: Path, what: str) -> Outcome:
    """What becomes of reading `folder`."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reader.use(folder)
    except REFUSALS as error:
        kind = "refused" if _names(str(error), folder) and type(error) in REFUSALS else "odd"
        return Outcome(kind, what, error)
    except OSError as error:
        return Outcome("refused" if _names(str(error), folder) else "odd", what, error)
    except Exception as error:  # whatever else is a fault of the reader
        return Outcome("odd", what, error)
    if time.perf_counter() - start > SECONDS:
        return Outcome("odd", what, f"took over {SECONDS} seconds")
    if found is not None and not bool((abs(found) < float("inf")).all()):
        return Outcome("odd", what, "loaded, and its first use is not finite")
    return Outcome("loaded", what)


def _names(message: str, folder: Path) -> bool:
    """Whether a message names the folder, or a file of it."""
    names = {path.name for path in folder.rglob("*")} | {str(folder)}
    return any(name in message for name in names)
