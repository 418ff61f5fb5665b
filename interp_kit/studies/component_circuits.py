"""Circuits of heads and MLPs, as others find them: the baselines that graphs are compared with.

EAP (Syed et al. 2023) scores an edge between two components by how much the receiver's input changes from a clean to a
corrupted prompt, times the gradient of the metric there; EAP-IG (Hanna et al. 2024) takes the mean of the gradients on
the way. A circuit of the k strongest edges is graded as in MIB (2025): all other edges carry what they carry on the
corrupted prompt, and the faithfulness is f(k) = (m(circuit) - m(no edge)) / (m(model) - m(no edge)).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from ..models import LanguageModel
from ..models.edits import site_hook
from ..models.families import Block
from ..models.frozen import FrozenModel
from ..models.hooks import hooked

Method = Literal["EAP", "EAP-IG", "random"]
IG_STEPS = 5
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all edges or features, as in MIB


class Components:
    """A model as a graph of components, on prompts of one length: the embedding, every head, every MLP, the logits.

    Senders: the embedding, then for each layer its heads and its MLP. Receivers: for each layer its heads and its MLP,
    then the logits; each reads the sum of what the senders below wrote (heads read query, key and value alike).

    embedded [position, d_model]: of the prompt, as the first layer reads it.

    Raises NotImplementedError for families with a norm after attention, or with MLPs beside it, or whose heads are not
    known.
    """

    def __init__(self, model: LanguageModel, ids: torch.Tensor) -> None:
        self.frozen = FrozenModel(model, ids)
        self.blocks, layout = self.frozen.parts.blocks, self.frozen.parts.layout
        if layout is None or any(block.after_attention is not None or block.parallel for block in self.blocks):
            raise NotImplementedError(f"circuits of {self.frozen.hf.config.model_type!r} models are not implemented")
        self.embedded = self.frozen.residual_pre[0]
        self.projections = [layout.out(block.attention) for block in self.blocks]
        self.n_heads, self.n_layers = len(self.frozen.patterns[0]), self.frozen.n_layers
        per_layer = self.n_heads + 1
        self.n_senders = self.n_receivers = 1 + self.n_layers * per_layer
        sender_layer = np.concatenate([[-1], np.arange(self.n_layers).repeat(per_layer)])
        is_mlp = np.concatenate([[False], np.tile(np.arange(per_layer) == self.n_heads, self.n_layers)])
        receiver_layer = np.concatenate([np.arange(self.n_layers).repeat(per_layer), [self.n_layers]])
        reads_heads = np.concatenate([np.tile(np.arange(per_layer) == self.n_heads, self.n_layers), [True]])
        same = sender_layer[None] == receiver_layer[:, None]
        below = sender_layer[None] < receiver_layer[:, None]
        self.edges = torch.from_numpy(below | same & reads_heads[:, None] & ~is_mlp[None])  # [receiver, sender]

    def run(
        self, embeddings: torch.Tensor, kept: torch.Tensor | None = None, others: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """The last position's logits, what the senders write [sender, position, d_model], and the receivers' inputs.

        embeddings [position, d_model]: what the first layer reads, such as `embedded`. kept [receiver, sender]: edges
        that carry what this run computes; the rest carry `others` [sender, position, d_model], of another run.
        """
        written, read = [embeddings], []
        for layer, block in enumerate(self.blocks):
            start = layer * (self.n_heads + 1)
            x = self._inputs(slice(start, start + self.n_heads), written, kept, others)
            read.extend(x := list(x.unbind(0)))
            written.extend(self._heads(layer, torch.stack(x)))
            at = start + self.n_heads
            read.append(x := self._inputs(slice(at, at + 1), written, kept, others)[0])
            written.append(_mlp(block, x + self._constant(layer + 1)))
        read.append(x := self._inputs(slice(self.n_receivers - 1, None), written, kept, others)[0])
        parts = self.frozen.parts
        logits = parts.unembedding(parts.final_norm(x + self._constant(self.n_layers)))
        return logits[-1], torch.stack(written), read

    def _inputs(
        self, rows: slice, written: list[torch.Tensor], kept: torch.Tensor | None, others: torch.Tensor | None
    ) -> torch.Tensor:
        """What receivers read [receiver, position, d_model]."""
        n = len(written)
        mine, edges = torch.stack(written), self.edges[rows, :n].to(written[0])
        if kept is None or others is None:
            return torch.einsum("rs,spd->rpd", edges, mine)
        here = kept[rows, :n].to(edges) * edges
        return torch.einsum("rs,spd->rpd", here, mine) + torch.einsum("rs,spd->rpd", edges - here, others[:n])

    def _constant(self, layer: int) -> torch.Tensor | float:
        """What the biases of attention's output in the layers below `layer` add to the stream."""
        return sum((bias for _, bias in self.projections[:layer] if bias is not None), start=0.0)

    def _heads(self, layer: int, x: torch.Tensor) -> list[torch.Tensor]:
        """What each head writes, given its own stream: x [head, position, d_model]."""
        found: list[torch.Tensor] = []
        args, kwargs = self.frozen.block_arguments[layer]
        with hooked(site_hook(self.blocks[layer], "heads", found.append)):
            self.blocks[layer].layer(x + self._constant(layer), *args, **kwargs)
        width, out = found[0].shape[-1] // self.n_heads, self.projections[layer][0]
        parts = [slice(h * width, (h + 1) * width) for h in range(self.n_heads)]
        return [found[0][h, :, part] @ out[:, part].T for h, part in enumerate(parts)]


