"""Parquet files, which may come from anywhere: one door, which says of a bad one what is wrong with it.

A file's columns, their types and the number of values are in its footer and are checked when it is opened; what it
holds is read, and checked, when it is asked for.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shortened

import pyarrow as pa
import pyarrow.parquet as pq

from ..hardware import check_memory
from ..storage.reading import AGAIN, check_no_pointer, file_size, in_short
from .parquet_footer import n_values

OF_CONTENT = (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, OverflowError)
BYTES_PER_VALUE = 16  # in memory, of a number or of the reference to a text


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _list_of(test: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    return lambda kind: (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and test(kind.value_type)


TESTS = {
    "whole numbers": pa.types.is_integer,
    "numbers": _is_number,
    "texts": _is_text,
    "lists of texts": _list_of(_is_text),
    "lists of numbers": _list_of(_is_number),
}


def open_parquet(path: Path, columns: Mapping[str, str], optional: Mapping[str, str] | None = None) -> pq.ParquetFile:
    """The file, mapped into memory; of its content only the footer is read.

    columns: by name, what each must hold (see TESTS). optional: those that may be missing, or empty.

    Raises FileNotFoundError; ValueError for a file that is damaged, cut short, only points at one, or has other
    columns; MemoryError, before reading, for one that would not fit.
    """
    file_size(path)
    check_no_pointer(path)
    with in_words(path):
        file = pq.ParquetFile(path, memory_map=True)
        schema, values = file.schema_arrow, n_values(path)
    if twice := [name for name, n in Counter(schema.names).items() if n > 1]:
        raise ValueError(f"{path} has the column {shortened(twice[0])} twice")
    for name, expected in {**columns, **(optional or {})}.items():
        fields = schema.get_all_field_indices(name)
        if not fields and name in columns:
            raise ValueError(f"{path} lacks the column {name!r}; it has {', '.join(map(shortened, schema.names[:20]))}")
        kind = schema.field(fields[0]).type if fields else pa.null()
        if not TESTS[expected](kind) and not (pa.types.is_null(kind) and name not in columns):
            raise ValueError(f"{path}: the column {name!r} holds {kind}, expected {expected}")
    check_memory(values * BYTES_PER_VALUE, f"reading {path}")
    return file


def read_parquet(path: Path, columns: Mapping[str, str], optional: Mapping[str, str] | None = None) -> pa.Table:
    """All of a file. Raises as `open_parquet`, and ValueError for gaps in the `columns` or in the lists of others."""
    file = open_parquet(path, columns, optional)
    table = read(path, file.read)
    check_no_gaps(path, table, list(columns))
    check_no_gaps(path, table, [name for name in optional or {} if name in table.column_names], only_in_lists=True)
    return table


def read(path: Path, how: Callable[..., pa.Table], *arguments: object) -> pa.Table:
    """What `how` reads of the file at `path`. Raises ValueError where it cannot be read, or is no valid text."""
    with in_words(path):
        table = how(*arguments).replace_schema_metadata(None)  # what pandas would do with it is not asked for
        table.validate(full=True)
        pa.default_memory_pool().release_unused()  # what unpacking took: arrow would keep it
        return table


def check_no_gaps(path: Path, table: pa.Table, columns: Sequence[str], only_in_lists: bool = False) -> None:
    """Raises ValueError for gaps in the columns, or in their lists."""
    for name in columns:
        column = table.column(name)
        gaps = 0 if only_in_lists else column.null_count
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            gaps += sum(chunk.flatten().null_count for chunk in column.chunks)
        if gaps:
            raise ValueError(f"{path}: the column {name!r} has {gaps:,} gaps, expected none; {AGAIN}")


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Says of an error of arrow's which file it is about."""
    try:
        yield
    except (pa.ArrowException, OSError, RecursionError, *OF_CONTENT) as error:
        raise ValueError(f"{path} is damaged, cut short or no parquet file ({in_short(error)}); {AGAIN}") from error
