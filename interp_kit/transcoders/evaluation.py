"""How good a transcoder is: what it leaves unexplained, how sparse it is, and what becomes of the model's answers."""

from dataclasses import dataclass
from functools import partial, reduce

import pandas as pd
import torch
from torch import Tensor

from ..hardware import check_memory
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.precision import at_least_float32
from ..text.batches import TOKENS_AT_ONCE
from ..text.rows import Texts, encode_texts
from ..widgets.plain_text import literal, printable
from .baselines import LeastSquares, featureless
from .module import CrossLayerTranscoder
from .replacement import replaced_mlps
from .training.stream import activations

TRANSCODER, AFFINE_MAP, MEAN_OUTPUT = "transcoder", "affine map", "mean output"  # what stands in for the MLPs
BLOCK_BYTES = 256_000_000  # of what is computed at once, in tensors of so many numbers a token:
LOGIT_TENSORS, FEATURE_TENSORS, VECTOR_TENSORS = 6, 3, 4
FEWEST_TOKENS = 64


@dataclass
class Evaluation:
    """What `evaluate_transcoder` measures, and names there."""

    summary: pd.Series
    "one number each: NMSE, L0, dead, top-1, KL, loss, replacement loss, tokens"
    layers: pd.DataFrame
    "for each transcoded layer NMSE, L0, dead, and NMSE of an affine map"
    baselines: pd.DataFrame
    "NMSE, top-1, KL and loss of the transcoder, and of an affine map and the mean output in its place"
    density: Tensor
    "the share of tokens that each feature fires on [layer, feature]"

    def _repr_html_(self) -> str:
        return literal(self.summary.to_frame("all layers").to_html() + self.baselines.to_html() + self.layers.to_html())

    def __repr__(self) -> str:
        return printable(f"{self.summary.to_string()}\n\n{self.baselines.to_string()}\n\n{self.layers.to_string()}")


