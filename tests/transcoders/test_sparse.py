"""Sparse products against dense ones, and the training step against autograd through the module itself."""

import pytest
import torch
from tiny import tiny_model

from interp_kit.text.rows import TextRows
from interp_kit.transcoders import TranscoderConfig
from interp_kit.transcoders.sparse import features_where, joined, top_features
from interp_kit.transcoders.training import jumprelu, selection
from interp_kit.transcoders.training import trainer as trainer_module
from interp_kit.transcoders.training.config import TrainingConfig
from interp_kit.transcoders.training.parallel import Processes
from interp_kit.transcoders.training.stream import ActivationStream, Batch
from interp_kit.transcoders.training.trainer import Trainer
from interp_kit.transcoders.training.weights import Scales

TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state the capital of Ohio is a city ."] * 20


@pytest.mark.parametrize("on", [torch.rand(7, 5) > 0.6, torch.zeros(7, 5) > 0, torch.rand(1, 1) >= 0])
def test_products_equal_the_dense_ones(on):
    active = features_where(on)
    n, f = on.shape
    a, b, values = torch.randn(n, 3), torch.randn(f, 3), torch.randn(len(active))
    dense = torch.zeros(n, f)
    dense[active.tokens, active.features] = values
    torch.testing.assert_close(active.dots(a, b), (b @ a.T)[on.T])  # feature by feature, as the pairs are
    torch.testing.assert_close(active.decode(values, b), dense @ b)
    torch.testing.assert_close(active.gather(values, a), dense.T @ a)


@pytest.mark.parametrize("n", [1, 3])
def test_layers_joined_are_one_wide_layer(n):
    """Also where a token has no features, and a layer none."""
    on = [torch.rand(7, 5) > share for share in (0.6, 0.8, 1.0)[:n]]
    whole, wide = joined([features_where(one) for one in on]), torch.cat(on, 1)
    dense, values = torch.zeros(7, 5 * n), torch.randn(len(whole))
    dense.T[wide.T] = values
    a, b = torch.randn(7, 3), torch.randn(5 * n, 3)
    torch.testing.assert_close(whole.dots(a, b), (b @ a.T)[wide.T])
    torch.testing.assert_close(whole.decode(values, b), dense @ b)
    torch.testing.assert_close(whole.gather(values, a), dense.T @ a)


def test_top_features_are_the_largest_positive_ones():
    pre = torch.tensor([[1.0, -1.0, 3.0, 2.0], [-1.0, -2.0, 0.5, -3.0], [-1.0, -1.0, -1.0, -1.0]])
    active = top_features(pre, 2)
    assert set(zip(active.tokens.tolist(), active.features.tolist(), strict=True)) == {(0, 2), (0, 3), (1, 2)}


@pytest.fixture(scope="module")
def stream():
    model = tiny_model()
    return ActivationStream(model.hf, TextRows(model, TEXTS), transcoder(), 32, 1e6)


def transcoder(activation="topk", span=4):
    return TranscoderConfig(16, 48, [0, 1, 2, 3], span, "topk" if activation == "topk" else "jumprelu", k=5)


def trainer(stream, activation="topk", span=4, sparsity=0.0, dtype=torch.float32, first=None):
    first = first or stream.first_block()
    config = TrainingConfig(
        n_features=48,
        activation=activation,
        k=5,
        sparsity=sparsity,
        steps=10,
        learning_rate=1e-3,
        batch=len(first[2].places),
    )
    made = Trainer(config, transcoder(activation, span), stream, Processes("data", torch.device("cpu")))
    made.selection.dtype = dtype
    made.normalise(*first)
    for weights in made.weights.W_dec:
        weights.data.normal_(generator=torch.Generator().manual_seed(1))
    return made


