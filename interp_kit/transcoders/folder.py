"""Transcoders on disk: circuit-tracer's folder layout, safetensors only, plus one small json of ours.

config.yaml               model_kind, hooks, model_name, activation and k of a top k: what circuit-tracer reads
interp_kit.json           TranscoderConfig: layers, span, activation, the model's fingerprint
cross-layer               W_enc_{l}.safetensors  W_enc_{l} [F, d], b_enc_{l} [F], b_dec_{l} [d], threshold_{l} [F],
                                                 W_skip_{l} [d in, d out]
                          W_dec_{l}.safetensors  W_dec_{l} [F, targets, d], slot j writes to layer l + j
per-layer (span 1)        layer_{l}.safetensors  W_enc, W_dec [F, d], b_enc, b_dec, activation_function.threshold [F],
                                                 W_skip [d out, d in]

Saved as int8, W_enc and W_dec are whole numbers and beside each lies its scale, W_enc_scale [F] and W_dec_scale [F] or
[F, targets]: row = scale * numbers. circuit-tracer does not know that form; save without a dtype for it.

The two skip matrices are each other's transpose, as circuit-tracer uses them. It reads W_skip_{l} in versions after
0.5.0, which passes over that tensor, and so over the skip connection; nor does 0.5.0 know a top k: it takes the ReLU.

The formats of other projects are in `foreign.py`.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, NotRequired

import torch
import yaml
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import DryRunError
from pydantic import Field
from safetensors.torch import save_file
from typing_extensions import TypedDict

from ..formats.provenance import insisted
from ..formats.validation import Name, check_type, need
from ..hardware import check_memory
from ..models import LanguageModel
from ..storage.folders import opened_folder, saved_folder
from ..storage.reading import read_yaml
from ..storage.shipped import TRANSCODERS, shipped_folder
from .fingerprint import fingerprint, layer_digest
from .foreign import (
    READERS,
    Json,
    Layer,
    about_of,
    check_floats,
    fit,
    hooks,
    layer_shapes,
    named_model,
    one_per_layer,
    read_layers,
    weight_files,
    weights_of,
)
from .int8_rows import Int8Rows
from .module import CrossLayerTranscoder, TranscoderConfig

OLD_FIELDS = {  # of interp_kit.json before 0.2
    "reads": "feature_input_hook",
    "writes": "feature_output_hook",
    "skips_first": "excludes_first_position",
    "counts": "n_features_per_layer",
}
SCALED = ("W_enc", "W_dec")  # what may be int8, with a scale beside it
SCALES = tuple(f"{name}_scale" for name in SCALED)
NAMES = {*SCALED, *SCALES, "b_enc", "b_dec", "threshold", "W_skip"}  # of a layer's tensors
LARGEST = 1e15  # of a weight: what a feature writes is a product of two, and finite in float32
STAY_ON_DISK_BYTES = 256 * 2**20  # of all decoders: larger ones keep the file's dtype, and are not searched for NaN
STAY_INT8_BYTES = 128 * 2**20  # that all encoders and decoders would have as floats: larger ones stay int8

Weights = torch.Tensor | Int8Rows
HUB_NAME = re.compile(r"(\w[\w.-]*/[\w.-]+)((?:/[\w.=-]+)*)(?:@([\w./-]+))?")  # owner/repository/folder@revision
# What is fetched of a repository: no pickles, which can run code; no example texts, which can outweigh the weights.
HUB_FILES = [
    "config.yaml", "interp_kit.json", "cfg.json", "config.json", "activation_scaler.json",
    "sae.safetensors", "sae_weights.safetensors", "params.safetensors", "params.npz",
    *(f"{stem}_{digits}.safetensors" for stem in ("layer", "W_enc", "W_dec", "params_layer")
      for digits in ("[0-9]", "[0-9][0-9]", "[0-9][0-9][0-9]")),
]  # fmt: skip


class CircuitTracerAbout(TypedDict):
    """Of config.yaml; what else it says is passed over."""

    model_kind: Name
    feature_input_hook: Name
    feature_output_hook: Name
    model_name: NotRequired[Name | None]
    activation: NotRequired[Name | None]
    k: NotRequired[Annotated[int, Field(ge=1, lt=2**31)] | None]
    transcoders: NotRequired[list[Name] | None]


# ---------------------------------------------------------------- writing


def save_transcoder(clt: CrossLayerTranscoder, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes `clt` to `folder`, whole or not at all; what else is in it stays. See `saved_folder` for what is refused.

    `dtype` stores the decoders and encoders in fewer bits: float16, or int8 with one scale a row (a quarter of float32;
    an error of about 1 % of each row). Thresholds and biases stay float32.
    """
    config = clt.config
    kind = "transcoder_set" if config.span == 1 else "cross_layer_transcoder"
    about = {"model_name": config.model.get("name", ""), "model_kind": kind}
    about |= hooks(config.feature_input_hook, config.feature_output_hook)
    if config.activation == "topk":
        about |= {"activation": "topk", "k": config.k}
    with saved_folder(folder) as stage:
        for name, tensors in _files(clt, dtype or clt.b_enc.dtype):
            save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, stage / name)
        (stage / "config.yaml").write_text(yaml.safe_dump(about, sort_keys=False), encoding="utf-8")
        (stage / "interp_kit.json").write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")


