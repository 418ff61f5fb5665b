"""Transcoders that other projects trained: one function per format, from one weight file to one shape of tensors.

    sparsify        {layers.3.mlp, h.3.mlp}/sae.safetensors + cfg.json            EleutherAI sparsify, clt-training
    saelens         sae_weights.safetensors + cfg.json, any folder name           SAELens
    gemma_scope     layer_3/width_16k/average_l0_5/params.npz                     Gemma Scope
    gemma_scope_2   layer_3_width_16k_l0_small/params.safetensors + config.json   Gemma Scope 2, per layer
                    width_262k_l0_medium/params_layer_3.safetensors               Gemma Scope 2, cross-layer

Whatever the file's own orientation, a reader returns these (circuit-tracer's own layout is read in `folder.py`):

    W_enc [F, d]   b_enc [F]   threshold [F]   W_dec [F, targets, d]   b_dec [d]   W_skip [d out, d in]

Where nothing has to be computed they are views of the file, which the operating system reads when they are used.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..models.families import FEATURE_INPUT_HOOKS, MLP_INPUT, NORMALIZED
from ..storage.shipped import TRANSCODERS

Json = dict[str, Any]
Found = TypeVar("Found")


@dataclass
class Layer:
    """One layer of a transcoder, in the package's convention."""

    path: Path
    "the weight file"
    number: int
    "of the model's layer it reads"
    tensors: dict[str, torch.Tensor]
    "by the names above"
    facts: Json
    "fields of TranscoderConfig that the file gives: activation, k, feature_input_hook, feature_output_hook, model"


def weight_files(place: Path) -> list[Path]:
    """The weight files of the formats above in a folder and below it, one for each layer; or the file itself.

    Raises FileNotFoundError where there are none, ValueError where a layer has several.
    """
    if place.is_file():
        return [place]
    found = sorted(path.relative_to(place) for pattern in READERS for path in place.rglob(pattern))
    if not found:
        raise FileNotFoundError(
            f"no transcoder at {str(place)!r}: expected one of {', '.join(TRANSCODERS)}; a folder with "
            "interp_kit.json or config.yaml, as written by transcoder.save(folder) or circuit-tracer; a folder of "
            "sparsify, Gemma Scope or SAELens transcoders; or a name on the Hugging Face Hub, owner/repository"
        )
    return [place / path for path in one_per_layer(found)]


def one_per_layer(paths: list[Path]) -> list[Path]:
    """`paths`, or ValueError where their names say that a layer has several (a name may also say nothing)."""
    by_layer = defaultdict(list)
    for path in paths:
        if (numbers := _numbers(path)) and any(fnmatch(path.name, pattern) for pattern in READERS):
            by_layer[numbers[-1]].append(path)
    for number, several in by_layer.items():
        if len(several) > 1:
            raise ValueError(
                f"layer {number} has {len(several)} transcoders, not one: {', '.join(map(str, several))}. "
                "Pass the folder of one set, or a list with one folder a layer: ik.load_transcoder([folder_0, ...])"
            )
    return paths


def read_layers(paths: list[Path]) -> list[Layer]:
    """The layers in these files, ascending."""
    layers = sorted(map(_read, paths), key=lambda layer: layer.number)
    return _by_source(layers) if any("W_from" in layer.tensors for layer in layers) else layers


def _read(path: Path) -> Layer:
    for pattern, reader in READERS.items():
        if fnmatch(path.name, pattern):
            return reader(path)
    raise ValueError(f"{path} is no weight file that interp_kit knows: expected one named {', '.join(READERS)}")


# ---------------------------------------------------------------- the formats


