import pandas as pd
import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.features.labels import Evidence, token_frequency
from interp_kit.models.frozen import FrozenModel

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state", "a city is a state ."]


@pytest.fixture(scope="module")
def setting():
    model = tiny_model()
    clt = tiny_transcoder(model)
    return model, clt, ik.collect_features(model, clt, TEXTS, n_examples=3)


def test_examples_are_the_strongest_texts_with_their_activations(setting):
    model, clt, store = setting
    by_text = [clt.encode(FrozenModel(model, text).mlp_in) for text in TEXTS]
    for layer in range(4):
        for feature in range(20):
            best = torch.stack([a[layer, :, feature].max() for a in by_text]).sort(descending=True).values
            found = store.of(layer, feature).query("group == 'top'")
            peaks = [e.activations[e.peak] for e in found.itertuples()]
            wanted = [v for v in best[:3].tolist() if v > 0]
            assert peaks == pytest.approx(wanted, abs=2e-3)
    one = store.examples.iloc[0]
    text = next(t for t in TEXTS if model.tokens(t) == list(one["tokens"]))
    full = clt.encode(FrozenModel(model, text).mlp_in)[one["layer"], :, one["feature"]]
    torch.testing.assert_close(torch.tensor(one["activations"]), full, rtol=0, atol=2e-3)


def test_density_and_promoted_tokens(setting):
    model, clt, store = setting
    features = torch.cat([clt.encode(FrozenModel(model, text).mlp_in) for text in TEXTS], 1)
    density = (features > 0).float().mean(1).flatten()
    torch.testing.assert_close(
        torch.tensor(store.features["density"].to_numpy()), density.double(), rtol=1e-5, atol=1e-7
    )
    written = clt.W_dec[1][4].sum(0)
    effect = (model.hf.lm_head.weight * model.hf.model.norm.weight) @ written
    best = model.tokens(effect.topk(1).indices)[0]
    row = store.features[(store.features["layer"] == 1) & (store.features["feature"] == 4)].iloc[0]
    assert row["promotes"][0] == best


@pytest.mark.parametrize(("family", "eps"), [("gemma2", "rms_norm_eps"), ("gpt2", "layer_norm_epsilon")])
def test_promoted_tokens_go_through_the_final_norm_of_every_family(family, eps):
    """With an epsilon so large that the denominator is constant, the model's last modules are linear."""
    model = tiny_model(family, **{eps: 1e6})
    clt = tiny_transcoder(model)
    store = ik.collect_features(model, clt, TEXTS, n_examples=1)
    final_norm = model.hf.model.norm if family == "gemma2" else model.hf.transformer.ln_f
    zero = torch.zeros(model.d_model)
    for layer, feature in ((0, 3), (1, 7), (2, 11), (3, 5)):
        written = clt.W_dec[layer][feature].sum(0)
        with_it, without = (model.hf.lm_head(final_norm(stream)) for stream in (written, zero))
        row = store.features.query("layer == @layer and feature == @feature").iloc[0]
        assert row["promotes"][0] == model.tokens((with_it - without).argmax()[None])[0]


def test_a_card_shows_different_tokens_before_the_same_one_again(setting):
    _, _, store = setting
    rows = [
        (0, 0, "top", i, [word, "x"], [a, 0.0], 0) for i, (word, a) in enumerate([("A", 3.0), ("A", 2.0), ("B", 1.0)])
    ]
    table = pd.DataFrame(rows, columns=store.examples.columns)
    shown = ik.FeatureStore(store.features, table).card(0, 0)["examples"]
    assert [e["tokens"][0] for e in shown] == ["A", "B", "A"]


def test_save_and_load(setting, tmp_path):
    _, _, store = setting
    store.save(tmp_path / "f")
    back = ik.load_features(tmp_path / "f")
    assert back.card(0, 1) == store.card(0, 1) and len(back.examples) == len(store.examples)
    with pytest.raises(FileNotFoundError, match="pocket"):
        ik.load_features(tmp_path / "none")
    path = tmp_path / "f" / "examples.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="damaged"):
        ik.load_features(tmp_path / "f")


def examples(*rows):
    """(tokens, peak, activation) -> a table of examples."""
    lines = [(tokens, [a if i == peak else 0.0 for i in range(len(tokens))], peak) for tokens, peak, a in rows]
    return pd.DataFrame(lines, columns=["tokens", "activations", "peak"])


def label_of(*rows):
    usual = {"is": 0.9, "in": 0.5, "the": 0.9, "capital": 0.1, "Texas": 0.01, "Austin": 0.01, "TX": 0.01}
    return Evidence(examples(*rows), usual).label()


def test_labels_follow_the_evidence():
    dallas = (["in", " Dallas", " is"], 1, 1.0)
    assert label_of(dallas, dallas)[0] == "Dallas"
    assert label_of(*[(["the", " is", " Austin"], 1, 1.0)] * 3)[0] == "say Austin"
    after = [(["the", " capital", " is", answer], 2, 1.0) for answer in ("Austin", "Paris", "Rome")]
    assert label_of(*after)[0] == "capital … is"
    plain = [(["the", " is", answer], 1, 1.0) for answer in ("Austin", "Paris", "Rome")]
    assert label_of(*plain)[0] == "is"


def test_what_ties_several_words_together_names_them():
    cities = [([city, "in", " Texas"], 0, a) for city, a in ((" Dallas", 3.0), (" Waco", 2.0), (" Plano", 1.0))]
    label, evidence = label_of(*cities)
    assert label == "Texas"
    assert evidence == "fires on Dallas 50%, Waco 33%, Plano 17%; its texts have Texas 100%"
    both = [
        ([city, "in", " Texas", answer], 0, 1.0) for city in ("Dallas", "Waco", "Plano") for answer in ("Austin", "TX")
    ]
    assert label_of(*both)[0] == "Austin / TX / Texas"
    unrelated = [([word, "is"], 0, a) for word, a in ((" Dallas", 3.0), (" Nice", 2.0), (" 46", 1.0))]
    assert label_of(*unrelated)[0] == "Dallas / Nice / 46"


def test_a_token_is_as_frequent_as_the_texts_that_hold_it():
    table = examples((["the", " is"], 0, 1.0), (["the", " is"], 1, 1.0), (["the", " the"], 1, 1.0))
    assert token_frequency(table) == {"the": 1.0, "is": 0.5}


def test_sampled_examples_fire_and_are_as_many_as_the_strongest(setting):
    _, _, store = setting
    top, drawn = (store.examples.query(f"group == '{group}'") for group in ("top", "sample"))
    assert all(e.activations[e.peak] > 0 for e in drawn.itertuples())
    assert len(drawn) == len(top) > 0  # both are capped by the same number of texts that fire


def test_every_live_feature_gets_a_label(setting):
    _, _, store = setting
    labels = ik.label_features(store)
    live = store.features[store.features["density"] > 0]
    assert len(labels) == len(live) and labels["label"].str.len().min() > 0
