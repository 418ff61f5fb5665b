"""How good a transcoder is: what it leaves unexplained, how sparse it is, and what becomes of the model's answers."""

from dataclasses import dataclass

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..models.anatomy import mlp_activations
from .activations import ROWS_AT_ONCE, pad
from .texts import encode_texts
from .replacement import replaced_mlps


@dataclass
class Evaluation:
    """`summary`: one number each. `layers`: NMSE, L0 and dead share per transcoded layer. `density` [layer, feature]:
    the share of tokens each feature fires on."""

    summary: pd.Series
    layers: pd.DataFrame
    density: torch.Tensor

    def _repr_html_(self):
        return self.summary.to_frame("all layers").to_html() + self.layers.to_html()

    def __repr__(self):
        return f"{self.summary.to_string()}\n\n{self.layers.to_string()}"


@torch.no_grad()
def evaluate_transcoder(model, clt, texts) -> Evaluation:
    """Reads `texts` (a list of strings, held out from training) and reports, over their tokens:

    NMSE        sum |y - y_hat|^2 / sum |y - mean y|^2, per layer and their mean; y are the MLP outputs
    L0          features on per token and layer
    dead        share of features that never fire on these texts (so it depends on how many there are)
    top-1       share of positions where the replacement model's best next token is the model's own
    KL          mean KL(model || replacement) of the next token, in nats
    loss        mean next-token cross entropy of the model and of the replacement model, in nats

    The replacement model has every transcoded MLP overwritten and nothing frozen. Position 0 is left out where
    the transcoder leaves it out. Raises ValueError for a transcoder of another model.
    """
    clt.check_model(model)
    rows = sorted(encode_texts(model, texts), key=len)
    sums = _Sums(len(clt.layers), clt)
    for i in tqdm(range(0, len(rows), ROWS_AT_ONCE), desc="evaluating", leave=False):
        ids, real = pad(rows[i : i + ROWS_AT_ONCE])
        keep = real.clone()
        keep[:, 0] &= not clt.config.skips_first
        x, y = (t[:, keep] for t in mlp_activations(model.hf, ids, clt.config.reads, clt.layers))
        sums.add_reconstruction(x, y)
        logits = model.hf(input_ids=ids, use_cache=False).logits
        with replaced_mlps(model.hf, clt):
            theirs = model.hf(input_ids=ids, use_cache=False).logits
        sums.add_predictions(logits, theirs, ids, real)
    return sums.result()


class _Sums:
    """Running totals, in float64, over tokens."""

    def __init__(self, n_layers, clt):
        self.clt = clt
        self.tokens = self.positions = self.agree = 0
        self.kl = self.loss = self.replaced_loss = 0.0
        self.error, self.square = torch.zeros(2, n_layers, dtype=torch.float64)
        self.total = torch.zeros(n_layers, clt.config.d_model, dtype=torch.float64)
        self.fired = torch.zeros(n_layers, clt.n_features, dtype=torch.float64)

    def add_reconstruction(self, x, y):
        clt = self.clt
        features = clt.encode_tokens(x)
        self.fired += (features != 0).sum(1)
        self.error += (y - clt.decode(features, x)).pow(2).sum((1, 2))
        self.square += y.pow(2).sum((1, 2))
        self.total += y.sum(1)
        self.tokens += x.shape[1]

    def add_predictions(self, logits, theirs, ids, real):
        here = real[:, 1:]  # every position whose next token is real
        a, b = (t[:, :-1][here].log_softmax(-1) for t in (logits, theirs))
        following = ids[:, 1:][here][:, None]
        self.agree += (a.argmax(-1) == b.argmax(-1)).sum().item()
        self.kl += (a.exp() * (a - b)).sum().item()
        self.loss -= a.gather(1, following).sum().item()
        self.replaced_loss -= b.gather(1, following).sum().item()
        self.positions += len(a)

    def result(self) -> Evaluation:
        variance = self.square - self.total.pow(2).sum(1) / self.tokens
        density = self.fired / self.tokens
        dead = [float((d[:n] == 0).double().mean()) for d, n in zip(density, self.clt.counts, strict=True)]
        layers = pd.DataFrame(
            {"NMSE": self.error / variance, "L0": density.sum(1), "dead": dead},
            index=pd.Index(self.clt.layers, name="layer"),
        )
        features = pd.Series(self.clt.counts, index=layers.index)
        summary = pd.Series(
            {
                **layers.mean().to_dict(),
                "dead": (layers["dead"] * features).sum() / features.sum(),
                "top-1": self.agree / self.positions,
                "KL": self.kl / self.positions,
                "loss": self.loss / self.positions,
                "replacement loss": self.replaced_loss / self.positions,
                "tokens": self.tokens,
            }
        )
        return Evaluation(summary, layers, density.float())
