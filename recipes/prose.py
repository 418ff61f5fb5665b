"""Text to train a general transcoder on: what the model itself writes, and freely licensed prose of packages.

python -m recipes.prose sample build/smollm2/sampled.jsonl 400000     so many tokens; goes on where it was
python -m recipes.prose collect build/smollm2/prose.jsonl             needs Debian's apt-get, once updated
"""

import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from interp_kit.models import LanguageModel, load_model
from interp_kit.models.cache import new_cache, read_into, read_on
from interp_kit.storage.atomic import always, atomic_file, cache_entry
from interp_kit.storage.shipped import data_folder
from interp_kit.worlds import load_world

HELD_OUT_SHARE = 0.05
BATCH_SIZE = 64  # texts written side by side: one thread gains nothing from more
MIN_P = 0.02  # a token with less than this share of the likeliest one's probability is not drawn
MAX_TOKENS = 224  # of a written text, its prompt included
PROMPT_SHARES = {"question": 0.5, "fact question": 0.1, "beginning": 0.3, "fact beginning": 0.1}  # first two: chat


def held_out(text: str) -> bool:
    """Whether a text is for grading only: one in twenty, chosen by a hash of the text alone."""
    return _fraction(text) < HELD_OUT_SHARE


def _fraction(text: str, salt: str = "") -> float:
    return int.from_bytes(hashlib.sha256((salt + text).encode()).digest()[:8]) / 2**64


# ---------------------------------------------------------------- what the model writes


class Prompts:
    """Questions and beginnings, from the templates of data/worlds/prose/prompts.csv and a geography's facts."""

    def __init__(self) -> None:
        rows = pd.read_csv(data_folder() / "worlds" / "prose" / "prompts.csv")
        self.world = load_world("geography")
        self.cities = list(self.world.place_of)
        self.texts = {kind: list(texts) for kind, texts in rows.groupby("kind")["text"]}

    def draw(self, kind: str, rng: random.Random) -> str:
        """A prompt of that kind (of `PROMPT_SHARES`), its slots filled."""
        city, other = rng.sample(self.cities, 2)
        place = self.world.place_of[city]
        relation = rng.choice(list(self.world.facts[place]))
        slots = {"topic": rng.choice(self.texts["topic"]), "city": city, "other": other, "place": place}
        text = rng.choice(self.texts[kind])
        for slot, value in (slots | {"relation": relation}).items():
            text = text.replace(f"{{{slot}}}", value)
        return text


