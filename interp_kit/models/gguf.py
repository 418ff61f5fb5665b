"""GGUF files, converted once to a folder of safetensors in the user's cache.

transformers reads a GGUF file slowly (it unpacks every block), so the second load should not. A cache
entry is written to a temporary folder beside it and renamed, so an entry that exists is whole.
"""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import transformers
from filelock import FileLock
from tokenizers import Tokenizer, pre_tokenizers
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    modeling_gguf_pytorch_utils,
)

from ..storage import shipped
from ..storage.atomic import always, atomic_file, cache_entry
from ..storage.reading import check_no_pointer, file_size, in_short, no_panic, read_text
from ..widgets.progress import ProgressBar
from .checks import check_sizes, check_weights, read_model

# Part of an entry's name: raise it when the conversion changes, and older entries are no longer taken.
CONVERSION_VERSION = 2
LONGEST_LIST = 2**20  # in a header: the largest vocabularies have some 260,000 tokens, and twice as many merges
# What a header calls the sizes of a model, and what its config.json does.
SIZES = {
    "embedding_length": "hidden_size", "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim", "context_length": "max_position_embeddings", "vocab_size": "vocab_size",
}  # fmt: skip
# The values of `tokenizer.ggml.pre` for which llama.cpp splits off each digit before GPT-2's pattern.
# transformers 5 applies the pattern alone, which puts the space before a number into another token.
PRE_TOKENIZERS_THAT_SPLIT_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}


def cache_folder() -> Path:
    """Where converted models are kept: "models" in the kit's own cache folder."""
    return shipped.cache_folder() / "models"


def converted_folder(path: Path) -> Path:
    """The safetensors folder of a .gguf file (Path), converted now if it is not in the cache yet.

    An entry is keyed by the file's name, size and SHA-256. Hashing a large file on each load would
    cost more than the load, so a note per source path says which entry it led to last time; it holds
    while the file's size and its times of change stay what they were.

    Raises ValueError for a damaged or unsupported file, OSError when the cache cannot be written,
    ImportError without the `gguf` package.
    """
    path = path.absolute()  # a link keeps its name, which the user knows
    file_size(path)  # a pipe would wait for ever
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(_no_cache(cache, error)) from error
    stat = path.stat()
    # The time of change cannot be set by hand, so it tells a file swapped for one of the same size and date.
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, CONVERSION_VERSION]
    note = cache / f"source-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    known = _read_json(note)
    name = str(known.get("entry"))
    if known.get("state") == state and Path(name).name == name and _is_whole(cache / name):
        return cache / name
    check_no_pointer(path)
    digest = _sha256(path)
    entry = cache / f"{path.stem[:80]}-{stat.st_size}-{digest[:16]}-v{CONVERSION_VERSION}"
    if not _is_whole(entry):  # else nothing is written: a cache may be shared and read-only
        with _one_at_a_time(cache / f"{entry.name}.lock"):
            if not _is_whole(entry):
                _convert(path, entry, digest)
    with suppress(OSError), atomic_file(note, always) as temporary:  # without a note the next load hashes again
        temporary.write_text(json.dumps({"source": str(path), "state": state, "entry": entry.name}), encoding="utf-8")
    return entry


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """One process converts and the others wait: two at once would be correct, but need twice the memory."""
    held = FileLock(lock)
    try:
        held.acquire()
    except OSError as error:
        raise OSError(_no_cache(lock.parent, error)) from error
    try:
        yield
    finally:
        held.release()


def _no_cache(cache: Path, error: OSError) -> str:
    return (
        f"The cache folder {str(cache)!r} cannot be made or written to: {error}. Set the environment variable "
        "INTERP_KIT_CACHE to a folder you can write to."
    )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(entry: Path) -> bool:
    """Whether every file of an entry is there at the size it was written with."""
    listed = _read_json(entry / "source.json").get("files")
    if not isinstance(listed, dict) or not listed:
        return False
    files = {file.name: file.stat().st_size for file in entry.iterdir() if file.is_file()}
    return all(files.get(name) == size for name, size in listed.items())


