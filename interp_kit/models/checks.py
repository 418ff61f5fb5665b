"""Is this folder, config, tokenizer or weight what a model needs? Each check says what is wrong and what to do."""

import json
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
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
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # damaged JSON, an unknown architecture, or one that wants to run its own code
        raise ValueError(
            f"The config.json of {label!r} in {str(folder)!r} could not be used: {error}. interp_kit loads the "
            "architectures that transformers has built in, and never runs a model's own code."
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
    causal = {getattr(cls, "__name__", "") for cls in (classes if isinstance(classes, tuple) else (classes,))}
    if made_for and not causal & set(made_for) and not any("CausalLM" in name for name in made_for):
        return f"its config.json names the architecture {made_for[0]!r}, not {' or '.join(sorted(causal))}"
    return None


def check_weight_files(folder: Path, label: str) -> None:
    """Raises ValueError when safetensors files are missing, or one is shorter than its header says."""
    for file in _weight_files(folder, label):
        try:
            with safe_open(file, framework="pt"):  # reads the header alone, which says how long the file must be
                pass
        except SafetensorError as error:
            raise ValueError(
                f"{str(file)!r} ({file.stat().st_size:,} bytes) is truncated or no safetensors file: {error}. Copy or "
                "download it again."
            ) from error


def _weight_files(folder: Path, label: str) -> list[Path]:
    """The safetensors files, by transformers' own order of preference; ValueError if any is missing."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{str(index)!r} is damaged: {error}. Copy or download it again.") from error
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
    """Raises ValueError for a folder without a tokenizer."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
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
    """Raises ValueError, naming a tensor, when weights are missing, of another shape, NaN or infinite.

    `report` is the one of `read_model`. transformers fills missing tensors with random numbers and
    only warns; a graph of such a model would look like any other.
    """
    for fault, what in (("missing", "are missing"), ("mismatched", "have another shape than config.json says")):
        if keys := sorted(key[0] if isinstance(key, tuple) else key for key in report[f"{fault}_keys"]):
            raise ValueError(
                f"{label!r}: {len(keys)} tensors {what}, the first is {keys[0]!r}. The weights and config.json belong "
                "to different models, or the copy is incomplete: download or save both again."
            )
    for name, parameter in hf.named_parameters():
        # A sum is finite only if every term is, and far cheaper than testing each; but it may overflow.
        if not torch.isfinite(parameter.sum()) and not torch.isfinite(parameter).all():
            bad = int((~torch.isfinite(parameter)).sum())
            raise ValueError(
                f"{label!r}: the tensor {name!r} has {bad} NaN or infinite values of {parameter.numel():,}. The copy "
                "is damaged or its training diverged (or the numbers do not fit the dtype asked for): download it "
                "again, or load with dtype=torch.float32."
            )
