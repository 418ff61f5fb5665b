"""What belongs to different models or transcoders is not joined, whichever function it is handed to."""

import copy
import json
import warnings

import pandas as pd
import pytest
import torch
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.formats.provenance import UnknownOrigin, about_of
from interp_kit.transcoders.folder import save_transcoder

PROMPT = "the capital of Texas is"


class Set:
    """A model, a transcoder and what is made with them."""

    def __init__(self, model, transcoder):
        self.model, self.transcoder = model, transcoder
        self.store = ik.collect_features(model, transcoder, tiny_texts(60), n_examples=3)
        self.labels = ik.label_features(self.store)
        self.graph = ik.attribute(model, transcoder, PROMPT)


@pytest.fixture(scope="module")
def one():
    model = tiny_model()
    return Set(model, tiny_transcoder(model))


@pytest.fixture(scope="module")
def retrained(one):
    """Another transcoder of the same model."""
    return Set(one.model, tiny_transcoder(one.model, seed=7))


@pytest.fixture(scope="module")
def other():
    model = tiny_model(seed=5)
    model.name = "another"
    return Set(model, tiny_transcoder(model))


def joins(a, b):
    """Every function that joins two things, called with one of a and the other of b."""
    at = next(iter(a.store._rows))
    return {
        "annotate with a store": lambda: a.graph.annotate(b.store),
        "annotate with labels": lambda: a.graph.annotate(a.store, b.labels),
        "save with features": lambda: a.graph.save("/nowhere/graph.json", features=b.store),
        "score labels": lambda: ik.score_labels(a.store, b.labels),
        "show with labels": lambda: a.store.show(*at, b.labels),
        "show with a graph": lambda: a.store.show(*at, graph=b.graph),
        "browse with labels": lambda: a.store.browse(b.labels),
        "browse with a graph": lambda: a.store.browse(a.labels, b.graph),
        "save with labels": lambda: a.store.save("/nowhere", b.labels),
        "steer by a store": lambda: ik.features.steering_scores(a.model, a.transcoder, b.store, b.labels),
        "steer by labels": lambda: ik.features.steering_scores(a.model, a.transcoder, a.store, b.labels),
        "validate": lambda: ik.validate(a.graph, b.model, b.transcoder),
        "swap": lambda: ik.swap(a.graph, [], b.graph, b.graph.features["id"].iloc[0]),
        "intervene": lambda: ik.intervene(
            b.model, b.transcoder, PROMPT, ik.swap(a.graph, a.graph.features["id"].iloc[0], a.graph, [])
        ),
    }


NAMES = [
    "annotate with a store", "annotate with labels", "save with features", "score labels", "show with labels",
    "show with a graph", "browse with labels", "browse with a graph", "save with labels", "steer by a store",
    "steer by labels", "validate", "swap", "intervene",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_join_of_two_models_is_refused(name, one, other):
    with pytest.raises(ValueError, match=r"do not belong together: 'tiny-llama' .*'another'|'another' .*'tiny-llama'"):
        joins(one, other)[name]()


@pytest.mark.parametrize("name", NAMES)
def test_a_join_of_two_transcoders_is_refused(name, one, retrained):
    with pytest.raises(ValueError, match="do not belong together: the transcoder [0-9a-f]{16} of 'tiny-llama' here"):
        joins(one, retrained)[name]()


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"save with features", "save with labels"}))
def test_what_belongs_together_is_joined_without_a_word(name, one):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownOrigin)
        joins(one, one)[name]()


def test_lenses_and_studies_ask_first(one, other, retrained):
    world = ik.load_world("geography")
    for features, labels in ((other.store, None), (retrained.store, None), (one.store, other.labels)):
        with pytest.raises(ValueError, match="do not belong together"):
            ik.side_by_side(one.model, PROMPT, transcoder=one.transcoder, features=features, labels=labels)
        with pytest.raises(ValueError, match="do not belong together"):
            ik.studies.grade_lenses(one.model, world, one.transcoder, features, labels, n=1)


def test_the_words(one, other):
    with pytest.raises(ValueError) as caught:
        other.graph.annotate(ik.load_features("pocket"))
    assert "'pocket' (fingerprint 3a8afd8d88f5be9f) here" in str(caught.value)
    pocket = copy.copy(one.graph)
    pocket.about = ik.load_features("pocket").about
    with pytest.raises(ValueError, match=r"such as ik.load_features\('pocket'\); or, if .* belongs_to="):
        pocket.annotate(other.store)


