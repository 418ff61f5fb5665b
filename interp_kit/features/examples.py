"""The examples of features: windows of text, each kept once, and for every feature the windows that show what it does.

One arrow table a layer, ordered by feature, in memory or on disk. A folder of them:

    windows.parquet         one window a row: its tokens
    examples_{layer}.parquet    one example a row: feature, group, rank, window (its row above), activations, peak
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..formats.label_table import check_columns, whole_numbers
from ..formats.parquet import check_no_gaps, open_parquet, read, read_parquet

LABEL_GROUPS = ("top", "sample")  # what labels may be made from
TEST_GROUPS = ("held_out", "non_activating", "hard_negative")  # what tests them
COLUMNS = ["layer", "feature", "group", "rank", "tokens", "activations", "peak"]
FILE_COLUMNS = {  # of the examples of a layer
    "feature": "whole numbers", "group": "texts", "window": "whole numbers", "activations": "lists of numbers",
    "peak": "whole numbers",
}  # fmt: skip
FILE_NAME = re.compile(r"examples_([0-9]{1,4})\.parquet")
ROW_GROUP_SIZE = 2000  # examples of one layer that are read from disk together
GROUPS_KEPT = 32  # of a layer, once read: a few hundred kilobytes each
# Groups as they were called before version 0.2; stores of that time are read.
OLD_GROUPS = {"held": "held_out", "silent": "non_activating", "near": "hard_negative"}


class ListColumn(NamedTuple):
    """A column of lists: all values one after the other, and how many each row has."""

    values: np.ndarray
    sizes: np.ndarray


class ActiveWindow(NamedTuple):
    """A window of text on which a feature is active, in plain lists."""

    group: str
    tokens: list[str]
    activations: list[float]  # one a token
    peak: int  # the position of the strongest


class Examples:
    """Which windows of text are examples of which features.

    windows: each different window once, a list of tokens.
    layers: {layer: table of its examples, ordered by feature}; the column "window" counts `windows`.
    """

    def __init__(self, windows: pa.Array, layers: Mapping[int, "pa.Table | _TableOnDisk"]) -> None:
        self._windows, self._layers = windows, layers
        self._found: dict[int, dict[int, tuple[int, int]]] = {}  # what `_places` has read

    @classmethod
    def from_frame(cls, examples: pd.DataFrame) -> "Examples":
        """Of a table with the columns layer, feature, group, rank, tokens, activations and peak.

        Raises TypeError for what is no table, ValueError naming the column and the row that are not as they should be.
        """
        examples = _checked_frame(examples)
        number_of: dict[tuple[str, ...], int] = {}
        numbers = [number_of.setdefault(tuple(tokens), len(number_of)) for tokens in examples["tokens"]]
        columns = examples.drop(columns="tokens").assign(window=np.array(numbers, dtype=int))
        columns = columns.sort_values(["layer", "feature"], kind="stable")
        layers = columns.pop("layer")
        try:
            tables = {int(l): pa.Table.from_pandas(columns[layers == l], preserve_index=False) for l in layers.unique()}
        except pa.ArrowException as error:
            raise ValueError(f"the table of examples has a column that cannot be kept: {error}") from error
        return cls(_texts(list(number_of)), tables)

    @classmethod
    def from_columns(
        cls, windows: Sequence[Sequence[str]], layers: Mapping[int, Mapping[str, np.ndarray | ListColumn]]
    ) -> "Examples":
        """Of arrays, a row an example; the column "window" counts `windows`."""
        return cls(_texts(windows), {layer: _table(columns) for layer, columns in layers.items()})

    @classmethod
    def load(cls, folder: Path) -> "Examples":
        """What `save` wrote; the examples of a layer are read, and checked, when they are asked for.

        Raises FileNotFoundError; ValueError naming the file that is damaged.
        """
        path = folder / "windows.parquet"
        windows = read_parquet(path, {"tokens": "lists of texts"}).column("tokens").combine_chunks()
        sizes = _lengths(windows)
        if len(sizes) and sizes.min() < 1:
            raise ValueError(f"{path}: window {sizes.argmin()} has no token; copy the store again or rebuild it")
        names = {name: FILE_NAME.fullmatch(name) for name in sorted(path.name for path in folder.glob("examples_*"))}
        layers = {int(match[1]): folder / name for name, match in names.items() if match}
        return cls(windows, {layer: _TableOnDisk(layers[layer], sizes) for layer in sorted(layers)})

    @property
    def layers(self) -> list[int]:
        """Those that have a table."""
        return list(self._layers)

    def save(self, folder: Path, layers: Iterable[int] = ()) -> None:
        """Writes the windows and the examples of each layer as parquet files, also of those of `layers` that have none,
        so that a missing file is noticed."""
        pq.write_table(pa.table({"tokens": self._windows}), folder / "windows.parquet", compression="zstd")
        nothing: dict[str, np.ndarray | ListColumn] = {name: np.zeros(0, int) for name in FILE_COLUMNS}
        nothing |= {"group": np.zeros(0, str), "activations": ListColumn(np.zeros(0), np.zeros(0, int))}
        empty = {layer: _table(nothing) for layer in layers}
        for layer, table in {**empty, **self._layers}.items():
            path = folder / f"examples_{layer}.parquet"
            pq.write_table(table.slice(0), path, compression="zstd", row_group_size=ROW_GROUP_SIZE)

    def of(self, layer: int, feature: int) -> pd.DataFrame:
        """The examples of one feature; empty when it has none."""
        table = self._table_of(layer, feature)
        return pd.DataFrame(columns=COLUMNS) if table is None else self._frame(layer, table)

    def rows(self, layer: int, feature: int) -> list[ActiveWindow]:
        """The same, in their order, as plain lists: what is drawn needs no table, and a graph draws hundreds."""
        table = self._table_of(layer, feature)
        if table is None:
            return []
        starts, numbers, vocabulary = self._tokens
        windows = table.column("window").to_numpy().tolist()
        tokens = [[vocabulary[i] for i in numbers[starts[w] : starts[w + 1]].tolist()] for w in windows]
        values = table.column("activations").combine_chunks().flatten().to_numpy().tolist()
        ends = list(accumulate(map(len, tokens)))
        activations = [values[end - len(window) : end] for window, end in zip(tokens, ends, strict=True)]
        group, peak = table.column("group").to_pylist(), table.column("peak").to_numpy().tolist()
        return list(map(ActiveWindow, group, tokens, activations, peak))

    @cached_property
    def _tokens(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """All windows: where each starts [window + 1], the number of each token, and the tokens by number."""
        flat = self._windows.flatten()
        flat = flat if pa.types.is_dictionary(flat.type) else flat.dictionary_encode()
        starts = np.concatenate([[0], np.cumsum(_lengths(self._windows))])
        return starts, flat.indices.to_numpy(), flat.dictionary.to_pylist()

    def _table_of(self, layer: int, feature: int) -> pa.Table | None:
        first, count = self._places(layer).get(feature, (0, 0))
        return self._layers[layer].slice(first, count) if count else None

    def frame(self) -> pd.DataFrame:
        """All examples in one table: large."""
        frames = [self._frame(layer, table.slice(0)) for layer, table in self._layers.items()]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)

    def windows(self, groups: Collection[str] | None = None) -> list[list[str]]:
        """All windows as lists of tokens; with `groups`, those that are an example in one of these groups."""
        if groups is None:
            return self._windows.to_pylist()
        used: set[int] = set()
        for table in self._layers.values():
            here = np.isin(table.column("group").to_numpy().astype(str), list(groups))
            used.update(np.unique(table.column("window").to_numpy()[here]).tolist())
        return self._windows.take(pa.array(sorted(used), pa.int32())).to_pylist()

    def __len__(self) -> int:
        """The number of windows."""
        return len(self._windows)

    def _places(self, layer: int) -> dict[int, tuple[int, int]]:
        """{feature: (first row, rows)} in the layer's table."""
        if layer not in self._layers:
            return {}
        if layer not in self._found:
            column = self._layers[layer].column("feature").to_numpy()
            features, first, count = np.unique(column, return_index=True, return_counts=True)
            self._found[layer] = dict(zip(features.tolist(), zip(first.tolist(), count.tolist())))
        return self._found[layer]

    def _frame(self, layer: int, table: pa.Table) -> pd.DataFrame:
        frame = table.to_pandas().astype({"group": str})
        tokens = self._windows.take(pa.array(frame.pop("window"))).to_pylist()
        at = frame.columns.get_loc("activations")
        frame.insert(at, "tokens", pd.Series(tokens, dtype=object, index=frame.index))
        frame.insert(0, "layer", layer)
        return frame


