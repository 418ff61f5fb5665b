"""Training the pocket model, in miniature: the same seed gives the same weights, killed half-way or not."""

import pytest
from safetensors.torch import load_file

import interp_kit as ik
from recipes import pocket

TINY = pocket.Recipe(
    vocab_size=400, d_model=16, d_mlp=24, n_layers=3, n_heads=2, steps=6, batch=8, lookup_steps=2, lookup_layers=1
)


def trained(folder):
    pocket.train_pocket(ik.load_world(), folder / "model", TINY, folder / "checkpoint", every=2)
    return load_file(folder / "model" / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def test_a_killed_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole")
    real = pocket.rate

    def killed(step, recipe):
        if step == 5:  # a step after the last checkpoint
            raise SystemExit("killed")
        return real(step, recipe)

    monkeypatch.setattr(pocket, "rate", killed)
    with pytest.raises(SystemExit):
        trained(tmp_path / "killed")
    assert not (tmp_path / "killed" / "model").exists()
    monkeypatch.setattr(pocket, "rate", real)
    assert same(trained(tmp_path / "killed"), whole)


def test_the_embeddings_stay_random_and_the_rest_learns(tmp_path, monkeypatch):
    after = trained(tmp_path)
    world = ik.load_world()
    pocket.torch.manual_seed(TINY.seed)
    before = pocket.new_model(pocket.train_tokenizer(world, TINY), TINY).half().state_dict()
    assert after["model.embed_tokens.weight"].equal(before["model.embed_tokens.weight"])
    assert not after["model.layers.0.mlp.up_proj.weight"].equal(before["model.layers.0.mlp.up_proj.weight"])
    assert not any("lookup" in name for name in after)  # the readout is thrown away
