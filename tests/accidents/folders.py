"""What may happen to the files of a folder: one is changed as its format asks, or is no file any more."""

import json
import os
import random
from pathlib import Path
from typing import Any

from .harm import MODULE
from .mutations import mutate_bytes, mutate_json, mutate_json_text, mutate_npz, mutate_tensors, mutate_yaml, mutate_zip
from .tables import mutate_csv, mutate_gguf, mutate_lines, mutate_parquet, mutate_text

BY_SUFFIX = {
    ".safetensors": mutate_tensors, ".json": mutate_json_text, ".jsonl": mutate_lines, ".yaml": mutate_yaml,
    ".npz": mutate_npz, ".zip": mutate_zip, ".parquet": mutate_parquet, ".csv": mutate_csv, ".gguf": mutate_gguf,
    ".txt": mutate_text,
}  # fmt: skip


def mutate_folder(folder: Path, rng: random.Random) -> str:
    """Changes a folder, most often one of its files; returns what was done, in words."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    draw = rng.random()
    if len(files) > 1 and draw < 0.05:
        return _exchange(*rng.sample(files, 2))
    if draw < 0.1:
        return _add(folder, rng.choice(files), rng)
    done = mutate_file(rng.choice(files), rng)
    if draw > 0.9:  # two accidents
        left = sorted(path for path in folder.rglob("*") if path.is_file())
        done += " and " + mutate_file(rng.choice(left), rng) if left else ""
    return done


def mutate_file(path: Path, rng: random.Random) -> str:
    """Changes a file where it lies; returns what was done, in words."""
    by_meaning, draw = BY_SUFFIX.get(path.suffix), rng.random()
    if by_meaning and draw < 0.65:
        try:
            content = by_meaning(path.read_bytes(), rng)
        except Exception:  # it was changed before, and has no meaning any more
            content = mutate_bytes(path.read_bytes(), rng)
        path.write_bytes(content)
        return f"{by_meaning.__name__} of {path.name}"
    if draw < 0.93:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        return f"mutate_bytes of {path.name}"
    path.unlink()
    kind = rng.choice(["gone", "folder", "pipe", "link to itself", "link to nothing", "link out of the folder"])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind.startswith("link"):
        ends = {"link to itself": path, "link to nothing": path.with_name("nothing")}
        path.symlink_to(ends.get(kind, path.parent / "../outside"))
    return f"{path.name} is {kind}"


def _exchange(a: Path, b: Path) -> str:
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    return f"{a.name} and {b.name} changed places"


def _add(folder: Path, path: Path, rng: random.Random) -> str:
    """A file more: a copy under another name, or code of its own that the description asks to be run."""
    if path.suffix == ".json" and rng.random() < 0.5:
        try:
            about: Any = json.loads(path.read_bytes())
        except ValueError:
            about = {}
        ways = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
        about = (about if isinstance(about, dict) else {}) | {"auto_map": dict.fromkeys(ways, "evil.Evil")}
        path.write_text(json.dumps(about if rng.random() < 0.5 else mutate_json(about, rng)), "utf-8", "surrogatepass")
        (folder / "evil.py").write_text(MODULE)
        return f"{path.name} asks for code of its own"
    odd = ["0", "\u0663", "-1", "9" * 100, "a b", "layer_0", "examples_9999", "model", "pytorch_model", ".hidden"]
    copy = path.with_name(rng.choice(odd) + rng.choice([path.suffix, ".bin", ""]))
    if not copy.exists():
        copy.write_bytes(path.read_bytes())
    return f"{copy.name} is a copy of {path.name}"
