"""Features in the public format: one JSON file a feature, as the attribution-graph viewer and Neuronpedia read it.

The file is {index}.json, where index is Cantor's pairing of layer and feature. A group of examples is one of its
"quantiles". What a store does not know (histogram, quantile values) is left out, as readers allow; a store that was
read from such files has it in columns of its own and writes it back.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NotRequired, Protocol, cast

import numpy as np
import pandas as pd
from pydantic import Field
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from ..storage.folders import saved_folder
from .json import cantor, json_text, read_json, uncantor
from .validation import LARGEST, Number, WholeNumber, check_type, need

# By group; others keep their name, and those in which the feature does not fire are not written.
QUANTILES = {"top": "Top activations", "sample": "Random sample of activations", "held_out": "Random sample kept aside"}
NON_ACTIVATING = ("non_activating", "hard_negative")
GROUPS = {name: group for group, name in QUANTILES.items()}
KEPT = ("transcoder_id", "act_min", "quantile_values", "histogram")  # as in the file


class Example(TypedDict):
    tokens: Annotated[list[str], Field(min_length=1)]
    tokens_acts_list: list[Number]
    train_token_ind: NotRequired[WholeNumber | None]  # the position of the strongest
    is_repeated_datapoint: NotRequired[bool | None]


class Quantile(TypedDict):
    quantile_name: str
    examples: list[Example]


class FeatureFile(TypedDict):
    index: Annotated[int, Field(ge=0, lt=2**53)]
    examples_quantiles: list[Quantile]
    transcoder_id: NotRequired[str | None]
    top_logits: NotRequired[list[str] | None]
    bottom_logits: NotRequired[list[str] | None]
    act_min: NotRequired[Number | None]
    act_max: NotRequired[Annotated[float, Field(ge=0, le=LARGEST)] | None]
    quantile_values: NotRequired[list[Number] | None]
    histogram: NotRequired[list[Number] | None]
    activation_frequency: NotRequired[Annotated[float, Field(ge=0, le=1)] | None]


class ExampleRow(Protocol):
    """A row of a table of examples."""

    group: str
    tokens: Sequence[str]
    activations: Sequence[float]
    peak: int


def example_rows(examples: pd.DataFrame) -> Iterator[ExampleRow]:
    """The rows of a table of examples, whose columns pandas' own types do not know."""
    return cast("Iterator[ExampleRow]", examples.itertuples())


def write_features(features: Iterable[tuple[Mapping, pd.DataFrame]], folder: str | Path) -> None:
    """One JSON file for each of `features`: its row of a store's table, and its examples; those of an earlier save go.

    Raises FileExistsError for a folder with files that are not ours, or were changed since.
    """
    with saved_folder(folder) as stage:
        for row, examples in features:
            content = _public(row, examples)
            (stage / f"{content['index']}.json").write_text(json_text(content), encoding="utf-8")


def _is_ours(path: Path) -> bool:
    """Names with other digits, or more of them than a number needs, are no names of ours."""
    return re.fullmatch(r"(0|[1-9][0-9]{0,15})\.json", path.name) is not None


def _public(row: Mapping, examples: pd.DataFrame) -> dict[str, object]:
    known = {"act_max": row["max_activation"], "activation_frequency": row["density"]}
    if "act_min" not in row and row["density"] < 1:
        known["act_min"] = 0.0  # it is silent on some tokens
    known |= {key: row[key] for key in KEPT if key in row}
    return {
        "index": cantor(row["layer"], row["feature"]), "examples_quantiles": _quantiles(examples),
        "top_logits": list(row.get("top_logits", [])), "bottom_logits": list(row.get("bottom_logits", [])),
        **{key: _plain(value) for key, value in known.items() if _is_known(value)},
    }  # fmt: skip