def sparsify(path: Path) -> Layer:
    """x @ encoder.weight.T, the k largest, @ W_dec, + x @ W_skip.T. Hooked to the MLP module: what it gets and returns.

    clt-training adds two constants to fold (in_norm, out_norm: inputs and outputs had norm sqrt(d) in training) and
    cross-layer decoders, kept in the layer they write to: `_by_source` turns them round.
    """
    cfg, raw = read_json(path.with_name("cfg.json")), read_tensors(path)
    number = re.search(r"(?:layers|h)\.(\d+)\.mlp(?:/|$)", path.parent.as_posix())
    number = _require(number, path, "the folder is named layers.3.mlp or h.3.mlp: only transcoders of MLPs are read")
    _require(cfg.get("transcode"), path, "cfg.json says transcode: true (this is a sparse autoencoder)")
    _require(cfg.get("activation", "topk") == "topk" and not cfg.get("signed"), path, "cfg.json says activation: topk")
    _require(not cfg.get("topk_coalesced"), path, "topk_coalesced: false (the k largest of each layer)")
    run = path.parent.parent / "config.json"
    _require(not (run.exists() and read_json(run).get("hookpoints_in")), run, "no hookpoints_in: MLP inputs are read")
    # Added to (or multiplied with) what is decoded but not to what is encoded: a feature here has one value.
    _require(not any(t.any() for n, t in raw.items() if re.match(r"post_encs?(\.|$)", n)), path, "post_enc is zero")
    scales = (t for n, t in raw.items() if re.match(r"post_enc_scales?(\.|$)", n))
    _require(all((t == 1).all() for t in scales), path, "post_enc_scale is 1")

    tensors = _pick(raw, path, W_enc="encoder.weight", b_enc="encoder.bias", W_dec="W_dec", b_dec="b_dec")
    d_model, n_features = tensors["b_dec"].numel(), tensors["b_enc"].numel()
    if "W_skip" in raw:
        tensors["W_skip"] = raw["W_skip"]
    if cfg.get("normalize_io"):
        norms = _pick(raw, path, read="in_norm", written="out_norm")
        read, written = norms["read"] / d_model**0.5, norms["written"] / d_model**0.5
        tensors = _scaled(tensors, W_enc=1 / read, W_dec=written, b_dec=written, W_skip=written / read)
    if cfg.get("n_targets"):
        decoder, kind = tensors.pop("W_dec"), cfg.get("coalesce_topk")
        _require(kind in ("per-layer", "concat"), path, "coalesce_topk: per-layer or concat, if it is cross-layer")
        if kind == "per-layer":  # source after source
            tensors["W_from"] = decoder.unflatten(0, (cfg["n_sources"], n_features))
        else:  # all sources share the decoder of the layer they write to
            tensors["W_from"] = decoder.expand(cfg["n_sources"], -1, -1)
    else:
        tensors["W_dec"] = tensors["W_dec"][:, None]
    facts = {"activation": "topk", "k": cfg["k"]} | hooks(MLP_INPUT, "mlp.hook_out")
    return Layer(path, int(number[1]), tensors, facts)


def _by_source(layers: list[Layer]) -> list[Layer]:
    """Decoders kept by the layer they write to, `W_from` [source, F, d], as decoders of the layer they come from."""
    for i, layer in enumerate(layers):
        cfg, reach = read_json(layer.path.with_name("cfg.json")), (i + 1, len(layers) - i)
        expected = "n_sources {} and n_targets {}: each layer writes to all that follow, none is missing".format(*reach)
        _require((cfg["n_sources"], cfg["n_targets"]) == reach, layer.path, expected)
    decoders = [layer.tensors.pop("W_from") for layer in layers]
    for i, layer in enumerate(layers):
        layer.tensors["W_dec"] = torch.stack([sources[i] for sources in decoders[i:]], dim=1)
    return layers


