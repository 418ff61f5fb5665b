import json

import pandas as pd
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.features import load_feature_json
from interp_kit.formats.json import cantor, uncantor

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state", "a city is a state ."]
FULL = {  # every key of the public format, as circuit-tracer's viewer reads it; feature 3 of layer 2
    "transcoder_id": "a-transcoder",
    "index": 18,
    "examples_quantiles": [
        {
            "quantile_name": "Top",
            "examples": [
                {
                    "tokens": ["a", " b"],
                    "tokens_acts_list": [0, 2.5],
                    "train_token_ind": 1,
                    "is_repeated_datapoint": False,
                },
                {"tokens": ["c"], "tokens_acts_list": [1.5], "train_token_ind": 0, "is_repeated_datapoint": True},
            ],
        },
        {
            "quantile_name": "Subsample Interval 3",
            "examples": [
                {"tokens": ["d"], "tokens_acts_list": [0.5], "train_token_ind": 0, "is_repeated_datapoint": False}
            ],
        },
    ],
    "top_logits": [" x", " y"],
    "bottom_logits": [" z"],
    "act_min": 0.25,
    "act_max": 2.5,
    "quantile_values": [0.5, 1.5, 2.5],
    "histogram": [3, 2.0, 1],
    "activation_frequency": 0.125,
}


@pytest.fixture(scope="module")
def store():
    model = tiny_model()
    return ik.collect_features(model, tiny_transcoder(model), TEXTS, n_examples=3)


def written(content, folder):
    (folder / f"{content['index']}.json").write_text(json.dumps(content))
    return load_feature_json(folder)


def test_cantors_pairing():
    assert cantor(2, 3) == 18 and [cantor(0, 0), cantor(1, 0), cantor(0, 1)] == [0, 1, 2]
    for pair in ((0, 0), (7, 0), (0, 7), (25, 16_383), (3, 10**12)):
        assert uncantor(cantor(*pair)) == pair


def test_a_store_comes_back(store, tmp_path):
    store.save_json(tmp_path / "features")
    back = load_feature_json(tmp_path / "features")
    assert len(back.features) == len(store.features)
    columns = ["density", "max_activation", "top_logits", "bottom_logits"]
    for row in store.features.itertuples():
        same = back.features.query(f"layer == {row.layer} and feature == {row.feature}").iloc[0]
        assert same[columns].tolist() == [getattr(row, column) for column in columns]
        was, now = (s.examples_of(row.layer, row.feature) for s in (store, back))
        was = was[~was["group"].isin(["non_activating", "hard_negative"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(now[was.columns], was, check_dtype=False)
        assert back.card(row.layer, row.feature) == store.card(row.layer, row.feature)


def test_only_known_numbers_are_written(store, tmp_path):
    store.save_json(tmp_path / "features", only=[(1, 4)])
    (path,) = (tmp_path / "features").glob("[0-9]*.json")
    content = json.loads(path.read_text())
    row = store.features.query("layer == 1 and feature == 4").iloc[0]
    assert path.name == "19.json" and content["index"] == 19
    assert content.keys() == FULL.keys() - {"transcoder_id", "quantile_values", "histogram"}
    assert (content["act_min"], content["act_max"]) == (0, row["max_activation"])
    assert content["activation_frequency"] == row["density"]
    top, sample = content["examples_quantiles"]
    assert top["quantile_name"] == "Top activations" and top["examples"][0].keys() == {
        "tokens",
        "tokens_acts_list",
        "train_token_ind",
        "is_repeated_datapoint",
    }
    shown = [e["tokens"] for e in top["examples"]]
    assert [e["is_repeated_datapoint"] for e in sample["examples"]] == [
        e["tokens"] in shown for e in sample["examples"]
    ]


def test_a_file_of_another_tool_is_saved_as_it_was(tmp_path):
    back = written(FULL, tmp_path)
    assert back.features[["layer", "feature", "density", "max_activation"]].iloc[0].tolist() == [2, 3, 0.125, 2.5]
    assert back.card(2, 3)["examples"][0] == {"tokens": ["a", " b"], "activations": [0.0, 2.5]}
    back.save_json(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "18.json").read_text()) == FULL
    back.save(tmp_path / "parquet")
    ik.load_features(tmp_path / "parquet").save_json(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "18.json").read_text()) == FULL


def test_whole_numbers_without_end_are_numbers_of_a_column(tmp_path):
    examples = [{"tokens": ["a", "b"], "tokens_acts_list": [10**25, 1]}]
    large = {"act_min": -(10**24), "act_max": 10**25, "histogram": [10**24, 1], "quantile_values": [2**63, 0.5]}
    back = written(FULL | large | {"examples_quantiles": [{"quantile_name": "Q", "examples": examples}]}, tmp_path)
    assert back.features["act_min"].tolist() == [-1e24] and back.features["max_activation"].tolist() == [1e25]
    back.save(tmp_path / "parquet")
    again = ik.load_features(tmp_path / "parquet")
    assert list(again.features["histogram"].iloc[0]) == [1e24, 1] and again.card(2, 3) == back.card(2, 3)


def test_a_feature_that_is_only_ever_negative_has_no_activation_above_0(tmp_path):
    examples = [{"tokens": ["a", "b"], "tokens_acts_list": [-1.0, -2.0]}]
    back = written({"index": 0, "examples_quantiles": [{"quantile_name": "Q", "examples": examples}]}, tmp_path)
    assert back.features["max_activation"].tolist() == [0.0]


def test_a_file_with_no_more_than_it_must_have(tmp_path):
    examples = [{"tokens": ["a", "b"], "tokens_acts_list": [1.0, 2.0], "train_token_index": 1}]  # EleutherAI's key
    back = written({"index": 0, "examples_quantiles": [{"quantile_name": "Q", "examples": examples}]}, tmp_path)
    assert back.examples["peak"].tolist() == [1] and back.features["max_activation"].tolist() == [2.0]
    assert back.card(0, 0)["top_logits"] == []
    back.save_json(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "0.json").read_text()).keys() == {
        "index",
        "examples_quantiles",
        "top_logits",
        "bottom_logits",
        "act_max",
    }
    assert written({"index": 0, "examples_quantiles": []}, tmp_path).examples.empty