def write_samples(
    model: LanguageModel,
    path: str | Path,
    n_tokens: int,
    seed: int = 0,
    batch: int = BATCH_SIZE,
    max_tokens: int = MAX_TOKENS,
) -> int:
    """Appends texts that the model samples, until `path` holds `n_tokens` tokens; returns how many it holds.

    JSON lines {"text", "tokens", "seed", "prompt_kind"}. A text is prompt and continuation, with the marks of the
    chat format written out, up to the model's end of turn. Each batch is a function of its own seed, so that a killed
    run goes on after its last whole batch.
    """
    path, prompts = Path(path), Prompts()
    lines = re.findall(".*\n", path.read_text(encoding="utf-8")) if path.exists() else []
    lines = lines[: len(lines) // batch * batch]
    with atomic_file(path, always) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
    written, done = sum(json.loads(line)["tokens"] for line in lines), len(lines) // batch
    while written < n_tokens:
        batch_seed = 1_000_000 * seed + done
        rng = random.Random(batch_seed)
        kind = rng.choices(list(PROMPT_SHARES), list(PROMPT_SHARES.values()))[0]
        texts = [prompts.draw(kind, rng) for _ in range(batch)]
        texts = [model.chat(text) for text in texts] if kind.endswith("question") else texts
        rows = sample(model, texts, max_tokens, batch_seed)
        about = {"seed": batch_seed, "prompt_kind": kind}
        records = [{"text": text, "tokens": tokens} | about for text, tokens in rows]
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
        written, done = written + sum(tokens for _, tokens in rows), done + 1
        print(f"batch {done}: {written:,} tokens, {kind}", flush=True)
    return written


@torch.no_grad()
def sample(model: LanguageModel, prompts: list[str], max_tokens: int, seed: int) -> list[tuple[str, int]]:
    """The prompts continued at temperature 1, up to `max_tokens` or a special token: (text, its number of tokens).

    All rows step together from their first token, and a row's own prompt overrules what was drawn: no padding, so
    nothing to mask. The common length is read at once. A row that has ended leaves once a quarter have.
    """
    given = [model.encode(prompt).tolist() for prompt in prompts]
    ends, generator = model.end_ids | set(model.tokenizer.all_special_ids), torch.Generator().manual_seed(seed)
    start = min(len(ids) for ids in given)
    rows, alive = [ids[:start] for ids in given], list(range(len(given)))  # alive: the row of each line in the cache
    # The last token goes alone: the head then sees a contiguous vector, and does not copy its matrix for every row.
    cache = new_cache(model.hf)
    if start > 1:
        read_into(model.hf, torch.tensor([r[:-1] for r in rows]), cache)
    for position in range(start, max_tokens):
        last = torch.tensor([rows[row][-1:] for row in alive])
        chances = read_on(model.hf, last, cache)[:, -1].float().softmax(-1)
        sums = chances.where(chances >= MIN_P * chances.amax(-1, keepdim=True), 0).cumsum(-1)
        drawn = torch.searchsorted(sums, torch.rand(len(given), 1, generator=generator)[alive] * sums[:, -1:])
        for row, token in zip(alive, drawn[:, 0].tolist()):
            if position < len(given[row]):
                rows[row].append(given[row][position])
            elif not ended(rows[row], given[row], ends):
                rows[row].append(token)
        kept = [i for i, row in enumerate(alive) if not ended(rows[row], given[row], ends)]
        if not kept:
            break
        if len(kept) <= 0.75 * len(alive):
            cache.batch_select_indices(torch.tensor(kept))
            alive = [alive[i] for i in kept]
    added = [not prompt.startswith(model.decode(ids[:1])) for prompt, ids in zip(prompts, given)]
    return [(model.decode(row[first:]), len(row)) for row, first in zip(rows, added)]


def ended(row: list[int], given: list[int], ends: set[int]) -> bool:
    """Whether a row has an end of its own making."""
    return len(row) > len(given) and row[-1] in ends


# ---------------------------------------------------------------- prose of packages


class Source(NamedTuple):
    """A row of data/worlds/prose/sources.csv: a Debian package, and what is read of it."""

    source: str
    package: str
    version: str
    files: str
    "a regular expression that the paths of its files match"
    reader: str
    "one of READERS, or a regular expression whose groups are the text"
    megabytes: float
    "its share, at most"


def collect_prose(path: str | Path, packages: str | Path) -> pd.Series:
    """Writes JSON lines {"text", "source"} from the packages of data/worlds/prose/sources.csv; characters a source.

    They are Debian's, so this needs a Debian and a fresh `apt-get update`; they are unpacked below the folder
    `packages`, nothing is installed. Of each source a fixed random choice of pieces, up to its share.
    """
    sources = pd.read_csv(data_folder() / "worlds" / "prose" / "sources.csv", keep_default_na=False)
    with atomic_file(path, always) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in sources[list(Source._fields)].itertuples(index=False):
            source = Source(*row)
            left, texts = source.megabytes * 1e6, set(read_package(source, Path(packages)))
            for text in sorted(texts, key=lambda text: _fraction(text, "order")):
                if len(text) <= left:
                    left -= len(text)
                    file.write(json.dumps({"text": text, "source": source.source}) + "\n")
    return pd.read_json(path, lines=True).groupby("source")["text"].agg(lambda texts: texts.str.len().sum())


def read_package(source: Source, folder: Path) -> list[str]:
    """The pieces of one source: every file of the package whose path its pattern matches, read its way."""
    unpacked = folder / f"{source.package}_{source.version.replace(':', '%3a')}"
    if not unpacked.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", f"{source.package}={source.version}"], cwd=folder, check=True)
        with cache_entry(unpacked) as temporary:
            subprocess.run(["dpkg-deb", "-x", next(folder.glob(f"{unpacked.name}_*.deb")), temporary], check=True)
    reader = READERS.get(source.reader, lambda text: quoted(source.reader, text))
    files = sorted(
        f for f in unpacked.rglob("*") if f.is_file() and re.search(source.files, f"{f.relative_to(unpacked)}")
    )
    if not files:
        raise ValueError(f"package {source.package} {source.version} has no file that matches {source.files!r}")
    return [piece for file in files for piece in pieces(reader(_contents(file)))]


def _contents(file: Path) -> str:
    data = file.read_bytes()
    data = gzip.decompress(data) if file.suffix in {".gz", ".dz"} else data
    return r_strings(data) if file.suffix == ".rdb" else data.decode("utf-8", errors="replace").replace("\r\n", "\n")


def r_strings(data: bytes) -> str:
    """The strings in a data base of an R package, a line each: compressed blocks, each after its length."""
    found = []
    while len(data) > 4:
        block = zlib.decompressobj()
        whole, data = block.decompress(data[4:]), block.unused_data
        for match in re.finditer(rb"\x00[\x00\x04][\x00\x80]\x09(?=(....))", whole, re.DOTALL):
            start, size = match.end() + 4, int.from_bytes(match[1])
            found.append(whole[start : start + size].decode("utf-8", errors="replace") if size < 500 else "")
    return "\n".join(found)


def paragraphs(text: str) -> list[str]:
    """Of plain text: blocks between blank lines, hard-wrapped lines joined, without rules, tables and headings."""
    blocks = (
        " ".join(re.sub(r"[{}]|(?<!\w)_|_(?!\w)", "", block).split()) for block in re.split(r"\n\s*\n|\n%%%%", text)
    )
    return [b for b in blocks if is_prose(b)]


def is_prose(text: str) -> bool:
    """Whether it is mostly letters, and long or ended by a sign as a sentence is."""
    letters = sum(c.isalpha() or c.isspace() for c in text)
    return letters > 0.85 * len(text) and len(text) > 20 and (len(text) > 60 or text[-1] in ".?!:\"'")


def quoted(pattern: str, text: str) -> list[str]:
    """What the groups of a regular expression match: the speeches of a game, the glosses of a dictionary."""
    found = (": ".join(match.groups()) for match in re.finditer(pattern, text, re.MULTILINE))
    return [" ".join(f.replace("_", " ").split()) for f in found if is_prose(f)]


class _Page(HTMLParser):
    """Paragraphs, and verbatim blocks, of a page; without head, scripts and menus."""

    BLOCKS = {"p", "li", "dd", "dt", "pre", "h1", "h2", "h3", "h4", "blockquote", "td", "title", "item", "div", "br"}
    DROPPED = {"head", "script", "style", "nav", "footer", "info"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found, self.text, self.verbatim, self.dropping = [], "", False, []
        self.feed(text)
        self.flush()

    def flush(self) -> None:
        text = self.text.strip("\n") if self.verbatim else " ".join(self.text.replace("¶", "").split())
        if text.strip() and (self.verbatim or is_prose(text)):
            self.found.append(text)
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.DROPPED:
            self.dropping.append(tag)
        if tag in self.BLOCKS and not (tag == "br" and self.verbatim):
            self.flush()
            self.verbatim = tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in self.dropping:
            self.dropping.remove(tag)
        if tag in self.BLOCKS:
            self.flush()
            self.verbatim = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self.dropping else data


READERS: dict[str, Callable[[str], list[str]]] = {
    "text": paragraphs,
    "html": lambda text: _Page(text).found,
    "code": lambda text: re.split(r"\n{2,}", text),
}


def pieces(blocks: Sequence[str], least: int = 200, most: int = 2000) -> list[str]:
    """Neighbouring paragraphs joined to pieces of `least` to `most` characters; a longer paragraph is cut at spaces."""
    found, piece = [], ""
    for block in (part for b in blocks for part in re.findall(rf"(?s).{{1,{most}}}(?!\S)", b)):
        if len(piece) + len(block) + 2 > most:
            found.append(piece)
            piece = ""
        piece = f"{piece}\n\n{block}" if piece else block
    return [p for p in [*found, piece] if len(p) >= least]


def main(task: str, path: str | Path, n_tokens: int | str = 800_000) -> None:
    """One of the two commands."""
    if task == "sample":
        write_samples(load_model("smollm2", torch.bfloat16), path, int(n_tokens))
    else:
        print(collect_prose(path, Path(path).parent / "packages"))


if __name__ == "__main__":
    main(*sys.argv[1:])
