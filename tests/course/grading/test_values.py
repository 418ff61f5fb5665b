"""What passes between the grader and a student's process: the same value comes out, and nothing that runs."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.course.compare import same
from interp_kit.course.grading.values import packed, unpacked

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = st.recursive(
    PLAIN,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=12,
)


def through(value, folder=None):
    return unpacked(json.loads(json.dumps(packed(value, folder))), folder)


@given(VALUES)
def test_plain_values(value):
    assert through(value) == value


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "int8"])
def test_arrays_and_tensors(dtype):
    array = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    again = through(array)
    assert isinstance(again, np.ndarray) and again.dtype == array.dtype and (again == array).all()
    tensor = through(torch.from_numpy(array).requires_grad_(dtype.startswith("float")))
    assert isinstance(tensor, torch.Tensor) and torch.equal(tensor, torch.from_numpy(array))
    assert through(torch.zeros(0, 3)).shape == (0, 3) and through(torch.eye(3).T[1:]).tolist() == [[0, 1, 0], [0, 0, 1]]


def test_what_the_kits_tables_give():
    table = pd.DataFrame({"id": ["0_1_2", "0_3_4"], "influence": [0.5, 0.25]})
    assert through(table["id"]) == through(table["id"].to_numpy()) == through(table["id"].array.tolist())
    assert through(table["influence"].iloc[0]) == 0.5 and through(table["influence"].sum()) == 0.75
    assert through({"0_1_2", "0_3_4"}) == {"0_1_2", "0_3_4"} and through(("a", 1)) == ["a", 1]
    assert math.isnan(through(math.nan)) and through(-math.inf) == -math.inf and through({1: 2.5}) == {1: 2.5}
    assert through({("a", (1, 2)): 3}) == {("a", (1, 2)): 3}


def test_a_graph_is_an_input_and_no_answer(tmp_path):
    model = tiny_model()
    graph = ik.attribute(model, tiny_transcoder(model), "Dallas is in Texas")
    again = through([graph, graph], tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2
    np.testing.assert_allclose(again[1].adjacency, graph.adjacency, atol=1e-6)
    with pytest.raises(TypeError, match="AttributionGraph cannot be an answer"):
        packed(graph)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (object(), TypeError, "a object cannot be an answer"),
        (lambda: 1, TypeError, "a function cannot be an answer"),
        (np.zeros(3, complex), TypeError, "an array of complex128"),
        (torch.zeros(5_000_000), ValueError, "5,000,000 numbers are too many"),
        ("x" * 200_000, ValueError, "200,000 characters is too long"),
    ],
)
def test_what_cannot_be_an_answer(value, error, words):
    with pytest.raises(error, match=words):
        packed(value)


@pytest.mark.parametrize(
    "forged",
    [
        {"bytes": "AAAA", "dtype": "object", "shape": [1]},
        {"bytes": "AAAA", "dtype": "float32", "shape": [5]},
        {"bytes": "AAAA", "dtype": "float32", "shape": [10**12]},
        {"bytes": 5, "dtype": "float32", "shape": [1]},
        {"float": "many"},
        {"dict": 5},
        {"set": 5},
        {"graph": "../../etc/passwd"},
        {"__class__": "os.system"},
    ],
)
def test_what_it_did_not_make(forged):
    with pytest.raises(ValueError, match="not an answer"):
        unpacked(forged)


@pytest.mark.parametrize(
    ("given", "expected", "agree"),
    [
        ({"a", "b"}, {"b", "a"}, True),
        (["b", "a"], {"a", "b"}, True),
        (["a", "a"], {"a", "b"}, False),
        ("ab", {"a", "b"}, False),
        ({"x": 1.00001}, {"x": 1.0}, True),
        ({"x": 1.0, "y": 2}, {"x": 1.0}, False),
        ([["a"], ["b"]], [("a",), ("b",)], True),
        (" Austin", " Austin", True),
        ("Austin", " Austin", False),
        (float("nan"), 1.0, False),
        ([1, 2], torch.tensor([1.0, 2.0]), True),
    ],
)
def test_what_agrees(given, expected, agree):
    assert same(given, expected) == agree
