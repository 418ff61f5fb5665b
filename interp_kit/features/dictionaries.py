"""What can fire on a token: the features of a transcoder, or the neurons of a model's MLPs."""

from collections.abc import Iterator

import torch
from torch.nn.functional import normalize

from ..hardware import multiplies_bfloat16
from ..models.anatomy import MLP_INPUT, Norm, anatomy, mlp_activations
from ..transcoders.training.config import chosen_layers

CANDIDATES = 4  # times as many tokens as are asked for, to choose from
UNITS_AT_ONCE = 256  # in a product with all tokens: larger ones cost more in fresh memory than they save


class _OfModel:
    """Units that come with a model, and are hardly ever exactly 0: one counts as silent below a tenth of its highest,
    of either sign."""

    quiet = 0.1
    excludes_first_position = False

    def check_model(self, model) -> None:
        """Raises ValueError for another model than the one these units belong to."""
        if model is not self.model:
            raise ValueError(
                f"this {type(self).__name__} belongs to {self.model.name!r}: make one of the model you look at"
            )


class Neurons(_OfModel):
    """The neurons of a model's MLPs: what the last projection of each MLP reads.

    Goes wherever a transcoder is looked up in texts: `ik.collect_features(model, ik.features.Neurons(model),
    texts)`. In a gated
    MLP, as Llama's, a neuron can be negative too, and then it writes the opposite.

    layers: the layers to look at, by default all. `counts` says how many neurons each has.
    """

    def __init__(self, model, layers: list[int] | None = None):
        self.model, self.layers = model, chosen_layers(layers, model.n_layers)
        blocks = anatomy(model.hf).blocks
        self._first, self._last = zip(*(_projections(blocks[layer].mlp, model.d_model) for layer in self.layers))
        self.n_features_per_layer = [_weight(last).shape[1] for last in self._last]

    @torch.no_grad()
    def activations(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """For each layer [row, position, neuron], of ids [row, position]."""
        caught = []
        handles = [last.register_forward_pre_hook(lambda _, args: caught.append(args[0])) for last in self._last]
        try:
            self.model.hf.base_model(input_ids=ids, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        while caught:
            yield caught.pop(0)

    def written(self, i: int) -> torch.Tensor:
        """What a neuron of the i-th layer adds to the residual stream, per unit of activation: [neuron, d_model]."""
        return _weight(self._last[i]).T

    def read(self, i: int) -> torch.Tensor:
        """What drives it, in the MLP's input; of a gated neuron the gate: [neuron, d_model]."""
        return _weight(self._first[i])


class RandomDirections(_OfModel):
    """Random directions of what the MLPs read, `n` in each layer: what any dictionary has to beat."""

    def __init__(self, model, n: int, layers: list[int] | None = None, seed: int = 0):
        self.model, self.layers = model, chosen_layers(layers, model.n_layers)
        draw = torch.Generator().manual_seed(seed)
        directions = torch.randn(len(self.layers), n, model.d_model, generator=draw)
        self._directions = normalize(directions, dim=-1).to(model.dtype)
        self.n_features_per_layer = [n] * len(self.layers)

    def activations(self, ids):
        x, _ = mlp_activations(self.model.hf, ids, MLP_INPUT, self.layers)
        yield from (layer @ directions.T for layer, directions in zip(x, self._directions.to(x.device), strict=True))

    def written(self, i):
        return self._directions[i]

    def read(self, i):
        return self._directions[i]


class Features:
    """The features of a transcoder, with the model that it was made for."""

    quiet = 0.0

    def __init__(self, model, transcoder):
        transcoder.check_model(model)
        self.model, self.transcoder = model, transcoder
        self.layers, self.n_features_per_layer = transcoder.layers, transcoder.n_features_per_layer
        self.excludes_first_position = transcoder.config.excludes_first_position

    @torch.no_grad()
    def activations(self, ids):
        x, _ = mlp_activations(self.model.hf, ids, self.transcoder.config.feature_input_hook, self.layers)
        for i, count in enumerate(self.n_features_per_layer):
            yield self.transcoder.encode_layer(i, x[i])[..., :count]

    def written(self, i):
        """Summed over the layers that the features write to."""
        return self.transcoder.W_dec[i][: self.n_features_per_layer[i]].sum(1).to(self.transcoder.W_enc.dtype)

    def read(self, i):
        return self.transcoder.W_enc[i, : self.n_features_per_layer[i]]


def units_of(model, what):
    """`what` is a transcoder, `Neurons` or `RandomDirections`. Raises ValueError when it belongs to another model."""
    if isinstance(what, _OfModel):
        what.check_model(model)
        return what
    return Features(model, what)


def detectors(units, active: torch.Tensor) -> torch.Tensor:
    """[token, unit] -> [token, detector], none negative: a unit that can be negative is two, one for each side."""
    return torch.cat([active, -active], 1).relu() if units.quiet else active


def promoted_tokens(units, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For each layer, and each of its units, the ids of the n tokens that it raises most, of those it lowers most
    (through the final norm and the unembedding, as if nothing came between), and of those whose embedding drives it
    most: each [unit, n]."""
    parts, model = anatomy(units.model.hf), units.model
    rows = parts.unembedding.weight
    readout = _Tokens(Norm.of(parts.final_norm).pull(rows - rows.mean(0)))
    for i, layer in enumerate(units.layers):
        embedding = _Tokens(Norm.of(parts.blocks[layer].mlp_norm)(model.hf.get_input_embeddings().weight))
        raises, lowers = readout.best(units.written(i), n, (1, -1))
        yield raises, lowers, embedding.best(units.read(i), n, (1,))[0]


class _Tokens:
    """A vector for each token [token, d_model]. Where bfloat16 is native it finds candidates, four times as fast, and
    the products of those are exact."""

    def __init__(self, rows):
        self.rows, self.fast = rows, multiplies_bfloat16(rows.device)
        self.narrow = rows.bfloat16() if self.fast else rows

    def best(self, directions, n, signs) -> list[torch.Tensor]:
        """For each direction [unit, d_model] the indices of the n tokens with the largest products, times each sign."""
        parts = [self._best(some, n, signs) for some in directions.to(self.rows.dtype).split(UNITS_AT_ONCE)]
        return [torch.cat(of_sign) for of_sign in zip(*parts)]

    def _best(self, directions, n, signs):
        products, found = directions.to(self.narrow.dtype) @ self.narrow.T, []
        for sign in signs:
            if not self.fast:
                found.append(products.topk(n, 1, largest=sign > 0).indices)
                continue
            candidates = products.topk(min(CANDIDATES * n, len(self.rows)), 1, largest=sign > 0).indices
            exact = sign * torch.einsum("ud,ucd->uc", directions, self.rows[candidates])
            found.append(candidates.gather(1, exact.topk(n, 1).indices))
        return found


def _projections(mlp, d_model):
    """The first and the last linear module of an MLP: gate or input projection, and output projection."""
    linear = [m for m in mlp.modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 2]
    if len(linear) < 2 or _weight(linear[-1]).shape[0] != d_model:
        raise ValueError(f"{type(mlp).__name__} does not end in a projection to d_model: its neurons are not known")
    return linear[0], linear[-1]


def _weight(module):
    """[out, in]; transformers' Conv1D (GPT-2) keeps the transpose."""
    return module.weight.T if type(module).__name__ == "Conv1D" else module.weight
