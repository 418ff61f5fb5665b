"""Which features does the answer need? Rankings of a graph and of attribution patching, graded by the model.

The circuit of the k highest features of a prompt: all other features are set to what they are on a corrupted prompt (a
question about another place, as long), in the real model, and everything recomputes. Its faithfulness is that of MIB
(2025), f(k) = (m(circuit) - m(no feature)) / (m(model) - m(no feature)), m the logit of the answer less that of the
other question's answer.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from ..formats.graph_tables import node_rows
from ..graphs.attribution import attribute
from ..graphs.feature_edits import FeatureEdit, FeatureEdits
from ..models import LanguageModel
from ..models.frozen import FrozenModel
from ..models.hooks import hooked
from ..transcoders import CrossLayerTranscoder
from .component_circuits import FRACTIONS

Ranking = Literal["contribution", "influence", "attribution patching", "activation", "random"]
RANKINGS: tuple[Ranking, ...] = ("contribution", "influence", "attribution patching", "activation", "random")


@torch.no_grad()
def feature_faithfulness(
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    prompt: str,
    corrupted: str,
    target: int,
    contrast: int,
    ranking: Ranking,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> np.ndarray:
    """[fraction]: the faithfulness of the circuit of the highest features; of a prompt and another one as long.

    "contribution" and "influence" are those of both prompts' graphs, explaining target rather than contrast, in size
    and times the share of the activation in which the prompts differ;
    "attribution patching" is the gradient times the change, summed over the layers that a feature writes to; with
    "activation" the strongest come first.

    Raises ValueError for prompts of different lengths.
    """
    clean, other = (FeatureEdits(FrozenModel(model, text), transcoder) for text in (prompt, corrupted))
    if clean.activations.shape != other.activations.shape:
        raise ValueError(f"the prompts should have as many tokens: {prompt!r}, {corrupted!r}")
    changed = (clean.activations != other.activations).nonzero()  # [feature, (layer, position, feature)]
    scores = _scores(model, transcoder, clean, other, prompt, corrupted, target, contrast, ranking, seed)
    order = changed[scores[tuple(changed.T)].argsort(descending=True, stable=True)].tolist()
    counts = [0, *(max(1, round(fraction * len(order))) for fraction in fractions)]
    versions = [[_set(place, other) for place in order[k:]] for k in counts]
    logits = clean.run(versions, freeze_attention=False).logits[:, -1]
    values = (logits[:, target] - logits[:, contrast]).double().numpy()
    whole = float(clean.frozen.logits[-1, target] - clean.frozen.logits[-1, contrast])
    return (values[1:] - values[0]) / (whole - values[0])


def _set(place: list[int], other: FeatureEdits) -> FeatureEdit:
    index, position, feature = place
    return FeatureEdit(index, feature, slice(position, position + 1), "value", float(other.activations[tuple(place)]))


def _scores(
    model: LanguageModel, transcoder: CrossLayerTranscoder, clean: FeatureEdits, other: FeatureEdits, prompt: str,
    corrupted: str, target: int, contrast: int, ranking: Ranking, seed: int,
) -> torch.Tensor:  # fmt: skip
    """[layer, position, feature], larger is more important."""
    if ranking == "random":
        return torch.rand(clean.activations.shape, generator=torch.Generator().manual_seed(seed))
    if ranking == "activation":
        return clean.activations.maximum(other.activations)
    change = other.activations - clean.activations
    if ranking == "attribution patching":
        return (_gradients(model, transcoder, clean, target, contrast) * change).abs()
    graphs = [attribute(model, transcoder, text, target, contrast, max_features=None) for text in (prompt, corrupted)]
    found = torch.zeros_like(change)
    for graph, edits in zip(graphs, (clean, other), strict=True):  # what fires on the corrupted prompt alone counts too
        weight = float(graph.logits["probability"].iloc[0])  # which influence counts in, and contributions do not
        values = graph.features["contribution"] if ranking == "contribution" else graph.features["influence"] / weight
        for n, value in zip(node_rows(graph.features), values.tolist(), strict=True):
            place = transcoder.layers.index(n.layer), n.position, n.feature
            share = change[place] / edits.activations[place]  # of the activation, that the prompts differ in
            found[place] = torch.maximum(found[place], (value * share).abs())
    return found


@torch.enable_grad()
def _gradients(
    model: LanguageModel, transcoder: CrossLayerTranscoder, clean: FeatureEdits, target: int, contrast: int
) -> torch.Tensor:
    """The metric's derivative by each feature's activation [layer, position, feature], through the real model."""
    frozen, written = clean.frozen, []
    blocks = frozen.parts.blocks
    hooks = [blocks[layer].feature_output_hook(written.append) for layer in transcoder.layers]
    embedded = frozen.hf.get_input_embeddings()(frozen.ids[None]).detach().requires_grad_()
    with hooked(*hooks):
        logits = frozen.hf(inputs_embeds=embedded, use_cache=False).logits[0, -1]
    gradients = torch.autograd.grad(logits[target] - logits[contrast], written)
    found = torch.zeros_like(clean.activations)
    for source in range(len(transcoder.layers)):
        for offset in range(transcoder.n_targets(source)):
            rows = transcoder.W_dec[source][:, offset].to(gradients[0])
            found[source] += gradients[source + offset][0] @ rows.T
    return found