def saelens(path: Path) -> Layer:
    """relu(x @ W_enc + b_enc), kept where above `threshold` if there is one, @ W_dec, + x @ W_skip.T."""
    cfg, raw = read_json(path.with_name("cfg.json")), read_tensors(path)
    kind, about = cfg.get("architecture", ""), cfg | cfg.get("metadata", {})
    _require("transcoder" in kind, path, "cfg.json says architecture: transcoder, with skip_ or jumprelu_ or both")
    _require(cfg.get("activation_fn", "relu") == "relu", path, "cfg.json says activation_fn: relu")
    _require(not cfg.get("apply_b_dec_to_input"), path, "apply_b_dec_to_input is false")
    _require((raw.get("scaling_factor", torch.ones(1)) == 1).all(), path, "scaling_factor is 1 (no fine-tuning)")

    number, feature_input_hook = _hook(about.get("hook_name"), path)
    if feature_input_hook == "hook_mlp_in":
        # TransformerLens means the stream before the norm; SAELens so calls Gemma Scope 2's input, after it.
        after = str(about.get("hf_hook_name")).endswith("pre_feedforward_layernorm.output")
        _require(after, path, "hf_hook_name beside hook_mlp_in, which means either side of the norm without it")
        feature_input_hook = MLP_INPUT
    _require(feature_input_hook in FEATURE_INPUT_HOOKS, path, f"hook_name ends in {', '.join(FEATURE_INPUT_HOOKS)}")
    target, feature_output_hook = _hook(about.get("hook_name_out") or f"blocks.{number}.hook_mlp_out", path)
    _require(target == number, path, f"hook_name_out is in the layer of hook_name, {number}")

    tensors = _pick(raw, path, W_enc="W_enc", b_enc="b_enc", W_dec="W_dec", b_dec="b_dec")
    normalise = cfg.get("normalize_activations") or "none"
    if normalise in (True, "expected_average_only_in"):  # the average is a constant, saved beside the training run
        scaler = path.with_name("activation_scaler.json")
        _require(scaler.exists(), path, "activation_scaler.json beside it, with the scale to fold into the weights")
        scale = read_json(scaler)["scaling_factor"]
        tensors = _scaled(tensors, W_enc=scale, W_dec=1 / scale, b_dec=1 / scale)
    else:  # the others divide by something of each input: no weights do that
        _require(normalise == "none", path, "normalize_activations is none or expected_average_only_in")
    tensors |= {"W_enc": tensors["W_enc"].T, "W_dec": tensors["W_dec"][:, None]}
    if "jumprelu" in kind:
        tensors["threshold"] = _threshold(raw, path)
    if "skip" in kind:
        tensors |= _pick(raw, path, W_skip="W_skip")
    return Layer(path, number, tensors, hooks(feature_input_hook, feature_output_hook) | named_model(about))


def gemma_scope(path: Path) -> Layer:
    """relu(x @ W_enc + b_enc) where above `threshold`, @ W_dec. It rebuilds what the norm after the MLP writes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            raw = {name: torch.from_numpy(file[name]) for name in file.files}
    except (BadZipFile, ValueError) as error:
        raise ValueError(f"{path} is damaged or no npz of arrays ({error}); download it again") from error
    tensors = _pick(raw, path, W_enc="W_enc", b_enc="b_enc", W_dec="W_dec", b_dec="b_dec")
    tensors |= {"W_enc": tensors["W_enc"].T, "W_dec": tensors["W_dec"][:, None], "threshold": _threshold(raw, path)}
    return Layer(path, _number(path), tensors, hooks(NORMALIZED, "hook_mlp_out"))


def gemma_scope_2(path: Path) -> Layer:
    """As Gemma Scope in lower case, from the MLP's input; + x @ affine_skip_connection.

    A cross-layer file has the decoders to all layers, w_dec [F, L, d]: those to earlier ones are zero, and left out.
    """
    raw, number = read_tensors(path), _number(path)
    tensors = _pick(raw, path, W_enc="w_enc", b_enc="b_enc", W_dec="w_dec", b_dec="b_dec")
    tensors |= {"W_enc": tensors["W_enc"].T, "threshold": _threshold(raw, path)}
    if "affine_skip_connection" in raw:
        tensors["W_skip"] = raw["affine_skip_connection"].T
    cross_layer = tensors["W_dec"].ndim == 3
    if cross_layer:
        backward = tensors["W_dec"][:64, :number]  # a sample: all would be read from the disk
        _require(not backward.any(), path, "decoders to earlier layers are zero")
        tensors["W_dec"] = tensors["W_dec"][:, number:]
    else:
        tensors["W_dec"] = tensors["W_dec"][:, None]

    around = hooks(MLP_INPUT, "hook_mlp_out")
    facts = around if cross_layer else {}  # cross-layer files come without config.json
    if path.with_name("config.json").exists():
        about = read_json(path.with_name("config.json"))
        read, written = (str(about.get(name, "")) for name in ("hf_hook_point_in", "hf_hook_point_out"))
        norm = "feedforward_layernorm.output"
        known = read.endswith(f"pre_{norm}") and written.endswith(f"post_{norm}")
        expected = "hooks around the MLP with its norms, pre_ and post_feedforward_layernorm"
        _require(known, path, f"{expected}; has {read!r} and {written!r}")
        facts = around | named_model(about)
    return Layer(path, number, tensors, facts)


READERS = {
    "sae.safetensors": sparsify,
    "sae_weights.safetensors": saelens,
    "params.npz": gemma_scope,
    "params.safetensors": gemma_scope_2,
    "params_layer_*.safetensors": gemma_scope_2,
}


# ---------------------------------------------------------------- what they share


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, mapped into memory: nothing is read before it is used.

    Raises ValueError where the file is missing, damaged or cut short.
    """
    if not path.exists():
        raise ValueError(f"{path.name} is missing from {path.parent}: the transcoder is incomplete, copy it again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or cut short ({error}); copy it again or restore it (git checkout, a new training)"
        ) from error


