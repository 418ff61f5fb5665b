"""One batch through the transcoder, and back from its errors to the gradients of the weights, with few features on.

The loss is quadratic, so its gradient by the reconstruction is known: a multiple of the error. So no graph is recorded,
and gradients are computed here as autograd would. Where the processor multiplies bfloat16 natively, rows that are added
up are read in it, half as many bytes; activations are in float32.
"""

from functools import reduce

import torch

from ..sparse import ActiveFeatures, joined
from .parallel import LayerWorkers
from .selection import Selection
from .stream import Batch
from .weights import Scales, Weights, gradient


class SparsePass:
    """Two stages forward, `_encode` and `_decode`, and two back, `_decoder_gradient` and `_encoder_gradient`.

    Within a stage the layers do not need each other, and are computed side by side. What a layer leaves for a later
    stage is kept under its number.
    """

    penalty = 0.0

    def __init__(self, weights: Weights, scales: Scales, selection: Selection, each_layer: LayerWorkers, batch: Batch):
        self.weights, self.scales, self.selection, self.each_layer = weights, scales, selection, each_layer
        self.batch = batch
        self.x: dict[int, torch.Tensor] = {}  # scaled inputs [token, d_model]
        self.active: dict[int, ActiveFeatures] = {}  # which of the layer's features are on, and where
        self.activations: dict[int, torch.Tensor] = {}  # [pair of a token and a feature that is on]
        self.writers: dict[int, ActiveFeatures] = {}  # the active features of all layers that write to this one
        self.writer_activations: dict[int, torch.Tensor] = {}  # [pair]
        # The loss's gradient by these; by layer, and source [pair].
        self.slopes: dict[int, dict[int, torch.Tensor]] = {}

    # ---------------------------------------------------------------- forward

    def forward(self) -> list[torch.Tensor]:
        """What features write to each layer [token, d_model]."""
        self.selection.follow(self.each_layer(self._encode))
        return self.each_layer(self._decode)

    def _encode(self, i: int) -> torch.Tensor:
        """Layer i's active features; returns its candidates for the threshold."""
        x = self.batch.x[i] * self.scales.x[i]
        pre = self.selection.preactivations(i, x)
        active = self.selection.active(i, pre)
        exact = active.dots(x, self.weights.W_enc[i]) + self.weights.b_enc[i, active.features]
        self.x[i], self.active[i], self.activations[i] = x, active, exact.clamp_(min=0)
        return self.selection.candidates(pre, self.batch.places)

    def _decode(self, i: int) -> torch.Tensor:
        """What features write to layer i: its own and those of earlier layers."""
        sources = self.weights.sources(i)
        self.writers[i] = joined([self.active[source] for source in sources])
        self.writer_activations[i] = torch.cat([self.activations[source] for source in sources])
        rows = self.weights.decoder_rows(i, self.selection.dtype)
        return self.writers[i].decode(self.writer_activations[i].to(rows.dtype), rows).float()

    # ---------------------------------------------------------------- back

    def backward(self, errors: list[torch.Tensor], multiple: float) -> None:
        """Sets the gradients of all weights but b_dec. The loss's gradient by what features write to a layer is
        `multiple` times its error [token, d_model]."""
        self.each_layer(lambda i: self._decoder_gradient(i, errors[i], multiple))
        self.each_layer(self._encoder_gradient)

    def _decoder_gradient(self, i: int, error: torch.Tensor, multiple: float) -> None:
        """From layer i's error to the decoders and the activations of its writers."""
        decoders, writers, sources = self.weights.W_dec[i], self.writers[i], self.weights.sources(i)
        slopes = writers.dots(error, decoders.flatten(0, 1)).mul_(multiple)
        self.slopes[i] = dict(zip(sources, slopes.split([len(self.active[source]) for source in sources])))
        activations, dtype = self.writer_activations[i].mul_(multiple), self.selection.dtype
        gradient(decoders).copy_(writers.gather(activations.to(dtype), error.to(dtype)).view_as(decoders))

    def _encoder_gradient(self, i: int) -> None:
        """From the slopes of layer i's features, in all layers that they write to, to its encoder."""
        active = self.active[i]
        slope = reduce(torch.add, [self.slopes[target][i] for target in self.weights.targets(i)])
        gradient(self.weights.W_enc[i]).copy_(active.gather(slope, self.x[i]))
        gradient(self.weights.b_enc)[i].zero_().index_add_(0, active.features, slope)

    # ---------------------------------------------------------------- for the record

    @property
    def n_active(self) -> int:
        """Pairs of a token and a feature that is on, in all layers."""
        return sum(map(len, self.active.values()))

    def mark_fired(self, last_fired: torch.Tensor) -> None:
        """In place: the last step in which each feature [layer, feature] was on."""
        for i, active in self.active.items():
            last_fired[i, active.features] = self.batch.step
