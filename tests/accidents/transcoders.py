"""The readers of transcoders and checkpoints, for `readers.py`: a small good example of each format."""

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.storage.checkpoint import load_checkpoint, save_checkpoint
from interp_kit.transcoders.folder import save_transcoder

from . import Reader, kept

D, F, L = 6, 10, 2
HOOKS = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}
GEMMA_HOOKS = {
    "hf_hook_point_in": "model.layers.0.pre_feedforward_layernorm.output",
    "hf_hook_point_out": "model.layers.0.post_feedforward_layernorm.output",
}


def use(folder: Path) -> torch.Tensor:
    """Encodes a small input and rebuilds what it stands for."""
    clt = ik.load_transcoder(folder)
    x = torch.ones(len(clt.layers), 3, clt.config.d_model)
    return torch.cat([clt.encode(x).flatten(), clt(x).flatten()])


def tensors(**shapes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).abs() for name, shape in shapes.items()}


def ours(dtype=None, **changes):
    """`transcoder.save`, with int8 rows or without."""

    def write(folder: Path) -> None:
        save_transcoder(tiny_transcoder(tiny_model(), n_features=F, **changes), folder, dtype)

    return write


def circuit_tracer(kind: str, skip: bool):
    def write(folder: Path) -> None:
        (folder / "config.yaml").write_text(yaml.safe_dump({"model_kind": kind, "model_name": "tiny"} | HOOKS))
        for i in range(L):
            t = tensors(W_enc=(F, D), b_enc=F, b_dec=D) | (tensors(W_skip=(D, D)) if skip else {})
            if kind == "transcoder_set":
                more = tensors(W_dec=(F, D), **{"activation_function.threshold": F})
                save_file(t | more, folder / f"layer_{i}.safetensors")
            else:
                t |= tensors(threshold=F)
                save_file({f"{name}_{i}": v for name, v in t.items()}, folder / f"W_enc_{i}.safetensors")
                save_file({f"W_dec_{i}": torch.randn(F, L - i, D)}, folder / f"W_dec_{i}.safetensors")

    return write


def listed(folder: Path) -> None:
    """`transcoders` of config.yaml names the files."""
    circuit_tracer("transcoder_set", False)(folder)
    about = yaml.safe_load((folder / "config.yaml").read_text())
    files = [f"layer_{i}.safetensors" for i in range(L)]
    (folder / "config.yaml").write_text(yaml.safe_dump(about | {"transcoders": files}))


def sparsify(cross_layer: bool):
    def write(folder: Path) -> None:
        for i in range(L):
            place = folder / f"layers.{i}.mlp"
            place.mkdir(parents=True)
            about = {"activation": "topk", "k": 3, "transcode": True, "skip_connection": True, "d_in": D}
            rows, more = F, {}
            if cross_layer:
                about |= {"normalize_io": True, "coalesce_topk": "per-layer", "n_sources": i + 1, "n_targets": L - i}
                rows, more = F * (i + 1), tensors(in_norm=1, out_norm=1)
            shapes = {"encoder.weight": (F, D), "encoder.bias": F, "W_dec": (rows, D), "b_dec": D, "W_skip": (D, D)}
            save_file(tensors(**shapes) | more, place / "sae.safetensors")
            (place / "cfg.json").write_text(json.dumps(about))

    return write


def saelens(folder: Path) -> None:
    for i in range(L):
        place = folder / f"layer_{i}"
        place.mkdir()
        about = {"architecture": "jumprelu_skip_transcoder", "normalize_activations": "expected_average_only_in"}
        about["metadata"] = {"model_name": "tiny", "hook_name": f"blocks.{i}.mlp.hook_in"}
        (place / "cfg.json").write_text(json.dumps(about))
        (place / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.5}))
        shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": F, "b_dec": D, "threshold": F, "W_skip": (D, D)}
        save_file(tensors(**shapes), place / "sae_weights.safetensors")


def gemma_scope(folder: Path) -> None:
    for i in range(L):
        place = folder / f"layer_{i}"
        place.mkdir()
        raw = tensors(W_enc=(D, F), W_dec=(F, D), b_enc=F, b_dec=D, threshold=F)
        np.savez(place / "params.npz", **{name: tensor.numpy() for name, tensor in raw.items()})