def test_neurons_are_not_a_transcoders_features(one):
    neurons = ik.collect_features(one.model, ik.features.Neurons(one.model), tiny_texts(20))
    with pytest.raises(ValueError, match="neurons of 'tiny-llama' here, the transcoder"):
        one.graph.annotate(neurons)
    random = ik.features.RandomDirections(one.model, 4)
    assert ik.collect_features(one.model, random, tiny_texts(20)).about["transcoder"] == "4 random directions (seed 0)"


# ---------------------------------------------------------------- what keeps it


def test_it_survives_files(one, tmp_path):
    one.store.save(tmp_path / "f", one.labels)
    one.graph.save(tmp_path / "g.json")
    one.transcoder.save(tmp_path / "t")
    store, labels, graph = (
        ik.load_features(tmp_path / "f"),
        ik.load_labels(tmp_path / "f"),
        ik.load_graph(tmp_path / "g.json"),
    )
    assert store.about == about_of(labels) == graph.about == one.store.about == ik.load_transcoder(tmp_path / "t").about
    pd.read_parquet(tmp_path / "f" / "labels.parquet").to_parquet(tmp_path / "mine.parquet")
    assert about_of(pd.read_parquet(tmp_path / "mine.parquet")) == store.about


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[t["layer"] == 1], lambda t: t.assign(mine=1), lambda t: t.sort_values("label"), lambda t: t.head(),
        lambda t: pd.concat([t, ik.features.student_labels({(9, 9): "x"}, ik.FeatureStore(FEATURES(t), EXAMPLES))]),
    ],
)  # fmt: skip
def test_labels_keep_it_through_what_one_does_with_a_table(change, one):
    assert about_of(change(one.labels)) == one.store.about


def FEATURES(labels):
    table = pd.DataFrame({"layer": [9], "feature": [9], "density": [0.5], "max_activation": [1.0]})
    table.attrs = dict(labels.attrs)
    return table


EXAMPLES = pd.DataFrame(columns=["layer", "feature", "group", "rank", "tokens", "activations", "peak"])


def test_a_store_keeps_it_through_join_and_its_own_tables(one):
    more = pd.DataFrame({"layer": [0], "feature": [1], "concept": ["x"], "F1": [0.5]})
    assert one.store.join(more).about == one.store.about
    some = ik.FeatureStore(one.store.features, one.store.examples.query("layer == 1"))
    assert some.about == one.store.about and about_of(ik.score_labels(some, one.labels[:3])) == one.store.about


@pytest.mark.parametrize("name", ["pocket", "smollm2"])
def test_what_ships_belongs_together(name):
    transcoder = ik.load_transcoder(name)
    about = transcoder.about
    assert about == ik.load_features(name).about == about_of(ik.load_labels(name)) and len(about) == 3
    assert ik.load_transcoder(name, torch.bfloat16).about == about


# ---------------------------------------------------------------- where nothing is known


def test_what_says_nothing_is_joined_with_a_word(one, tmp_path):
    one.labels.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.warns(UnknownOrigin, match="the labels do not say of which model: .*labels.attrs"):
        one.graph.annotate(one.store, pd.read_csv(tmp_path / "labels.csv"))
    one.store.save_json(tmp_path / "json")
    store = ik.features.load_feature_json(tmp_path / "json")
    assert repr(store).endswith(", of an unknown model)")
    with pytest.warns(UnknownOrigin, match="the features do not say of which model: .*load_features"):
        one.graph.annotate(store)
    old = copy.copy(one.graph)
    old.about = {"model": "tiny-llama", "fingerprint": one.model.fingerprint}  # of a file before transcoders were known
    with pytest.warns(UnknownOrigin, match="the graph does not say of which transcoder: .*load_graph"):
        old.annotate(one.store)


