"""Is this folder, config, tokenizer or weight what a model needs? Each check says what is wrong and what to do."""

import math
import re
import reprlib
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from typing_extensions import TypedDict

from ..formats.json import read_json
from ..formats.validation import check_type
from ..storage.reading import check_no_pointer, check_tensors, file_size, in_short

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
STORED_AS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TOKENIZER_COPIES = 15  # of its file's size, in memory
LIBRARY_BYTES = 25e6  # of transformers, imported at the first load
LEARNED_POSITIONS = re.compile(r"\bwpe\b|position")  # the tensor with a row for each, where a model has one
LARGEST = 1e15  # of a weight: products of two are finite in float32
CONFIG_BYTES = 2**24  # those of real models have a few thousand
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
Shapes = dict[str, tuple[int, ...]]  # of each tensor, by name
CONVERT_REMEDY = (
    "Pickled weights can run code when they are opened, so only safetensors are read. If you trust the file, convert "
    "it once elsewhere with transformers: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder), the same "
    "for AutoTokenizer, then load_model(folder)."
)


def decoder_config(folder: Path, label: str) -> PreTrainedConfig:
    """The config of a decoder-only model. Raises ValueError for anything else."""
    if not (folder / "config.json").is_file():
        gguf = sorted(folder.glob("*.gguf"))
        hint = "Give a folder written by save_pretrained (config.json, model.safetensors, tokenizer.json)."
        if gguf:
            hint = f"Give the path of the .gguf file instead: {str(gguf[0])!r}."
        raise ValueError(f"{str(folder)!r} ({label!r}) is no model folder: it has no config.json. {hint}")
    if file_size(folder / "config.json") > CONFIG_BYTES:
        raise ValueError(f"The config.json in {str(folder)!r} ({label!r}) has over {CONFIG_BYTES:,} bytes: it is none.")
    check_no_pointer(folder / "config.json")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # damaged JSON, an unknown architecture, or one that wants to run its own code
        raise ValueError(
            f"The config.json of {label!r} in {str(folder)!r} could not be used: {in_short(error)}. interp_kit loads "
            "the architectures that transformers has built in, and never runs a model's own code."
        ) from error
    if problem := _why_no_decoder(config):
        raise ValueError(
            f"{label!r} is no decoder-only language model: {problem}. Attribution graphs need a model that predicts "
            "the next token from the ones before it, such as Llama, Qwen, Gemma, Mistral or GPT-2."
        )
    return config


def _why_no_decoder(config: PreTrainedConfig) -> str | None:
    if config.is_encoder_decoder:
        return f"{config.model_type!r} is an encoder-decoder"
    classes = transformers.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if classes is None:
        return f"{config.model_type!r} has no language-model head in transformers"
    # BERT and its kin can serve as decoders; unless told to, they read in both directions. (GPT-NeoX has
    # the field is_decoder too, unused: only the encoder family has the cross-attention field beside it.)
    if getattr(config, "is_decoder", None) is False and hasattr(config, "add_cross_attention"):
        return f"{config.model_type!r} is an encoder, which reads in both directions"
    made_for = config.architectures or []
    if not isinstance(made_for, list) or not all(isinstance(name, str) for name in made_for):
        return f"the architectures in its config.json are {reprlib.repr(made_for)}, expected a list of names"
    causal = {getattr(cls, "__name__", "") for cls in (classes if isinstance(classes, tuple) else (classes,))}
    if made_for and not causal & set(made_for) and not any("CausalLM" in name for name in made_for):
        return f"its config.json names the architecture {made_for[0]!r}, not {' or '.join(sorted(causal))}"
    return None


def check_weight_files(folder: Path, label: str, config: PreTrainedConfig) -> None:
    """Raises ValueError when safetensors files are missing, one is shorter than its header says or only points at one,
    or they hold fewer weights than config.json asks memory for, or none that are numbers to compute with."""
    shapes: Shapes = {}
    for file in _weight_files(folder, label):
        found, _ = check_tensors(file)  # reads the header alone, which says how long the file must be
        shapes |= found
        if not hasattr(config, "quantization_config"):
            _check_dtypes(file, label)
    check_sizes(config, shapes, label)


def bytes_to_load(folder: Path, label: str, dtype: torch.dtype) -> float:
    """Memory that loading takes: the weights; what is stored in another type, which stays until the last weight is
    converted; the tokenizer; and what of transformers is imported at the first load."""
    tokenizer = sum((folder / name).stat().st_size for name in TOKENIZER_FILES if (folder / name).exists())
    needed = LIBRARY_BYTES + TOKENIZER_COPIES * tokenizer
    for file in _weight_files(folder, label):
        with safe_open(file, framework="pt") as opened:
            for part in map(opened.get_slice, opened.keys()):
                stored = STORED_AS.get(part.get_dtype(), torch.float32)
                needed += math.prod(part.get_shape()) * (dtype.itemsize + (0 if stored == dtype else stored.itemsize))
    return needed


def _check_dtypes(file: Path, label: str) -> None:
    """Whole numbers would be taken for weights as they stand. (Masks are among the tensors of some older models.)"""
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():
            dtype = opened.get_slice(name).get_dtype()
            if name.endswith("weight") and not dtype.startswith(("F", "BF")):
                raise ValueError(
                    f"{label!r}: the tensor {name!r} in {str(file)!r} is stored as {dtype}, expected floating-point "
                    "numbers. Quantized weights mean nothing without their scales: take the model's unquantized copy."
                )


