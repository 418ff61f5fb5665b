"""What may happen to a file of rows: parquet, CSV, lines of JSON, plain text, and the header of a GGUF."""

import csv
import json
import random
import struct
from io import BytesIO, StringIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .harm import CODE
from .mutations import ODD_FLOATS, ODD_VALUES, json_text, mutate_bytes, mutate_json

ODD_TEXTS = [
    "", " ", "\0", '"', "'", ",", ";", "\n", "\r\n", "\u2028", "\ufeff", "\ufffd", "\x1b[2J", "=1+1", "NaN", "null",
    "-0", "1e999", "<b>", "../outside", "x" * 1000, "x" * 300_000, "\u202e", "e\u0301", "\U0001f600", *CODE,
]  # fmt: skip

# ---------------------------------------------------------------- parquet


def mutate_parquet(content: bytes, rng: random.Random) -> bytes:
    """A table one of whose columns is another, or that is written in another way."""
    table = pq.read_table(BytesIO(content))
    if table.num_columns and rng.random() < 0.85:
        table = rng.choice(COLUMN_CHANGES)(table, rng.choice(table.column_names), rng)
    if rng.random() < 0.2:
        about = rng.choice([b"{", b"[1]", b'{"index_columns": ["nobody"], "columns": 3}', b"\xff" * 50])
        table = table.replace_schema_metadata({rng.choice([b"pandas", b"ARROW:schema", b"x"]): about})
    out = BytesIO()
    pq.write_table(
        table, out, compression=rng.choice(["NONE", "ZSTD", "SNAPPY", "GZIP", "BROTLI"]),
        row_group_size=rng.choice([1, 3, 1000, None]), store_schema=rng.random() < 0.7,
        use_dictionary=rng.random() < 0.5, version=rng.choice(["1.0", "2.6"]),
    )  # fmt: skip
    return out.getvalue()


def _lost(table, name, rng):
    return table.drop_columns([name])


def _renamed(table, name, rng):
    new = rng.choice([name + "s", name.upper(), "", "x" * 1000, "\0", "__index_level_0__", table.column_names[0]])
    return table.rename_columns([new if column == name else column for column in table.column_names])


def _twice(table, name, rng):
    return table.append_column(name, table.column(name))


def _other_rows(table, name, rng):
    """None, one, all several times, or all the other way round."""
    n = table.num_rows
    rows = rng.choice([[], [0], list(range(n)) * 3, list(range(n))[::-1], [*range(n), 0]]) if n else []
    return table.take(pa.array(rows, pa.int64()))


def _other_type(table, name, rng):
    """A column of as many values of another type."""
    n = table.num_rows
    values = table.column(name).to_pylist()
    kinds = [
        lambda: pa.array([str(value) for value in values], pa.string()),
        lambda: pa.array([[value] for value in values]),
        lambda: pa.array([[[value]] for value in values]),
        lambda: pa.nulls(n),
        lambda: pa.array([None] * n, table.schema.field(name).type),
        lambda: pa.array([float(value) + 0.5 for value in values]),
        lambda: pa.array([float(value) for value in values]),
        lambda: pa.array([value % 2 == 0 for value in values]),
        lambda: pa.array([2**64 - 1] * n, pa.uint64()),
        lambda: pa.array([0] * n, pa.timestamp("s")),
        lambda: pa.array([1] * n, pa.decimal128(5)),
        lambda: pa.array([b"\xff"] * n, pa.binary()),
        lambda: pa.array([{"a": 1}] * n),
        lambda: pa.array([[("a", 1)]] * n, pa.map_(pa.string(), pa.int8())),
        lambda: pa.array([[1.0, 2.0]] * n, pa.list_(pa.float32(), 2)),
        lambda: pa.array([[]] * n, pa.large_list(pa.float64())),
        lambda: pa.array([[b"\xff\xfe"]] * n, pa.list_(pa.binary())).cast(pa.list_(pa.string())),
        lambda: pa.array(["a"] * n).dictionary_encode(),
    ]
    return _exchanged(table, name, rng.choice(kinds), values)


def _other_value(table, name, rng):
    """Some values are odd ones."""
    values = table.column(name).to_pylist()
    for _ in range(rng.choice([1, 1, 3])):
        if values:
            row = rng.randrange(len(values))
            values[row] = odd_like(values[row], rng)
    return _exchanged(table, name, lambda: pa.array(values), values)


COLUMN_CHANGES = (_lost, _renamed, _twice, _other_rows, _other_type, _other_type, _other_value, _other_value)


