"""How good a transcoder is: what it leaves unexplained, how sparse it is, and what becomes of the model's answers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..models import LanguageModel
from ..models.anatomy import mlp_activations
from ..text.batches import of_similar_size, pad
from ..text.rows import encode_texts
from .baselines import LeastSquares, featureless
from .module import CrossLayerTranscoder
from .replacement import replaced_mlps

TRANSCODER, AFFINE_MAP, MEAN_OUTPUT = "transcoder", "affine map", "mean output"  # what stands in for the MLPs


@dataclass
class Evaluation:
    """What `evaluate_transcoder` measures, and names there."""

    summary: pd.Series
    "one number each: NMSE, L0, dead, top-1, KL, loss, replacement loss, tokens"
    layers: pd.DataFrame
    "for each transcoded layer NMSE, L0, dead, and NMSE of an affine map"
    baselines: pd.DataFrame
    "NMSE, top-1, KL and loss of the transcoder, and of an affine map and the mean output in its place"
    density: torch.Tensor
    "the share of tokens that each feature fires on [layer, feature]"

    def _repr_html_(self) -> str:
        return self.summary.to_frame("all layers").to_html() + self.baselines.to_html() + self.layers.to_html()

    def __repr__(self) -> str:
        return f"{self.summary.to_string()}\n\n{self.baselines.to_string()}\n\n{self.layers.to_string()}"


@torch.no_grad()
def evaluate_transcoder(
    model: LanguageModel,
    clt: CrossLayerTranscoder,
    texts: str | Path | Iterable[str | Mapping[str, object]],
    baselines: bool = True,
) -> Evaluation:
    """Reads `texts` (held out from training; a list of strings, a file, a stream) and reports, over their tokens:

    NMSE        sum |y - y_hat|^2 / sum |y - mean y|^2, per layer and their mean; y are the MLP outputs
    L0          features on per token and layer
    dead        share of features that never fire on these texts (so it depends on how many there are)
    top-1       share of positions where the replacement model's best next token is the model's own
    KL          mean KL(model || replacement) of the next token, in nats
    loss        mean next-token cross entropy of the model and of the replacement model, in nats

    The replacement model has every transcoded MLP overwritten and nothing frozen. Two baselines stand in the
    transcoder's place on the same tokens: an affine map from each MLP's input to its output, and its mean output. They
    are fitted on the half of the texts that they are not measured on; of little text an affine map learns little.
    `baselines=False` leaves them out, where they are known. Position 0 is left out where the transcoder leaves it out.
    Raises ValueError for a transcoder of another model, and for texts without a token.

        ik.evaluate_transcoder(model, clt, texts).summary["NMSE"]
    """
    clt.check_model(model)
    rows = sorted(encode_texts(model, texts), key=len)
    halves = [rows[0::2], rows[1::2] or rows]
    fits = [_fit(model, clt, half) for half in halves] if baselines else []
    sums = _Sums(clt, baselines)
    for i, half in enumerate((rows[0::2], rows[1::2])):
        stand_ins = {TRANSCODER: clt}
        if baselines:
            a, b, mean = fits[1 - i].fit(fits[i])
            stand_ins |= {AFFINE_MAP: featureless(clt, a, b), MEAN_OUTPUT: featureless(clt, None, mean)}
        for ids, real, x, y in _activations(model, clt, half, "evaluating"):
            sums.add_features(clt.encode_tokens(x), y)
            logits = model.hf(input_ids=ids, use_cache=False).logits
            sums.add_model(logits, ids, real)
            for name, stand_in in stand_ins.items():
                sums.scores[name].add_reconstruction(y, stand_in.decode(stand_in.encode_tokens(x), x))
                with replaced_mlps(model.hf, stand_in):
                    theirs = model.hf(input_ids=ids, use_cache=False).logits
                sums.scores[name].add_predictions(logits, theirs, ids, real)
    return sums.result()


def _fit(model: LanguageModel, clt: CrossLayerTranscoder, rows: list[list[int]]) -> LeastSquares:
    sums = LeastSquares(len(clt.layers), clt.config.d_model)
    for _, _, x, y in _activations(model, clt, rows, "fitting the baselines"):
        sums.add(x, y)
    return sums


def _activations(
    model: LanguageModel, clt: CrossLayerTranscoder, rows: list[list[int]], what: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Batches of `rows`: ids and which of them are real [row, position]; what MLPs read and write at these tokens
    [layer, token, d_model]."""
    for some in tqdm(list(of_similar_size(rows)), desc=what, leave=False):
        ids, real = (t.to(model.device) for t in pad(some))
        keep = real.clone()
        keep[:, 0] &= not clt.config.excludes_first_position
        x, y = (t[:, keep] for t in mlp_activations(model.hf, ids, clt.config.feature_input_hook, clt.layers))
        yield ids, real, x, y