class _TableOnDisk:
    """The examples of a layer on disk: as much of a `pa.Table` as is needed, read and checked group of rows by group.

    sizes: how many tokens each window has.
    """

    def __init__(self, path: Path, sizes: np.ndarray) -> None:
        self.path, self.sizes = path, sizes
        self.file = open_parquet(path, FILE_COLUMNS)
        if other := {"layer", "tokens"} & set(self.file.schema_arrow.names):
            raise ValueError(f"{path} has the column {min(other)!r}, which its name or windows.parquet gives")
        self.ends = np.cumsum([self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)])
        self._group = lru_cache(maxsize=GROUPS_KEPT)(self._read_group)

    def _read_group(self, i: int) -> pa.Table:
        table = _with_new_groups(read(self.path, self.file.read_row_group, i))
        _check_rows(self.path, table, self.sizes)
        return table

    def column(self, name: str) -> pa.ChunkedArray:
        table = read(self.path, self.file.read, [name])
        check_no_gaps(self.path, table, [name])
        if name in ("feature", "window"):
            _check_numbers(self.path, name, table.column(name).to_numpy(), len(self.sizes))
        return _with_new_groups(table).column(name)

    def slice(self, first: int, count: int | None = None) -> pa.Table:
        end = self.file.metadata.num_rows if count is None else first + count
        if first == end:
            return _with_new_groups(self.file.schema_arrow.remove_metadata().empty_table())
        groups = range(int(np.searchsorted(self.ends, first, "right")), int(np.searchsorted(self.ends, end)) + 1)
        start = self.ends[groups[0] - 1] if groups[0] else 0
        return pa.concat_tables([self._group(i) for i in groups]).slice(first - start, end - first)