@pytest.mark.parametrize("span", [1, 2, 4])
@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu"])
def test_a_step_equals_autograd_through_the_module(stream, activation, span, monkeypatch):
    """Gradients of the loss, 1 / (tokens * d_model) times the squared error summed over layers."""
    made = trainer(stream, activation, span)
    monkeypatch.setattr(selection, "THRESHOLD_EMA_RATE", 0.0)
    monkeypatch.setattr(trainer_module, "MAX_GRAD_NORM", 1e9)
    batch = next(stream.batches())
    grads = gradients(made, batch)
    x, y = batch.x * made.scales.x, (batch.y - made.scales.mean) * made.scales.y
    clt = normalised(made).requires_grad_(True)
    clt.threshold.requires_grad_(made.dense)
    features = clt.encode(x)
    if activation == "jumprelu":
        features = jumprelu.JumpReLU.apply(clt.preactivations(x), clt.threshold)
    loss = (clt.decode(features) - y).pow(2).sum() / (32 * 16)
    loss.backward()
    wanted = {"b_enc": clt.b_enc.grad, "b_dec": clt.b_dec.grad} | (
        {"threshold": clt.threshold.grad} if made.dense else {}
    )
    for i in range(4):
        wanted[f"W_enc.{i}"] = clt.W_enc.grad[i]
        wanted[f"W_dec.{i}"] = torch.stack([clt.W_dec[s].grad[:, i - s] for s in made.weights.sources(i)])
    assert wanted.keys() == grads.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(grads[name], gradient, rtol=1e-3, atol=1e-5)


def normalised(made):
    """The transcoder as it is trained: of scaled inputs and outputs."""
    return made.weights.folded(Scales(4, 16, torch.device("cpu")))


def gradients(made, batch):
    """Those of one step, which then changes nothing."""
    grads = {}
    made.optimizer.step = lambda: grads.update({name: weights.grad.clone() for name, weights in parameters(made)})
    made.step(batch)
    return grads


def parameters(made):
    names = [*made.weights.named_parameters()]
    return names + ([("threshold", made.weights.threshold)] if made.dense else [])


def test_bfloat16_changes_gradients_little(stream):
    batch = next(stream.batches())
    exact, fast = (gradients(trainer(stream, dtype=dtype), batch) for dtype in (torch.float32, torch.bfloat16))
    for name in exact:
        assert fast[name].dtype == torch.float32
        assert (fast[name] - exact[name]).norm() < 0.1 * exact[name].norm()


