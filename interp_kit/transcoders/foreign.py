"""Transcoders that other projects trained: one function per format, from one weight file to one shape of tensors.

    sparsify        {layers.3.mlp, h.3.mlp}/sae.safetensors + cfg.json            EleutherAI sparsify, clt-training
    saelens         sae_weights.safetensors + cfg.json, any folder name           SAELens
    gemma_scope     layer_3/width_16k/average_l0_5/params.npz                     Gemma Scope
    gemma_scope_2   layer_3_width_16k_l0_small/params.safetensors + config.json   Gemma Scope 2, per layer
                    width_262k_l0_medium/params_layer_3.safetensors               Gemma Scope 2, cross-layer

Whatever the file's own orientation, a reader returns these (circuit-tracer's own layout is read in `folder.py`):

    W_enc [F, d]   b_enc [F]   threshold [F]   W_dec [F, targets, d]   b_dec [d]   W_skip [d out, d in]

Where nothing has to be computed they are views of the file, which the operating system reads when they are used.
Whether their sizes fit each other is checked by `fit`, for all formats alike, before memory is taken.
"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from typing_extensions import TypedDict

from ..formats.json import read_json
from ..formats.validation import LARGEST, Name, check_type
from ..hardware import check_memory
from ..models.families import FEATURE_INPUT_HOOKS, MLP_INPUT, NORMALIZED
from ..storage.npz import npz_names, npz_shapes, read_npz
from ..storage.reading import check_no_pointer, read_tensors
from ..storage.shipped import TRANSCODERS

Json = dict[str, Any]
Found = TypeVar("Found")
Count = Annotated[int, Field(ge=0, lt=2**31)]

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
DIMENSIONS = {"W_enc": (2,), "b_enc": (1,), "threshold": (1,), "W_dec": (2, 3), "b_dec": (1,), "W_skip": (2,)}
LEFT_OUT = re.compile("thresh|skip|gate|post_enc|scal|norm")  # names of tensors that would change what is computed
SEARCHED_BYTES = 256 * 2**20  # of one tensor; of a larger one a sample is looked at


# What is read of the descriptions beside weights; whatever else they say is passed over.


class SparsifyAbout(TypedDict, total=False):
    """Of cfg.json, as sparsify and clt-training write it."""

    transcode: bool | None
    activation: Name | None
    signed: bool | None
    k: Count
    skip_connection: bool | None
    topk_coalesced: bool | None
    coalesce_topk: Name | None
    normalize_io: bool | None
    n_targets: Count | None
    n_sources: Count | None


class SparsifyRun(TypedDict, total=False):
    """Of config.json of the whole run."""

    hookpoints_in: list[Name] | None


class SAELensAbout(TypedDict, total=False):
    """Of cfg.json and what is under "metadata" in it."""

    architecture: Name | None
    activation_fn: Name | None
    apply_b_dec_to_input: bool | None
    normalize_activations: bool | Name | None
    hook_name: Name | None
    hook_name_out: Name | None
    hf_hook_name: Name | None
    model_name: Name | None


class Scaler(TypedDict):
    """activation_scaler.json of SAELens."""

    scaling_factor: Annotated[float, Field(gt=1 / LARGEST, le=LARGEST)]


class GemmaScopeAbout(TypedDict, total=False):
    """Of config.json of Gemma Scope 2."""

    hf_hook_point_in: Name | None
    hf_hook_point_out: Name | None
    model_name: Name | None


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
    # Not by `glob`, which passes over links that lead nowhere: a file that the Hub's cache lost should be missed.
    names = (Path(at).relative_to(place) / name for at, folders, files in os.walk(place) for name in folders + files)
    found = sorted(path for path in names if any(fnmatch(path.name, pattern) for pattern in READERS))
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
    cfg, raw = about_of(path.with_name("cfg.json"), SparsifyAbout), weights_of(path)
    number = re.search(r"(?:layers|h)\.([0-9]+)\.mlp(?:/|$)", path.parent.as_posix())
    number = _require(number, path, "the folder is named layers.3.mlp or h.3.mlp: only transcoders of MLPs are read")
    _require(cfg.get("transcode"), path, "cfg.json says transcode: true (this is a sparse autoencoder)")
    topk = (cfg.get("activation") or "topk") == "topk" and not cfg.get("signed")
    _require(topk, path, "cfg.json says activation: topk")
    k = _require(cfg.get("k"), path, "cfg.json says k, how many features are on")
    _require(not cfg.get("topk_coalesced"), path, "topk_coalesced: false (the k largest of each layer)")
    run = path.parent.parent / "config.json"
    inputs = run.exists() and about_of(run, SparsifyRun).get("hookpoints_in")
    _require(not inputs, run, "no hookpoints_in: MLP inputs are read")
    # Added to (or multiplied with) what is decoded but not to what is encoded: a feature here has one value.
    _require(not any(t.any() for n, t in raw.items() if re.match(r"post_encs?(\.|$)", n)), path, "post_enc is zero")
    scales = [n for n in raw if re.match(r"post_enc_scales?(\.|$)", n)]
    _require(all((raw[n] == 1).all() for n in scales), path, "post_enc_scale is 1")

    skip, names = cfg.get("skip_connection"), {"W_enc": "encoder.weight", "b_enc": "encoder.bias"}
    _require(skip is None or skip == ("W_skip" in raw), path, f"W_skip if and only if skip_connection, which is {skip}")
    names |= {"W_dec": "W_dec", "b_dec": "b_dec"} | ({"W_skip": "W_skip"} if "W_skip" in raw else {})
    passed = [n for n in raw if re.match(r"post_enc", n)] + (["in_norm", "out_norm"] if cfg.get("normalize_io") else [])
    tensors = _pick(raw, path, passed, **names)
    d_model, n_features = tensors["b_dec"].numel(), tensors["b_enc"].numel()
    if cfg.get("normalize_io"):
        read, written = (_constant(raw, name, path) / d_model**0.5 for name in ("in_norm", "out_norm"))
        tensors = _scaled(tensors, W_enc=1 / read, W_dec=written, b_dec=written, W_skip=written / read)
    if cfg.get("n_targets"):
        decoder, kind, n_sources = tensors.pop("W_dec"), cfg.get("coalesce_topk"), cfg.get("n_sources") or 0
        _require(kind in ("per-layer", "concat"), path, "coalesce_topk: per-layer or concat, if it is cross-layer")
        n_rows = n_features * n_sources if kind == "per-layer" else n_features
        expected = f"a W_dec of {n_rows} rows, with {n_sources} sources of {n_features} features"
        _require(n_sources and decoder.shape == (n_rows, d_model), path, expected)
        if kind == "per-layer":  # source after source
            tensors["W_from"] = decoder.unflatten(0, (n_sources, n_features))
        else:  # all sources share the decoder of the layer they write to
            tensors["W_from"] = decoder.expand(n_sources, -1, -1)
    else:
        tensors["W_dec"] = tensors["W_dec"][:, None]
    facts = {"activation": "topk", "k": k} | hooks(MLP_INPUT, "mlp.hook_out")
    return Layer(path, int(number[1]), tensors, facts)


def _by_source(layers: list[Layer]) -> list[Layer]:
    """Decoders kept by the layer they write to, `W_from` [source, F, d], as decoders of the layer they come from."""
    for i, layer in enumerate(layers):
        cfg, reach = about_of(layer.path.with_name("cfg.json"), SparsifyAbout), (i + 1, len(layers) - i)
        expected = "n_sources {} and n_targets {}: each layer writes to all that follow, none is missing".format(*reach)
        _require((cfg.get("n_sources"), cfg.get("n_targets")) == reach, layer.path, expected)
        alike = layer.tensors["W_from"].shape[1:] == layers[0].tensors["W_from"].shape[1:]
        _require(alike, layer.path, "as many features and as wide a model as in the first layer")
    decoders = [layer.tensors.pop("W_from") for layer in layers]
    needed = sum(decoder.numel() * decoder.element_size() for decoder in decoders)
    check_memory(needed, f"loading {layers[0].path.parent.parent}")
    for i, layer in enumerate(layers):
        layer.tensors["W_dec"] = torch.stack([sources[i] for sources in decoders[i:]], dim=1)
    return layers


def saelens(path: Path) -> Layer:
    """relu(x @ W_enc + b_enc), kept where above `threshold` if there is one, @ W_dec, + x @ W_skip.T."""
    cfg, raw = about_of(path.with_name("cfg.json"), Json), weights_of(path)
    metadata = cfg.get("metadata") or {}
    _require(isinstance(metadata, dict), path, "cfg.json has an object as its metadata")
    about = _checked(path.with_name("cfg.json"), SAELensAbout, cfg | metadata)
    kind = about.get("architecture") or ""
    _require("transcoder" in kind, path, "cfg.json says architecture: transcoder, with skip_ or jumprelu_ or both")
    _require((about.get("activation_fn") or "relu") == "relu", path, "cfg.json says activation_fn: relu")
    _require(not about.get("apply_b_dec_to_input"), path, "apply_b_dec_to_input is false")
    tuned = "scaling_factor" in raw and (raw["scaling_factor"] != 1).any()
    _require(not tuned, path, "scaling_factor is 1 (no fine-tuning)")

    number, feature_input_hook = _hook(about.get("hook_name"), path)
    if feature_input_hook == "hook_mlp_in":
        # TransformerLens means the stream before the norm; SAELens so calls Gemma Scope 2's input, after it.
        after = str(about.get("hf_hook_name")).endswith("pre_feedforward_layernorm.output")
        _require(after, path, "hf_hook_name beside hook_mlp_in, which means either side of the norm without it")
        feature_input_hook = MLP_INPUT
    _require(feature_input_hook in FEATURE_INPUT_HOOKS, path, f"hook_name ends in {', '.join(FEATURE_INPUT_HOOKS)}")
    target, feature_output_hook = _hook(about.get("hook_name_out") or f"blocks.{number}.hook_mlp_out", path)
    _require(target == number, path, f"hook_name_out is in the layer of hook_name, {number}")

    names = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
    names |= {"W_skip": "W_skip"} if "skip" in kind else {}
    names |= {"threshold": _threshold_name(raw)} if "jumprelu" in kind else {}
    tensors = _pick(raw, path, ["scaling_factor"], **names)
    normalise = about.get("normalize_activations") or "none"
    if normalise in (True, "expected_average_only_in"):  # the average is a constant, saved beside the training run
        scaler = path.with_name("activation_scaler.json")
        _require(scaler.exists(), path, "activation_scaler.json beside it, with the scale to fold into the weights")
        scale = float(about_of(scaler, Scaler)["scaling_factor"])
        tensors = _scaled(tensors, W_enc=scale, W_dec=1 / scale, b_dec=1 / scale)
    else:  # the others divide by something of each input: no weights do that
        _require(normalise == "none", path, "normalize_activations is none or expected_average_only_in")
    tensors |= {"W_enc": tensors["W_enc"].T, "W_dec": tensors["W_dec"][:, None]}
    if "jumprelu" in kind:
        tensors["threshold"] = _threshold(names["threshold"], tensors["threshold"])
    return Layer(path, number, tensors, hooks(feature_input_hook, feature_output_hook) | named_model(about))


def gemma_scope(path: Path) -> Layer:
    """relu(x @ W_enc + b_enc) where above `threshold`, @ W_dec. It rebuilds what the norm after the MLP writes."""
    names = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    there = npz_names(path)
    names |= {"threshold": _threshold_name(there)}
    shapes = npz_shapes(path, [name for name in there if name in names.values()])
    # First without memory: a small file may unfold to any size.
    layer = _gemma_scope(path, {name: torch.empty(shapes.get(name, 0), device="meta") for name in there}, names)
    fit(layer, layer_shapes(layer.tensors["b_dec"].numel(), layer.tensors["b_enc"].numel(), 1, {"threshold"}))
    check_memory(8 * sum(map(math.prod, shapes.values())), f"reading {path}")
    return _gemma_scope(path, {name: torch.from_numpy(array) for name, array in read_npz(path, shapes)}, names)


def _gemma_scope(path: Path, raw: dict[str, torch.Tensor], names: dict[str, str]) -> Layer:
    tensors = _pick(raw, path, **names)
    tensors |= {"W_enc": tensors["W_enc"].T, "W_dec": tensors["W_dec"][:, None]}
    tensors["threshold"] = _threshold(names["threshold"], tensors["threshold"])
    return Layer(path, _number(path), tensors, hooks(NORMALIZED, "hook_mlp_out"))


def gemma_scope_2(path: Path) -> Layer:
    """As Gemma Scope in lower case, from the MLP's input; + x @ affine_skip_connection.

    A cross-layer file has the decoders to all layers, w_dec [F, L, d]: those to earlier ones are zero, and left out.
    """
    raw, number = weights_of(path), _number(path)
    names = {"W_enc": "w_enc", "b_enc": "b_enc", "W_dec": "w_dec", "b_dec": "b_dec", "threshold": _threshold_name(raw)}
    names |= {"W_skip": "affine_skip_connection"} if "affine_skip_connection" in raw else {}
    tensors = _pick(raw, path, **names)
    tensors["threshold"] = _threshold(names["threshold"], tensors["threshold"])
    tensors |= {name: tensors[name].T for name in ("W_enc", "W_skip") if name in tensors}
    cross_layer = tensors["W_dec"].ndim == 3
    if cross_layer:
        _require(number < tensors["W_dec"].shape[1], path, f"decoders to more layers than {number}, its own")
        backward = tensors["W_dec"][:, :number]
        if tensors["W_dec"].nbytes > SEARCHED_BYTES:
            backward = backward[:64]  # a sample: all would be read from the disk
        _require(not backward.any(), path, "decoders to earlier layers are zero")
        tensors["W_dec"] = tensors["W_dec"][:, number:]
    else:
        tensors["W_dec"] = tensors["W_dec"][:, None]

    around = hooks(MLP_INPUT, "hook_mlp_out")
    facts = around if cross_layer else {}  # cross-layer files come without config.json
    if path.with_name("config.json").exists():
        about = about_of(path.with_name("config.json"), GemmaScopeAbout)
        read, written = (about.get(name) or "" for name in ("hf_hook_point_in", "hf_hook_point_out"))
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


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, mapped into memory. Raises ValueError where it is missing or damaged."""
    if not path.exists():
        raise ValueError(f"{path.name} is missing from {path.parent}: the transcoder is incomplete, copy it again")
    return read_tensors(path)