class _Fidelity:
    """Running totals of one stand-in for the MLPs."""

    def __init__(self, n_layers: int):
        self.agree = 0
        self.kl = self.loss = 0.0
        self.error = torch.zeros(n_layers, dtype=torch.float64)

    def add_reconstruction(self, y: torch.Tensor, rebuilt: torch.Tensor) -> None:
        self.error += (y - rebuilt).pow(2).sum((1, 2)).cpu()

    def add_predictions(
        self, logits: torch.Tensor, theirs: torch.Tensor, ids: torch.Tensor, real: torch.Tensor
    ) -> None:
        a, following = _next_tokens(logits, ids, real)
        b, _ = _next_tokens(theirs, ids, real)
        self.agree += (a.argmax(-1) == b.argmax(-1)).sum().item()
        self.kl += (a.exp() * (a - b)).sum().item()
        self.loss -= b.gather(1, following).sum().item()


class _Sums:
    """Running totals, in float64, over tokens."""

    def __init__(self, clt: CrossLayerTranscoder, baselines: bool):
        self.clt, n = clt, len(clt.layers)
        names = (TRANSCODER, AFFINE_MAP, MEAN_OUTPUT) if baselines else (TRANSCODER,)
        self.scores = {name: _Fidelity(n) for name in names}
        self.tokens = self.positions = 0
        self.loss = 0.0
        self.square = torch.zeros(n, dtype=torch.float64)
        self.total = torch.zeros(n, clt.config.d_model, dtype=torch.float64)
        self.fired = torch.zeros(n, clt.n_features, dtype=torch.float64)

    def add_features(self, features: torch.Tensor, y: torch.Tensor) -> None:
        self.fired += (features != 0).sum(1).cpu()
        self.square += y.pow(2).sum((1, 2)).cpu()
        self.total += y.sum(1).cpu()
        self.tokens += y.shape[1]

    def add_model(self, logits: torch.Tensor, ids: torch.Tensor, real: torch.Tensor) -> None:
        a, following = _next_tokens(logits, ids, real)
        self.loss -= a.gather(1, following).sum().item()
        self.positions += len(a)

    def result(self) -> Evaluation:
        variance = self.square - self.total.pow(2).sum(1) / self.tokens
        density = self.fired / self.tokens
        nmse = {name: sums.error / variance for name, sums in self.scores.items()}
        layers = self._layers(density, nmse)
        baselines = pd.DataFrame(
            {
                name: {
                    "NMSE": nmse[name].mean().item(),
                    "top-1": sums.agree / self.positions,
                    "KL": sums.kl / self.positions,
                    "loss": sums.loss / self.positions,
                }
                for name, sums in self.scores.items()
            }
        ).T
        features, ours = pd.Series(self.clt.n_features_per_layer, index=layers.index), baselines.loc[TRANSCODER]
        summary = {
            "NMSE": ours["NMSE"],
            "L0": layers["L0"].mean(),
            "dead": (layers["dead"] * features).sum() / features.sum(),
            "top-1": ours["top-1"],
            "KL": ours["KL"],
            "loss": self.loss / self.positions,
            "replacement loss": ours["loss"],
            "tokens": self.tokens,
        }
        return Evaluation(pd.Series(summary), layers, baselines, density.float())

    def _layers(self, density: torch.Tensor, nmse: dict[str, torch.Tensor]) -> pd.DataFrame:
        used = zip(density, self.clt.n_features_per_layer)  # the rest of a layer's rows is padding
        columns = {
            "NMSE": nmse[TRANSCODER].numpy(),
            "L0": density.sum(1).numpy(),
            "dead": [float((row[:n] == 0).double().mean()) for row, n in used],
        }
        if AFFINE_MAP in nmse:
            columns["NMSE of an affine map"] = nmse[AFFINE_MAP].numpy()
        return pd.DataFrame(columns, index=pd.Index(self.clt.layers, name="layer"))


def _next_tokens(logits: torch.Tensor, ids: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [position, vocabulary] wherever the next token is real, and that token [position, 1]."""
    here = real[:, 1:]
    return logits[:, :-1][here].log_softmax(-1), ids[:, 1:][here][:, None]
