from itertools import permutations

import pytest
import torch
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.models.families import anatomy
from interp_kit.transcoders.replacement import replaced_mlps

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city"] * 4


def perfect(model, texts):
    """A per-layer transcoder that rebuilds exactly: one always-on feature would not do, so make the MLPs constant."""
    for block in anatomy(model.hf).blocks:
        block.mlp.forward = lambda x: torch.ones_like(x) * 0.3
    clt = tiny_transcoder(model, span=1)
    for weights in clt.W_dec:
        weights.data.zero_()
    clt.b_dec.data.fill_(0.3)
    return clt


def test_a_perfect_transcoder_changes_no_prediction():
    model = tiny_model()
    summary = ik.evaluate_transcoder(model, perfect(model, TEXTS), TEXTS).summary
    assert summary["top-1"] == 1 and abs(summary["KL"]) < 1e-6
    assert abs(summary["loss"] - summary["replacement loss"]) < 1e-5


def test_numbers_against_their_definitions():
    model = tiny_model()
    clt = tiny_transcoder(model)
    text = "the capital of Texas is"
    report = ik.evaluate_transcoder(model, clt, [text])
    from interp_kit.models.frozen.model import FrozenModel

    frozen = FrozenModel(model, text)
    features = clt.encode(frozen.mlp_in)
    y = frozen.mlp_out
    nmse = (y - clt.decode(features)).pow(2).sum((1, 2)) / (y - y.mean(1, keepdim=True)).pow(2).sum((1, 2))
    torch.testing.assert_close(torch.tensor(report.layers["NMSE"].to_numpy()), nmse.double(), rtol=1e-4, atol=1e-4)
    assert report.summary["L0"] == (features > 0).sum().item() / (4 * 6)
    never = torch.stack([(f == 0).all(0).double().mean() for f in features])
    torch.testing.assert_close(torch.tensor(report.layers["dead"].to_numpy()), never)
    ids = frozen.ids
    own = frozen.logits.log_softmax(-1)[:-1].gather(1, ids[1:, None]).mean()
    assert abs(report.summary["loss"] + own.item()) < 1e-4


@pytest.mark.parametrize("case", [{}, {"skip": True}, {"span": 1, "skip": True}])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
def test_the_replacement_computes_features_from_its_own_stream(family, case):
    """Layer by layer by hand: errors of one layer reach the next layer's features."""
    model = tiny_model(family)
    clt = tiny_transcoder(model, **case)
    ids, blocks = model.encode("the capital of Texas is")[None], anatomy(model.hf).blocks
    seen, outputs = [], []
    handles = [b.mlp.register_forward_pre_hook(lambda _, a: seen.append(a[0][0])) for b in blocks]
    with torch.no_grad(), replaced_mlps(model.hf, clt):
        for block in blocks:
            last = block.layer.post_feedforward_layernorm if family == "gemma2" else block.mlp
            handles.append(last.register_forward_hook(lambda _, a, out: outputs.append(out[0])))
        model.hf(input_ids=ids)
    for handle in handles:
        handle.remove()
    x = torch.stack(seen)
    wanted = clt.decode(clt.encode(x), x)
    torch.testing.assert_close(torch.stack(outputs), wanted, rtol=1e-4, atol=1e-4)


def test_hooks_are_gone_after():
    model = tiny_model()
    before = model.logits("Dallas is")
    ik.evaluate_transcoder(model, tiny_transcoder(model), TEXTS)
    assert torch.equal(before, model.logits("Dallas is"))


def linear(model):
    """The model with MLPs that are affine maps of their own."""
    maps = torch.randn(4, 16, 16) / 8
    for block, weights in zip(anatomy(model.hf).blocks, maps, strict=True):
        block.mlp.forward = lambda x, weights=weights: x @ weights + 0.1
    return model


def test_the_affine_map_is_perfect_where_mlps_are_affine():
    model = linear(tiny_model())
    texts = [" ".join(words) for words in permutations("Texas Ohio is a city".split(), 4)]
    baselines = ik.evaluate_transcoder(model, tiny_transcoder(model), texts).baselines
    assert baselines.loc["affine map", "NMSE"] < 1e-4 and baselines.loc["affine map", "top-1"] > 0.99
    assert baselines.loc["mean output", "NMSE"] == pytest.approx(1, abs=0.1)
    assert baselines.loc["transcoder", "NMSE"] > 0.1