def _convert(path: Path, entry: Path, digest: str) -> None:
    """Write the entry; the caller holds its lock."""
    try:
        with cache_entry(entry) as folder:
            _write_model(path, folder)
            files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
            about = {"gguf": path.name, "sha256": digest, "files": files}
            (folder / "source.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
            # On disk before the rename is: a power cut must not leave an entry of empty files.
            for file in folder.iterdir():
                with open(file, "rb+") as opened:
                    os.fsync(opened.fileno())
    except OSError:
        # Where a network drive ignores locks, another process may be first; its entry is as good.
        if not _is_whole(entry):
            raise


def _write_model(path: Path, folder: Path) -> None:
    # Half a minute for 135 million parameters, nearly all of it inside transformers.
    with ProgressBar(total=3, desc=f"Converting {path.name} (once; later loads are fast)", unit="step") as steps:
        pre, end = _check_header(path)
        steps.update()
        model, tokenizer = _read_gguf(path)
        if pre in PRE_TOKENIZERS_THAT_SPLIT_DIGITS:
            _split_digits(tokenizer.backend_tokenizer)
        if end is not None:  # transformers up to 5.17 may take another token for it
            if type(end) is not int or not 0 <= end < len(tokenizer):
                ends = f"texts end with token {end!r:.80} of {len(tokenizer):,}"
                raise _unreadable(path, ValueError(ends))
            tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
        steps.update()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        steps.update()


def _check_header(path: Path) -> tuple[str | None, int | None]:
    """The file's pre-tokenizer type and the id that ends a text; ValueError unless all its tensors lie within the file,
    and are of the sizes that it says."""
    try:
        from gguf import GGUFReader, GGUFValueType
    except ImportError as error:
        raise ImportError("Reading a .gguf file needs the package gguf: pip install gguf") from error

    class Within(GGUFReader):
        """Refuses a list that claims more entries than there can be: 2 ** 60 of them would be read for ever."""

        def _get_field_parts(self, orig_offs, raw_type):
            if raw_type == GGUFValueType.ARRAY:
                (length,) = self._get(orig_offs + 4, "uint64")  # behind the type of its entries
                if length > min(LONGEST_LIST, len(self.data)):
                    raise ValueError(f"its header has a list of {length:,} entries, more than the file can hold")
            return super()._get_field_parts(orig_offs, raw_type)

    try:
        reader = Within(path)  # maps every tensor, and so fails where one ends beyond the file
        said = {name.partition(".")[2]: field.contents() for name, field in reader.fields.items() if _is_size(name)}
        found = (reader.get_field(f"tokenizer.ggml.{name}") for name in ("pre", "eos_token_id"))
        pre, end = (field.contents() if field else None for field in found)
        shapes = {tensor.name: tuple(map(int, tensor.shape)) for tensor in reader.tensors}
    except Exception as error:  # a cut header surfaces as nearly any exception, from struct to numpy
        raise _unreadable(path, error) from error
    check_sizes(PreTrainedConfig(**{SIZES[name]: size for name, size in said.items()}), shapes, str(path), "its header")
    blocks = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    if said.get("block_count") != len(blocks):  # for one that is missing transformers has a number of its own
        held = f"its header says block_count {said.get('block_count')!r}, and it holds {len(blocks)} blocks"
        raise _unreadable(path, ValueError(held))
    return pre, end


def _is_size(name: str) -> bool:
    """Whether it is one of SIZES, behind the architecture's name: "llama.block_count"."""
    return name.partition(".")[2] in SIZES


def _read_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    config = getattr(transformers, "GgufConfig", None)
    # Ask for plain tensors: recent transformers keep the packed blocks where a kernel for them is found.
    dense = {"quantization_config": config(dequantize=True)} if config else {}
    try:
        with patch.object(
            modeling_gguf_pytorch_utils, "tqdm", partial(tqdm, disable=True), create=True
        ):  # ours is shown
            model, report = read_model(path.parent, gguf_file=path.name, dtype=torch.float32, **dense)
        with no_panic():
            tokenizer = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False
            )
    except MemoryError:
        raise
    except Exception as error:  # nearly any: the file's header was read before, by another package
        raise (ImportError if isinstance(error, ImportError) else ValueError)(_not_made(path, error)) from error
    check_weights(model, report, path.name)
    return model, tokenizer


def _split_digits(backend: Tokenizer) -> None:
    current = json.loads(backend.pre_tokenizer.__getstate__())
    # So transformers leaves it today; should it learn to split digits itself, nothing is to be done.
    if current["type"] == "ByteLevel" and current["use_regex"]:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{str(path)!r} ({path.stat().st_size:,} bytes) could not be read as a GGUF language model: "
        f"{type(error).__name__}: {in_short(error)}. It is truncated, damaged, or of an architecture that "
        "transformers does not read from GGUF. Download it again (or reinstall the package it came in), "
        "or use the model's safetensors."
    )


def _not_made(path: Path, error: Exception) -> str:
    """Of a file that is whole as far as its header says."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "accelerate", "gguf")
    )
    return (
        f"{str(path)!r} is a whole GGUF file, but no model could be made of it: {type(error).__name__}: "
        f"{in_short(error)}. Either transformers does not read its architecture from GGUF (then use the model's "
        f"safetensors), or a package is too old for this ({versions}): pip install --upgrade transformers "
        "accelerate gguf"
    )


def _read_json(file: Path) -> dict:
    """Empty for what is no object of JSON, in our own cache: then it is made anew."""
    try:
        content = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