def gemma_scope_2(cross_layer: bool):
    def write(folder: Path) -> None:
        for i in range(L):
            shapes = {"w_enc": (D, F), "b_enc": F, "b_dec": D, "threshold": F, "affine_skip_connection": (D, D)}
            raw = tensors(**shapes, w_dec=(F, L, D) if cross_layer else (F, D))
            if cross_layer:
                raw["w_dec"][:, :i] = 0
                save_file(raw, folder / f"params_layer_{i}.safetensors")
                continue
            place = folder / f"layer_{i}_width_16k"
            place.mkdir()
            save_file(raw, place / "params.safetensors")
            (place / "config.json").write_text(json.dumps({"model_name": "tiny"} | GEMMA_HOOKS))

    return write


# ---------------------------------------------------------------- checkpoints


def a_run(steps: int):
    """A model and its fused Adam after some steps, with a tensor beside them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(D, F), torch.nn.Linear(F, D))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for _ in range(steps):
        _step(model, optimizer)
    return model, optimizer, {"scale": torch.ones(L, 1, 1)}


def _step(model, optimizer) -> torch.Tensor:
    optimizer.zero_grad()
    loss = model(torch.ones(3, D)).pow(2).sum()
    loss.backward()
    optimizer.step()
    return torch.cat([loss.detach()[None], *(p.detach().flatten() for p in model.parameters())])


def checkpoint(folder: Path) -> None:
    model, optimizer, extra = a_run(5)
    save_checkpoint(folder, model, optimizer, 5, extra, {"history": [1, 2]})


def resume(folder: Path) -> torch.Tensor:
    """A step from where the checkpoint is."""
    model, optimizer, extra = a_run(0)
    load_checkpoint(folder, model, optimizer, extra, last=10)
    return torch.cat([_step(model, optimizer), extra["scale"].flatten()])


TRAINING = {"n_features": 24, "k": 3, "steps": 3, "batch": 16, "progress": False, "activation": "batchtopk"}
TEXTS = ["the capital of Texas is Austin .", "Dallas is a city", "Ohio is a state ."] * 4


class TrainingReader:
    """A run of `train_transcoder` that goes on, or begins anew where its checkpoint is gone."""

    def __init__(self) -> None:
        self.model, self.saved = None, b""

    def write(self, folder: Path) -> None:
        if self.model is None:
            self.model = tiny_model()
            self.train(folder)
            self.saved = (folder / "checkpoint.safetensors").read_bytes()
        (folder / "checkpoint.safetensors").write_bytes(self.saved)

    def train(self, folder: Path) -> torch.Tensor:
        run = ik.train_transcoder(self.model, TEXTS, checkpoint=folder, **TRAINING)
        return torch.cat([parameter.flatten() for parameter in run.transcoder.parameters()])


_training = TrainingReader()


READERS = [
    Reader("ours, cross-layer", kept(ours(skip=True)), use),
    Reader("ours, per-layer", kept(ours(span=1, activation="jumprelu", skip=True)), use),
    Reader("ours, int8", kept(ours(torch.int8, activation="jumprelu")), use),
    Reader("ours, int8, per-layer", kept(ours(torch.int8, span=1)), use),
    Reader("circuit-tracer, cross-layer", kept(circuit_tracer("cross_layer_transcoder", True)), use),
    Reader("circuit-tracer, per-layer", kept(circuit_tracer("transcoder_set", True)), use),
    Reader("circuit-tracer, listed", kept(listed), use),
    Reader("sparsify", kept(sparsify(False)), use),
    Reader("clt-training", kept(sparsify(True)), use),
    Reader("saelens", kept(saelens), use),
    Reader("gemma_scope", kept(gemma_scope), use),
    Reader("gemma_scope_2", kept(gemma_scope_2(False)), use),
    Reader("gemma_scope_2, cross-layer", kept(gemma_scope_2(True)), use),
    Reader("checkpoint", kept(checkpoint), resume),
    Reader("checkpoint of a training", _training.write, _training.train),
]
