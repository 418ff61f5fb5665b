"""Tables of facts, as CSV files that anybody may have written: read with care, or refused with file and line."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ..hardware import check_memory
from ..storage.reading import file_size, text_lines

BYTES_PER_BYTE = 20  # of memory for a byte of a table: its cells are objects of Python
LONGEST = 200  # characters of a cell, which goes into a sentence


def read_table(path: Path) -> pd.DataFrame:
    """The cells of a CSV file as they are written, all text; `attrs["lines"]` are the lines in which the rows begin.

    Raises FileNotFoundError; MemoryError (before reading); ValueError, naming the line, for a file that is not in
    UTF-8, rows of another length than the first, columns of one name, cells that could not stand in a sentence.
    """
    check_memory(file_size(path) * BYTES_PER_BYTE, f"reading {path}")
    rows = _rows(path)
    _, header = next(rows, (1, []))
    if not header:
        raise ValueError(f"{path} is empty: expected a line with the columns' names, and rows")
    if twice := [name for name, n in Counter(header).items() if n > 1]:
        raise ValueError(f"{path}, line 1: two columns are named {twice[0]!r}")
    lines, cells = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: has {len(row)} cells, expected {len(header)} as in line 1")
        lines.append(line)
        cells.append(row)
    table = pd.DataFrame(cells, columns=header, dtype=str)
    table.attrs["lines"] = lines
    return table


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(the line in which it begins, its cells), blank lines passed over."""
    reader = csv.reader(text_lines(path), strict=True)
    begins = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {begins}: is no row of a CSV file ({error})") from None
        if row is None:
            return
        if row:
            for cell in row:
                _check_cell(cell, f"{path}, line {begins}")
            yield begins, row
        begins = reader.line_num + 1


def _check_cell(cell: str, where: str) -> None:
    if len(cell) > LONGEST:
        raise ValueError(f"{where}: a cell has {len(cell):,} characters, expected at most {LONGEST}: {cell[:30]!r}...")
    if cell != cell.strip() or not (cell.isprintable() or not cell):
        raise ValueError(f"{where}: {cell!r} has white space around it, or line breaks in it: take these out")
