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
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
import yaml
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import DryRunError
from safetensors.torch import save_file

from ..formats.provenance import insisted
from ..models import LanguageModel
from ..storage.folders import opened_folder, saved_folder
from ..storage.shipped import TRANSCODERS, shipped_folder
from .fingerprint import fingerprint, layer_digest
from .foreign import Json, Layer, hooks, named_model, one_per_layer, read_layers, read_tensors, weight_files
from .module import CrossLayerTranscoder, TranscoderConfig

OLD_FIELDS = {  # of interp_kit.json before 0.2
    "reads": "feature_input_hook",
    "writes": "feature_output_hook",
    "skips_first": "excludes_first_position",
    "counts": "n_features_per_layer",
}
STAY_ON_DISK_BYTES = 256 * 2**20  # of all decoders: larger ones keep the file's dtype, and are not searched for NaN

HUB_NAME = re.compile(r"(\w[\w.-]*/[\w.-]+)((?:/[\w.=-]+)*)(?:@([\w./-]+))?")  # owner/repository/folder@revision
# What is fetched of a repository: no pickles, which can run code; no example texts, which can outweigh the weights.
HUB_FILES = [
    "config.yaml", "interp_kit.json", "cfg.json", "config.json", "activation_scaler.json",
    "sae.safetensors", "sae_weights.safetensors", "params.safetensors", "params.npz",
    *(f"{stem}_{digits}.safetensors" for stem in ("layer", "W_enc", "W_dec", "params_layer")
      for digits in ("[0-9]", "[0-9][0-9]", "[0-9][0-9][0-9]")),
]  # fmt: skip


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
        for name, tensors in _files(clt, dtype or clt.W_enc.dtype):
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
            decoder = _rows("W_dec", clt.W_dec[i], dtype)
            yield f"W_enc_{layer}.safetensors", {f"{name}_{layer}": tensor for name, tensor in tensors.items()}
            yield f"W_dec_{layer}.safetensors", {f"{name}_{layer}": tensor for name, tensor in decoder.items()}


def _rows(name: str, rows: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors that hold `rows` [..., d]."""
    if dtype != torch.int8:
        return {name: rows.to(dtype)}
    scale = rows.float().abs().amax(-1).clamp(min=1e-30) / 127
    return {name: (rows / scale[..., None]).round().to(torch.int8), f"{name}_scale": scale}


def _unscaled(raw: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """int8 rows in float32 again, where their scales lie beside them."""
    for name in ("W_enc", "W_dec"):
        if (scale := raw.pop(f"{name}_scale", None)) is None:
            continue
        if name not in raw or scale.shape != raw[name].shape[:-1]:
            raise ValueError(f"{path}: {name}_scale should have one number for each row of {name}; copy the file again")
        raw[name] = raw[name].float() * scale[..., None]
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
    disk, from where they are read row by row when they are used. `belongs_to` insists that it is a transcoder of that
    model, whose weights may differ in the last digits from those that it was trained on (a GGUF, and a copy from the
    Hub). Raises FileNotFoundError for a folder that is not
    there; ValueError for a file that is missing, cut short, of the wrong shape or not finite, and for what the
    package cannot represent; OSError when the Hub does not hand it over. The message names the file and what to do.

        clt = ik.load_transcoder("pocket")
    """
    clt = _loaded(name, dtype)
    if belongs_to is not None:
        about = insisted(clt.about, belongs_to)
        clt.config.model = {"name": about.get("model", ""), "fingerprint": about.get("fingerprint", "")}
    return clt


def _loaded(name: str | Path | Sequence[str | Path], dtype: torch.dtype) -> CrossLayerTranscoder:
    if not isinstance(name, str | Path):
        return _assemble(read_layers([path for each in name for path in weight_files(_find(each))]), dtype)
    place = _find(name)
    if not place.is_dir():  # one weight file
        return _assemble(read_layers(weight_files(place)), dtype)
    with opened_folder(place):
        return _from_folder(place, dtype)


def _from_folder(place: Path, dtype: torch.dtype) -> CrossLayerTranscoder:
    if (place / "interp_kit.json").exists():
        config = _read_config(place)
        layers = [_read_layer(place, number, config.span == 1) for number in config.layers]
        return _assemble(layers, dtype, config)
    if (place / "config.yaml").exists():
        return _assemble(_circuit_tracer(place), dtype)
    return _assemble(read_layers(weight_files(place)), dtype)


def _read_config(folder: Path) -> TranscoderConfig:
    try:
        return TranscoderConfig(**in_todays_words(json.loads((folder / "interp_kit.json").read_text())))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'interp_kit.json'} is not a transcoder's description: {error}") from error


def in_todays_words(about: Json) -> Json:
    """A description that was written before 0.2, with the names of today."""
    about = {OLD_FIELDS.get(name, name): value for name, value in about.items()}
    if about.get("activation") == "threshold":
        about["activation"] = "jumprelu"
    return about


def _read_layer(folder: Path, number: int, per_layer: bool, path: Path | None = None) -> Layer:
    """One layer of circuit-tracer's layout; `path` for a per-layer file of another name."""
    path = path or folder / f"{'layer' if per_layer else 'W_enc'}_{number}.safetensors"
    raw = read_tensors(path)
    if per_layer:
        raw = _unscaled({name.removeprefix("activation_function."): tensor for name, tensor in raw.items()}, path)
        if {"W_dec", "b_enc", "b_dec"} <= set(raw):  # else the missing one is reported with its shape, later
            d_model, n_features = raw["b_dec"].numel(), raw["b_enc"].numel()
            if raw["W_dec"].shape == (d_model, n_features) and d_model != n_features:
                raw["W_dec"] = raw["W_dec"].T  # so the sets of June 2025 have it
            raw["W_dec"] = raw["W_dec"][:, None]
    else:
        raw |= read_tensors(folder / f"W_dec_{number}.safetensors")
        raw = _unscaled({name.removesuffix(f"_{number}"): tensor for name, tensor in raw.items()}, path)
        if "W_skip" in raw:
            raw["W_skip"] = raw["W_skip"].T
    if unknown := set(raw) - {"W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip"}:
        raise ValueError(f"{path} has tensors that interp_kit does not know: {', '.join(sorted(unknown))}")
    return Layer(path, number, raw, {})


