"""What may happen to a file: bytes, JSON, YAML, safetensors and zips, each changed at one place."""

import json
import random
import re
import struct
import warnings
import zipfile
from io import BytesIO
from typing import Any

from .harm import CODE, PICKLES

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


def other_endian(content: bytes, rng: random.Random) -> bytes:
    """Each two, four or eight bytes the other way round, from some place on."""
    width, start = rng.choice([2, 4, 8]), rng.choice([0, 0, rng.randrange(len(content) + 1)])
    rest = content[start:]
    whole = len(rest) // width * width
    turned = b"".join(rest[i : i + width][::-1] for i in range(0, whole, width))
    return content[:start] + turned + rest[whole:]


def nothing(content: bytes, rng: random.Random) -> bytes:
    return b""


def junk(content: bytes, rng: random.Random) -> bytes:
    """Something else in its place: a pickle, or what other tools and accidents leave."""
    if rng.random() < 0.3:
        return rng.choice(PICKLES)
    return rng.choice(
        [
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
            b"PK\x03\x04" + rng.randbytes(40),
            b"\xff\xfe" + "words".encode("utf-16-le"),
            b"\xef\xbb\xbf" + content,
            b"a: &a [1, 1, 1]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
            b"[" * 10_000,
            b"{" * 500 + b"}" * 500,
            struct.pack("<Q", 2**60) + b"{}",
            struct.pack("<Q", 2) + b"{}",
            b"[" * 49 + b"]" * 49,
            b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            b"null",
            b"1" * 5000,
            b"\0" * 64,
            b"x" * 3_000_000,
            CODE[0].encode(),
            rng.randbytes(300),
        ]
    )


BYTES = (truncated, truncated, flipped, flipped, lengthened, doubled_part, other_endian, nothing, junk, junk)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content of a file after one accident."""
    return rng.choice(BYTES)(content, rng)


# ---------------------------------------------------------------- a JSON value

DEEP = "(a deep nest)"  # lists within lists, which json.dumps could not write
ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.0, 1e30, 1e308, -1e308, 10**9, 2**31, 2**63, -(2**63), 10**30, "",
    "0", "false", "true", "NaN", "../../etc/passwd", "/etc/passwd", "<script>alert(1)</script>", "x" * 100_000,
    "\ud800", "\u0000", [], {}, [[]], [None], [1, 1], [-1], {"": {}}, [[[[[[1]]]]]], "pickle", [10**9], ["a"],
    "../outside.safetensors", "..\\outside.json", "../outside", "~/.bashrc", "file:///etc/passwd", "C:/outside.json",
    "\x1b[2J\x1b]0;title\x07", "{a} %s $HOME", DEEP, DEEP, *CODE,
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
    depth = rng.choice([40, 49, 200, 50_000])
    text = text.replace(f'"{DEEP}"', "[" * depth + "]" * depth)
    if rng.random() < 0.1:
        odd = ["NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "1" * 400]
        number = r'(?<![\w."])-?\d+(?![\w."])'
        text = re.sub(number, lambda m: rng.choice([*odd, m[0], m[0]]), text, count=3)
    if rng.random() < 0.03:
        text = text.replace("{", '{"twice": 1, "twice": 2, ', 1)
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
    text = json.dumps(header).encode(errors="surrogatepass").replace(f'"{DEEP}"'.encode(), b"[" * 2000 + b"]" * 2000)
    return struct.pack("<Q", len(text)) + text + data


def mutate_tensors(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header or numbers are changed, its length staying right."""
    header, data = parts_of(content)
    change = rng.choice(
        (_other_type, _other_shape, _other_name, _lost, _other_number, _other_size, _other_header, _other_endian)
    )
    return change(header, data, rng)


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


def _other_endian(header, data, rng):
    """The numbers of one tensor, or the length of the header, in the other byte order."""
    if rng.random() < 0.2:
        content = joined(header, data)
        return content[7::-1] + content[8:]
    about = header[_one(header, rng)]
    start, end = about["data_offsets"]
    width = DTYPES.get(about["dtype"], 4)
    turned = b"".join(data[i : i + width][::-1] for i in range(start, end, width))
    return joined(header, data[:start] + turned + data[end:])


def _other_header(header, data, rng):
    return joined(mutate_json(header, rng), data)


# ---------------------------------------------------------------- a zip


def mutate_zip(content: bytes, rng: random.Random) -> bytes:
    """A zip of which one member is another: its bytes, its name, its size, its compression, a lie about it."""
    members = _members(content)
    name = rng.choice(sorted(members))
    kind = rng.choice(["bytes", "lost", "away", "other", "large", "twice", "secret", "lie"])
    if kind == "bytes":
        members[name] = mutate_bytes(members[name], rng)
    elif kind == "lost":
        members.pop(name)
    elif kind == "away":
        where = rng.choice(["../", "/", "../../", "C:/", "\\..\\", "./", "a/b/"])
        members[where + name] = members.pop(name)
    elif kind == "other":
        members[name] = members[rng.choice(sorted(members))]
    elif kind == "large":
        members[name] = bytes(10_000_000)
    packed = _zipped(members, rng, twice=name if kind == "twice" else None)
    if kind in ("secret", "lie"):
        packed = _with_false_entry(packed, kind, rng)
    return packed


def _members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def _zipped(members: dict[str, bytes], rng: random.Random, twice: str | None = None) -> bytes:
    out = BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", rng.choice(COMPRESSIONS)) as file:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name in [*members, twice] if twice else members:
            file.writestr(zipfile.ZipInfo(name), members[name])
    return out.getvalue()


COMPRESSIONS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def _with_false_entry(packed: bytes, kind: str, rng: random.Random) -> bytes:
    """The directory at the end says that a member has a password, or another size than it has."""
    start = packed.rfind(b"PK\x01\x02")
    at, pack = (start + 8, struct.pack("<H", 1)) if kind == "secret" else (start + 24, struct.pack("<I", 2**31))
    return packed[:at] + pack + packed[at + len(pack) :] if start >= 0 else packed


def mutate_npz(content: bytes, rng: random.Random) -> bytes:
    """A zip of arrays of which one is another, or its header says so."""
    kind = rng.randrange(4)
    if kind > 1:
        return mutate_zip(content, rng)
    members = _members(content)
    name = rng.choice(sorted(members))
    if kind == 0:
        numbers = rng.choice([b"1", b"10", b"99999999999", b"-1", b"(1,)", b"3,3"])
        members[name] = re.sub(rb"\((\d+)", b"(" + numbers, members[name], count=1)
    else:
        types = [b"<i4", b">f4", b"|O ", b"<U1", b"<u4", b"<f8"]
        members[name] = members[name].replace(b"<f4", rng.choice(types), 1)
    return _zipped(members, rng)
