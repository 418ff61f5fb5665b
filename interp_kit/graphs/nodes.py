"""Which nodes the graph of a prompt has, and where they are.

Features, errors and embeddings write to the residual stream: they are the sources of edges, numbered in this order.
Features and logits are the targets, numbered likewise.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from ..models.frozen import FrozenModel
from ..transcoders import CrossLayerTranscoder

# circuit-tracer's names and values
MAX_N_LOGITS = 10
DESIRED_LOGIT_PROB = 0.95


@dataclass
class Features:
    """The active features by (layer, position, feature); each tensor [feature node]."""

    source: torch.Tensor  # index into transcoder.layers
    layer: torch.Tensor
    position: torch.Tensor
    feature: torch.Tensor  # index in its layer
    activation: torch.Tensor
    encoder_bias: torch.Tensor

    def __len__(self) -> int:
        return len(self.source)


@dataclass
class Logits:
    """The logits that the graph explains, likeliest first; each tensor [logit], `gradients` [logit, d_model]."""

    ids: torch.Tensor
    probabilities: torch.Tensor
    values: torch.Tensor  # less the mean logit
    gradients: torch.Tensor  # of the values, at the last position of the residual stream
    biases: torch.Tensor  # the part of the values that does not depend on the stream

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Nodes:
    """The nodes of a prompt's graph. Every position of every layer has an error, and every position an embedding.

    zero_first_position: no features and no error at position 0; what MLPs write there is a bias.
    """

    features: Features
    logits: Logits
    n_layers: int
    n_positions: int
    zero_first_position: bool

    @property
    def n_sources(self) -> int:
        """Features, errors and embeddings."""
        return len(self.features) + (self.n_layers + 1) * self.n_positions

    @property
    def n_targets(self) -> int:
        """Features and logits."""
        return len(self.features) + len(self.logits)

    @cached_property
    def target_layer(self) -> torch.Tensor:
        """[target]; logits lie above the last layer."""
        return torch.cat([self.features.layer, torch.full((len(self.logits),), self.n_layers)])

    @cached_property
    def target_position(self) -> torch.Tensor:
        """[target]; logits lie at the last position."""
        return torch.cat([self.features.position, torch.full((len(self.logits),), self.n_positions - 1)])


@torch.no_grad()
def find_nodes(frozen: FrozenModel, transcoder: CrossLayerTranscoder, zero_first_position: bool = False) -> Nodes:
    """The active features of the prompt, and the logits to explain."""
    x = frozen.transcoder_input(transcoder.config.feature_input_hook)[transcoder.layers]
    activations = transcoder.encode(x)
    if zero_first_position:
        activations[:, 0] = 0
    source, position, feature = activations.nonzero(as_tuple=True)
    layer, encoder_bias = torch.tensor(transcoder.layers)[source], transcoder.b_enc[source, feature]
    features = Features(source, layer, position, feature, activations[source, position, feature], encoder_bias)
    ids, probabilities = choose_logits(frozen.logits[-1])
    logits = Logits(ids, probabilities, *frozen.readout(ids))
    return Nodes(features, logits, frozen.n_layers, frozen.n_positions, zero_first_position)


def choose_logits(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From the last position's logits [vocabulary] the fewest tokens that reach 95 %, at most ten: ids and
    probabilities."""
    probabilities, ids = logits.softmax(-1).topk(min(MAX_N_LOGITS, len(logits)))
    n = int((probabilities.cumsum(0) < DESIRED_LOGIT_PROB).sum()) + 1
    return ids[:n], probabilities[:n]


class NodeOrder:
    """In which columns the sweep keeps the sources: by position, and at each its features, then its errors by layer,
    then its embedding.

    So a block of targets at early positions fills a prefix of the columns, and what the features of one position write
    to a layer goes to columns side by side.

    by_position [feature node]: the features in this order. Columns: `features` [feature node], `errors` [layer,
    position], `embeddings` [position]; `sources` [source], all of them in the graph's order.
    """

    def __init__(self, nodes: Nodes) -> None:
        position, positions = nodes.features.position, torch.arange(nodes.n_positions)
        others = nodes.n_layers + 1  # of each position: errors and the embedding
        self.by_position = position.argsort(stable=True)
        ordered = position[self.by_position]
        self.features = torch.empty_like(position)
        self.features[self.by_position] = torch.arange(len(position)) + ordered * others
        features_end = torch.bincount(position, minlength=nodes.n_positions).cumsum(0) + positions * others
        self.errors = features_end + torch.arange(nodes.n_layers)[:, None]
        self.embeddings = features_end + nodes.n_layers
        self.sources = torch.cat([self.features, self.errors.flatten(), self.embeddings])