def _mlp(block: Block, x: torch.Tensor) -> torch.Tensor:
    written = block.mlp(block.mlp_norm(x[None]))
    return (written if block.writer is block.mlp else block.writer(written))[0]


def edge_scores(
    components: Components,
    clean: torch.Tensor,
    corrupt: torch.Tensor,
    metric: torch.Tensor,
    method: Method,
    seed: int = 0,
) -> torch.Tensor:
    """[receiver, sender]: EAP's or EAP-IG's, larger is more important. clean, corrupt: embeddings [position, d_model];
    metric [vocabulary]: the weights of the logits."""
    if method == "random":
        return torch.rand(components.edges.shape, generator=torch.Generator().manual_seed(seed)) * components.edges
    with torch.no_grad():
        change = components.run(corrupt)[1] - components.run(clean)[1]
    steps = [0.0] if method == "EAP" else [step / IG_STEPS for step in range(1, IG_STEPS + 1)]
    gradients = []
    for share in steps:  # on the way from clean to corrupted
        embeddings = (clean + share * (corrupt - clean) * (method == "EAP-IG")).detach().requires_grad_()
        with torch.enable_grad():
            logits, _, read = components.run(embeddings)
            gradients.append(torch.stack(torch.autograd.grad(logits @ metric, read)))
    gradient = torch.stack(gradients).mean(0)
    return torch.einsum("rpd,spd->rs", gradient, change).abs() * components.edges


@torch.no_grad()
def edge_faithfulness(
    components: Components, clean: torch.Tensor, corrupt: torch.Tensor, metric: torch.Tensor, scores: torch.Tensor,
    fractions: Sequence[float] = FRACTIONS,
) -> np.ndarray:  # fmt: skip
    """[fraction]: the faithfulness of the circuit of the strongest edges."""
    others = components.run(corrupt)[1]
    places = components.edges.nonzero()
    order = places[scores[components.edges].argsort(descending=True)]
    values = []
    for k in [0, *(max(1, round(fraction * len(order))) for fraction in fractions), len(order)]:
        kept = torch.zeros_like(components.edges)
        kept[order[:k, 0], order[:k, 1]] = True
        values.append(float(components.run(clean, kept, others)[0] @ metric))
    return (np.array(values[1:-1]) - values[0]) / (values[-1] - values[0])


def areas(faithfulness: np.ndarray, fractions: Sequence[float] = FRACTIONS) -> dict[str, float]:
    """MIB's CPR, the area under the faithfulness over the share that is kept (larger is better), and CMD, that between
    it and 1 (smaller is better); faithfulness [..., fraction]."""
    x = np.array([0.0, *fractions])
    y = np.concatenate([np.zeros_like(faithfulness[..., :1]), faithfulness], -1)
    return {"CPR": float(np.trapezoid(y, x).mean()), "CMD": float(np.trapezoid(np.abs(1 - y), x).mean())}