def about_of(path: Path, kind: type[Found]) -> Found:
    """What the json beside a weight file says. Raises ValueError where it is missing, damaged, or not of this kind."""
    if not path.exists():
        raise ValueError(f"{path.name} is missing from {path.parent}: it says how to read the weights, copy it too")
    if path.is_file():
        check_no_pointer(path)
    return _checked(path, kind, read_json(path))


def _checked(path: Path, kind: type[Found], content: object) -> Found:
    try:
        return check_type(kind, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _require(found: Found | None, path: Path, expected: str) -> Found:
    """`found`, or ValueError where it is false, empty or None."""
    if not found:
        raise ValueError(f"{path} cannot be read as a transcoder of interp_kit: expected {expected}")
    return found


def _pick(
    raw: dict[str, torch.Tensor], path: Path, passed: Sequence[str] = (), **names: str
) -> dict[str, torch.Tensor]:
    """The tensors of `raw` by our names, of the dimensions that these have; `passed` are seen to elsewhere."""
    missing = sorted(set(names.values()) - set(raw))
    _require(not missing, path, f"the tensors {', '.join(missing)} too (it has {', '.join(sorted(raw))})")
    unknown = [name for name in sorted(raw) if LEFT_OUT.search(name) and name not in {*names.values(), *passed}]
    _require(not unknown, path, f"no {', '.join(unknown)}, which would change what it computes")
    tensors = {ours: raw[theirs] for ours, theirs in names.items()}
    check_floats(tensors, path)
    return {name: _of_dimensions(name, tensor, path) for name, tensor in tensors.items()}


def check_floats(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Raises ValueError for weights that are not floating-point numbers, whatever their bits could mean."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            dtype = str(tensor.dtype).removeprefix("torch.")
            remedy = " (int8 has its scale beside it)" if dtype == "int8" else ""
            raise ValueError(f"{path}: {name} should be floating-point numbers, found {dtype}{remedy}; copy it again")


def _of_dimensions(name: str, tensor: torch.Tensor, path: Path) -> torch.Tensor:
    """A bias as a row or a column, and a threshold that is one number, as a vector."""
    if DIMENSIONS[name] == (1,) and tensor.numel() == max(tensor.shape, default=1):
        return tensor.reshape(-1)
    expected = " or ".join(map(str, DIMENSIONS[name]))
    found = f"{name} has {expected} dimensions, not {tensor.ndim}"
    _require(tensor.ndim in DIMENSIONS[name] and tensor.numel(), path, found)
    return tensor


def layer_shapes(d_model: int, n_features: int, n_targets: int, more: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a layer has; `more`: those of "threshold", "W_skip" and the scales of int8 weights
    that it has too."""
    shapes = {"W_enc": (n_features, d_model), "b_enc": (n_features,), "b_dec": (d_model,)}
    shapes |= {"W_dec": (n_features, n_targets, d_model)}
    others = {"threshold": (n_features,), "W_skip": (d_model, d_model)}
    others |= {f"{name}_scale": shapes[name][:-1] for name in ("W_enc", "W_dec")}
    return shapes | {name: others[name] for name in more}


def fit(layer: Layer, shapes: dict[str, tuple[int, ...]]) -> None:
    """Gives the layer's tensors these shapes, where only dimensions of one differ, or a threshold is one number.

    Raises ValueError where one is missing, has another shape, or is there and should not be.
    """
    where, tensors = f"layer {layer.number} of {layer.path.parent}", layer.tensors
    for name, shape in shapes.items():
        found = tensors.get(name)
        if found is not None and name == "threshold" and found.numel() == 1:
            tensors[name] = found.reshape(1).expand(shape)
        elif found is not None and [n for n in found.shape if n != 1] == [n for n in shape if n != 1]:
            tensors[name] = found.reshape(shape)
        else:
            raise ValueError(
                f"{where}: {name} should be {list(shape)}, found {'nothing' if found is None else list(found.shape)}"
            )
    if denied := sorted(tensors.keys() - shapes.keys()):
        raise ValueError(f"{where} has {', '.join(denied)}, and its description says that it has none")


def _constant(raw: dict[str, torch.Tensor], name: str, path: Path) -> torch.Tensor:
    """One positive number of the file [1]."""
    _require(name in raw, path, f"the tensors {name} too (it has {', '.join(sorted(raw))})")
    check_floats({name: raw[name]}, path)
    good = raw[name].numel() == 1 and 0 < raw[name].item() < LARGEST
    _require(good, path, f"one positive number as {name}, found {raw[name].flatten()[:3].tolist()}")
    return raw[name].reshape(1)


def _scaled(tensors: dict[str, torch.Tensor], **scales: torch.Tensor | float) -> dict[str, torch.Tensor]:
    """Constants of training folded into the weights, in float32 whatever the file has."""
    return {name: tensor.float() * scales[name] if name in scales else tensor for name, tensor in tensors.items()}


def _threshold_name(names: Iterable[str]) -> str:
    return "log_threshold" if "log_threshold" in names else "threshold"


def _threshold(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """What a pre-activation must exceed. These formats take its relu, we do not: below 0 their threshold is our 0."""
    return tensor.exp() if name == "log_threshold" else tensor.clamp(min=0)


def _hook(name: str | None, path: Path) -> tuple[int, str]:
    """ "blocks.3.ln2.hook_normalized" -> (3, "ln2.hook_normalized")."""
    parts = re.fullmatch(r"blocks\.([0-9]{1,9})\.(.+)", str(name))
    parts = _require(parts, path, f"hook names such as blocks.3.mlp.hook_in; it has {name}")
    return int(parts[1]), parts[2]


def _numbers(path: Path) -> list[int]:
    """The layers that a path names."""
    return [int(n) for n in re.findall(r"(?<![a-z])(?:layers?[._]|h\.|blocks\.)([0-9]{1,9})", path.as_posix())]


def _number(path: Path) -> int:
    """The layer that a path names last, or ValueError."""
    return _require(_numbers(path), path, "a folder or file name with the layer, layer_3")[-1]


def hooks(read: str, written: str) -> Json:
    """The fields of a TranscoderConfig that say what is read and what is rebuilt."""
    return {"feature_input_hook": read, "feature_output_hook": written}


def named_model(about: Mapping[str, object]) -> Json:
    """Its field `model`, where the file names the model."""
    return {"model": {"name": about["model_name"]}} if about.get("model_name") else {}
