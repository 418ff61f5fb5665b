"""A table of labels, which may come from anywhere: what it must have, and the words for what is wrong with one.

Columns: layer, feature, label (text; "" for a feature that has none); others as `ik.label_features` writes them. A file
may have changed their types: whole numbers with a point, nothing in place of an empty text. Those are put right.
"""

import numpy as np
import pandas as pd

KEY = ["layer", "feature"]
LARGEST_NUMBER = 2**31  # of a layer or a feature


def checked_labels(labels: object) -> pd.DataFrame:
    """The table itself; with layer, feature and label in their proper types where a file has changed them.

    Raises TypeError for what is no table; ValueError for a missing column, for layers and features that are not whole
    numbers, and for labels that are no text.
    """
    if not isinstance(labels, pd.DataFrame):
        raise TypeError(
            f"expected a table of labels such as ik.label_features returns, got {type(labels).__name__}; for names in "
            "a dictionary: ik.features.student_labels({(layer, feature): name})"
        )
    check_columns(labels, [*KEY, "label"], "a table of labels")
    proper = {name: whole_numbers(labels, name) for name in KEY} | {"label": _texts(labels)}
    changed = {name: column for name, column in proper.items() if column is not None}
    return labels.assign(**changed) if changed else labels


def one_label_each(labels: object) -> pd.DataFrame:
    """`checked_labels`, where each feature may have one. Raises ValueError for a feature that has several."""
    table = checked_labels(labels)
    twice = table.duplicated(KEY)
    if twice.any():
        layer, feature = table.loc[twice, KEY].iloc[0]
        raise ValueError(
            f"feature {feature} of layer {layer} has several labels, as have {twice.sum():,} rows in all; keep one for "
            "each, such as labels.drop_duplicates(['layer', 'feature'], keep='last')"
        )
    return table


def check_columns(table: pd.DataFrame, wanted: list[str], what: str) -> None:
    """Raises ValueError for a table without one of the columns `wanted`, or with one of them twice."""
    columns = list(table.columns)
    if missing := [name for name in wanted if name not in columns]:
        has = ", ".join(repr(name) for name in columns[:20]) or "none"
        raise ValueError(f"{what} needs the column {missing[0]!r}; this one has {has}")
    if twice := [name for name in wanted if columns.count(name) > 1]:
        raise ValueError(f"{what} has the column {twice[0]!r} twice; drop one of them")


def whole_numbers(table: pd.DataFrame, name: str) -> pd.Series | None:
    """None for a column of whole numbers; such a column made of one that holds them as 3.0.

    Raises ValueError for anything but whole numbers from 0 up.
    """
    column = table[name]
    is_whole = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iu"
    good = column.between(0, LARGEST_NUMBER - 1) if is_whole else column.map(_is_whole)
    if not good.all():
        row = int(np.argmin(good.to_numpy(bool)))
        raise ValueError(
            f"the column {name!r} should hold whole numbers from 0 up, and row {row} holds {column.iloc[row]!r}"
        )
    return None if is_whole or column.empty else column.astype("int64")


def is_missing(value: object) -> bool:
    """Whether it is what a table holds where there is nothing: None, NaN or "" (of a file)."""
    return value is None or value is pd.NA or (isinstance(value, str | float) and (value == "" or value != value))


def _is_whole(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(0 <= value < LARGEST_NUMBER) and float(value).is_integer()


def _texts(labels: pd.DataFrame) -> pd.Series | None:
    """None where all labels are texts. Of a feature without a label, an empty text, which a file may have lost.

    Raises ValueError for what is no text, and for a label that is missing where the row says how it was made.
    """
    column = labels["label"]
    if column.empty or (not column.hasnans and pd.api.types.infer_dtype(column, skipna=False) == "string"):
        return None
    for row, value in enumerate(column):
        if not isinstance(value, str) and not is_missing(value):
            raise ValueError(f"the column 'label' should hold texts, and row {row} holds {value!r}")
        if is_missing(value) and any(_has(labels, row, name) for name in ("rule", "source")):
            raise ValueError(
                f"the column 'label' has nothing in row {row}, though the row says how its label was made: "
                "pd.read_csv takes labels such as 'NA' and 'null' for nothing; read the file with keep_default_na=False"
            )
    return column.astype(object).where(column.notna(), "")


def _has(labels: pd.DataFrame, row: int, name: str) -> bool:
    return name in labels and not is_missing(labels[name].iloc[row])
