"""The feature store: one pass over text, told against the same computed text by text."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.features.collect import WINDOW_TOKENS
from interp_kit.models.frozen.model import FrozenModel

TEXTS = tiny_texts()


def exact(model, clt, text):
    """[layer, position, feature] without the begin-of-text token."""
    return clt.encode(FrozenModel(model, text).mlp_in)[:, 1:]


@pytest.fixture(scope="module")
def setting():
    model = tiny_model()
    clt = tiny_transcoder(model)
    return model, clt, ik.collect_features(model, clt, TEXTS, n_examples=4)


def test_top_examples_are_the_strongest_of_those_not_kept_aside(setting):
    model, clt, store = setting
    by_text = {text: exact(model, clt, text) for text in TEXTS}
    aside = {
        "".join(t)
        for t in store.examples.query("group in ('held_out', 'non_activating', 'hard_negative')")["tokens"].map("".join)
    }
    usable = [a for text, a in by_text.items() if "".join(model.tokens(text)[1:]) not in aside]
    assert len(usable) < len(set(TEXTS))
    for layer, feature in itertools.product(range(4), range(20)):
        best = torch.stack([a[layer, :, feature].max() for a in usable]).sort(descending=True).values
        found = store.examples_of(layer, feature).query("group == 'top'")
        peaks = [e.activations[e.peak] for e in found.itertuples()]
        wanted = [v for v in best[:4].tolist() if v > 0]
        assert peaks == pytest.approx(wanted, rel=3e-3, abs=1e-4)


def test_an_example_has_the_activations_of_its_text(setting):
    model, clt, store = setting
    by_tokens = {tuple(model.tokens(text)[1:]): exact(model, clt, text) for text in TEXTS}
    for e in store.examples_of(2, 7).itertuples():
        wanted = by_tokens[tuple(e.tokens)][2, :, 7]
        torch.testing.assert_close(torch.tensor(e.activations), wanted, rtol=0, atol=3e-3 * float(wanted.max() + 1))
        assert e.peak == int(wanted.argmax())


def test_groups(setting):
    model, clt, store = setting
    examples = store.examples
    peaks = pd.Series([abs(e.activations[e.peak]) for e in examples.itertuples()])
    assert (peaks[examples["group"].isin(["top", "sample", "held_out"])] > 0).all()
    assert (peaks[examples["group"].isin(["non_activating", "hard_negative"])] == 0).all()
    for group in ("top", "sample", "held_out", "non_activating", "hard_negative"):
        assert (examples["group"] == group).sum() > 20
    assert examples.groupby(["layer", "feature", "group"]).size().max() == 4
    words = [word for text in TEXTS for word in model.tokens(text)[1:]]
    active = torch.cat([exact(model, clt, text) for text in TEXTS], 1)
    favourite = {(l, f): words[int(active[l, :, f].argmax())] for l in range(4) for f in range(20)}
    assert all(
        favourite[e.layer, e.feature] in e.tokens for e in examples.query("group == 'hard_negative'").itertuples()
    )


def test_no_text_is_on_both_sides(setting):
    """What labels may be made from and what tests them never share a text."""
    examples = setting[2].examples.assign(text=lambda e: e["tokens"].map(tuple))
    test = examples["group"].isin(["held_out", "non_activating", "hard_negative"])
    assert not set(examples["text"][test]) & set(examples["text"][~test])


def test_texts_of_some_groups(setting):
    store = setting[-1]
    examples = store.examples
    for groups in (["top", "sample"], ["held_out"]):
        wanted = {tuple(tokens) for tokens in examples.loc[examples["group"].isin(groups), "tokens"]}
        assert {tuple(tokens) for tokens in store.windows(groups)} == wanted


def test_counts(setting):
    model, clt, store = setting
    features = torch.cat([exact(model, clt, text) for text in TEXTS], 1)
    density = (features > 0).double().mean(1).flatten()
    torch.testing.assert_close(torch.tensor(store.features["density"].to_numpy()), density, rtol=1e-6, atol=1e-9)
    highest = features.amax(1).flatten()
    torch.testing.assert_close(torch.tensor(store.features["max_activation"].to_numpy()).float(), highest)
    for layer, feature in ((0, 1), (3, 9)):
        row, values = store.row(layer, feature), features[layer, :, feature]
        assert sum(row["log_histogram"]) == int((values > 0).sum())
        for i, n in enumerate(row["log_histogram"]):
            low, high = 2 ** ((i - 24) / 2), 2 ** ((i - 23) / 2)
            assert n == int(((values >= low) & (values < high)).sum()) or i in (0, 47)


def test_a_text_that_comes_again_is_one_example(setting):
    model, clt, _ = setting
    twice = ik.collect_features(model, clt, TEXTS * 2, n_examples=4)
    assert not twice.examples.assign(t=lambda e: e["tokens"].map(tuple)).duplicated(
        ["layer", "feature", "group", "t"]
    ).any()  # fmt: skip


def test_long_texts_are_cut_into_windows():
    model = tiny_model(max_position_embeddings=256)
    clt = tiny_transcoder(model)
    long = " ".join(tiny_texts(30))
    store = ik.collect_features(model, clt, [long], n_examples=3)
    sizes = store.examples["tokens"].map(len)
    assert sizes.max() == WINDOW_TOKENS and (store.examples["activations"].map(len) == sizes).all()
    text = "".join(model.tokens(long)[1:])
    assert all("".join(tokens) in text for tokens in store.examples["tokens"])


def test_memory_is_bounded_by_examples_not_by_text(setting, monkeypatch):
    from interp_kit.features import collect

    model, clt, store = setting
    monkeypatch.setattr(collect, "PRUNE_EVERY_WINDOWS", 10)
    kept = []
    prune = collect._Reader._prune
    monkeypatch.setattr(collect._Reader, "_prune", lambda self: (prune(self), kept.append(len(self.numbers))))
    stream = ({"text": text} for text in tiny_texts(4000, seed=1))
    pruned = ik.collect_features(model, clt, stream, n_examples=1)
    assert len(kept) > 5 and max(kept) <= 5 * len(store.features)
    assert len(pruned.features) == len(store.features)


def test_promoted_tokens(setting):
    model, clt, store = setting
    written = clt.W_dec[1][4].sum(0)
    effect = (model.hf.lm_head.weight * model.hf.model.norm.weight) @ written
    row = store.row(1, 4)
    assert row["top_logits"][0] == model.tokens(effect.topk(1).indices)[0]
    embedded = model.hf.model.layers[1].post_attention_layernorm(model.hf.model.embed_tokens.weight)
    assert row["top_embeddings"][0] == model.tokens((embedded @ clt.W_enc[1, 4]).topk(1).indices)[0]


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
        assert store.row(layer, feature)["top_logits"][0] == model.tokens((with_it - without).argmax()[None])[0]


def test_a_card_shows_different_tokens_before_the_same_one_again(setting):
    _, _, store = setting
    rows = [
        (0, 0, "top", i, [word, "x"], [a, 0.0], 0) for i, (word, a) in enumerate([("A", 3.0), ("A", 2.0), ("B", 1.0)])
    ]
    columns = ["layer", "feature", "group", "rank", "tokens", "activations", "peak"]
    shown = ik.FeatureStore(store.features, pd.DataFrame(rows, columns=columns)).card(0, 0)["examples"]
    assert [e["tokens"][0] for e in shown] == ["A", "B", "A"]


def test_save_and_load(setting, tmp_path):
    _, _, store = setting
    store.save(tmp_path / "f")
    back = ik.load_features(tmp_path / "f")
    assert back.card(0, 1) == store.card(0, 1)
    pd.testing.assert_frame_equal(back.examples, store.examples, check_dtype=False)
    pd.testing.assert_frame_equal(back.examples_of(3, 2), store.examples_of(3, 2), check_dtype=False)
    with pytest.raises(FileNotFoundError, match="pocket"):
        ik.load_features(tmp_path / "none")
    path = tmp_path / "f" / "examples_2.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="damaged"):
        ik.load_features(tmp_path / "f")


def test_labels_ship_with_a_store(setting, tmp_path):
    store = setting[2]
    labels = pd.concat([ik.label_features(store), ik.features.student_labels({(1, 4): "mine"})], ignore_index=True)
    store.save(tmp_path / "f", labels)
    back = ik.load_labels(tmp_path / "f")
    pd.testing.assert_frame_equal(back[:-1], labels[:-1], check_dtype=False)
    assert back["label"].iloc[-1] == "mine" and back["words"].iloc[-1] is None
    store.save(tmp_path / "g")
    with pytest.raises(FileNotFoundError, match="labels.parquet"):
        ik.load_labels(tmp_path / "g")


def test_examples_are_read_when_they_are_asked_for(setting, tmp_path, monkeypatch):
    from interp_kit.features import examples as module

    monkeypatch.setattr(module, "ROW_GROUP_SIZE", 7)
    setting[2].save(tmp_path / "f")
    back = ik.load_features(tmp_path / "f")
    read = []
    for layer, file in back._examples._layers.items():
        group = file._group
        monkeypatch.setattr(file, "_group", lambda i, layer=layer, group=group: read.append((layer, i)) or group(i))
    for feature in range(20):
        was = setting[2].examples_of(1, feature)
        pd.testing.assert_frame_equal(back.examples_of(1, feature), was, check_dtype=False)
        back.row(1, feature)
    assert {layer for layer, _ in read} == {1}
    read.clear()
    back.examples_of(2, 5)
    assert len(read) <= 4


def test_a_store_of_the_old_spelling_is_read_with_the_names_of_today():
    """old_store was written before version 0.2: columns highest, promotes, ...; groups held, silent, near."""
    folder = Path(__file__).parent / "old_store"
    old = pd.read_parquet(folder / "features.parquet")
    store = ik.load_features(folder)
    new = ["max_activation", "top_logits", "bottom_logits", "top_embeddings", "log_histogram"]
    assert list(store.features.columns) == ["layer", "feature", "density", *new]
    for now, was in zip(new, ["highest", "promotes", "suppresses", "promoted_by", "half_octaves"]):
        assert store.features[now].map(str).tolist() == old[was].map(str).tolist()
    was = pd.read_parquet(folder / "examples_1.parquet")["group"].astype(str)
    names = {"top": "top", "sample": "sample", "held": "held_out", "silent": "non_activating", "near": "hard_negative"}
    assert set(was) == set(names)
    assert store.examples["group"].tolist() == was.map(names).tolist()
    assert store.examples_of(1, 4)["group"].tolist() == was[: len(store.examples_of(1, 4))].map(names).tolist()
    held_out = store.examples.query("group == 'held_out'")["tokens"].map(tuple)
    assert {tuple(tokens) for tokens in store.windows(["held_out"])} == set(held_out)
    assert ik.score_labels(store, ik.load_labels(folder))["detection"].notna().all()


def test_further_columns_are_joined_by_feature(setting):
    store = setting[2]
    found = pd.DataFrame({"layer": [1, 0], "feature": [4, 2], "concept": ["place:Texas", "place:Ohio"], "F1": [0.9, 1]})
    joined = store.join(found)
    assert joined.card(1, 4)["concept"] == "place:Texas (F1 0.90)" and joined.card(0, 2)["concept"][:10] == "place:Ohio"
    assert joined.card(1, 5)["concept"] is None and store.card(1, 4)["concept"] is None
    pd.testing.assert_frame_equal(joined.examples_of(1, 4), store.examples_of(1, 4))
    with pytest.raises(ValueError):
        store.join(pd.concat([found, found]))


def test_no_text():
    model = tiny_model()
    with pytest.raises(ValueError, match="no text"):
        ik.collect_features(model, tiny_transcoder(model), [])
    with pytest.raises(ValueError, match="the transcoder and the model do not belong together"):
        ik.collect_features(tiny_model(seed=3), tiny_transcoder(model), TEXTS)


# ---------------------------------------------------------------- dictionaries


class Embedded:
    """A dictionary of one's own: feature f of layer 2 is the f-th number of the token's embedding."""

    layers, n_features_per_layer, is_signed, excludes_first_position = [2], [16], True, False

    def __init__(self, model):
        self.model = model

    def activations(self, ids):
        yield self.model.hf.get_input_embeddings()(ids)

    def encoder_directions(self, i):
        return torch.eye(16)

    decoder_directions = encoder_directions


def test_any_dictionary_is_looked_up():
    model = tiny_model()
    store = ik.collect_features(model, Embedded(model), TEXTS, n_examples=2)
    used = [model.token_id(word) for word in set(" ".join(TEXTS).split())]
    strength = model.hf.get_input_embeddings().weight[used].abs()
    assert store.features["max_activation"].tolist() == pytest.approx(strength.amax(0).tolist())
    assert store.features["layer"].unique().tolist() == [2]


def test_what_is_no_dictionary_of_this_model():
    model = tiny_model()
    with pytest.raises(ValueError, match="Neurons belongs to 'tiny-llama'"):
        ik.collect_features(tiny_model(seed=3), ik.features.Neurons(model), TEXTS)
    with pytest.raises(TypeError, match="expected a transcoder, .* got LanguageModel"):
        ik.collect_features(model, model, TEXTS)


# ---------------------------------------------------------------- neurons


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_neurons_are_what_the_last_projection_reads(family):
    model = tiny_model(family)
    neurons = ik.features.Neurons(model, [1, 3])
    store = ik.collect_features(model, neurons, TEXTS, n_examples=3)
    ids = model.encode(TEXTS[0])[None]
    caught = {}
    blocks = model.hf.get_decoder()
    mlps = [layer.mlp for layer in (blocks.h if family == "gpt2" else blocks.layers)]
    for layer in (1, 3):
        mlps[layer].register_forward_hook(lambda _, args, out, layer=layer: caught.update({layer: (args[0], out)}))
    active = list(neurons.activations(ids))
    for i, layer in enumerate((1, 3)):
        bias = {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h"}.get(family)
        rebuilt = active[i] @ neurons.decoder_directions(i)
        rebuilt = rebuilt + (getattr(mlps[layer], bias).bias if bias else 0)
        torch.testing.assert_close(rebuilt, caught[layer][1], rtol=1e-4, atol=1e-5)
    assert sorted(store.features["layer"].unique()) == [1, 3]
    strongest = max(
        float(a[0, 1:, 5].abs().max())
        for text in TEXTS
        for a in [list(neurons.activations(model.encode(text)[None]))[1]]
    )
    assert store.row(3, 5)["max_activation"] == pytest.approx(strongest, rel=1e-5)


def test_a_neurons_card():
    model = tiny_model()
    card = ik.features.neuron_examples(model, 2, 6, TEXTS)
    assert "layer 2, feature 6" in card._repr_html_()
    with pytest.raises(ValueError, match="0 to 23"):
        ik.features.neuron_examples(model, 2, 24, TEXTS)