def read_json(path: Path) -> Json:
    """What the json beside a weight file says. Raises ValueError where it is missing or damaged."""
    if not path.exists():
        raise ValueError(f"{path.name} is missing from {path.parent}: it says how to read the weights, copy it too")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no json ({error}); copy it again") from error


def _require(found: Found | None, path: Path, expected: str) -> Found:
    """`found`, or ValueError where it is false, empty or None."""
    if not found:
        raise ValueError(f"{path} cannot be read as a transcoder of interp_kit: expected {expected}")
    return found


def _pick(raw: dict[str, torch.Tensor], path: Path, **names: str) -> dict[str, torch.Tensor]:
    """The tensors of `raw` by our names."""
    missing = sorted(set(names.values()) - set(raw))
    _require(not missing, path, f"the tensors {', '.join(missing)} too (it has {', '.join(sorted(raw))})")
    return {ours: raw[theirs] for ours, theirs in names.items()}


def _scaled(tensors: dict[str, torch.Tensor], **scales: torch.Tensor | float) -> dict[str, torch.Tensor]:
    """Constants of training folded into the weights, in float32 whatever the file has."""
    return {name: tensor.float() * scales[name] if name in scales else tensor for name, tensor in tensors.items()}


def _threshold(raw: dict[str, torch.Tensor], path: Path) -> torch.Tensor:
    """What a pre-activation must exceed. These formats take its relu, we do not: below 0 their threshold is our 0."""
    if "log_threshold" in raw:
        return raw["log_threshold"].exp()
    return _pick(raw, path, threshold="threshold")["threshold"].clamp(min=0)


def _hook(name: str | None, path: Path) -> tuple[int, str]:
    """ "blocks.3.ln2.hook_normalized" -> (3, "ln2.hook_normalized")."""
    parts = re.fullmatch(r"blocks\.(\d+)\.(.+)", str(name))
    parts = _require(parts, path, f"hook names such as blocks.3.mlp.hook_in; it has {name}")
    return int(parts[1]), parts[2]


def _numbers(path: Path) -> list[int]:
    """The layers that a path names."""
    return [int(n) for n in re.findall(r"(?<![a-z])(?:layers?[._]|h\.|blocks\.)(\d+)", path.as_posix())]


def _number(path: Path) -> int:
    """The layer that a path names last, or ValueError."""
    return _require(_numbers(path), path, "a folder or file name with the layer, layer_3")[-1]


def hooks(read: str, written: str) -> Json:
    """The fields of a TranscoderConfig that say what is read and what is rebuilt."""
    return {"feature_input_hook": read, "feature_output_hook": written}


def named_model(about: Json) -> Json:
    """Its field `model`, where the file names the model."""
    return {"model": {"name": about["model_name"]}} if about.get("model_name") else {}
