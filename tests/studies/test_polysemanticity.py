"""Measured on features whose meanings are planted."""

import pytest
from tiny import planted_transcoder, tiny_model, tiny_texts

import interp_kit as ik


@pytest.fixture(scope="module")
def planted():
    """In layer 0 feature 0 fires on Texas alone, feature 1 on Texas and, equally, on Ohio; the rest is silent."""
    model = tiny_model()
    clt = planted_transcoder(model, ["Texas"], ["Texas", "Ohio"])
    return model, clt


def test_one_meaning_and_two(planted):
    model, clt = planted
    texts = tiny_texts(300)
    table = ik.studies.polysemanticity(model, {"features": clt}, texts).table.set_index("feature")
    assert len(table) == 2  # only what ever fires
    assert table.loc[0, "best"] == "word:Texas" and table.loc[0, "explained"] == pytest.approx(1)
    assert table.loc[0, "concepts"] == 1 and table.loc[1, "concepts"] == 2
    tokens = [t for text in texts for t in model.tokens(text)[1:]]
    texas, ohio = (tokens.count(word) for word in ("Texas", "Ohio"))
    chance = [n / len(tokens) for n in (texas, ohio)]
    share = [n / (texas + ohio) for n in (texas, ohio)]
    best = max((s - c) / (1 - c) for s, c in zip(share, chance))
    assert table.loc[1, "explained"] == pytest.approx(best, abs=0.01)  # a norm makes the two not quite equally strong


def test_a_place_is_one_concept_however_it_is_named(planted):
    from interp_kit.worlds.sentences import Slot, fill

    model, clt = planted
    texas, ohio = Slot("Texas", ("place:Texas",)), Slot("Ohio", ("place:Texas",))  # two names of one place
    sentences = [fill("the state {p} is", p=slot) for slot in (texas, ohio)] * 9
    table = ik.studies.polysemanticity(model, {"features": clt}, sentences).table.set_index("feature")
    assert table.loc[1, "best"] == "place:Texas"
    assert table.loc[1, "explained"] == pytest.approx(1) and table.loc[1, "concepts"] == 1


def test_side_by_side(planted):
    model, clt = planted
    both = ik.studies.polysemanticity(model, {"neurons": ik.features.Neurons(model), "features": clt}, tiny_texts(100))
    assert list(both.summary.index) == ["neurons", "features"]
    assert both.summary.loc["neurons", "features"] == 4 * 24
    assert len(both.show().data) == 2 and "features" in both._repr_html_()


def test_superposition():
    dense, sparse = (ik.studies.toy_superposition(5, 2, sparsity=s) for s in (0.0, 0.95))
    kept = lambda toy: int((toy.table["length"] > 0.5).sum())  # noqa: E731
    assert kept(dense) == 2 and kept(sparse) > 2
    represented = dense.table[dense.table["length"] > 0.5]
    assert represented["interference"].max() < 0.1 < sparse.table["interference"].max()
    assert len(sparse.show().data) == 5 and ik.studies.toy_superposition(6, 3).show().data[0].type == "heatmap"
