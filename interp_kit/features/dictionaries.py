"""What has features: a transcoder, the neurons of a model's MLPs, random directions."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import nn
from torch.nn.functional import normalize

from ..hardware import multiplies_bfloat16
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.families import MLP_INPUT, Norm, anatomy, input_embeddings, mlp_activations
from ..models.hooks import Hook, hooked
from ..transcoders import CrossLayerTranscoder
from ..transcoders.training.config import chosen_layers

SIGNED_SILENCE = 0.1  # a signed feature is hardly ever exactly 0: below this share of its largest value it is silent
CANDIDATES_PER_TOKEN = 4  # times as many tokens as are asked for, to choose from
FEATURES_AT_ONCE = 256  # in a product with all tokens: larger ones cost more in fresh memory than they save


@runtime_checkable
class Dictionary(Protocol):
    """Features of some layers of a model. A feature has an activation on every token, a direction it reads (encoder)
    and one it writes (decoder).

    Whatever has these members goes wherever a transcoder is looked up in texts:
    `ik.collect_features(model, dictionary, texts)`. `Neurons` and `RandomDirections` are two.

    model: the model that it belongs to.
    layers: the layers that have features, ascending.
    n_features_per_layer: how many features each of `layers` has.
    is_signed: whether activations can be negative.
    excludes_first_position: whether there are no features at position 0, where the begin-of-text token stands.
    """

    model: LanguageModel
    layers: list[int]
    n_features_per_layer: list[int]
    is_signed: bool
    excludes_first_position: bool

    def activations(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each of `layers` in turn the activations [row, position, feature], of ids [row, position]."""
        ...

    def encoder_directions(self, i: int) -> torch.Tensor:
        """What drives each feature of the i-th of `layers`, in the MLP's input: [feature, d_model]."""
        ...

    def decoder_directions(self, i: int) -> torch.Tensor:
        """What each feature of the i-th of `layers` adds to the residual stream, by activation: [feature, d_model]."""
        ...