def _files(clt: CrossLayerTranscoder, dtype: torch.dtype) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """(file name, tensors) of every weight file."""
    per_layer = clt.config.span == 1
    for i, layer in enumerate(clt.layers):
        tensors = {**_rows("W_enc", clt.W_enc[i], dtype), "b_enc": clt.b_enc[i], "b_dec": clt.b_dec[i]}
        if clt.config.activation == "jumprelu":
            tensors["activation_function.threshold" if per_layer else "threshold"] = clt.threshold[i]
        if clt.W_skip is not None:
            skip = clt.W_skip[i].to(torch.float16 if dtype == torch.int8 else dtype)
            tensors["W_skip"] = skip if per_layer else skip.T
        if per_layer:
            yield f"layer_{layer}.safetensors", tensors | _rows("W_dec", clt.W_dec[i][:, 0], dtype)
        else:
            decoder = _rows("W_dec", clt.W_dec[i][:], dtype)
            yield f"W_enc_{layer}.safetensors", {f"{name}_{layer}": tensor for name, tensor in tensors.items()}
            yield f"W_dec_{layer}.safetensors", {f"{name}_{layer}": tensor for name, tensor in decoder.items()}


def _rows(name: str, rows: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors that hold `rows` [..., d]."""
    if dtype != torch.int8:
        return {name: rows.to(dtype)}
    scale = rows.float().abs().amax(-1).clamp(min=1e-30) / 127
    return {name: (rows / scale[..., None]).round().to(torch.int8), f"{name}_scale": scale}


def _checked(raw: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """`raw` itself. Raises ValueError for integers, but for int8 rows with their scales beside them."""
    scaled = [name for name in SCALED if f"{name}_scale" in raw]
    for name in scaled:
        scale, rows = raw[f"{name}_scale"], raw.get(name)
        if rows is None or scale.shape != rows.shape[:-1]:
            raise ValueError(f"{path}: {name}_scale should have one number for each row of {name}; copy the file again")
        if rows.dtype != torch.int8:
            raise ValueError(f"{path}: {name} should be int8 beside its {name}_scale, found {rows.dtype}")
        check_floats({f"{name}_scale": scale}, path)
        if not (scale >= 0).all() or not (scale <= LARGEST / 128).all():
            raise ValueError(f"{path}: {name}_scale holds NaN, negative or too large numbers; copy the file again")
    check_floats({name: tensor for name, tensor in raw.items() if name not in scaled}, path)
    return raw


# ---------------------------------------------------------------- reading


def load_transcoder(
    name: str | Path | Sequence[str | Path], dtype: torch.dtype = torch.float32, belongs_to: LanguageModel | None = None
) -> CrossLayerTranscoder:
    """A transcoder, by one of

    - the name of a shipped one, "pocket";
    - a folder that `transcoder.save` or circuit-tracer wrote, or one of EleutherAI sparsify, Gemma Scope, Gemma
      Scope 2 or SAELens: of one layer, or of a set with one folder (or file) for each layer;
    - a list of such folders, one for each layer, to choose among several sets;
    - what lies on the Hugging Face Hub, as "owner/repository", "owner/repository/folder", either with "@revision".

    What it is made of is float, of type `dtype`; only decoders of 256 MB and more stay in the file's type and on the
    disk, from where they are read row by row when they are used.

    belongs_to: insists that it is a transcoder of that model, whose weights may differ in the last digits from those
        that it was trained on (a GGUF, and a copy from the Hub).

    Raises FileNotFoundError for a folder that is not there; ValueError for a file that is missing, cut short, of the
    wrong shape or not finite, for one that its description denies, and for what the package cannot represent;
    MemoryError, before it is read, where it does not fit; OSError when the Hub does not hand it over; TypeError for
    what is no name and a dtype that is none. The message names the file and what to do.

        clt = ik.load_transcoder("pocket")
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype should be a floating-point type such as torch.float32, got {dtype!r}")
    clt = _loaded(name, dtype)
    if belongs_to is not None:
        about = insisted(clt.about, belongs_to)
        clt.config.model = {"name": about.get("model", ""), "fingerprint": about.get("fingerprint", "")}
    return clt


def _loaded(name: str | Path | Sequence[str | Path], dtype: torch.dtype) -> CrossLayerTranscoder:
    if isinstance(name, str | Path):
        place = _find(name)
        if place.is_dir():
            with opened_folder(place):
                return _from_folder(place, dtype)
        return _assemble(read_layers(weight_files(place)), dtype)  # one weight file
    if not isinstance(name, Sequence) or not all(isinstance(each, str | Path) for each in name):
        raise TypeError(f"expected the name of a transcoder, a folder, or a list of folders, got {name!r:.100}")
    if not name:
        raise ValueError("the list of folders is empty: expected one for each layer")
    return _assemble(read_layers([path for each in name for path in weight_files(_find(each))]), dtype)


def _from_folder(place: Path, dtype: torch.dtype) -> CrossLayerTranscoder:
    if (place / "interp_kit.json").exists():
        config = _read_config(place)
        layers = [_read_layer(place, number, config.span == 1) for number in config.layers]
        return _assemble(layers, dtype, config)
    if (place / "config.yaml").exists():
        return _assemble(_circuit_tracer(place), dtype)
    return _assemble(read_layers(weight_files(place)), dtype)


def _read_config(folder: Path) -> TranscoderConfig:
    path = folder / "interp_kit.json"
    about = about_of(path, Json)
    try:
        about, known = in_todays_words(about), {field.name: field for field in fields(TranscoderConfig)}
        needed = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
        if odd := sorted((about.keys() - known.keys()) | (needed - about.keys())):
            raise ValueError(f"{odd[0]!r} is {'not known' if odd[0] in about else 'missing'}")
        return TranscoderConfig(**about)
    except ValueError as error:
        raise ValueError(f"{path} is not a transcoder's description: {error}") from error


def in_todays_words(about: Json) -> Json:
    """A description that was written before 0.2, with the names of today. Raises ValueError for both names of one."""
    if twice := [f"{old!r} and {new!r}" for old, new in OLD_FIELDS.items() if {old, new} <= about.keys()]:
        raise ValueError(f"{twice[0]} are the same field, by its old and its new name")
    about = {OLD_FIELDS.get(name, name): value for name, value in about.items()}
    if about.get("activation") == "threshold":
        about["activation"] = "jumprelu"
    return about


def _read_layer(folder: Path, number: int, per_layer: bool, path: Path | None = None) -> Layer:
    """One layer of circuit-tracer's layout; `path` for a per-layer file of another name."""
    path = path or folder / f"{'layer' if per_layer else 'W_enc'}_{number}.safetensors"
    raw = weights_of(path)
    if per_layer:
        raw = _checked(_renamed(raw, path, lambda name: name.removeprefix("activation_function.")), path)
        if {"W_dec", "b_enc", "b_dec"} <= set(raw):  # else the missing one is reported with its shape, later
            d_model, n_features = raw["b_dec"].numel(), raw["b_enc"].numel()
            if raw["W_dec"].shape == (d_model, n_features) and d_model != n_features and "W_dec_scale" not in raw:
                raw["W_dec"] = raw["W_dec"].T  # so the sets of June 2025 have it
            raw["W_dec"] = raw["W_dec"].unsqueeze(min(1, raw["W_dec"].ndim))
    else:
        decoder = weights_of(folder / f"W_dec_{number}.safetensors")
        if twice := sorted(raw.keys() & decoder.keys()):
            raise ValueError(f"{path} and W_dec_{number}.safetensors both have {twice[0]!r}: copy them again")
        raw = _checked(_renamed(raw | decoder, path, lambda name: name.removesuffix(f"_{number}")), path)
        if "W_skip" in raw and raw["W_skip"].ndim == 2:
            raw["W_skip"] = raw["W_skip"].T
    if unknown := set(raw) - NAMES:
        raise ValueError(f"{path} has tensors that interp_kit does not know: {', '.join(sorted(unknown))}")
    return Layer(path, number, raw, {})


def _renamed(raw: dict[str, torch.Tensor], path: Path, rename: Callable[[str], str]) -> dict[str, torch.Tensor]:
    renamed = {rename(name): tensor for name, tensor in raw.items()}
    if len(renamed) < len(raw):
        raise ValueError(f"{path} has two tensors for one of {', '.join(sorted(renamed))}: copy it again")
    return renamed


def _circuit_tracer(folder: Path) -> list[Layer]:
    """The layers of a folder with config.yaml alone."""
    path = folder / "config.yaml"
    content = read_yaml(path)
    try:
        about = check_type(CircuitTracerAbout, content)
        kind, activation = about["model_kind"], about.get("activation")
        facts = hooks(about["feature_input_hook"], about["feature_output_hook"]) | named_model(about)
        if activation == "topk":
            need(about.get("k") is not None, "k", "how many features are on", None)
            facts |= {"activation": "topk", "k": about.get("k")}
    except ValueError as error:
        wanted = "model_kind, feature_input_hook, feature_output_hook (and k for activation: topk)"
        raise ValueError(f"{path} should have {wanted}: {error}") from error
    if kind not in ("transcoder_set", "cross_layer_transcoder"):
        raise ValueError(f"{path}: model_kind {kind!r} is neither transcoder_set nor cross_layer_transcoder")
    if activation not in (None, "relu", "jump_relu", "topk"):
        raise ValueError(f"{path}: activation {activation!r} is none of relu, jump_relu (with thresholds), topk")
    facts |= {"activation": activation.replace("_", "")} if activation else {}  # else the thresholds tell

    if entries := about.get("transcoders"):  # one file for each layer, in this or another repository
        layers = _listed(folder, entries)
    else:
        stem = "layer" if kind == "transcoder_set" else "W_enc"
        names = [re.fullmatch(rf"{stem}_([0-9]+)\.safetensors", path.name) for path in folder.iterdir()]
        last = max((int(name[1]) for name in names if name), default=0)
        layers = [_read_layer(folder, number, stem == "layer") for number in range(last + 1)]
    return [replace(layer, facts=layer.facts | facts) for layer in layers]


def _listed(folder: Path, entries: list[str]) -> list[Layer]:
    """The layers of the entries of `transcoders`, in their order."""
    layers, before = [], -1
    for number, entry in enumerate(entries):
        path = _entry(folder, entry)
        if own := re.fullmatch(r"layer_([0-9]{1,9})\.safetensors", path.name):
            layers.append(_read_layer(path.parent, number, True, path))
            in_order = int(own[1]) > before
            before = int(own[1])
        else:
            layers += read_layers([path])
            in_order = layers[-1].number == number
        if not in_order:
            said = f"{folder / 'config.yaml'}: {entry!r} stands for layer {number}"
            raise ValueError(f"{said}; list the files by layer, from 0 on")
    return layers


def _entry(folder: Path, entry: str) -> Path:
    """The file of an entry: a path in the folder, or hf://owner/repository/path?revision=..."""
    hub = re.fullmatch(r"hf://([^/]+/[^/]+)/([^?]+)(?:\?revision=(.+))?", entry)
    inside = PurePosixPath(hub[2] if hub else entry)
    about = f"{folder / 'config.yaml'}: {entry!r}"
    drive = re.match(r"[A-Za-z]:|.*\\", entry)  # Windows' way
    if inside.is_absolute() or ".." in inside.parts or drive or "\0" in entry:
        raise ValueError(f"{about} leads out of the folder: expected a file in it, or hf://owner/repository/file")
    if not any(inside.match(pattern) for pattern in ("layer_*.safetensors", *READERS)):
        raise ValueError(f"{about} is no weight file: expected one named layer_0.safetensors, {', '.join(READERS)}")
    if not hub:
        return folder / inside
    try:
        return Path(hf_hub_download(hub[1], hub[2], revision=hub[3]))
    except (OSError, ValueError) as error:
        raise OSError(f"{about}: the Hugging Face Hub did not hand it over ({error})") from error


# ---------------------------------------------------------------- from layers to the module


def _assemble(layers: list[Layer], dtype: torch.dtype, config: TranscoderConfig | None = None) -> CrossLayerTranscoder:
    """The module of these layers; without `config` they describe themselves."""
    config = config or _describe(layers)
    more = ["threshold"] * (config.activation == "jumprelu") + ["W_skip"] * config.skip
    for i, layer in enumerate(layers):  # before any memory is taken
        scales, n_targets = [name for name in SCALES if name in layer.tensors], min(config.span, len(layers) - i)
        fit(layer, layer_shapes(config.d_model, config.n_features, n_targets, more + scales))
    weights = [_with_scales(layer.tensors) for layer in layers]
    int8 = _stays_int8(weights)
    large = not int8 and _stays_on_disk(weights)
    kept = ("W_enc", "W_dec") if int8 else ("W_dec",) if large else ("nothing",)
    taken = [math.prod(t.shape) for of_layer in weights for name, t in of_layer.items() if name not in kept]
    held = sum(of_layer["W_enc"].nbytes for of_layer in weights) if int8 else 0
    check_memory(sum(taken) * dtype.itemsize + held, f"loading {layers[0].path.parent}")
    with torch.device("meta"):  # shapes without memory: random weights, drawn to be overwritten, would fill it
        clt = CrossLayerTranscoder(config).requires_grad_(False)
    shapes = {name: t.shape for name, t in clt.state_dict().items() if not name.startswith(("W_dec", *kept))}
    stacked = {name: torch.zeros(shape, dtype=dtype, device="cpu") for name, shape in shapes.items()}
    decoders, digests = {}, []
    for i, (layer, of_layer) in enumerate(zip(layers, weights, strict=True)):
        digests.append(layer_digest({name: of_layer[name] for name in clt.layer_tensors}))
        for name in [name for name in stacked if name in of_layer]:
            stacked[name][i] = _taken(of_layer, name, layer, dtype)
        if not int8:
            decoders[f"W_dec.{i}"] = of_layer["W_dec"] if large else _taken(of_layer, "W_dec", layer, dtype)
    clt.load_state_dict(stacked | decoders, strict=not int8, assign=True)
    if int8:
        clt.hold_int8(*_held_int8(weights, dtype))
    clt.on_disk = str(layers[0].path.parent) if large else None
    clt.fingerprint = fingerprint(config, digests)  # of what is stored, whatever `dtype` is
    return clt.eval()


def _with_scales(tensors: dict[str, torch.Tensor]) -> dict[str, Weights]:
    """The tensors, which are taken out of the dict: int8 ones with their scales."""
    found: dict[str, Weights] = {}
    for name in [name for name in tensors if name not in SCALES]:
        tensor, scale = tensors.pop(name), tensors.pop(f"{name}_scale", None)
        found[name] = tensor if scale is None else Int8Rows(tensor, scale, torch.float32)
    return found


def _stays_int8(weights: list[dict[str, Weights]]) -> bool:
    """Whether all encoders and decoders are int8, and too large to become floats."""
    rows = [of_layer[name] for of_layer in weights for name in SCALED]
    as_floats = sum(math.prod(each.shape) for each in rows) * torch.float32.itemsize
    return all(isinstance(each, Int8Rows) for each in rows) and as_floats >= STAY_INT8_BYTES


def _stays_on_disk(weights: list[dict[str, Weights]]) -> bool:
    """Whether the decoders, which are floats in their files, are too large to be read."""
    decoders = [of_layer["W_dec"] for of_layer in weights]
    floats = all(isinstance(each, torch.Tensor) for each in decoders)
    return floats and sum(each.nbytes for each in decoders) >= STAY_ON_DISK_BYTES


def _held_int8(weights: list[dict[str, Weights]], dtype: torch.dtype) -> Iterator[Int8Rows]:
    """The encoders of all layers together, then the decoders of each, which stay mapped into memory."""
    encoders, decoders = (
        [rows for of_layer in weights if isinstance(rows := of_layer[name], Int8Rows)] for name in SCALED
    )
    numbers, scale = torch.stack([each.numbers for each in encoders]), torch.stack([each.scale for each in encoders])
    yield Int8Rows(numbers, scale, dtype)
    for rows in decoders:
        yield rows.in_dtype(dtype, torch.device("cpu"))


def _describe(layers: list[Layer]) -> TranscoderConfig:
    """What files without our description say of themselves."""
    first, numbers = layers[0], [layer.number for layer in layers]
    for layer in layers:
        if layer.facts != first.facts or set(layer.tensors) != set(first.tensors):
            here, there = (f"{x.path}: {x.facts}, {', '.join(sorted(x.tensors))}" for x in (first, layer))
            raise ValueError(f"the layers of one transcoder should be alike, and these differ. {here}. {there}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"several files for one layer: {', '.join(f'{x.path} (layer {x.number})' for x in layers)}")
    path, tensors = first.path, first.tensors
    if missing := {"b_enc", "b_dec", "W_dec"} - set(tensors):
        raise ValueError(f"{path} should have a tensor {', '.join(sorted(missing))}; it has {', '.join(tensors)}")
    if "feature_input_hook" not in first.facts:
        raise ValueError(f"config.json is missing beside {path}: nothing says what the encoders read, copy it too")
    span = tensors["W_dec"].shape[1] if tensors["W_dec"].ndim == 3 else 1
    if span > 1 and numbers != list(range(max(span, len(numbers)))):
        raise ValueError(
            f"a cross-layer transcoder of {span} layers has files for layers 0 to {span - 1}, and those in "
            f"{path.parent} are of {', '.join(map(str, numbers))}: copy the missing ones too"
        )
    facts: Json = {"activation": "jumprelu" if "threshold" in tensors else "relu"} | first.facts
    d_model, n_features = tensors["b_dec"].numel(), tensors["b_enc"].numel()
    try:
        return TranscoderConfig(d_model, n_features, numbers, span, skip="W_skip" in tensors, **facts)
    except ValueError as error:
        raise ValueError(f"{path.parent} holds no transcoder: {error}") from error


def _taken(weights: dict[str, Weights], name: str, layer: Layer, dtype: torch.dtype) -> torch.Tensor:
    """One of the layer's weights, taken out of the dict, in `dtype`.

    Raises ValueError where it is not finite, or a weight so large that no sum would be.
    """
    value = weights.pop(name)[:].to(dtype)
    bounds = torch.stack(value.aminmax()).abs().double()  # NaN where there is one
    if not bounds.isfinite().all() or (name != "threshold" and (bounds > LARGEST).any()):
        raise ValueError(
            f"layer {layer.number} of {layer.path.parent}: {name} holds NaN or infinite weights (or some over "
            f"{LARGEST:g}); train or copy it again"
        )
    return value


# ---------------------------------------------------------------- from a name to a folder


def _find(name: str | Path) -> Path:
    """Where the transcoder of this name lies, or would lie."""
    if isinstance(name, str) and name in TRANSCODERS:
        return shipped_folder(TRANSCODERS[name])
    path, hub = Path(name).expanduser().absolute(), HUB_NAME.fullmatch(name) if isinstance(name, str) else None
    return path if path.exists() or not hub else _hub_folder(*hub.groups())


def _hub_folder(repository: str, subfolder: str, revision: str | None) -> Path:
    """The Hub's copy in the local cache, downloaded where missing."""
    inside = subfolder.strip("/") + "/" if subfolder else ""
    top = [inside + file for file in HUB_FILES]
    patterns = top + [f"{inside}*/{file}" for file in HUB_FILES]
    try:
        with suppress(DryRunError):  # no connection: what is cached is taken below
            found = snapshot_download(repository, revision=revision, allow_patterns=patterns, dry_run=True)
            listed = [file.filename for file in found]
            if {inside + "config.yaml", inside + "interp_kit.json"} & set(listed):
                patterns = top
            else:
                one_per_layer([Path(file) for file in listed])  # before hundreds of gigabytes are fetched
        folder = snapshot_download(repository, revision=revision, allow_patterns=patterns)
    except OSError as error:
        raise OSError(
            f"there is no folder {repository + subfolder!r} here, and the Hugging Face Hub did not hand over "
            f"{repository!r} ({error}). Check the spelling and the connection; for a repository with terms, accept "
            "them on its page and log in with `hf auth login`"
        ) from error
    return Path(folder) / inside
