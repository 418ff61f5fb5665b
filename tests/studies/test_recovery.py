"""Concept recovery, on a transcoder whose features are planted."""

import pytest
from tiny import planted_transcoder, tiny_model

import interp_kit as ik
from interp_kit.worlds.sentences import Slot, fill
from interp_kit.worlds.truth import concepts_of, says
from recipes.build import N_TRAINING, graded_sentences


def recovered(model, clt, **kinds):
    return ik.studies.recover_concepts(model, {"clt": clt}, sentences(), sentences(), **kinds)


def sentences():
    texas, ohio = Slot("Texas", ("place:Texas",)), Slot("Ohio", ("place:Ohio",))
    dallas = Slot("Dallas", ("place:Texas",))
    kinds = [
        ("the capital of {p} is Austin .", texas),
        ("{p} is a city", dallas),
        ("the capital of {p} is a city", ohio),
    ]
    return [fill(template, p=slot) for template, slot in kinds] * 10


@pytest.fixture
def planted():
    """Feature 0 of layer 0 fires exactly on Texas and Dallas, feature 1 on Ohio and on every "of" before any place."""
    model = tiny_model()
    clt = planted_transcoder(model, ["Texas", "Dallas"], ["Ohio", "of"])
    return model, clt


def test_f1_of_planted_features(planted):
    model, clt = planted
    table = recovered(model, clt).table.set_index("concept")
    texas, ohio = table.loc["place:Texas"], table.loc["place:Ohio"]
    assert (texas["layer"], texas["feature"], texas["F1"]) == (0, 0, 1.0) and texas["n"] == 20
    # fires on Ohio (10 hits) and on "of" before Texas or Ohio was named (20 false alarms)
    assert ohio["feature"] == 1
    assert ohio["precision"] == pytest.approx(10 / 30) and ohio["recall"] == 1
    assert ohio["F1"] == pytest.approx(2 * 10 / (30 + 10))


def test_firing_after_the_place_is_named_is_excused(planted):
    model, clt = planted
    rows = model.hf.model.embed_tokens.weight
    clt.W_enc.data[0, 0] += 2 * rows[model.token_id("Austin")]  # said only after Texas
    clt.W_enc.data[0, 0] += 2 * rows[model.token_id(".")]
    table = recovered(model, clt).table.set_index("concept")
    assert table.loc["place:Texas", "F1"] == 1.0


def test_what_each_feature_detects(planted):
    found = recovered(*planted).detectors
    # Ohio's best is right in a third of its firings: not listed
    assert found[["layer", "feature", "concept", "F1"]].values.tolist() == [[0, 0, "place:Texas", 1.0]]


def test_the_threshold_is_chosen_on_the_training_sentences(planted):
    """A feature that is weakly on elsewhere detects Texas from half its highest activation on."""
    model, clt = planted
    rows = model.hf.model.embed_tokens.weight
    clt.W_enc.data[0, 0] += 1.3 * rows[model.token_id("city")]
    table = recovered(model, clt).table.set_index("concept")
    assert table.loc["place:Texas", "F1"] == 1.0


def test_dictionaries_side_by_side_and_either_sign_of_a_neuron(planted):
    model, clt = planted
    neurons = ik.features.Neurons(model)
    both = ik.studies.recover_concepts(
        model, {"clt": clt, "neurons": neurons}, sentences(), sentences(), kinds=("place",)
    )
    assert both.table.groupby("dictionary", sort=False)["n"].apply(list).to_dict() == {
        "clt": [20, 10],
        "neurons": [20, 10],
    }
    assert both.table["feature"].max() < 24
    assert both.summary.loc[("place", "clt"), "recovered"] == 0.5 and "place" in both._repr_html_()
    down = model.hf.model.layers[0].mlp
    ids = [model.token_id(w) for w in ("Texas", "Dallas")]
    down.gate_proj.weight.data[0], down.up_proj.weight.data[0] = 0, 0
    down.gate_proj.weight.data[0, ids], down.up_proj.weight.data[0, ids] = 4, -4  # negative there, 0 elsewhere
    negative = ik.studies.recover_concepts(model, {"neurons": neurons}, sentences(), sentences()).table.set_index(
        "concept"
    )
    assert negative.loc["place:Texas", ["layer", "feature", "F1"]].tolist() == [0, 0, 1.0]


def test_rare_concepts_are_not_graded(planted):
    model, clt = planted
    few = sentences()[:6]  # four of Texas, two of Ohio
    assert ik.studies.recover_concepts(model, {"clt": clt}, few, few).table.empty


def test_no_sentence_decides_twice():
    """What a feature is graded on chose neither it nor its weights; and no city is missing there."""
    world = ik.load_world()
    chosen, graded = ({s.text: s for s in some} for some in graded_sentences(world))
    trained = {s.text for s in world.sentences(N_TRAINING, "train")}
    assert not graded.keys() & (chosen.keys() | trained)
    cities = set(concepts_of(graded.values(), ["city"]))
    assert len(cities) > 0.98 * len(world.place_of)


@pytest.mark.parametrize(
    ("label", "concept", "right"),
    [
        ("Texas", "place:Texas", True),
        ("say Austin", "answer:capital=Austin", True),
        ("Waco / Texas / Nice", "place:Texas", True),
        ("the largest city", "relation:largest city", True),
        ("New Mexico City", "place:Mexico", True),  # a whole word is all that is asked
        ("Texaston", "place:Texas", False),
        ("Austin", "place:Texas", False),
    ],
)
def test_whether_a_label_says_a_concept(label, concept, right):
    assert says(label, concept) == right