class Neurons:
    """The neurons of a model's MLPs, as a `Dictionary`: what the last projection of each MLP reads.

    In a gated MLP, as Llama's, a neuron can be negative too, and then it writes the opposite.

    layers: the layers to look at, by default all.

    Raises ValueError for a layer that the model does not have, and for an MLP that does not end in a projection.

    >>> neurons = ik.features.Neurons(model, layers=[1])
    >>> store = ik.collect_features(model, neurons, texts)
    """

    is_signed = True
    excludes_first_position = False
    fingerprint = "neurons"

    @checked
    def __init__(self, model: LanguageModel, layers: Sequence[int] | None = None) -> None:
        self.model, self.layers = model, chosen_layers(layers, model.n_layers)
        blocks = anatomy(model.hf).blocks
        self._first, self._last = zip(*(_projections(blocks[layer].mlp, model.d_model) for layer in self.layers))
        self.n_features_per_layer = [_weight(last).shape[1] for last in self._last]

    @torch.no_grad()
    def activations(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each layer [row, position, neuron], of ids [row, position]."""
        caught: list[torch.Tensor] = []
        hooks: list[Hook] = [(last, "in", caught.append) for last in self._last]
        with hooked(*hooks):
            self.model.hf.base_model(input_ids=ids, use_cache=False)
        while caught:
            yield caught.pop(0)

    def encoder_directions(self, i: int) -> torch.Tensor:
        """What drives each neuron of the i-th layer, in the MLP's input; of a gated one the gate: [neuron, d_model]."""
        return _weight(self._first[i])

    def decoder_directions(self, i: int) -> torch.Tensor:
        """What each neuron of the i-th layer adds to the residual stream, by activation: [neuron, d_model]."""
        return _weight(self._last[i]).T


class RandomDirections:
    """Random directions of what the MLPs read, `n` in each layer, as a `Dictionary`: what any other has to beat.

    layers: by default all. Raises ValueError for a layer that the model does not have.

    >>> ik.studies.polysemanticity(model, {"random": ik.features.RandomDirections(model, n=512)}, texts)
    """

    is_signed = True
    excludes_first_position = False

    @checked
    def __init__(self, model: LanguageModel, n: int, layers: Sequence[int] | None = None, seed: int = 0) -> None:
        self.model, self.layers = model, chosen_layers(layers, model.n_layers)
        draw = torch.Generator().manual_seed(seed)
        directions = torch.randn(len(self.layers), n, model.d_model, generator=draw)
        self._directions = normalize(directions, dim=-1).to(model.device, model.dtype)
        self.n_features_per_layer = [n] * len(self.layers)
        self.fingerprint = f"{n} random directions (seed {seed})"

    def activations(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each layer [row, position, direction], of ids [row, position]."""
        x, _ = mlp_activations(self.model.hf, ids, MLP_INPUT, self.layers)
        yield from (layer @ directions.T for layer, directions in zip(x, self._directions, strict=True))

    def encoder_directions(self, i: int) -> torch.Tensor:
        """The directions of the i-th layer: [direction, d_model]."""
        return self._directions[i]

    def decoder_directions(self, i: int) -> torch.Tensor:
        """The same directions: [direction, d_model]."""
        return self._directions[i]


class TranscoderFeatures:
    """The features of a transcoder as a `Dictionary`. Raises ValueError for a transcoder of another model."""

    is_signed = False

    def __init__(self, model: LanguageModel, transcoder: CrossLayerTranscoder) -> None:
        transcoder.check_model(model)
        self.model, self.transcoder = model, transcoder
        self.layers, self.n_features_per_layer = transcoder.layers, transcoder.n_features_per_layer
        self.excludes_first_position = transcoder.config.excludes_first_position
        self.fingerprint = transcoder.fingerprint

    @torch.no_grad()
    def activations(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each layer [row, position, feature], of ids [row, position]; position 0 too."""
        x, _ = mlp_activations(self.model.hf, ids, self.transcoder.config.feature_input_hook, self.layers)
        for i, count in enumerate(self.n_features_per_layer):
            yield self.transcoder.encode_layer(i, x[i].to(self.transcoder.b_enc))[..., :count]

    def encoder_directions(self, i: int) -> torch.Tensor:
        """The encoder rows of the i-th layer: [feature, d_model]."""
        return self.transcoder.W_enc[i, : self.n_features_per_layer[i]]

    def decoder_directions(self, i: int) -> torch.Tensor:
        """The decoder rows of the i-th layer, summed over the layers that the features write to: [feature, d_model]."""
        return self.transcoder.W_dec[i][: self.n_features_per_layer[i]].sum(1).to(self.transcoder.b_enc.dtype)


AnyDictionary = Dictionary | CrossLayerTranscoder  # what is looked up in texts


def as_dictionary(model: LanguageModel, dictionary: AnyDictionary) -> Dictionary:
    """A transcoder with its model, or `dictionary` itself.

    Raises ValueError when it belongs to another model, TypeError for what is neither.
    """
    if isinstance(dictionary, CrossLayerTranscoder):
        return TranscoderFeatures(model, dictionary)
    kind = type(dictionary).__name__
    if not isinstance(dictionary, Dictionary):
        raise TypeError(f"expected a transcoder, ik.features.Neurons(model) or another Dictionary, got {kind}")
    if dictionary.model is not model:
        raise ValueError(f"this {kind} belongs to {dictionary.model.name!r}: make one of the model you look at")
    return dictionary


def dictionary_name(dictionary: Dictionary) -> str:
    """What a store of its features says they are of: a transcoder's fingerprint, or a name such as "neurons"."""
    return str(getattr(dictionary, "fingerprint", type(dictionary).__name__))


def detectors(dictionary: Dictionary, ids: torch.Tensor, used: torch.Tensor) -> Iterator[torch.Tensor]:
    """For each layer the activations [used token, detector], of ids and which are used [row, position]. None is
    negative: a signed feature is two detectors, one for each side."""
    for active in dictionary.activations(ids.to(dictionary.model.device)):
        active = active[used].float().cpu()
        yield torch.cat([active, -active], 1).relu() if dictionary.is_signed else active


class TopTokens(NamedTuple):
    """Of each feature of a layer the ids of some tokens, the first the most: [feature, n] each."""

    top_logits: torch.Tensor
    "whose logits it raises most, as if nothing came between its decoder and the unembedding but the final norm"
    bottom_logits: torch.Tensor
    "whose logits it lowers most"
    top_embeddings: torch.Tensor
    "whose embedding drives its encoder most"


def top_tokens(dictionary: Dictionary, n: int) -> Iterator[TopTokens]:
    """For each layer of the dictionary the n tokens that its features raise, lower and are driven by most."""
    parts, model = anatomy(dictionary.model.hf), dictionary.model
    rows = parts.unembedding.weight
    readout = _Tokens(Norm.of(parts.final_norm).pull(rows - rows.mean(0)))
    for i, layer in enumerate(dictionary.layers):
        embedding = _Tokens(Norm.of(parts.blocks[layer].mlp_norm)(input_embeddings(model.hf)))
        raised, lowered = readout.best(dictionary.decoder_directions(i), n, (1, -1))
        yield TopTokens(raised, lowered, embedding.best(dictionary.encoder_directions(i), n, (1,))[0])


class _Tokens:
    """A vector for each token [token, d_model]. Where bfloat16 is native it finds candidates, four times as fast, and
    the products of those are exact."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows, self.fast = rows, multiplies_bfloat16(rows.device)
        self.narrow = rows.bfloat16() if self.fast else rows

    def best(self, directions: torch.Tensor, n: int, signs: Sequence[int]) -> list[torch.Tensor]:
        """For each sign, and each direction [feature, d_model] times it, the indices of the n tokens with the largest
        products: [feature, n]."""
        parts = [self._best(some, n, signs) for some in directions.to(self.rows).split(FEATURES_AT_ONCE)]
        return [torch.cat(of_sign) for of_sign in zip(*parts)]

    def _best(self, directions: torch.Tensor, n: int, signs: Sequence[int]) -> list[torch.Tensor]:
        products, found = directions.to(self.narrow.dtype) @ self.narrow.T, []
        n_candidates = min(CANDIDATES_PER_TOKEN * n, len(self.rows)) if self.fast else n
        for sign in signs:
            best = products.topk(n_candidates, 1, largest=sign > 0).indices
            if self.fast:
                exact = sign * torch.einsum("fd,fcd->fc", directions, self.rows[best])
                best = best.gather(1, exact.topk(n, 1).indices)
            found.append(best)
        return found


def _projections(mlp: nn.Module, d_model: int) -> tuple[nn.Module, nn.Module]:
    """The first and the last linear module of an MLP: gate or input projection, and output projection."""
    linear = [m for m in mlp.modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 2]
    if len(linear) < 2 or _weight(linear[-1]).shape[0] != d_model:
        raise ValueError(f"{type(mlp).__name__} does not end in a projection to d_model: its neurons are not known")
    return linear[0], linear[-1]


def _weight(module: nn.Module) -> torch.Tensor:
    """[out, in]; transformers' Conv1D (GPT-2) keeps the transpose."""
    weight = cast("torch.Tensor", module.weight)
    return weight.T if type(module).__name__ == "Conv1D" else weight
