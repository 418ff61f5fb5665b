"""Scores of labels, on features whose behaviour is made up."""

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.features.label_scores import _balanced_accuracy
from interp_kit.statistics import roc_auc


def store_of(fires_on, texts, **groups):
    """A store of one feature that fires on some words; groups name the texts by number."""
    rows = []
    for group, numbers in groups.items():
        for rank, i in enumerate(numbers):
            tokens = [" " + w for w in texts[i].split()]
            active = [2.0 * (t.strip() in fires_on) for t in tokens]
            rows.append((0, 0, group, rank, tokens, active, int(np.argmax(active))))
    columns = ["layer", "feature", "group", "rank", "tokens", "activations", "peak"]
    features = pd.DataFrame(
        {"layer": [0], "feature": [0], "density": [0.1], "max_activation": [2.0], "top_logits": [["x"]]}
    )
    return ik.FeatureStore(features, pd.DataFrame(rows, columns=columns))


TEXTS = [
    "in Dallas it is hot", "Dallas is a city", "we like Dallas", "from Dallas to here",
    "in Waco it is hot", "there is a city", "we like it", "from here to there",
]  # fmt: skip


@pytest.fixture
def dallas():
    return store_of({"Dallas"}, TEXTS, top=[0], held_out=[0, 1, 2, 3], non_activating=[4, 5, 6, 7])


def label(text, rule=None, words=()):
    row = ik.features.student_labels({(0, 0): text})
    return row if rule is None else row.assign(rule=rule, words=[tuple(words)])


def test_a_right_label_a_wrong_one_and_one_that_is_too_wide(dallas):
    scores = lambda name: ik.score_labels(dallas, label(name)).iloc[0]  # noqa: E731
    assert scores("Dallas")[["detection", "fuzzing", "n"]].tolist() == [1, 1, 8]
    assert scores("Waco")["detection"] == pytest.approx((0 + 3 / 4) / 2)
    wide = ik.score_labels(dallas, label("everything", "words", ["Dallas", "in", "is", "we", "from"])).iloc[0]
    assert wide["detection"] == 0.5 and wide["fuzzing"] < 1


def test_rules_are_asked_at_the_marked_tokens(dallas):
    before = ik.score_labels(dallas, label("say Dallas", "say", ["Dallas"])).iloc[0]
    assert before["detection"] == (3 / 4 + 1) / 2  # one text begins with Dallas
    assert before["fuzzing"] <= 0.5  # it never expects the feature on Dallas itself


def test_near_texts_make_it_harder():
    texts = [*TEXTS, "Dallas was there", "not Dallas again"]
    near = store_of({"Dallas"}, texts, held_out=[0, 1, 2, 3], non_activating=[4, 5, 6, 7], hard_negative=[8, 9])
    assert ik.score_labels(near, label("Dallas")).iloc[0]["detection"] == (1 + 2 / 4) / 2


def test_no_examples_no_score():
    none = store_of({"Dallas"}, TEXTS, top=[0, 1])
    assert ik.score_labels(none, label("Dallas"))[["detection", "fuzzing"]].isna().to_numpy().all()


def test_balanced_accuracy_and_area():
    assert _balanced_accuracy([True, True, False, False], [True, True, False, False]) == 1
    assert _balanced_accuracy([True] * 4, [True, False, False, False]) == 0.5
    assert _balanced_accuracy([True, None, None], [True, False, True]) is np.nan
    assert _balanced_accuracy([True, None, True], [True, True, False]) == 0.5
    assert roc_auc([3, 2, 1, 0], [True, True, False, False]) == 1
    assert roc_auc([0, 1, 2, 3], [True, True, False, False]) == 0
    assert roc_auc([1, 1], [True, False]) == 0.5


def test_the_model_itself_as_judge_and_the_embedding_score(dallas):
    model = tiny_model()
    scored = ik.score_labels(dallas, label("Dallas"), judge="model", model=model).iloc[0]
    assert 0 <= scored["detection"] <= 1 and scored["embedding"] == 1  # only these texts hold the label's own token


def test_an_unknown_judge(dallas):
    for judge in ("oracle", "model"):  # the second without a model
        with pytest.raises(ValueError, match="ik.features.LLM"):
            ik.score_labels(dallas, label("Dallas"), judge=judge)


def test_steering_finds_what_a_feature_says():
    model = tiny_model()
    clt = tiny_transcoder(model)
    head = model.hf.lm_head.weight
    austin = head[model.token_id("Austin")]
    clt.W_dec[3].data[5] = 5 * (austin - head.mean(0)) / austin.norm()
    store = ik.collect_features(model, clt, tiny_texts(200), n_examples=4)
    labels = ik.label_features(store, only=[(3, 5), (3, 6)])
    labels["label"] = ["say Austin", "say Austin"]
    more = pd.concat(
        [labels, ik.features.student_labels({(0, i): w for i, w in enumerate(["Texas", "of", "Dallas", "the", "a"])})]
    )
    found = ik.features.steering_scores(model, clt, store, more, only=[(3, 5), (3, 6)]).set_index("feature")
    assert found.loc[5, "steering"] > 0.75 and (found["KL"] > 0).all()
    assert found.loc[5, "steering"] > found.loc[6, "steering"]
