"""What a graph explains: the likeliest next tokens, one of them, one rather than another, a direction, or a feature.

Each is a linear function of the residual stream, at the end or where a feature's encoder reads it. So the sweep starts
at its gradient, and all else is the same: circuit-tracer's convention for logits, and targets in its sense.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from ..formats.graph_schema import Question
from ..formats.node_id import SPELLING, NodeId
from ..models import LanguageModel, Target
from ..models.frozen import FrozenModel
from ..models.targets import Tokens
from ..transcoders import CrossLayerTranscoder

# circuit-tracer's names and values
MAX_N_LOGITS = 10
DESIRED_LOGIT_PROB = 0.95

Direction = torch.Tensor | np.ndarray
Explains = Tokens | NodeId | Direction | None  # what `target=` takes


@dataclass
class Logits:
    """What the graph explains, likeliest first: logits, or one other quantity; each tensor [logit], `gradients` [logit,
    d_model]."""

    ids: torch.Tensor  # tokens; a feature's index; -1 for a direction
    probabilities: torch.Tensor  # how much each counts
    values: torch.Tensor  # less the mean logit
    gradients: torch.Tensor  # of the values, at the last position of the stream; for a feature, of what its layer reads
    biases: torch.Tensor  # the part of the values that does not depend on the stream
    layer: int  # where the gradients are: n_layers, after the last layer, or the feature's own layer
    name: str = ""  # of what is not the logit of one token
    elsewhere: torch.Tensor | None = None  # gradients at the positions before the last [position, logit, d_model]

    def __len__(self) -> int:
        return len(self.ids)


def feature_of(target: Explains) -> NodeId | None:
    """The feature that a target names, by a NodeId or by how it is spelled; None for other targets.

    Raises ValueError for a feature without a position.
    """
    if not isinstance(target, NodeId) and not (isinstance(target, str) and SPELLING.fullmatch(target)):
        return None
    node = NodeId.parse(target)
    if node.position is None or node.layer < 0 or node.feature < 0:
        raise ValueError(f"target {str(node)!r} should be a feature at a position, 'layer_feature_position'")
    return node


def prompt_up_to(ids: torch.Tensor, node: NodeId | None) -> torch.Tensor:
    """The prompt's ids, up to the feature's position where one is explained: what follows cannot matter.

    Raises ValueError for a position that the prompt does not have.
    """
    if node is None or node.position is None:
        return ids
    if node.position >= len(ids):
        raise ValueError(f"target {str(node)!r} lies at position {node.position}, and the prompt has {len(ids)} tokens")
    return ids[: node.position + 1]


@torch.no_grad()
def explained(
    model: LanguageModel,
    frozen: FrozenModel,
    transcoder: CrossLayerTranscoder,
    activations: torch.Tensor,
    target: Explains,
    contrast: Tokens | None,
) -> tuple[Logits, Question]:
    """What is explained, and how the graph remembers it. activations [transcoded layer, position, feature].

    Raises TypeError and ValueError for a target that cannot be explained, or a contrast to what is no token.
    """
    node = feature_of(target)
    direction = torch.as_tensor(target) if isinstance(target, torch.Tensor | np.ndarray) else torch.zeros(0).long()
    is_direction = direction.is_floating_point()
    if contrast is not None and (node is not None or is_direction):
        raise ValueError("a contrast is another token, and so is its target then; a feature or a direction takes none")
    if node is not None:
        return _of_feature(frozen, transcoder, activations, node)
    if is_direction:
        return _of_direction(frozen, direction)
    if target is None and contrast is None:
        return likeliest(frozen), Question()
    asked = Target.of(model, _tokens(target), contrast, frozen.logits[-1])
    return _of_tokens(frozen, asked)


def likeliest(frozen: FrozenModel) -> Logits:
    """The fewest tokens that reach 95 % of probability, at most ten."""
    ids, probabilities = choose_logits(frozen.logits[-1])
    return Logits(ids, probabilities, *frozen.readout(ids), frozen.n_layers)


def choose_logits(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From the last position's logits [vocabulary] the fewest tokens that reach 95 %, at most ten: ids and
    probabilities."""
    probabilities, ids = logits.softmax(-1).topk(min(MAX_N_LOGITS, len(logits)))
    n = int((probabilities.cumsum(0) < DESIRED_LOGIT_PROB).sum()) + 1
    return ids[:n], probabilities[:n]


