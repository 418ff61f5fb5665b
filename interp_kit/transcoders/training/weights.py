"""The weights while they are trained: the same numbers as a transcoder's, decoders in the order of what they write.

All that is written to one layer lies together, so its reconstruction is one product over the features of every layer
that writes there, and what comes and goes in a step are blocks [token, d_model] that stay in the processor's cache.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from ..module import CrossLayerTranscoder, TranscoderConfig
from .parallel import Processes


class Scales:
    """What brings a layer's inputs and centred outputs to norm sqrt(d_model): scaled input = x * input, scaled output
    = y * (output - mean). x, y [layer, 1, 1], mean [layer, 1, d_model]. At first they change nothing."""

    def __init__(self, n_layers: int, d_model: int, device: torch.device):
        self.x, self.y = torch.ones(2, n_layers, 1, 1, device=device)
        self.mean = torch.zeros(n_layers, 1, d_model, device=device)


def gradient(weights: torch.Tensor) -> torch.Tensor:
    """Of a loss, by these weights: set once a pass has gone back to them."""
    assert weights.grad is not None
    return weights.grad


class Weights(nn.Module):
    """This process's share of a transcoder: encoders random, everything else zero.

    By layer: `W_enc` [feature, d_model], `W_dec` [source, feature, d_model] with the layers of `sources(layer)`;
    `b_enc` and `threshold` [layer, feature], `b_dec` [layer, d_model].
    """

    threshold: torch.Tensor

    def __init__(self, config: TranscoderConfig, processes: Processes, seed: int):
        super().__init__()
        self.config, self.processes = config, processes
        n, d, own = len(config.layers), config.d_model, processes.features(config.n_features)
        self.n_features = own.stop - own.start
        generator, bound = torch.Generator("cpu").manual_seed(seed), d**-0.5  # the same weights on every device
        empty = partial(torch.empty, config.n_features, d, device="cpu")
        whole = (empty().uniform_(-bound, bound, generator=generator) for _ in range(n))
        zeros = partial(torch.zeros, device="cpu")
        self.W_enc = nn.ParameterList(weights[own].clone() for weights in whole)
        self.W_dec = nn.ParameterList(zeros(len(self.sources(i)), self.n_features, d) for i in range(n))
        self.b_enc = nn.Parameter(zeros(n, self.n_features))
        self.b_dec = nn.Parameter(zeros(n, d))
        self.register_buffer("threshold", zeros(n, self.n_features))
        self.requires_grad_(False)
        self.narrow_decoders: dict[int, torch.Tensor] = {}

    def sources(self, target: int) -> range:
        """The layers whose features write to the `target`-th."""
        return range(max(0, target + 1 - self.config.span), target + 1)

    def targets(self, source: int) -> range:
        """The layers that the features of the `source`-th write to."""
        return range(source, min(source + self.config.span, len(self.config.layers)))

    def decoders(self, source: int) -> torch.Tensor:
        """All that a layer's features write, as a transcoder has it: [feature, target, d_model]."""
        return torch.stack([self.W_dec[t][source - self.sources(t).start] for t in self.targets(source)], 1)

    def decoder_rows(self, target: int, dtype: torch.dtype) -> torch.Tensor:
        """The rows of all features that write to a layer, one source after the other, in `dtype`: [row, d_model].

        A copy in another type keeps its place from step to step: new memory costs more than what is written to it.
        """
        rows = self.W_dec[target].flatten(0, 1)
        if dtype == rows.dtype:
            return rows
        if target not in self.narrow_decoders:
            self.narrow_decoders[target] = torch.empty_like(rows, dtype=dtype)
        return self.narrow_decoders[target].copy_(rows)

    @torch.no_grad()
    def folded(self, scales: Scales) -> CrossLayerTranscoder:
        """The whole transcoder with the scales in its weights: it reads and writes the model's own units."""
        whole = self.processes.whole
        with self.b_enc.device:  # where the model is, too
            clt = CrossLayerTranscoder(replace(self.config)).requires_grad_(False)
        clt.b_enc.copy_(whole(self.b_enc, 1))
        clt.threshold.copy_(whole(self.threshold, 1))
        clt.b_dec.copy_(self.b_dec / scales.y[:, 0] + scales.mean[:, 0])
        for i in range(len(self.W_enc)):
            targets = self.targets(i)
            clt.W_enc[i].copy_(whole(self.W_enc[i] * scales.x[i], 0))
            clt.W_dec[i].copy_(whole(self.decoders(i) / scales.y[targets.start : targets.stop, 0], 0))
        return clt.eval()