def _exchanged(table, name, make, values):
    """The table with a new column, of texts where the values do not go together."""
    try:
        column = make()
    except (pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
        column = pa.array([repr(value) for value in values], pa.string())
    at = table.column_names.index(name)
    return table.set_column(at, name, column)


def odd_like(value: Any, rng: random.Random) -> Any:
    """An odd value of the same type."""
    if isinstance(value, list):
        inner = [odd_like(value[0], rng), *value[1:]] if value else [0]
        return rng.choice([[], value[:1], value * 2, [None, *value[1:]], value[::-1], inner, None, value * 1000])
    if isinstance(value, int):
        return rng.choice([-1, 0, 1, 10**6, 2**31 - 1, 2**31, 2**62, -(2**63), None])
    if isinstance(value, float):
        return rng.choice([*ODD_FLOATS, 1e300, None])
    return rng.choice([*ODD_TEXTS, None])


# ---------------------------------------------------------------- text


def mutate_text(content: bytes, rng: random.Random) -> bytes:
    """A text in another encoding, of other line ends, or with odd characters in it."""
    text = content.decode("utf-8", "replace")
    if rng.random() < 0.3:
        encoding = rng.choice(["utf-16", "utf-16-be", "utf-32", "latin-1", "utf-7", "utf-8-sig", "cp037"])
        return text.encode(encoding, "replace")
    at = rng.randrange(len(text) + 1)
    odd = rng.choice(ODD_TEXTS) * rng.choice([1, 1, 3])
    changed = rng.choice([text[:at] + odd + text[at:], text.replace("\n", odd), odd, text * 20])
    half = b"\xed\xa0\x80" if rng.random() < 0.1 else b""  # of a surrogate pair
    return changed.encode() + half


def mutate_lines(content: bytes, rng: random.Random) -> bytes:
    """Lines of JSON of which one is another, or is no JSON."""
    lines = content.splitlines()
    at = rng.randrange(len(lines))
    kind = rng.choice(["value", "value", "value", "bytes", "lost", "twice", "joined", "blank", "all in one"])
    if kind == "value":
        lines[at] = json_text(mutate_json(json.loads(lines[at]), rng), rng)
    elif kind == "bytes":
        lines[at] = mutate_bytes(lines[at], rng)
    elif kind == "lost":
        lines.pop(at)
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "joined":
        lines[at] = lines[at] + lines[at - 1]
    elif kind == "blank":
        lines.insert(at, rng.choice([b"", b" ", b"\t", b"\x0c", b"\xc2\xa0"]))
    else:
        lines = [b"[" + b",".join(lines) + b"]"]
    return rng.choice([b"\n", b"\n", b"\r\n", b"\r"]).join(lines)


def mutate_csv(content: bytes, rng: random.Random) -> bytes:
    """A table with another cell, row, column or separator."""
    if rng.random() < 0.25:
        return mutate_text(content, rng)
    rows = list(csv.reader(StringIO(content.decode())))
    row = rng.randrange(len(rows))
    column = rng.randrange(len(rows[row]))
    kind = rng.choice(["cell", "cell", "cell", "lost", "twice", "column", "short", "header", "exchanged"])
    if kind == "cell":
        rows[row][column] = rng.choice([*ODD_TEXTS, str(rng.choice(ODD_VALUES[:10])), rows[row - 1][-1]])
    elif kind == "lost":
        rows.pop(row)
    elif kind == "twice":
        rows.insert(row, list(rows[row]))
    elif kind == "column":
        rows = [[cell for i, cell in enumerate(cells) if i != column] for cells in rows]
    elif kind == "short":
        rows[row] = rng.choice([rows[row][:-1], [*rows[row], "x"], []])
    elif kind == "header":
        rows[0] = rng.choice([rows[0][::-1], [rows[0][0]] * len(rows[0]), [name.upper() for name in rows[0]]])
    else:
        rows[row] = rows[row][::-1]
    out = StringIO()
    csv.writer(out, delimiter=rng.choice(",,,,;\t")).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------- the header of a GGUF


def mutate_gguf(content: bytes, rng: random.Random) -> bytes:
    """A GGUF file whose header says something else."""
    size = content.find(b"token_embd.weight") + 400  # where the names of the tensors are
    numbers = [0, 1, 2, 2**16, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]
    kind = rng.choice(["magic", "endian", "version", "counts", "key", "value", "number", "number"])
    if kind == "magic":
        return rng.choice([b"GGML", b"FUGG", b"gguf", b"PK\x03\x04"]) + content[4:]
    if kind == "endian":
        return content[:4] + b"".join(content[a:b][::-1] for a, b in [(4, 8), (8, 16), (16, 24)]) + content[24:]
    if kind == "version":
        return content[:4] + struct.pack("<I", rng.choice([0, 1, 2, 4, 2**31])) + content[8:]
    if kind == "counts":
        at = rng.choice([8, 16])
        return content[:at] + struct.pack("<Q", rng.choice(numbers)) + content[at + 8 :]
    if kind == "number":
        at = rng.randrange(24, min(size, len(content) - 8))
        return content[:at] + struct.pack("<Q", rng.choice(numbers)) + content[at + 8 :]
    keys = [b"llama.block_count", b"llama.embedding_length", b"llama.attention.head_count", b"llama.context_length",
            b"llama.vocab_size", b"llama.rope.freq_base", b"general.architecture", b"tokenizer.ggml.model",
            b"tokenizer.ggml.tokens", b"tokenizer.ggml.merges", b"tokenizer.chat_template"]  # fmt: skip
    key = rng.choice([key for key in keys if key in content])
    if kind == "key":
        return content.replace(key, key[::-1], 1)
    at = content.find(key) + len(key)
    kind_and_value = struct.pack("<II", rng.choice([4, 4, 4, 5, 6, 8, 9, 12, 99]), rng.choice(numbers) % 2**32)
    return content[:at] + kind_and_value + content[at + 8 :]