def test_a_public_store_annotates_a_graph(store, tmp_path):
    model = tiny_model()
    graph = ik.attribute(model, tiny_transcoder(model), TEXTS[0])
    store.save_json(tmp_path / "features")
    assert graph.annotate(load_feature_json(tmp_path / "features")).cards == graph.annotate(store).cards


def test_a_feature_that_the_store_does_not_have(store, tmp_path):
    with pytest.raises(ValueError, match=r"no feature \(9, 9\); 1 of 2 are not in it"):
        store.save_json(tmp_path / "features", only=[(1, 4), (9, 9)])
    assert not (tmp_path / "features").exists()


def test_a_folder_of_something_else_stays(store, tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(FileExistsError, match="holds 'thesis.txt' and was not saved by interp_kit"):
        store.save_json(tmp_path, only=[(1, 4)])
    assert (tmp_path / "thesis.txt").exists()


def test_a_folder_without_features(tmp_path):
    (tmp_path / "graph.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="expected files named {index}.json"):
        load_feature_json(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["index"], 19, "index should be 18, as the file is named, got 19"),
        (["index"], True, "index should be a valid integer, got True"),
        (["examples_quantiles"], "x", "examples_quantiles should be a valid list, got 'x'"),
        (["examples_quantiles", 0], 1, r"examples_quantiles\[0\] should be an object, got 1"),
        (
            ["examples_quantiles", 0, "quantile_name"],
            1,
            r"examples_quantiles\[0\].quantile_name should be a valid string",
        ),
        (["examples_quantiles", 0, "examples", 1, "tokens"], [], r"examples\[1\].tokens should have at least 1 item"),
        (
            ["examples_quantiles", 0, "examples", 1, "tokens"],
            [1],
            r"examples\[1\].tokens\[0\] should be a valid string",
        ),
        (["examples_quantiles", 0, "examples", 1, "tokens_acts_list"], [], r"tokens_acts_list should be 1 numbers"),
        (
            ["examples_quantiles", 0, "examples", 1, "tokens_acts_list"],
            ["1"],
            r"tokens_acts_list\[0\] should be a valid number",
        ),
        (
            ["examples_quantiles", 0, "examples", 1, "train_token_ind"],
            7,
            r"examples\[1\].train_token_ind should be from",
        ),
        (["top_logits"], [1], r"top_logits\[0\] should be a valid string"),
        (["act_max"], float("inf"), "act_max should be a finite number"),
        (["act_max"], -1.0, "act_max should be greater than or equal to 0, got -1.0"),
        (["activation_frequency"], 2, "activation_frequency should be less than or equal to 1, got 2"),
    ],
)
def test_a_strange_feature_file_says_what_is_wrong(tmp_path, place, value, message):
    content = json.loads(json.dumps(FULL))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "18.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        load_feature_json(tmp_path)
    assert "18.json" in str(caught.value)
