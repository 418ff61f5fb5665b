"""Transcoders on disk: circuit-tracer's folder layout, safetensors only, plus one small json of ours.

config.yaml               model_kind, hooks, model_name: what circuit-tracer reads
interp_kit.json           TranscoderConfig: layers, span, activation, the model's fingerprint
cross-layer               W_enc_{l}.safetensors  W_enc_{l} [F, d], b_enc_{l} [F], b_dec_{l} [d], threshold_{l} [F]
                          W_dec_{l}.safetensors  W_dec_{l} [F, targets, d], slot j writes to layer l + j
per-layer (span 1)        layer_{l}.safetensors  W_enc, W_dec [F, d], b_enc, b_dec, activation_function.threshold
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..files import atomic_folder, data_folder
from .module import CrossLayerTranscoder, TranscoderConfig

SHIPPED = {"pocket": "pocket-transcoder"}


def save_transcoder(clt: CrossLayerTranscoder, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes `clt` to `folder` (made, or replaced as a whole once everything is written).

    `dtype` stores the decoders and encoders in fewer bits, float16 say; thresholds and biases stay float32.
    """
    config = clt.config
    hooks = {"feature_input_hook": config.reads, "feature_output_hook": "hook_mlp_out"}
    kind = "transcoder_set" if config.span == 1 else "cross_layer_transcoder"
    with atomic_folder(folder) as temporary:
        for name, tensors in _files(clt, dtype or clt.W_enc.dtype):
            save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, temporary / name)
        about = {"model_name": config.model.get("name", ""), "model_kind": kind, **hooks}
        (temporary / "config.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
        (temporary / "interp_kit.json").write_text(json.dumps(asdict(config), indent=1) + "\n")


def _files(clt, dtype):
    """(file name, tensors) of every weight file."""
    jump = clt.config.activation == "threshold"
    for i, layer in enumerate(clt.layers):
        enc, dec = clt.W_enc[i].to(dtype), clt.W_dec[i].to(dtype)
        if clt.config.span == 1:
            tensors = {"W_enc": enc, "W_dec": dec[:, 0], "b_enc": clt.b_enc[i], "b_dec": clt.b_dec[i]}
            yield (
                f"layer_{layer}.safetensors",
                tensors | ({"activation_function.threshold": clt.threshold[i]} if jump else {}),
            )
        else:
            tensors = {f"W_enc_{layer}": enc, f"b_enc_{layer}": clt.b_enc[i], f"b_dec_{layer}": clt.b_dec[i]}
            yield f"W_enc_{layer}.safetensors", tensors | ({f"threshold_{layer}": clt.threshold[i]} if jump else {})
            yield f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": dec}


def load_transcoder(name: str | Path, dtype: torch.dtype = torch.float32) -> CrossLayerTranscoder:
    """The shipped transcoder of a model ("pocket"), or one from a folder that `save` wrote.

    Raises FileNotFoundError for a folder that is not there, and ValueError for a file that is missing, cut short,
    of the wrong shape or holds a weight that is not finite; the message names the file and what to do.
    """
    folder = data_folder() / SHIPPED[name] if name in SHIPPED else Path(name)
    if not (folder / "interp_kit.json").exists():
        raise FileNotFoundError(
            f"no transcoder at {str(name)!r}: expected one of {', '.join(SHIPPED)}, or a folder with interp_kit.json "
            "and config.yaml as written by transcoder.save(folder)"
        )
    config = _read_config(folder)
    clt = CrossLayerTranscoder(config).to(dtype)
    for i, layer in enumerate(config.layers):
        if config.span == 1:
            t = _read(folder / f"layer_{layer}.safetensors")
            t = {k.replace("activation_function.", ""): v for k, v in t.items()}
            t["W_dec"] = t["W_dec"][:, None] if "W_dec" in t else None
        else:
            both = _read(folder / f"W_enc_{layer}.safetensors") | _read(folder / f"W_dec_{layer}.safetensors")
            t = {k.removesuffix(f"_{layer}"): v for k, v in both.items()}
        _fill(clt, i, t, folder, layer)
    return clt.eval().requires_grad_(False)


def _read_config(folder):
    try:
        return TranscoderConfig(**json.loads((folder / "interp_kit.json").read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'interp_kit.json'} is not a transcoder's description: {error}") from error


def _read(path):
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ValueError(
            f"{path.name} is missing from {path.parent}: the transcoder is incomplete, copy it again"
        ) from None
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or cut short ({error}); copy it again or restore it (git checkout, a new training)"
        ) from error


def _fill(clt, i, tensors, folder, layer):
    parameters = {"W_enc": clt.W_enc[i], "b_enc": clt.b_enc[i], "W_dec": clt.W_dec[i], "b_dec": clt.b_dec[i]}
    if clt.config.activation == "threshold":
        parameters["threshold"] = clt.threshold[i]
    for name, target in parameters.items():
        value = tensors.get(name)
        if value is None or value.shape != target.shape:
            found = "nothing" if value is None else list(value.shape)
            raise ValueError(f"layer {layer} of {folder}: {name} should be {list(target.shape)}, found {found}")
        if not value.isfinite().all():
            raise ValueError(f"layer {layer} of {folder}: {name} holds NaN or infinite weights; train or copy it again")
        target.data.copy_(value)