@checked
@torch.no_grad()
def evaluate_transcoder(
    model: LanguageModel, clt: CrossLayerTranscoder, texts: Texts, baselines: bool = True
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
    Numbers are computed in float32 or, where model or transcoder has it, float64, on the model's device.
    Raises ValueError for a transcoder of another model, and for texts without a token; MemoryError, before the model
    reads, where what is computed at once would not fit.

        ik.evaluate_transcoder(model, clt, texts).summary["NMSE"]
    """
    clt.check_model(model)
    clt = clt.in_dtype(_widest(model.dtype, clt.b_enc.dtype), model.device)
    most = tokens_at_once(model, clt)
    check_room(model, clt, most, baselines)
    rows = sorted(encode_texts(model, texts), key=len)
    halves = [rows[0::2], rows[1::2] or rows]
    fits = [_fit(model, clt, half, most) for half in halves] if baselines else []
    sums = _Sums(clt, baselines)
    for i, half in enumerate((rows[0::2], rows[1::2])):
        stand_ins = {TRANSCODER: clt}
        if baselines:
            a, b, mean = fits[1 - i].fit(fits[i])
            stand_ins |= {AFFINE_MAP: featureless(clt, a, b), MEAN_OUTPUT: featureless(clt, None, mean)}
        for ids, real, x, y in activations(model.hf, half, clt.config, "evaluating", most):
            own, following = _next_tokens(model, ids, real)
            x, y = x.to(clt.b_enc), y.to(clt.b_enc)  # of the transcoder's precision, and where it lies
            sums.add(clt.encode_tokens(x), y, own, following)
            for name, stand_in in stand_ins.items():
                rebuilt = stand_in.decode(stand_in.encode_tokens(x), x)
                with replaced_mlps(model.hf, stand_in):
                    theirs, _ = _next_tokens(model, ids, real)
                sums.add_stand_in(name, y - rebuilt, own, theirs, following)
    return sums.result()


def tokens_at_once(model: LanguageModel, clt: CrossLayerTranscoder) -> int:
    """How many tokens are read in one forward: as many as `BLOCK_BYTES` hold, whatever is free, so that the same texts
    always give the same numbers."""
    return max(FEWEST_TOKENS, min(TOKENS_AT_ONCE, BLOCK_BYTES // bytes_a_token(model, clt)))


def bytes_a_token(model: LanguageModel, clt: CrossLayerTranscoder) -> int:
    """What a token takes while it is compared: log-probabilities, features, inputs and outputs."""
    features, vectors = len(clt.layers) * clt.n_features, len(clt.layers) * clt.config.d_model
    numbers = LOGIT_TENSORS * model.vocab_size + FEATURE_TENSORS * features + VECTOR_TENSORS * vectors
    return numbers * clt.b_enc.element_size()


def check_room(model: LanguageModel, clt: CrossLayerTranscoder, most: int, baselines: bool) -> None:
    """Raises MemoryError where evaluating `most` tokens at once does not fit into what is free."""
    square = len(clt.layers) * clt.config.d_model**2
    # Two matrices of each half, what is added to one, the map as it is found and as it is used.
    fits = baselines * square * (2 * 2 * 8 + 8 + 8 + 4)
    remedy = "Give baselines=False, which leaves out half of it" if baselines else "Use a transcoder of fewer features"
    if model.device.type == "cpu":
        check_memory(fits + most * bytes_a_token(model, clt), f"evaluating {most:,} tokens at once", remedy)


def _widest(*dtypes: torch.dtype) -> torch.dtype:
    """The widest of these and float32."""
    return reduce(torch.promote_types, dtypes, torch.float32)


def _fit(model: LanguageModel, clt: CrossLayerTranscoder, rows: list[list[int]], most: int) -> LeastSquares:
    sums = LeastSquares(len(clt.layers), clt.config.d_model)
    for _, _, x, y in activations(model.hf, rows, clt.config, "fitting the baselines", most):
        sums.add(x, y)
    return sums


class _Sums:
    """Running totals, in float64, over tokens; on the processor."""

    def __init__(self, clt: CrossLayerTranscoder, baselines: bool):
        self.clt, n = clt, len(clt.layers)
        names = (TRANSCODER, AFFINE_MAP, MEAN_OUTPUT) if baselines else (TRANSCODER,)
        zeros = partial(torch.zeros, dtype=torch.float64, device="cpu")
        self.errors = {name: zeros(n) for name in names}
        self.scores = pd.DataFrame(0.0, index=list(names), columns=["top-1", "KL", "loss"])
        self.tokens = self.positions = 0
        self.loss = 0.0
        self.square = zeros(n)
        self.total = zeros(n, clt.config.d_model)
        self.fired = zeros(n, clt.n_features)

    def add(self, features: Tensor, y: Tensor, own: Tensor, following: Tensor) -> None:
        """Features, what they should rebuild, and the model's log-probabilities of what follows."""
        self.fired += (features != 0).sum(1).cpu()
        self.square += y.pow(2).sum((1, 2)).cpu()
        self.total += y.sum(1).cpu()
        self.tokens += y.shape[1]
        self.loss -= own.gather(1, following).sum().item()
        self.positions += len(own)

    def add_stand_in(self, name: str, error: Tensor, own: Tensor, theirs: Tensor, following: Tensor) -> None:
        """The error and the log-probabilities of one stand-in for the MLPs."""
        self.errors[name] += error.pow(2).sum((1, 2)).cpu()
        agree, kl = own.argmax(-1) == theirs.argmax(-1), own.exp() * (own - theirs)
        self.scores.loc[name] += [values.sum().item() for values in (agree, kl, -theirs.gather(1, following))]

    def result(self) -> Evaluation:
        variance = self.square - self.total.pow(2).sum(1) / self.tokens
        density = self.fired / self.tokens
        nmse = {name: error / variance for name, error in self.errors.items()}
        used = zip(density, self.clt.n_features_per_layer)  # the rest of a layer's rows is padding
        dead = [float((row[:n] == 0).double().mean()) for row, n in used]
        columns = {"NMSE": nmse[TRANSCODER], "L0": density.sum(1), "dead": dead}
        layers = pd.DataFrame(columns, index=pd.Index(self.clt.layers, name="layer"))
        if AFFINE_MAP in nmse:
            layers["NMSE of an affine map"] = nmse[AFFINE_MAP].numpy()
        baselines = self.scores / self.positions
        baselines.insert(0, "NMSE", [of_layers.mean().item() for of_layers in nmse.values()])
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


def _next_tokens(model: LanguageModel, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [position, vocabulary] wherever the next token is real, and that token [position, 1]."""
    logits, here = model.hf(input_ids=ids, use_cache=False).logits, real[:, 1:]
    return at_least_float32(logits[:, :-1][here]).log_softmax(-1), ids[:, 1:][here][:, None]
