"""What ships in data/ does what the README says of it."""

import json

import pandas as pd
import pytest

import interp_kit as ik
from interp_kit.storage.shipped import data_folder
from interp_kit.studies.recovery import recover_concepts
from interp_kit.studies.two_hop import two_hop_accuracy
from recipes import build
from recipes.build import graded_sentences, named_rightly, report

PROMPT = "The capital of the state containing Dallas is"


@pytest.fixture(scope="module")
def model():
    return ik.load_model("pocket")


@pytest.fixture(scope="module")
def transcoder():
    return ik.load_transcoder("pocket")


@pytest.fixture(scope="module")
def world():
    return ik.load_world()


def measure(model, transcoder, world):
    recovery = recover_concepts(model, {"cross-layer": transcoder}, *graded_sentences(world), kinds=("place",))
    return recovery.table, report(model, transcoder, world, recovery)


@pytest.fixture(scope="module")
def measured(model, transcoder, world):
    """On fewer sentences than the card's numbers are of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "N_CHOOSING", 4000)
        patch.setattr(build, "N_GRADING", 4000)
        patch.setattr(build, "N_EVALUATION", 2000)
        return measure(model, transcoder, world)


def test_held_out_two_hop_questions(measured):
    assert measured[1]["held-out two-hop questions"] >= 300
    assert measured[1]["held-out two-hop accuracy"] >= 0.95


def test_a_wrong_answer_is_counted_as_wrong(model, world):
    """The accuracy above is no accident of how it is counted."""
    from dataclasses import replace

    questions = world.questions(held_out=True)[:40]
    assert sum(two_hop_accuracy(model, questions)) >= 38
    assert not any(two_hop_accuracy(model, [replace(q, answer=q.answer + " City") for q in questions]))
    greedy = [model.complete(q.prompt, stop=".").strip() for q in questions[:10]]
    assert greedy == [q.answer for q in questions[:10]]


def test_the_transcoder_is_as_good_as_promised(measured):
    numbers = measured[1]["transcoder"]
    assert numbers["NMSE"] <= 0.03 and numbers["L0"] <= 8
    assert numbers["top-1"] >= 0.95 and numbers["dead"] <= 0.15  # of so few sentences; of all of them .042


def test_most_places_have_a_feature_of_their_own(measured):
    places, _ = measured
    assert len(places) >= 130  # some come up too rarely in so few sentences
    assert (places["F1"] >= 0.9).mean() >= 0.8


@pytest.mark.long
def test_the_report_that_ships_is_the_one_measured(model, transcoder, world):
    shipped = json.loads((data_folder() / "pocket-transcoder" / "report.json").read_text())
    places, fresh = measure(model, transcoder, world)
    assert len(places) == 140
    assert shipped["held-out two-hop accuracy"] == fresh["held-out two-hop accuracy"]
    assert shipped["transcoder"] == pytest.approx(fresh["transcoder"], rel=0.02)
    table = pd.read_csv(data_folder() / "pocket-transcoder" / "concepts.csv")
    table = table[(table["dictionary"] == "cross-layer") & (table["kind"] == "place")]
    assert table["F1"].mean() == pytest.approx(places["F1"].mean(), abs=0.01)


def test_labels_without_an_llm_name_what_features_detect():
    store = ik.load_features("pocket")
    assert named_rightly(store, ik.load_labels("pocket"))["labelled with its name"] >= 0.85


def test_dallas_texas_austin_appears_by_itself(model, transcoder):
    store = ik.load_features("pocket")
    graph = ik.attribute(model, transcoder, PROMPT).annotate(store, ik.load_labels("pocket"))
    steps = graph.prune().paths().query("token == ' Dallas'")["steps"].item()
    assert steps.startswith("Dallas → ") and " → Texas → " in steps and steps.endswith(" → Austin")
