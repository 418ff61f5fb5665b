"""The feature store: for every feature the texts on which it fires most, and the tokens it promotes."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..files import atomic_folder, data_folder
from ..models.anatomy import Norm, anatomy, mlp_activations
from ..transcoders.activations import pad
from ..transcoders.texts import encode_texts

AT_ONCE = 4e7  # activation values held in memory at once
TOKENS_SHOWN = 6
GROUPS = ("top", "sample")
SHIPPED = {"pocket": "pocket-features"}


@dataclass
class FeatureStore:
    """Two tables.

    `features`: one row a feature: layer, feature, density (share of tokens it fires on), highest activation, and
    the tokens its decoder rows, summed over the layers they write to, raise (promotes) and lower (suppresses) most.
    Where the texts come from a world with known truth, also what the feature detects (concept) and how well (F1).
    `examples`: layer, feature, rank, group, tokens and activations (lists, one entry a token), peak (the position of
    the highest); one example a text. The group "top" holds the strongest, best first; "sample" a random draw among all
    texts on which the feature fires, because the strongest alone flatter a feature.
    """

    features: pd.DataFrame
    examples: pd.DataFrame

    def __post_init__(self):
        self._rows = {(r.layer, r.feature): r for r in self.features.itertuples()}
        self._examples = self.examples.groupby(["layer", "feature"], sort=False).indices

    def of(self, layer: int, feature: int) -> pd.DataFrame:
        """The examples of one feature; empty when it never fired."""
        return self.examples.iloc[self._examples.get((layer, feature), [])]

    def card(self, layer: int, feature: int, n_examples: int = 5) -> dict:
        """What a feature card shows, as plain data."""
        row = self._rows.get((layer, feature))
        if row is None:
            return {}
        examples = [
            {"tokens": list(e.tokens), "activations": [float(a) for a in e.activations]}
            for e in self._different(layer, feature)[:n_examples]
        ]
        card = {"examples": examples, "promotes": list(row.promotes), "suppresses": list(row.suppresses)}
        concept = getattr(row, "concept", None)
        return card | {"concept": f"{concept} (F1 {row.F1:.2f})" if isinstance(concept, str) else None}

    def _different(self, layer, feature):
        """The feature's examples, strongest first, but one for each different token it fires on before a second one:
        twenty times the same word would hide that it fires on others."""
        ranked = sorted(self.of(layer, feature).itertuples(), key=lambda e: -e.activations[e.peak])
        seen, first, again = set(), [], []
        for example in ranked:
            token = example.tokens[example.peak]
            (again if token in seen else first).append(example)
            seen.add(token)
        return first + again

    def save(self, folder: str | Path) -> None:
        """Two parquet files in `folder`."""
        with atomic_folder(folder) as temporary:
            self.features.to_parquet(temporary / "features.parquet", index=False, compression="zstd")
            self.examples.to_parquet(temporary / "examples.parquet", index=False, compression="zstd")

    def save_public(self, folder: str | Path, only=None) -> None:
        """One JSON file a feature, as the public graph viewer and Neuronpedia read them; `load_public_features` reads
        them back. `only`: the (layer, feature) pairs to write, by default all.

        Raises ValueError for a feature that the store does not have, and for a folder with other files in it.
        """
        from .public import save_public_features

        save_public_features(self, folder, only)

    def __repr__(self):
        live = (self.features["density"] > 0).sum()
        return f"FeatureStore({len(self.features):,} features, {live:,} of them live, {len(self.examples):,} examples)"


def load_features(name: str | Path) -> FeatureStore:
    """The shipped store of a model ("pocket"), or one that `save` wrote to a folder.

    Raises FileNotFoundError when there is none, ValueError when a file is damaged.
    """
    folder = data_folder() / SHIPPED[name] if name in SHIPPED else Path(name)
    if not (folder / "features.parquet").exists():
        raise FileNotFoundError(
            f"no feature store at {str(name)!r}: expected one of {', '.join(SHIPPED)}, or a folder written by "
            "store.save(folder)"
        )
    try:
        return FeatureStore(*(pd.read_parquet(folder / f"{part}.parquet") for part in ("features", "examples")))
    except (OSError, ValueError) as error:
        raise ValueError(f"the feature store in {folder} is damaged ({error}); copy it again or rebuild it") from error


@torch.no_grad()
def collect_features(model, transcoder, texts, n_examples: int = 10, seed: int = 0) -> FeatureStore:
    """Reads `texts` (a list of strings) twice: once to find each feature's examples (the `n_examples` strongest texts
    and as many drawn at random) and once to copy them.

    Memory is bounded by the number of features times `n_examples`. Raises ValueError for a transcoder of another
    model or texts without tokens.
    """
    transcoder.check_model(model)
    rows = sorted(encode_texts(model, texts), key=len)
    chosen, highest, density = _choose(model, transcoder, rows, n_examples, seed)
    examples = _examples(model, transcoder, rows, chosen)
    features = _feature_table(model, transcoder, density, highest)
    return FeatureStore(features, examples)


def _batches(transcoder, rows):
    """Slices of rows (sorted by length) whose activations fit in memory."""
    start = 0
    while start < len(rows):
        width = len(rows[min(start + 63, len(rows) - 1)])
        size = max(1, min(64, int(AT_ONCE / (len(transcoder.layers) * transcoder.n_features * width))))
        yield slice(start, start + size)
        start += size


def _activations(model, transcoder, rows):
    """Feature activations [layer, row, position, feature], zero at padding, and which positions are real."""
    ids, real = pad(rows)
    x, _ = mlp_activations(model.hf, ids, transcoder.config.reads, transcoder.layers)
    n, b, t, d = x.shape
    features = transcoder.encode_tokens(x.reshape(n, b * t, d)).view(n, b, t, -1)
    real[:, 0] &= not transcoder.config.skips_first
    return features * real[None, :, :, None], real


def _choose(model, transcoder, rows, n_examples, seed):
    """Per group the rows of every feature's examples [layer, feature, rank], -1 where there are too few; and every
    feature's highest activation and density [layer, feature]."""
    n, f = len(transcoder.layers), transcoder.n_features
    score = {group: torch.zeros(n, f, n_examples) for group in GROUPS}
    where = {group: torch.full((n, f, n_examples), -1) for group in GROUPS}
    fired, tokens, draw = torch.zeros(n, f), 0, torch.Generator().manual_seed(seed)
    for part in tqdm(list(_batches(transcoder, rows)), desc="finding examples", leave=False):
        features, real = _activations(model, transcoder, rows[part])
        fired += (features > 0).sum((1, 2))
        tokens += int(real.sum())
        best = features.amax(2).transpose(1, 2)  # [layer, feature, row]
        numbers = torch.arange(part.start, part.start + best.shape[2]).expand_as(best)
        chance = torch.rand(best.shape, generator=draw) * (best > 0)
        for group, new in zip(GROUPS, (best, chance), strict=True):
            score[group], order = torch.cat([score[group], new], 2).topk(n_examples, 2)
            where[group] = torch.cat([where[group], numbers], 2).gather(2, order)
    chosen = {group: torch.where(score[group] > 0, where[group], -1) for group in GROUPS}
    return chosen, score["top"][..., 0], fired / tokens