def test_baselines_are_measured_on_texts_they_were_not_fitted_on():
    """Two texts without a common word: a map fitted on one says nothing of the other."""
    model = tiny_model()
    report = ik.evaluate_transcoder(model, tiny_transcoder(model), ["Texas Austin Texas", "Ohio city Dallas"])
    assert report.layers["NMSE of an affine map"].min() > 0.3


def test_a_single_text_can_be_evaluated():
    model = tiny_model()
    baselines = ik.evaluate_transcoder(model, tiny_transcoder(model), ["the capital of Texas is"]).baselines
    assert baselines.notna().all(axis=None)


def test_features_on_add_up_over_layers():
    model = tiny_model()
    clt = tiny_transcoder(model)
    report = ik.evaluate_transcoder(model, clt, TEXTS)
    on = sum((clt.encode(x) != 0).sum().item() for x in inputs(model, TEXTS))
    assert report.layers["L0"].sum() * report.summary["tokens"] == pytest.approx(on)
    assert report.summary["L0"] == pytest.approx(report.layers["L0"].mean())


def inputs(model, texts):
    from interp_kit.models.frozen.model import FrozenModel

    return [FrozenModel(model, text).mlp_in for text in texts]


def test_the_error_of_a_map_follows_from_the_sums():
    from interp_kit.transcoders.baselines import LeastSquares

    x, y, a, b = torch.randn(2, 9, 3), torch.randn(2, 9, 3), torch.randn(2, 3, 3).double(), torch.randn(2, 3).double()
    sums = LeastSquares(2, 3)
    sums.add(x[:, :5], y[:, :5])
    sums.add(x[:, 5:], y[:, 5:])
    wanted = (x.double() @ a.mT + b[:, None] - y.double()).pow(2).sum((1, 2))
    found = torch.tensor([sums.error(layer, a[layer], b[layer]) for layer in range(2)], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_affine_map_is_found_and_its_ridge_is_chosen_on_the_other_half():
    from interp_kit.transcoders.baselines import RIDGE_SHARES, LeastSquares

    x, a, b = torch.randn(2, 400, 3).double(), torch.randn(2, 3, 3).double(), torch.randn(2, 3).double()
    y = x @ a.mT + b[:, None]
    first, second, noise = LeastSquares(2, 3), LeastSquares(2, 3), torch.randn(400, 3).double()
    first.add(x[:, :200], y[:, :200])
    second.add(x[:, 200:], y[:, 200:])
    maps, biases, mean = first.fit(second)
    torch.testing.assert_close((maps, biases), (a, b), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(mean, y[:, :200].mean(1))
    few = LeastSquares(1, 3)  # three tokens: the less it believes them, the better it does on the others
    few.add(x[:1, :3], noise[None, :3])
    others = LeastSquares(1, 3)
    others.add(x[:1, 200:], noise[None, 200:])
    chosen = few.fit(others)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp_kit.transcoders.baselines.RIDGE_SHARES", RIDGE_SHARES[:1])
        least = few.fit(others)
    assert others.error(0, chosen[0][0], chosen[1][0]) < others.error(0, least[0][0], least[1][0])


def test_baselines_can_be_left_out():
    model = tiny_model()
    whole, alone = (ik.evaluate_transcoder(model, tiny_transcoder(model), TEXTS, baselines=b) for b in (True, False))
    assert alone.baselines.index.tolist() == ["transcoder"] and alone.summary.equals(whole.summary)


def test_what_cannot_be_evaluated():
    model = tiny_model()
    with pytest.raises(ValueError, match="no text to read"):
        ik.evaluate_transcoder(model, tiny_transcoder(model), [""])
    with pytest.raises(ValueError, match="d_model 16"):
        ik.evaluate_transcoder(tiny_model(hidden_size=32, head_dim=8), tiny_transcoder(model), TEXTS)