def _quantiles(examples: pd.DataFrame) -> list[dict[str, object]]:
    seen: set[tuple[str, ...]] = set()
    quantiles: dict[str, list[dict[str, object]]] = {}
    for e in example_rows(examples[~examples["group"].isin(NON_ACTIVATING)]):
        tokens = list(e.tokens)
        quantiles.setdefault(e.group, []).append({
            "tokens": tokens, "tokens_acts_list": [float(a) for a in e.activations], "train_token_ind": int(e.peak),
            "is_repeated_datapoint": bool(getattr(e, "repeated", tuple(tokens) in seen)),
        })  # fmt: skip
        seen.add(tuple(tokens))
    return [{"quantile_name": QUANTILES.get(name, name), "examples": some} for name, some in quantiles.items()]


def _is_known(value: list | np.ndarray | float | str | None) -> bool:
    return isinstance(value, list | np.ndarray) or not pd.isna(value)


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def read_features(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The features of all {index}.json files of a folder, ours or another tool's, and their examples: two tables.

    Raises FileNotFoundError where there are none, ValueError naming the file, the place in it and what was expected.
    """
    paths = sorted(filter(_is_ours, Path(folder).glob("*")), key=lambda p: int(p.stem))
    if not paths:
        raise FileNotFoundError(f"no feature files in {folder}: expected files named {{index}}.json, such as 7869.json")
    features, examples = [], []
    for path in paths:
        try:
            content = _checked(read_json(path), int(path.stem))
        except ValueError as error:
            raise ValueError(f"{path} is not a public feature file: {error}") from None
        features.append(_feature(content))
        examples += _examples(content)
    columns = ["layer", "feature", "group", "rank", "tokens", "activations", "peak", "repeated"]
    return pd.DataFrame(features), pd.DataFrame(examples, columns=columns)


def _checked(content: object, index: int) -> FeatureFile:
    feature = check_type(FeatureFile, content)
    need(feature["index"] == index, "index", f"{index}, as the file is named", feature["index"])
    for i, quantile in enumerate(feature["examples_quantiles"]):
        for k, example in enumerate(quantile["examples"]):
            n, values, peak = len(example["tokens"]), example["tokens_acts_list"], example.get("train_token_ind")
            place = f"examples_quantiles[{i}].examples[{k}]"
            need(n == len(values), f"{place}.tokens_acts_list", f"{n} numbers, one a token", values)
            need(peak is None or 0 <= peak < n, f"{place}.train_token_ind", f"from 0 to {n - 1}, a token", peak)
    return feature


def _feature(content: FeatureFile) -> dict[str, object]:
    layer, feature = uncantor(content["index"])
    strongest = [max(e["tokens_acts_list"]) for q in content["examples_quantiles"] for e in q["examples"]]
    highest, density = content.get("act_max"), content.get("activation_frequency")
    return {
        "layer": layer, "feature": feature, "density": np.nan if density is None else float(density),
        "max_activation": max([0.0, *strongest] if strongest else [np.nan]) if highest is None else float(highest),
        "top_logits": content.get("top_logits") or [], "bottom_logits": content.get("bottom_logits") or [],
        **{key: _in_a_column(content.get(key)) for key in KEPT},
    }  # fmt: skip


def _in_a_column(value: object) -> object:
    """Numbers as a column of numbers can hold them: JSON's whole numbers have no end."""
    if isinstance(value, list):
        return [_in_a_column(each) for each in value]
    return float(value) if isinstance(value, int) and abs(value) >= 2**53 else value


def _examples(content: FeatureFile) -> Iterator[tuple]:
    """Rows of the table of examples."""
    at = uncantor(content["index"])
    for quantile in content["examples_quantiles"]:
        group = GROUPS.get(quantile["quantile_name"], quantile["quantile_name"])
        for rank, e in enumerate(quantile["examples"]):
            values, peak = e["tokens_acts_list"], e.get("train_token_ind")
            peak = int(np.argmax(values)) if peak is None else peak
            yield (*at, group, rank, e["tokens"], _in_a_column(values), peak, bool(e.get("is_repeated_datapoint")))
