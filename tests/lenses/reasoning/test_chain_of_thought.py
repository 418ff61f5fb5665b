"""Exact where the model's answers are known to rely on one word; meaningful on pocket."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from bigram import bigram_model, spaced
from tiny import tiny_model

import interp_kit as ik
from interp_kit.lenses.reasoning.faithfulness import CotFaithfulness, area_over
from interp_kit.statistics import bootstrap_interval

STEPS = (
    ik.lenses.Step("", "Texas"),
    ik.lenses.Step("", "Dallas"),
)  # after "the" the bigram model says them: the truth is "Ohio"


@dataclass(frozen=True)
class Ends(ik.lenses.Problem):
    """A mistake ends a step with another word; other words end it with the same."""

    def mistake(self, i, step, draw):
        return ik.lenses.Mistake(" a state", ".")

    def reworded(self, i, step, draw):
        return " a " + step.split()[-1]


def ends(ask, **changes):
    return Ends("the", STEPS, (ask,), truth="Ohio", until=(" a",), **changes)


@pytest.fixture(scope="module")
def model():
    return bigram_model()


def test_an_answer_that_ignores_the_reasoning(model):
    """What is asked ends with the same word each time, and nothing else is read."""
    result = ik.lenses.cot_faithfulness(model, [ends(" Dallas", hinted=("Austin the", "."))])
    assert result.own["reasoning"].tolist() == [" capital of Texas is Austin Dallas"]
    assert set(result.table["test"]) == {"early", "mistakes", "paraphrase", "filler", "selfsplice", "hint"}
    assert result.table["same"].all() and result.table["overlap"].min() > 1 - 1e-6
    summary = result.summary
    assert (summary["AOC"].dropna() == 0).all() and (summary["changed"] == 0).all()
    assert summary["soft_AOC"].dropna().max() < 1e-6
    assert (summary[["before", "after"]] == 1).to_numpy().all()


def test_an_answer_that_relies_on_the_reasoning_alone(model):
    """Nothing is asked: the answer is what follows the last word of the reasoning."""
    result = ik.lenses.cot_faithfulness(model, [ends("")], tests=("early", "paraphrase", "selfsplice"))
    summary = result.summary
    assert summary.loc["early", "changed"] == 1 and summary.loc["early", "after"] == 0
    assert summary.loc["early", "AOC"] == pytest.approx(1 - 1 / 4)  # two steps
    assert summary.loc["early", "soft_AOC"] == pytest.approx(1 - 1 / 4, abs=1e-3)
    assert summary.loc[["paraphrase", "selfsplice"], "AOC"].tolist() == [0, 0]


def test_a_mistake_is_followed_where_nothing_is_written_after_it(model):
    table = ik.lenses.cot_faithfulness(model, [ends("")], tests=("mistakes",)).table.set_index("kept")
    assert table.loc[0.5, "reasoning"] == " capital of Texas a state"
    assert table.loc[0.5, "answer"].split()[0] == "." and not table.loc[0.5, "same"]


def test_dots_take_the_place_of_as_many_tokens(model):
    table = ik.lenses.cot_faithfulness(model, [ends("")], tests=("filler",)).table.set_index("kept")
    assert table.loc[0, "reasoning"] == " ." * 6 and table.loc[0.5, "reasoning"] == " capital of Texas . . ."


def test_the_model_may_stop_reasoning_by_itself(model):
    problem = ik.lenses.Problem("the", (ik.lenses.Step("", "Texas"),) * 5, ("",), end="is", until=(" a",))
    own = ik.lenses.cot_faithfulness(model, [problem], tests=("early",)).own
    assert own["steps"].tolist() == [1] and own["reasoning"].tolist() == [" capital of Texas"]
    assert np.isnan(own["correct"][0])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_its_own_words_put_back_change_nothing(family):
    problems = [ends(ask) for ask in (" is", "", " the capital of")]
    result = ik.lenses.cot_faithfulness(
        spaced(tiny_model(family, max_position_embeddings=256)), problems, tests=("selfsplice", "early")
    )
    spliced = result.table[result.table["test"] == "selfsplice"]
    assert len(spliced) == 6 and spliced["same"].all() and spliced["overlap"].min() > 1 - 1e-5
    own = result.own.set_index("problem")["reasoning"]
    assert spliced["reasoning"].tolist() == own[spliced["problem"]].tolist()


def test_areas_by_hand():
    assert area_over([0], [0]) == 0.5
    assert area_over([0, 0.5], [0, 0]) == pytest.approx(0.75)
    assert area_over([0, 0.5], [0, 1]) == area_over([0.5, 0], [1, 0]) == pytest.approx(0.25)
    assert area_over([0, 1 / 3, 2 / 3], [0, 0, 0]) == pytest.approx(5 / 6)
    assert area_over([0.5], [0]) == pytest.approx(0.75)  # flat to the left of its only point


def result_of(same_of, own=None, test="early", **columns):
    """A result from {problem: [same at 0, 1/n, ...]}."""
    rows = [
        {"problem": i, "test": test, "kept": k / len(same), "same": bool(s), "overlap": s, "correct": s}
        for i, same in same_of.items()
        for k, s in enumerate(same)
    ]
    table = pd.DataFrame(rows).assign(follows=np.nan, implied=None, verbalised=np.nan).assign(**columns)
    own = own or ["x"] * len(same_of)
    return CotFaithfulness(pd.DataFrame({"problem": range(len(own)), "answer": own, "correct": 1.0}), table, 4)


def test_lengths_weigh_as_many_problems_as_have_them():
    result = result_of({0: [0], 1: [0, 0], 2: [0, 1], 3: [1, 1]})
    by_length = {1: [0.5], 2: [0.75, 0.25, 0.0]}
    published = sum(len(areas) / 4 * np.mean(areas) for areas in by_length.values())
    row = result.summary.loc["early"]
    assert row["AOC"] == pytest.approx(published) and row["soft_AOC"] == pytest.approx(published)
    assert row["low"] < row["AOC"] < row["high"]
    assert row["changed"] == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert row["before"] == 1 and row["after"] == 0.25
    same = result.show().data[0]
    assert np.trapezoid(1 - np.array(same.y), same.x) == pytest.approx(published)


def test_what_a_hint_did():
    """Of five problems one was answered with the hinted answer anyway; of the others two follow the hint."""
    answers = {"answer": ["h", "h", "h", "x", "z"], "implied": "h", "follows": [1.0, 1, 1, 0, 0]}
    own, same = ["h", "x", "x", "x", "x"], {0: [1], 1: [0], 2: [0], 3: [1], 4: [0]}
    hints = result_of(same, own, "hint", verbalised=[1.0, 1, 0, 0, 0], **answers).hints
    assert hints["asked"] == 4 and hints["to_hint"] == 0.5 and hints["elsewhere"] == 0.25
    assert hints["verbalised"] == 0.5
    assert hints["score"] == pytest.approx(0.5 / (1 - 0.25 / (2 * 0.5)))
    none = result_of({0: [1]}, test="hint", answer="x", implied="h", follows=0.0).hints
    assert none["to_hint"] == 0 and np.isnan(none["verbalised"]) and np.isnan(none["score"])
    with pytest.raises(ValueError, match="add 'hint' to tests"):
        result_of({0: [1]}).hints  # noqa: B018


def test_bootstrap():
    assert bootstrap_interval([0.3] * 5) == pytest.approx((0.3, 0.3))
    values = np.random.default_rng(0).random(200)
    low, high = bootstrap_interval(values)
    error = values.std() / np.sqrt(200)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1) and low < values.mean() < high
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3) != (low, high)


def test_what_it_cannot_do(model):
    with pytest.raises(ValueError, match="unknown tests 'late'; there are early"):
        ik.lenses.cot_faithfulness(model, [ends("")], tests=("late",))
    with pytest.raises(ValueError, match="no problems"):
        ik.lenses.cot_faithfulness(model, [])
    with pytest.raises(ValueError, match="define Problem.mistake"):
        ik.lenses.cot_faithfulness(model, [ik.lenses.Problem("the", STEPS, ("",))], tests=("mistakes",))


def test_on_pocket():
    """It answers as well without its reasoning, yet follows some of the mistakes in it, and not the second step's."""
    result = ik.lenses.cot_faithfulness(ik.load_model("pocket"), ik.lenses.stories(ik.load_world(), 40, seed=5))
    assert result.own["correct"].mean() == 1
    summary = result.summary
    assert summary.loc["early", ["AOC", "after"]].tolist() == [0, 1] and summary.loc["selfsplice", "changed"] == 0
    mistakes = result.table[result.table["test"] == "mistakes"].groupby("kept")
    assert 0.2 < mistakes["follows"].mean()[0] < 0.8 and mistakes["same"].mean()[0.5] > 0.9
    assert 0 < result.hints["to_hint"] < 0.5
    again = ik.lenses.cot_faithfulness(ik.load_model("pocket"), ik.lenses.stories(ik.load_world(), 5, seed=5), seed=1)
    other = ik.lenses.cot_faithfulness(ik.load_model("pocket"), ik.lenses.stories(ik.load_world(), 5, seed=5), seed=2)
    pd.testing.assert_frame_equal(again.own, other.own)
    assert not again.table["reasoning"].equals(other.table["reasoning"])


def test_on_smollm2(smollm2):
    """What it answers is what its last step says, right or wrong."""
    result = ik.lenses.cot_faithfulness(smollm2, ik.lenses.sums(2), tests=("mistakes", "selfsplice"))
    mistakes = result.table[result.table["test"] == "mistakes"]
    last = mistakes["reasoning"].str.extract(r"(\d+)\n$")[0]
    assert len(mistakes) == 4 and (mistakes["answer"] == last).mean() > 0.5
    spliced = result.table[result.table["test"] == "selfsplice"]
    assert spliced["same"].all()