def check_sizes(config: PreTrainedConfig, shapes: Shapes, label: str, where: str = "config.json") -> None:
    """Before memory is asked for: no matrix that `where` describes is larger than all weights together.

    Raises ValueError.
    """
    config, total = config.get_text_config(), sum(map(math.prod, shapes.values()))
    width, layers = (_whole_number(config, name) for name in ("hidden_size", "num_hidden_layers"))
    sizes = {name: _whole_number(config, name) for name in ("vocab_size", "intermediate_size")} | {"hidden_size": 1}
    for heads in ("num_attention_heads", "num_key_value_heads"):
        sizes[f"{heads} * head_dim"] = _whole_number(config, heads) * _whole_number(config, "head_dim")
    if any(LEARNED_POSITIONS.search(name) for name in shapes):
        sizes["max_position_embeddings"] = _whole_number(config, "max_position_embeddings")
    for name, size in sizes.items():
        if width * size > total:
            raise ValueError(
                f"{label!r}: {where} says hidden_size {width:,} and {name} {size:,}, and the files hold "
                f"{total:,} weights in all. They belong to different models: download or save both again."
            )
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and (type(context) is not int or context < 1):  # True is an int too
        raise ValueError(f"{label!r}: {where} says max_position_embeddings {context!r}, expected at least 1")
    if layers > len(shapes):
        raise ValueError(
            f"{label!r}: {where} says num_hidden_layers {layers:,}, and the files hold {len(shapes):,} tensors. "
            "They belong to different models: download or save both again."
        )


def _whole_number(config: PreTrainedConfig, name: str) -> int:
    """1 where a family has no such field, or lets it follow from others."""
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else 1


class _Index(TypedDict):
    """Which file each tensor lies in."""

    weight_map: dict[str, str]


def _weight_files(folder: Path, label: str) -> list[Path]:
    """The safetensors files, by transformers' own order of preference; ValueError if any is missing."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        check_no_pointer(index)
        try:
            names = sorted(set(check_type(_Index, read_json(index))["weight_map"].values()))
        except ValueError as error:
            raise ValueError(f"{str(index)!r} is damaged: {error}. Copy or download it again.") from error
        if elsewhere := [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]:
            raise ValueError(
                f"{str(index)!r} names {elsewhere[0][:80]!r}, expected names of safetensors files in the same folder. "
                "Take the model from where you trust it."
            )
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise ValueError(f"{label!r} lacks the weight files {missing} in {str(folder)!r}. Download them.")
        return [folder / name for name in names]
    if pickled := sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED_SUFFIXES):
        raise ValueError(f"{label!r} has only pickled weights ({', '.join(pickled)}). {CONVERT_REMEDY}")
    raise ValueError(
        f"{label!r} has no weights: expected model.safetensors (or model.safetensors.index.json and its parts) in "
        f"{str(folder)!r}. If the model is published with pickled weights only: {CONVERT_REMEDY}"
    )


def check_tokenizer_files(folder: Path, label: str) -> None:
    """Raises ValueError for a folder without a tokenizer, or with one that Git LFS has not fetched."""
    there = [folder / name for name in TOKENIZER_FILES if (folder / name).exists()]
    for file in there:
        file_size(file)  # a pipe would wait for ever
        check_no_pointer(file)
    if not there:
        raise ValueError(
            f"{label!r} has no tokenizer: expected tokenizer.json in {str(folder)!r}. Save it there with "
            "tokenizer.save_pretrained(folder)."
        )


def read_model(folder: Path, **options: object) -> tuple[PreTrainedModel, dict]:
    """transformers' model of a folder, and its report for `check_weights`. Nothing is downloaded, and no code run."""
    return AutoModelForCausalLM.from_pretrained(  # type: ignore[return-value]  (of the report its stub knows nothing)
        folder, output_loading_info=True, local_files_only=True, trust_remote_code=False, **options
    )


def check_weights(hf: PreTrainedModel, report: dict, label: str) -> None:
    """Raises ValueError, naming a tensor, when weights are missing, of another shape, NaN, infinite or absurdly large;
    or where what config.json gives, such as rotary positions, is not finite.

    `report` is the one of `read_model`. transformers fills missing tensors with random numbers and
    only warns; a graph of such a model would look like any other.
    """
    for fault, what in (("missing", "are missing"), ("mismatched", "have another shape than config.json says")):
        if keys := sorted(key[0] if isinstance(key, tuple) else key for key in report[f"{fault}_keys"]):
            raise ValueError(
                f"{label!r}: {len(keys)} tensors {what}, the first is {keys[0]!r}. The weights and config.json belong "
                "to different models, or the copy is incomplete: download or save both again."
            )
    for name, tensor in [*hf.named_parameters(), *hf.named_buffers()]:  # buffers are computed from config.json
        # A sum is small and finite only if every term is, or nearly so, and far cheaper than testing each.
        if not tensor.is_floating_point() or abs(tensor.sum()) < LARGEST:
            continue
        largest = LARGEST if isinstance(tensor, torch.nn.Parameter) else torch.finfo(tensor.dtype).max
        if bad := int((~(tensor.abs() <= largest)).sum()):  # NaN is neither
            raise ValueError(
                f"{label!r}: the tensor {name!r} has {bad} NaN, infinite or absurdly large values of "
                f"{tensor.numel():,}. The copy or its config.json is damaged, or its training diverged (or the numbers "
                "do not fit the dtype asked for): download it again, or load with dtype=torch.float32."
            )
