"""The stream: the model's own activations, shuffled in a bounded buffer, the same whoever reads them."""

import random

import pytest
import torch
from tiny import tiny_model

import interp_kit.transcoders.training.stream as module
from interp_kit.models.families import mlp_activations
from interp_kit.text.batches import pad
from interp_kit.text.rows import TextRows, encode_texts
from interp_kit.transcoders import TranscoderConfig
from interp_kit.transcoders.training.stream import ActivationStream, first_position_is_massive, read_activations

WORDS = "the capital of Texas is Austin Dallas a city Ohio state".split()
RNG = random.Random(0)
TEXTS = [" ".join(RNG.choices(WORDS, k=RNG.randint(5, 12))) for _ in range(40)]  # hardly a beginning twice
PER_TOKEN = 2 * 4 * 16 * 4  # x and y, layers, d_model, float32


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def transcoder(layers=(0, 1, 2, 3), **changes):
    return TranscoderConfig(16, 48, list(layers), span=1, **changes)


def stream(model, texts=TEXTS, memory=1e6, batch=16, share=(0, 1)):
    return ActivationStream(model.hf, TextRows(model, texts), transcoder(), batch, memory, share)


def calls_of(monkeypatch, name):
    """A list that grows with the calls of a function of the module."""
    calls, real = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: calls.append(arguments) or real(*arguments))
    return calls


def first(batches, n):
    return [batch for batch, _ in zip(batches, range(n), strict=False)]


def test_activations_are_the_models_own_without_padding(model):
    rows = encode_texts(model, TEXTS[:7])
    for skip in (False, True):
        x, y = read_activations(model.hf, rows, transcoder([0, 2], excludes_first_position=skip))
        done = 0
        for row in rows:
            ax, ay = mlp_activations(model.hf, torch.tensor([row]), "mlp.hook_in", [0, 2])
            here = slice(done, done := done + len(row) - skip)
            torch.testing.assert_close(x[:, here], ax[:, 0, skip:], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(y[:, here], ay[:, 0, skip:], rtol=1e-4, atol=1e-5)
        assert x.shape[1] == done


def test_mlp_output_is_what_the_mlp_makes_of_its_input(model):
    ids, _ = pad(encode_texts(model, TEXTS[:2]))
    x, y = mlp_activations(model.hf, ids, "mlp.hook_in", [0, 1, 2, 3])
    for layer, block in enumerate(model.hf.model.layers):
        torch.testing.assert_close(block.mlp(x[layer]), y[layer])
    mid, _ = mlp_activations(model.hf, ids, "hook_resid_mid", [0, 1, 2, 3])
    torch.testing.assert_close(model.hf.model.layers[2].post_attention_layernorm(mid[2]), x[2])


def test_the_buffer_is_bounded_and_every_token_is_used_once(model):
    some = stream(model, memory=70 * PER_TOKEN)
    assert some.size == 64
    seen = []
    for batch in first(some.batches(), 8):
        assert batch.x.shape == batch.y.shape == (4, 16, 16)
        assert some.buffer.x.shape[1] < 64 + 16  # the block, and the rest of its last row
        seen.append(batch.x[3])
    buffers = torch.cat(seen).view(2, 64, 16)
    assert all(len(buffer.unique(dim=0)) > 40 for buffer in buffers)


def test_tokens_of_a_buffer_are_shuffled_together(model):
    some = stream(model, batch=32)
    batch = next(some.batches())
    x = some.buffer.x
    place = torch.cdist(batch.x[3], x[3]).argmin(1)
    assert place.max() - place.min() > x.shape[1] / 2
    assert not torch.equal(place, place.sort().values)


def test_a_later_start_gives_the_same_batches(model):
    whole = first(stream(model, memory=70 * PER_TOKEN).batches(), 20)
    later = first(stream(model, memory=70 * PER_TOKEN).batches(start=13), 7)
    assert [batch.step for batch in later] == list(range(13, 20))
    for a, b in zip(whole[13:], later, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)


def test_a_later_start_does_not_run_the_model_on_what_it_passes_over(model, monkeypatch):
    read = calls_of(monkeypatch, "read_activations")
    next(stream(model, memory=70 * PER_TOKEN).batches(start=13))
    assert len(read) == 1


def test_text_that_fits_into_the_buffer_is_read_once(model, monkeypatch):
    some, read = stream(model), calls_of(monkeypatch, "read_activations")
    some.first_block()
    batches = first(some.batches(), 60)
    assert len(read) == 1
    epoch = some.buffer.x.shape[1] // 16
    assert not torch.equal(batches[0].x, batches[epoch].x)  # another shuffle in each


@pytest.mark.parametrize("n", [2, 3])
def test_processes_share_each_batch(model, n):
    """The shares' tokens, put in their places, are the batch of a single process."""
    whole = first(stream(model, memory=70 * PER_TOKEN).batches(), 9)
    shares = [first(stream(model, memory=70 * PER_TOKEN, share=(i, n)).batches(), 9) for i in range(n)]
    for batch, *parts in zip(whole, *shares, strict=True):
        together = torch.full_like(batch.x, torch.nan)
        for part in parts:
            together[:, part.places] = part.x
        torch.testing.assert_close(together, batch.x, rtol=1e-4, atol=1e-5)


def test_a_generator_ends(model):
    batches = list(stream(model, iter(TEXTS), memory=70 * PER_TOKEN).batches())
    assert [batch.step for batch in batches] == list(range(len(batches)))
    assert len(batches) * 16 <= sum(len(row) for row in encode_texts(model, TEXTS))


def test_too_little_text_for_a_batch_is_read_again_and_again(model):
    assert len(first(stream(model, TEXTS[:1], batch=64).batches(), 3)) == 3


@pytest.mark.parametrize("given_as", [list, iter])
def test_the_first_block_is_offered_and_not_used_up(model, given_as):
    whole = first(stream(model, given_as(TEXTS), memory=70 * PER_TOKEN).batches(), 9)
    some = stream(model, given_as(TEXTS), memory=70 * PER_TOKEN)
    x, y, batch = some.first_block()
    assert x.shape[1] == y.shape[1] >= 64
    assert x is some.buffer.x and y is some.buffer.y
    for a, b in zip(whole, [batch, *first(some.batches(), 9)[1:]], strict=True):
        assert a.step == b.step and torch.equal(a.x, b.x) and torch.equal(a.y, b.y)


def test_a_massive_first_position_is_found(model):
    assert not first_position_is_massive(model.hf, TextRows(model, TEXTS), transcoder())
    massive = tiny_model()
    real = massive.hf.model.layers[1].mlp.forward
    massive.hf.model.layers[1].mlp.forward = lambda x: torch.cat([real(x)[:, :1] + 100, real(x)[:, 1:]], 1)
    assert first_position_is_massive(massive.hf, TextRows(massive, TEXTS), transcoder())