def test_selecting_in_bfloat16_changes_little(stream):
    batch = next(stream.batches())
    chosen = []
    for dtype in (torch.float32, torch.bfloat16):
        made = trainer(stream, dtype=dtype)
        pre = made.selection.preactivations(0, batch.x[0] * made.scales.x[0])
        assert pre.dtype == dtype
        pairs = made.selection.active(0, pre)
        chosen.append(set(zip(pairs.tokens.tolist(), pairs.features.tolist(), strict=True)))
    assert len(chosen[0] & chosen[1]) > 0.95 * len(chosen[0])


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "jumprelu"])
def test_folding_the_scales_changes_no_output(stream, activation):
    made = trainer(stream, activation)
    made.weights.threshold.data *= 1.01  # off the very pre-activation at which it starts, where rounding decides
    x = stream.buffer.x
    normalised_out = normalised(made)(x * made.scales.x) / made.scales.y + made.scales.mean
    torch.testing.assert_close(made.finished()(x), normalised_out, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
def test_loss_and_penalty_do_not_depend_on_the_size_of_the_batch(stream, activation):
    """The same tokens twice over are the same mean: the same gradients, the same line of history."""
    batch = next(stream.batches())
    twice = Batch(9, batch.x.repeat(1, 2, 1), batch.y.repeat(1, 2, 1), torch.arange(64))
    results = []
    for some in (batch._replace(step=9), twice):
        made = trainer(stream, activation, sparsity=3.0, first=(*stream.first_block()[:2], some))
        grads = gradients(made, some)
        results.append((grads, made.history[-1]))
    for name in results[0][0]:
        torch.testing.assert_close(results[0][0][name], results[1][0][name], rtol=1e-3, atol=1e-5)
    for name in ("loss", "NMSE", "L0"):
        assert results[0][1][name] == pytest.approx(results[1][1][name], rel=1e-4)


def test_one_threshold_lets_k_features_through_on_average_over_layers(stream):
    made = trainer(stream, "batchtopk")
    made.weights.W_enc[1].data *= 2  # a layer with larger pre-activations claims more
    batch = next(stream.batches())
    made.normalise(*stream.first_block())
    x = batch.x * made.scales.x
    on = [len(made.selection.active(i, made.selection.preactivations(i, x[i]))) / x.shape[1] for i in range(4)]
    assert len(made.weights.threshold.unique()) == 1
    assert sum(on) / 4 == pytest.approx(5, abs=0.2) and on[1] > 5 > min(on)


def test_the_threshold_follows_the_batches(stream):
    made = trainer(stream, "batchtopk")
    batch = next(stream.batches())
    made.weights.threshold[:] = 0.0
    for step in range(3):
        made._pass(batch._replace(step=step)).forward()
    target = trainer(stream, "batchtopk").weights.threshold
    torch.testing.assert_close(made.weights.threshold, (1 - 0.7**3) * target, rtol=1e-3, atol=1e-4)


def test_scales_bring_norms_to_the_root_of_d_model(stream):
    made = trainer(stream)
    x, y = stream.buffer.x, stream.buffer.y
    norms = (x * made.scales.x).norm(dim=-1).mean(1)
    spread = ((y - made.scales.mean) * made.scales.y).pow(2).sum(-1).mean(1)
    torch.testing.assert_close(norms, torch.full((4,), 4.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(spread, torch.full((4,), 16.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(y.mean(1), made.scales.mean[:, 0], rtol=1e-3, atol=1e-5)


# ---------------------------------------------------------------- JumpReLU


def test_the_gradient_of_the_threshold_is_the_written_formula():
    """-theta / width within the window around theta where pre is positive, 0 outside; as a ramp would give pre."""
    pre = torch.tensor([[[-0.3, 0.05, 0.4, 0.69, 0.8, 3.0]]], requires_grad=True)
    threshold = torch.full((1, 6), 0.2, requires_grad=True)
    out = jumprelu.JumpReLU.apply(pre, threshold)
    torch.testing.assert_close(out, torch.tensor([[[0, 0, 0.4, 0.69, 0.8, 3.0]]]))
    upstream = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]])
    out.backward(upstream)
    window = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 0.0])  # width 1: |pre - 0.2| < 0.5 and pre > 0
    torch.testing.assert_close(threshold.grad, -0.2 * (window * upstream[0]))
    on = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(pre.grad, upstream * (on + 0.2 * window))


def test_the_penalty_is_the_papers_formula():
    """Sum over features of tanh(c * norm of all decoder rows together * activation), mean over tokens."""
    activations = torch.rand(2, 3, 4) * (torch.rand(2, 3, 4) > 0.5)
    decoders = [torch.randn(4, 2, 5), torch.randn(4, 1, 5)]
    wanted = 0.0
    for layer in range(2):
        for token in range(3):
            for feature in range(4):
                norm = sum(row.pow(2).sum() for row in decoders[layer][feature]) ** 0.5
                wanted += torch.tanh(4.0 * norm * activations[layer, token, feature]) / 3
    torch.testing.assert_close(jumprelu.penalty(activations, decoders), wanted)


def test_the_penalty_shrinks_decoders_too():
    activations, decoders = torch.ones(1, 1, 1) * 0.1, [torch.ones(1, 1, 3, requires_grad=True)]
    jumprelu.penalty(activations, decoders).backward()
    assert (decoders[0].grad > 0).all()


def test_the_penalty_has_a_gradient_where_decoders_are_zero():
    activations, decoders = torch.ones(1, 2, 3, requires_grad=True), [torch.zeros(3, 1, 5, requires_grad=True)]
    jumprelu.penalty(activations, decoders).backward()
    assert decoders[0].grad.isfinite().all() and activations.grad.isfinite().all()