def _examples(model, transcoder, rows, chosen):
    wanted = {}
    for group, where in chosen.items():
        for layer, feature, rank in (where >= 0).nonzero().tolist():
            wanted.setdefault(int(where[layer, feature, rank]), []).append((layer, feature, group, rank))
    lines, numbers = [], sorted(wanted)
    texts = [rows[i] for i in numbers]
    for part in tqdm(list(_batches(transcoder, texts)), desc="copying examples", leave=False):
        features, _ = _activations(model, transcoder, texts[part])
        for row, number in enumerate(numbers[part]):
            tokens = model.tokens(torch.tensor(rows[number]))
            for layer, feature, group, rank in wanted[number]:
                a = features[layer, row, : len(tokens), feature]
                peak, line = int(a.argmax()), [round(v, 3) for v in a.tolist()]
                lines.append((transcoder.layers[layer], feature, group, rank, tokens, line, peak))
    table = pd.DataFrame(lines, columns=["layer", "feature", "group", "rank", "tokens", "activations", "peak"])
    return table.sort_values(
        ["layer", "feature", "group", "rank"], ascending=[True, True, False, True], ignore_index=True
    )


def _feature_table(model, transcoder, density, highest):
    parts = anatomy(model.hf)
    rows = parts.unembedding.weight
    readout = Norm.of(parts.final_norm).pull(rows - rows.mean(0))
    names = model.tokens(torch.arange(model.vocab_size))
    lines = []
    for i, layer in enumerate(transcoder.layers):
        effect = transcoder.W_dec[i].sum(1).to(readout.dtype) @ readout.T  # [feature, vocabulary]
        up, down = effect.topk(TOKENS_SHOWN, 1).indices, (-effect).topk(TOKENS_SHOWN, 1).indices
        for f in range(transcoder.counts[i]):
            promotes, suppresses = ([names[t] for t in side[f].tolist()] for side in (up, down))
            line = (layer, f, float(density[i, f]), float(highest[i, f]), promotes, suppresses)
            lines.append(line)
    return pd.DataFrame(lines, columns=["layer", "feature", "density", "highest", "promotes", "suppresses"])
