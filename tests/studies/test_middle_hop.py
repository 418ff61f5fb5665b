"""How much of an answer passes the middle hop: on pocket, whose hop is known."""

import pandas as pd
import pytest

import interp_kit as ik
from interp_kit.studies.middle_hop import answer_token, city_positions, rivals


@pytest.fixture(scope="module")
def setting():
    world = ik.load_world()
    return ik.load_model("pocket"), ik.load_transcoder("pocket"), world, world.questions(held_out=True)[:3]


def test_where_the_city_and_its_answer_are(setting):
    model, _, world, questions = setting
    for question in questions:
        tokens = model.tokens(question.prompt)
        assert "".join(tokens[p] for p in city_positions(model, question)).strip() == question.city
        token = model.tokens([answer_token(model, question)])[0]
        assert question.answer.startswith(token.strip())
        others = rivals(model, world, question)
        assert others and answer_token(model, question) not in others


def test_what_passes_the_place(setting):
    model, clt, world, questions = setting
    detectors = ik.load_features("pocket").features
    found = ik.studies.middle_hop(model, clt, world, questions, detectors)
    assert (found["through"] / found["total"] == found["share"]).all()
    assert found["share"].between(0.05, 0.99).all() and (found["features"] >= 1).all()


def test_all_features_carry_all_that_errors_do_not(setting):
    """With every feature called the place's, only what goes straight from the token is left."""
    model, clt, world, questions = setting
    question = questions[0]
    places = [(l, f) for l, n in enumerate(clt.n_features_per_layer) for f in range(n)]
    everything = pd.DataFrame(places, columns=["layer", "feature"]).assign(concept=f"place:{question.place}")
    target, against = answer_token(model, question), rivals(model, world, question)
    graph = ik.attribute(model, clt, question.prompt, target, against)
    tokens = graph.embeddings.query("position in @positions", local_dict={"positions": city_positions(model, question)})
    straight = float(graph.adjacency[graph.logits.index[0], tokens.index].sum())
    found = ik.studies.middle_hop(model, clt, world, [question], everything).iloc[0]
    assert found["total"] - found["through"] == pytest.approx(straight, abs=1e-3)
    none = ik.studies.middle_hop(model, clt, world, [question], everything.assign(concept="place:Nowhere")).iloc[0]
    assert none["share"] == 0 and none["features"] == 0


def test_in_the_model_the_place_carries_all(setting):
    model, _, world, questions = setting
    found = ik.studies.hop_in_model(model, world, questions)
    assert len(found) == len(questions) * model.n_layers
    early = found[found["layer"] <= 2]
    assert early["share"].between(0.8, 1.3).all()
    assert (early["same_place"] > early["other_places"]).all()
    last = found[found["layer"] == model.n_layers - 1]  # nothing is read from the city any more
    assert (last["other_places"] - last["clean"]).abs().max() < 3
