"""What a parquet file's footer says: as pyarrow reads it, and of a damaged one nothing worse than an error."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp_kit.formats.parquet import read_parquet
from interp_kit.formats.parquet_footer import n_values

OLD_STORE = Path(__file__).parents[1] / "features" / "old_store"
COLUMNS = {"tokens": "lists of texts"}


def as_pyarrow_counts(path):
    about = pq.ParquetFile(path).metadata
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    return sum(group.column(k).num_values for group in groups for k in range(group.num_columns))


@pytest.mark.parametrize("rows", [0, 1, 20, 3000])
@pytest.mark.parametrize("options", [{}, {"row_group_size": 7, "version": "1.0"}, {"write_statistics": False}])
def test_as_many_values_as_pyarrow_counts(rows, options, tmp_path):
    columns = {f"c{i}": [i] * rows for i in range(20)}  # a list in the footer of more than 14
    columns |= {"lists": [["a", "b"]] * rows, "gaps": [None, 1.5] * (rows // 2) + [2.5] * (rows % 2)}
    table = pa.table(columns | {"flags": [True] * rows}).replace_schema_metadata({"x": "y" * 300})
    pq.write_table(table, tmp_path / "a.parquet", **options)
    assert n_values(tmp_path / "a.parquet") == as_pyarrow_counts(tmp_path / "a.parquet")


def test_files_that_ship():
    for path in OLD_STORE.glob("*.parquet"):
        assert n_values(path) == as_pyarrow_counts(path)


def test_what_is_no_footer(tmp_path):
    path = tmp_path / "a.parquet"
    for content, error in (
        (b"PAR1" + b"\xff\xff\xff\x0fPAR1", ValueError),
        (b"PAR1\x1d\x01\x00\x00\x00PAR1", ValueError),
        (b"PAR1\x15\x01\x00\x00\x00PAR1", IndexError),
        (b"PAR1\x19\xf3" + b"\xff" * 8 + b"\x01" + (11).to_bytes(4, "little") + b"PAR1", ValueError),  # 2 ** 56 bytes
        (b"PAR1" + b"\x1c" * 5000 + (5000).to_bytes(4, "little") + b"PAR1", ValueError),  # a struct in a struct in ...
    ):
        path.write_bytes(content)
        with pytest.raises(error):
            n_values(path)


def test_a_footer_that_contradicts_itself_does_not_end_the_interpreter(tmp_path):
    """A bit of it, wherever it is, is another; with some, pyarrow's own count of values aborts."""
    whole, path = (OLD_STORE / "windows.parquet").read_bytes(), tmp_path / "windows.parquet"
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for at in range(start, len(whole) - 4):
        for bit in (0, 2, 5):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                read_parquet(path, COLUMNS)
            except (ValueError, MemoryError) as error:
                refused += 1
                assert "windows.parquet" in str(error) and type(error) in (ValueError, MemoryError)
    assert refused > 200
