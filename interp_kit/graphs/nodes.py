"""Which nodes the graph of a prompt has, and where they are.

Features, errors and embeddings write to the residual stream: they are the sources of edges, numbered in this order.
Features and logits are the targets, numbered likewise.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from ..models.frozen import FrozenModel
from ..transcoders import CrossLayerTranscoder
from .explained import Logits, likeliest


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
        """[target]; logits lie above the last layer, and a feature that is explained in its own."""
        return torch.cat([self.features.layer, torch.full((len(self.logits),), self.logits.layer)])

    @cached_property
    def target_position(self) -> torch.Tensor:
        """[target]; logits lie at the last position."""
        return torch.cat([self.features.position, torch.full((len(self.logits),), self.n_positions - 1)])


@torch.no_grad()
def activations_of(frozen: FrozenModel, transcoder: CrossLayerTranscoder) -> torch.Tensor:
    """What each feature does on the prompt: [transcoded layer, position, feature]."""
    return transcoder.encode(frozen.transcoder_input(transcoder.config.feature_input_hook)[transcoder.layers])


@torch.no_grad()
def find_nodes(
    frozen: FrozenModel,
    transcoder: CrossLayerTranscoder,
    zero_first_position: bool = False,
    activations: torch.Tensor | None = None,
    logits: Logits | None = None,
) -> Nodes:
    """The active features of the prompt below what is explained, and that, by default the likeliest logits."""
    activations = activations_of(frozen, transcoder) if activations is None else activations.clone()
    logits = likeliest(frozen) if logits is None else logits
    if zero_first_position:
        activations[:, 0] = 0
    activations[torch.tensor(transcoder.layers) >= logits.layer] = 0
    source, position, feature = activations.nonzero(as_tuple=True)
    layer, encoder_bias = torch.tensor(transcoder.layers)[source], transcoder.b_enc[source, feature]
    features = Features(source, layer, position, feature, activations[source, position, feature], encoder_bias)
    return Nodes(features, logits, frozen.n_layers, frozen.n_positions, zero_first_position)


class NodeOrder:
    """In which columns the sweep keeps the sources: by position, and at each its features, then its errors by layer,
    then its embedding.

    So a block of targets at early positions fills a prefix of the columns, and what the features of one position write
    to a layer goes to columns side by side.

    by_position [feature node]: the features in this order. Columns: `features` [feature node], `errors` [layer,
    position], `embeddings` [position]; `sources` [source], all of them in the graph's order. `ends` [position]: where
    the columns of each position end.
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
        self.ends = (self.embeddings + 1).tolist()
        self.sources = torch.cat([self.features, self.errors.flatten(), self.embeddings])
