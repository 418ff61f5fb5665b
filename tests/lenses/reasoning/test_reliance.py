"""Exact where an answer is known to rely on one word."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from bigram import bigram_model
from tiny import tiny_transcoder

import interp_kit as ik
from interp_kit.lenses.reasoning.reliance import Reliance, replaced_positions, share_by_position


@dataclass(frozen=True)
class Ends(ik.lenses.Problem):
    def mistake(self, i, step, draw):
        return ik.lenses.Mistake(" a state", ".")

    def another(self, draw):
        return ik.lenses.Mistake("of")


@pytest.fixture(scope="module")
def known():
    model = bigram_model()
    return model, tiny_transcoder(model)


def problem(ask):
    return Ends("the", (ik.lenses.Step("", "Texas"), ik.lenses.Step("", "Dallas")), (ask,), until=(" city",))


def test_all_influence_comes_from_what_the_answer_relies_on(known):
    table = ik.lenses.reliance(*known, [problem("")], times=1).table.set_index("source")
    assert table.index.tolist() == ["question", "step 1", "step 2"]
    assert table["share"].tolist() == pytest.approx([0, 0, 1])
    assert table["changed"].tolist() == pytest.approx([0, 0, 1], abs=1e-3)
    assert table["answer"].tolist() == ["Ohio a state ."] * 2 + ["."]
    assert table["follows"].tolist() == [0, 0, 1] and table.loc["step 2", "text"] == "is Austin Dallas"


def test_nothing_where_the_answer_relies_on_what_is_asked(known):
    table = ik.lenses.reliance(*known, [problem(" Dallas")]).table
    assert table["share"].max() == 0 and table["changed"].max() < 1e-6


def test_shares_of_the_tokens_add_up(known):
    model, clt = known
    graph = ik.attribute(model, clt, "the capital of Texas is")
    assert share_by_position(graph).tolist() == pytest.approx([0, 0, 0, 0, 0, 1])


def test_the_tokens_that_a_replacement_replaces():
    model = ik.load_model("pocket")
    texts = ["Dallas is a city in Texas. Its capital is", "Dallas is a city in New York. Its capital is"]
    ids, others = (model.encode(text).tolist() for text in texts)
    assert model.tokens(ids[replaced_positions(ids, others)]) == [" Texas"]
    assert model.tokens(others[replaced_positions(others, ids)]) == [" New", " York"]
    assert ids[replaced_positions(ids, ids)] == []
    assert replaced_positions([1, 2, 2, 3], [1, 2, 3]) == slice(2, 3)


def test_agreement_by_hand():
    """Two problems of three sources: in one the graph names the right source, in the other it does not."""
    rows = [(0, "a", 0.6, 0.9, 1), (0, "b", 0.3, 0.5, 1), (0, "c", 0.1, 0.1, 0),
            (1, "a", 0.5, 0.2, 0), (1, "b", 0.1, 0.8, 1), (1, "c", 0.0, 0.0, 0)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["problem", "source", "share", "changed", "follows"])
    result = Reliance(table.assign(text="x", replacement="y"))
    agreement = result.agreement
    assert agreement["strongest"] == 0.5 and agreement["commonest"] == 0.5
    shares, changes = table["share"].rank(), table["changed"].rank()
    assert agreement["spearman"] == pytest.approx(np.corrcoef(shares, changes)[0, 1])
    assert agreement["auc"] == pytest.approx(6.5 / 9)  # 0.6 is above three, 0.3 above two, 0.1 above one and half
    pairs = result.pairs.set_index(["first", "second"])
    assert pairs.loc[("a", "b")].tolist() == pytest.approx([2, -1, 0])
    assert pairs["auc"].isna().tolist() == [False, True, True]
    assert result.summary.loc["b", "follows"] == 1 and result.summary.loc["a", "spearman"] == pytest.approx(1)
    assert len(result.show().data) == 3 and "strongest" in result._repr_html_()


def test_replacements_are_averaged(known):
    once, twice = (ik.lenses.reliance(*known, [problem(""), problem(" is")], times=n) for n in (1, 2))
    assert len(twice.table) == 2 * len(once.table) == 12 and len(twice.means) == 6
    assert twice.means["changed"].tolist() == pytest.approx(once.table["changed"].tolist())


def test_on_pocket_the_graph_knows_which_source_matters():
    """More than luck: among forty problems, and for those two sources that both matter."""
    model, world = ik.load_model("pocket"), ik.load_world()
    result = ik.lenses.reliance(model, ik.load_transcoder("pocket"), ik.lenses.stories(world, 40, seed=5))
    assert result.agreement["auc"] > 0.7 and result.agreement["spearman"] > 0.6
    pair = result.pairs.iloc[0]
    assert pair["first"] == "question" and pair["second"] == "step 1" and pair["spearman"] > 0.3
    assert result.summary.loc["step 2", "changed"] < 0.05