def _circuit_tracer(folder: Path) -> list[Layer]:
    """The layers of a folder with config.yaml alone."""
    path = folder / "config.yaml"
    try:
        about = yaml.safe_load(path.read_text())
        kind, activation = about["model_kind"], about.get("activation", "relu")
        facts = hooks(about["feature_input_hook"], about["feature_output_hook"]) | named_model(about)
        if activation == "topk":
            facts |= {"activation": "topk", "k": about["k"]}
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} should have model_kind, feature_input_hook, feature_output_hook (and k for activation: topk): "
            f"{type(error).__name__} {error}"
        ) from error
    if kind not in ("transcoder_set", "cross_layer_transcoder"):
        raise ValueError(f"{path}: model_kind {kind!r} is neither transcoder_set nor cross_layer_transcoder")
    if activation not in ("relu", "jump_relu", "topk"):
        raise ValueError(f"{path}: activation {activation!r} is none of relu, jump_relu (with thresholds), topk")

    if about.get("transcoders"):  # one file for each layer, in this or another repository
        layers = [_listed(folder, entry, number) for number, entry in enumerate(about["transcoders"])]
    else:
        stem = "layer" if kind == "transcoder_set" else "W_enc"
        names = [re.fullmatch(rf"{stem}_(\d+)\.safetensors", path.name) for path in folder.iterdir()]
        last = max((int(name[1]) for name in names if name), default=0)
        layers = [_read_layer(folder, number, stem == "layer") for number in range(last + 1)]
    return [replace(layer, facts=layer.facts | facts) for layer in layers]


def _listed(folder: Path, entry: str, number: int) -> Layer:
    """A layer from an entry of `transcoders`: a path, or hf://owner/repository/path?revision=..."""
    path = folder / entry
    if hub := re.fullmatch(r"hf://([^/]+/[^/]+)/([^?]+)(?:\?revision=(.+))?", entry):
        path = Path(hf_hub_download(hub[1], hub[2], revision=hub[3]))
    if re.fullmatch(r"layer_\d+\.safetensors", path.name):
        return _read_layer(path.parent, number, True, path)
    return replace(read_layers([path])[0], number=number)


# ---------------------------------------------------------------- from layers to the module


def _assemble(layers: list[Layer], dtype: torch.dtype, config: TranscoderConfig | None = None) -> CrossLayerTranscoder:
    """The module of these layers; without `config` they describe themselves."""
    config = config or _describe(layers)
    with torch.device("meta"):  # shapes without memory: random weights, drawn to be overwritten, would fill it
        clt = CrossLayerTranscoder(config).requires_grad_(False)
    shapes = {name: tensor.shape for name, tensor in clt.state_dict().items() if not name.startswith("W_dec")}
    stacked = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}
    large = sum(layer.tensors["W_dec"].nbytes for layer in layers if "W_dec" in layer.tensors) >= STAY_ON_DISK_BYTES
    decoders, digests = {}, []
    for i, layer in enumerate(layers):
        as_stored = dict(layer.tensors)
        for name, whole in stacked.items():
            if name != "threshold" or config.activation == "jumprelu":
                whole[i] = _taken(layer, name, whole[i].shape, dtype)
        decoders[f"W_dec.{i}"] = _taken(layer, "W_dec", clt.W_dec[i].shape, None if large else dtype)
        digests.append(layer_digest({name: as_stored[name] for name in clt.layer_tensors}))
    clt.load_state_dict(stacked | decoders, assign=True)
    clt.fingerprint = fingerprint(config, digests)  # of what is stored, whatever `dtype` is
    return clt.eval()


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
    span = tensors["W_dec"].shape[1]
    if span > 1 and numbers != list(range(max(span, len(numbers)))):
        raise ValueError(
            f"a cross-layer transcoder of {span} layers has files for layers 0 to {span - 1}, and those in "
            f"{path.parent} are of {', '.join(map(str, numbers))}: copy the missing ones too"
        )
    facts: Json = {"activation": "jumprelu" if "threshold" in tensors else "relu"} | first.facts
    d_model, n_features = tensors["b_dec"].numel(), tensors["b_enc"].numel()
    return TranscoderConfig(d_model, n_features, numbers, span, skip="W_skip" in tensors, **facts)


def _taken(layer: Layer, name: str, shape: torch.Size, dtype: torch.dtype | None) -> torch.Tensor:
    """A tensor of the layer, which gives it away, in `dtype`; None leaves it on the disk, in the file's.

    Raises ValueError where it is missing or has another shape, and where what was read of it is not finite.
    """
    value = layer.tensors.pop(name, None)
    if value is None or value.shape != shape:
        found = "nothing" if value is None else list(value.shape)
        raise ValueError(f"layer {layer.number} of {layer.path.parent}: {name} should be {list(shape)}, found {found}")
    if dtype is None:
        return value
    value = value.to(dtype)
    if not value.isfinite().all():
        raise ValueError(
            f"layer {layer.number} of {layer.path.parent}: {name} holds NaN or infinite weights; train or copy it again"
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