def target_gradients(frozen: FrozenModel, asked: Question, ids: list[int]) -> torch.Tensor:
    """The gradients [logit, d_model] of what a graph explains, by what it remembers: `graph.asked`, and the tokens
    `ids` where it asks nothing. (A feature's, which starts in its own layer, is its encoder's row.)"""
    if "direction" in asked:
        return torch.tensor([asked["direction"]]).to(frozen.embeddings)
    if "target" not in asked:
        return frozen.readout(torch.tensor(ids))[1]
    return _mean_readout(frozen, asked["target"], asked.get("contrast") or [])[1][None]


def _of_tokens(frozen: FrozenModel, asked: Target) -> tuple[Logits, Question]:
    """The mean of the tokens' logits, less that of the contrast's."""
    values, gradients, biases = _mean_readout(frozen, asked.ids, asked.contrast_ids)
    name = asked.name if len(asked.ids) + len(asked.contrast_ids) > 1 else ""
    probability = asked.probability(frozen.logits[-1:]).to(values)
    logits = Logits(
        torch.tensor(asked.ids[:1]), probability, values[None], gradients[None], biases[None], frozen.n_layers, name
    )
    question = Question(target=list(asked.ids), contrast=list(asked.contrast_ids))
    return logits, question | Question(name=name) if name else question


def _mean_readout(
    frozen: FrozenModel, ids: Sequence[int], contrast_ids: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`FrozenModel.readout` of the mean over tokens, less that over others: value, gradient [d_model], bias."""
    weights = torch.cat([_mean(len(ids)), -_mean(len(contrast_ids))]).to(frozen.logits.dtype)
    values, gradients, biases = frozen.readout(torch.tensor([*ids, *contrast_ids]))
    return weights @ values, weights @ gradients, weights @ biases


def _mean(n: int) -> torch.Tensor:
    return torch.full((n,), 1 / max(n, 1), dtype=torch.float64)


def _of_direction(frozen: FrozenModel, direction: torch.Tensor) -> tuple[Logits, Question]:
    """How far the stream after the last layer goes along a direction [d_model], at the last position."""
    vector, d_model = direction.to(frozen.embeddings), frozen.embeddings.shape[-1]
    if vector.shape != (d_model,) or not vector.isfinite().all():
        raise ValueError(
            f"a direction has one finite number for each of the {d_model} of the residual stream; got the shape "
            f"{list(vector.shape)}"
        )
    one = torch.ones(1).to(vector)
    logits = Logits(
        torch.tensor([-1]), one, (frozen.residual_final[-1] @ vector)[None], vector[None], 0 * one, frozen.n_layers,
        "the direction",
    )  # fmt: skip
    return logits, Question(name="the direction", direction=vector.tolist())


def _of_feature(
    frozen: FrozenModel, transcoder: CrossLayerTranscoder, activations: torch.Tensor, node: NodeId
) -> tuple[Logits, Question]:
    """A feature's activation, at the last position."""
    if node.layer not in transcoder.layers or node.feature >= activations.shape[-1]:
        raise ValueError(
            f"target {str(node)!r}: the transcoder has no such feature; its layers are "
            f"{', '.join(map(str, transcoder.layers))}, each of {activations.shape[-1]:,} features"
        )
    index = transcoder.layers.index(node.layer)
    here = activations[index, -1]
    if here[node.feature] == 0:
        strongest = here.argsort(descending=True)[: min(5, int((here > 0).sum()))].tolist()
        said = ", ".join(str(NodeId(node.layer, i, node.position)) for i in strongest) or "none"
        raise ValueError(f"target {str(node)!r} is silent on this prompt; the strongest that fire there: {said}")
    row, bias = transcoder.W_enc[index, node.feature][None], transcoder.b_enc[index, node.feature][None]
    name, value = f"feature {node.layer}/{node.feature}", here[node.feature][None]
    one = torch.ones(1).to(value)
    logits = Logits(torch.tensor([node.feature]), one, value, row.to(value), bias.to(value), node.layer, name)
    return logits, Question(name=name, feature=str(node))


def _tokens(target: Explains) -> Tokens | None:
    """Tokens as they are; whole numbers in an array as a list."""
    return cast("Tokens | None", target.tolist() if isinstance(target, torch.Tensor | np.ndarray) else target)