def _check_rows(path: Path, table: pa.Table, sizes: np.ndarray) -> None:
    """Raises ValueError for examples whose window is not there, or whose activations or peak do not fit it."""
    check_no_gaps(path, table, list(FILE_COLUMNS))
    window, peak = (table.column(name).to_numpy() for name in ("window", "peak"))
    _check_numbers(path, "window", window, len(sizes))
    lists = table.column("activations").combine_chunks()
    fits = (_lengths(lists) == sizes[window]) & (peak >= 0) & (peak < sizes[window])
    values = lists.flatten().to_numpy(zero_copy_only=False)
    if not fits.all() or not np.isfinite(values).all():
        row = int(np.argmin(fits)) if not fits.all() else "some"
        raise ValueError(
            f"{path}: example {row} should have a finite activation for each of its window's tokens, and its peak "
            "among them; copy the store again or rebuild it"
        )


def _lengths(lists: pa.Array) -> np.ndarray:
    return pc.call_function("list_value_length", [lists]).to_numpy()


def _check_numbers(path: Path, name: str, numbers: np.ndarray, n_windows: int) -> None:
    """Raises ValueError for features that are not in order from 0 up, and for windows that are not there."""
    if name == "feature":
        good, expected = len(numbers) == 0 or (numbers[0] >= 0 and (numbers[1:] >= numbers[:-1]).all()), "in order"
    else:
        good, expected = ((numbers >= 0) & (numbers < n_windows)).all(), f"windows, which number {n_windows:,}"
    if not good:
        raise ValueError(f"{path}: the column {name!r} should hold {expected}; copy the store again or rebuild it")


def _checked_frame(examples: object) -> pd.DataFrame:
    """The table, with whole numbers where they should be. Raises as `Examples.from_frame`."""
    if not isinstance(examples, pd.DataFrame):
        raise TypeError(f"expected a table of examples such as store.examples, got {type(examples).__name__}")
    check_columns(examples, [name for name in COLUMNS if name != "rank"], "a table of examples")
    proper = {name: whole_numbers(examples, name) for name in ("layer", "feature", "peak")}
    examples = examples.assign(**{name: column for name, column in proper.items() if column is not None})
    columns = (examples[name] for name in ("group", "tokens", "activations", "peak"))
    for row, (group, tokens, active, peak) in enumerate(zip(*columns)):
        if not isinstance(group, str):
            raise ValueError(f"the column 'group' should hold texts, and row {row} holds {group!r}")
        if not _is_list(tokens) or not len(tokens) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(
                f"the column 'tokens' should hold lists of texts, not {str(tokens)[:80]!r} as in row {row}"
            )
        if not _is_list(active) or len(active) != len(tokens) or not _are_finite(active) or peak >= len(tokens):
            raise ValueError(
                f"row {row} of the examples should have a finite activation for each of its {len(tokens)} tokens, and "
                f"its peak among them; got {str(active)[:80]} and {peak}"
            )
    return examples


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _are_finite(values: Sequence[float] | np.ndarray) -> bool:
    try:
        numbers = np.asarray(values)
        return numbers.ndim == 1 and numbers.dtype.kind in "fiu" and bool(np.isfinite(numbers).all())
    except (TypeError, ValueError):
        return False


def _with_new_groups(table: pa.Table) -> pa.Table:
    """The table with the groups' names of today."""
    if "group" not in table.column_names:
        return table
    chunks = []
    for chunk in table.column("group").dictionary_encode().chunks:
        names = [OLD_GROUPS.get(name, name) for name in chunk.dictionary.to_pylist()]
        chunks.append(pa.DictionaryArray.from_arrays(chunk.indices, pa.array(names, pa.string())))
    column = pa.chunked_array(chunks, pa.dictionary(pa.int32(), pa.string()))
    return table.set_column(table.column_names.index("group"), "group", column)


def _texts(windows: Sequence[Sequence[str]]) -> pa.Array:
    """Lists of tokens as an arrow array; each different token is kept once."""
    sizes = [len(tokens) for tokens in windows]
    flat = pa.array([token for tokens in windows for token in tokens], pa.string()).dictionary_encode()
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *sizes]), pa.int32()), flat)


def _table(columns: Mapping[str, np.ndarray | ListColumn]) -> pa.Table:
    arrays = {}
    for name, values in columns.items():
        if isinstance(values, ListColumn):
            offsets = pa.array(np.concatenate([[0], np.cumsum(values.sizes)]).astype(np.int32))
            arrays[name] = pa.ListArray.from_arrays(offsets, pa.array(values.values.astype(np.float32)))
        elif values.dtype.kind in "US":
            arrays[name] = pa.array(values.tolist(), pa.string()).dictionary_encode()
        else:
            arrays[name] = pa.array(values.astype(np.int32))
    return pa.table(arrays)