def test_one_can_insist(one, other, tmp_path):
    """As of the same model from another container."""
    one.store.save(tmp_path / "f", one.labels)
    one.graph.save(tmp_path / "g.json")
    one.transcoder.save(tmp_path / "t")
    one.store.save_json(tmp_path / "json")
    transcoder = ik.load_transcoder(tmp_path / "t", belongs_to=other.model)
    graph = ik.attribute(other.model, transcoder, PROMPT)
    store = ik.load_features(tmp_path / "f", belongs_to=graph)
    labels = ik.load_labels(tmp_path / "f", belongs_to=store)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownOrigin)
        graph.annotate(store, labels)
        graph.annotate(ik.features.load_feature_json(tmp_path / "json", belongs_to=transcoder))
        ik.load_graph(tmp_path / "g.json", belongs_to=other.model).annotate(store, labels)
    with pytest.raises(ValueError, match="d_model"):  # sizes are not a matter of insisting
        ik.load_transcoder(tmp_path / "t", belongs_to=other.model).check_model(tiny_model(num_hidden_layers=2))
    for load, path in (
        (ik.load_features, "f"),
        (ik.load_labels, "f"),
        (ik.load_transcoder, "t"),
        (ik.load_graph, "g.json"),
    ):
        with pytest.raises(TypeError, match="belongs_to should be what it goes with"):
            load(tmp_path / path, belongs_to="pocket")


@pytest.mark.parametrize("content", ["", "[]", '{"fingerprint": 1}', '{"model": ["x"]}', "{" * 999, '{"model": 1e999}'])
def test_a_folder_whose_origin_is_damaged(content, one, tmp_path):
    one.store.save(tmp_path / "f", one.labels)
    (tmp_path / "f" / "about.json").write_text(content)
    for load in (ik.load_features, ik.load_labels):
        with pytest.raises(ValueError, match="about.json"):
            load(tmp_path / "f")


# ---------------------------------------------------------------- a folder that has labels


def test_labels_of_an_earlier_save_stay_where_they_belong(one, retrained, tmp_path):
    one.store.save(tmp_path / "f", one.labels)
    again = ik.collect_features(one.model, one.transcoder, tiny_texts(30, seed=3), n_examples=3)
    again.save(tmp_path / "f")
    pd.testing.assert_frame_equal(ik.load_labels(tmp_path / "f"), one.labels, check_dtype=False)
    assert len(ik.load_features(tmp_path / "f")._examples) == len(again._examples)
    unknown = ik.FeatureStore(one.store.features.copy(), one.store.examples)
    unknown.features.attrs = {}
    for store in (retrained.store, unknown):
        with pytest.raises(FileExistsError, match="labels.parquet.*nothing was saved"):
            store.save(tmp_path / "f")
    assert len(ik.load_features(tmp_path / "f")._examples) == len(again._examples)
    (tmp_path / "f" / "labels.parquet").unlink()
    retrained.store.save(tmp_path / "f")
    assert ik.load_features(tmp_path / "f").about == retrained.store.about


# ---------------------------------------------------------------- a transcoder's fingerprint


@pytest.mark.parametrize(
    "changes", [{}, {"activation": "jumprelu"}, {"span": 1}, {"span": 1, "skip": True}, {"skip": True}]
)
def test_a_transcoder_has_the_same_fingerprint_in_every_load(changes, tmp_path):
    model = tiny_model()
    clt = tiny_transcoder(model, **changes)
    mine = clt.fingerprint
    for name, dtype in (("f", None), ("h", torch.float16), ("i", torch.int8)):
        save_transcoder(clt, tmp_path / name, dtype)
        found = {
            ik.load_transcoder(tmp_path / name, d).fingerprint for d in (torch.float32, torch.float16, torch.bfloat16)
        }
        assert len(found) == 1 and (found == {mine}) == (name != "i")
        back = ik.load_transcoder(tmp_path / name)
        back.save(tmp_path / f"{name}-again")
        again = ik.load_transcoder(tmp_path / f"{name}-again")
        del again.__dict__["fingerprint"]  # as of its weights in memory
        assert {again.fingerprint} == {back.fingerprint} == found
    assert copy.deepcopy(clt).to(torch.float64).fingerprint == mine
    assert "fingerprint" not in json.loads((tmp_path / "f" / "interp_kit.json").read_text())


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "b_dec", "threshold", "W_skip"])
def test_a_transcoders_fingerprint_sees_a_change_of_any_feature(name):
    make = lambda: tiny_transcoder(tiny_model(), activation="jumprelu", skip=True)  # noqa: E731
    clt = make()
    getattr(clt, name).data[2, 7] += 0.25
    assert clt.fingerprint != make().fingerprint
    moved = make()
    moved.W_enc.data[1] = moved.W_enc.data[1].roll(1, 0)
    assert moved.fingerprint != make().fingerprint
    fewer = make()
    assert fewer.keep_features([torch.arange(19)] * 4).fingerprint != fewer.fingerprint
