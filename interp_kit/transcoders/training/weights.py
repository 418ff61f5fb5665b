"""The weights while they are trained: the same numbers as a transcoder's, decoders in the order of what they write.

All that is written to one layer lies together, so its reconstruction is one product over the features of every layer
that writes there, and what comes and goes in a step are blocks [token, d_model] that stay in the processor's cache.
"""

from dataclasses import replace

import torch
from torch import nn

from ..module import CrossLayerTranscoder, TranscoderConfig
from .parallel import Processes


class Weights(nn.Module):
    """This process's share of a transcoder: encoders random, everything else zero.

    By layer: `W_enc` [feature, d_model], `W_dec` [source, feature, d_model] with the layers of `sources(layer)`;
    `b_enc` and `threshold` [layer, feature], `b_dec` [layer, d_model].
    """

    def __init__(self, config: TranscoderConfig, processes: Processes, seed: int):
        super().__init__()
        self.config, self.processes = config, processes
        n, d, own = len(config.layers), config.d_model, processes.features(config.n_features)
        self.n_features = own.stop - own.start
        generator, bound = torch.Generator().manual_seed(seed), d**-0.5
        whole = (torch.empty(config.n_features, d).uniform_(-bound, bound, generator=generator) for _ in range(n))
        self.W_enc = nn.ParameterList(weights[own].clone() for weights in whole)
        self.W_dec = nn.ParameterList(torch.zeros(len(self.sources(i)), self.n_features, d) for i in range(n))
        self.b_enc = nn.Parameter(torch.zeros(n, self.n_features))
        self.b_dec = nn.Parameter(torch.zeros(n, d))
        self.register_buffer("threshold", torch.zeros(n, self.n_features))
        self.requires_grad_(False)

    def sources(self, target: int) -> range:
        """The layers whose features write to the `target`-th."""
        return range(max(0, target + 1 - self.config.span), target + 1)

    def targets(self, source: int) -> range:
        """The layers that the features of the `source`-th write to."""
        return range(source, min(source + self.config.span, len(self.config.layers)))

    def decoders(self, source: int) -> torch.Tensor:
        """All that a layer's features write, as a transcoder has it: [feature, target, d_model]."""
        return torch.stack([self.W_dec[t][source - self.sources(t).start] for t in self.targets(source)], 1)

    @torch.no_grad()
    def folded(self, x: torch.Tensor, y: torch.Tensor, mean: torch.Tensor) -> CrossLayerTranscoder:
        """The whole transcoder, for inputs that are not yet multiplied by x [layer, 1, 1] and outputs from which `mean`
        [layer, 1, d_model] is not yet taken nor y [layer, 1, 1] multiplied."""
        clt, whole = CrossLayerTranscoder(replace(self.config)).requires_grad_(False), self.processes.whole
        clt.b_enc.copy_(whole(self.b_enc, 1))
        clt.threshold.copy_(whole(self.threshold, 1))
        clt.b_dec.copy_(self.b_dec / y[:, 0] + mean[:, 0])
        for i, targets in enumerate(map(self.targets, range(len(x)))):
            clt.W_enc[i].copy_(whole(self.W_enc[i] * x[i], 0))
            clt.W_dec[i].copy_(whole(self.decoders(i) / y[targets.start : targets.stop, 0], 0))
        return clt.eval()
