"""Attribution: the direct effect of every node on every other, by one backward sweep.

An edge is the effect of a source (what a feature, an MLP error or an embedding writes) on a target (a
feature's pre-activation, or a logit less the mean logit) through residual connections, frozen attention and a
transcoder's skip connections only, never through another feature: Ameisen et al. 2025, with circuit-tracer's
conventions for the choice of logits and the order of nodes.

The sweep (`sweep.py`) does the arithmetic. Here: which nodes there are, how much memory they may take, and the
graph that comes out.
"""

import copy
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
import torch

from ..hardware import bytes_of
from ..models.frozen import FrozenModel
from .graph import AttributionGraph
from .influence import influence_so_far
from .sweep import Sweep

MAX_LOGITS = 10
LOGIT_SHARE = 0.95
EXPAND = 512  # with max_features: rows computed between two rankings of the features


def attribute(
    model,
    transcoder,
    prompt: str,
    max_features: int | None = None,
    memory: str | float | None = None,
    zero_first: bool = False,
    dtype: torch.dtype = torch.float32,
) -> AttributionGraph:
    """The attribution graph of `prompt`: which features, errors and tokens drew the model's next token.

    Nodes, in the order of `graph.adjacency`: active features by (layer, position, feature); errors by (layer,
    position), the part of each MLP's output that the transcoder does not rebuild (all of it in layers without
    one); embeddings by position; the smallest set of logits that reaches 95 % of probability, at most 10.

    max_features: keep only so many features, the most influential ones. They are found as circuit-tracer does:
        starting from the logits, the rows of the features that matter most so far are computed next. What the left-out
        features write into a node is kept per node, in `nodes["left_out"]`.
    memory: how much the graph's computation may take beside model and transcoder, "2GB" or a number of bytes;
        by default what is free.
    zero_first: circuit-tracer's convention: no features and no errors at the first position; what its MLPs write
        counts as bias.
    dtype: float32, or float64 where an identity should hold to the last digits.

    Raises TypeError or ValueError for a prompt that is empty, too long or no string, ValueError for a transcoder of
    another model, an option that makes no sense, or a model whose attention cannot be frozen; MemoryError, before
    computing, when the graph would not fit.
    """
    budget = min(bytes_of(memory), bytes_of(None))
    if max_features is not None and not (isinstance(max_features, Integral) and max_features >= 0):
        raise ValueError(f"max_features should be a whole number of at least 0, got {max_features!r}")
    transcoder.check_model(model)
    frozen = FrozenModel(model, model.encode(prompt), dtype)
    return Attribution(model, in_same_dtype(transcoder, dtype), frozen, prompt, zero_first, budget).graph(max_features)


def in_same_dtype(transcoder, dtype: torch.dtype):
    """The transcoder itself, or a copy in `dtype`."""
    if transcoder.W_enc.dtype == dtype:
        return transcoder
    return copy.deepcopy(transcoder).to(dtype).requires_grad_(False)


@dataclass
class Logits:
    """The logit nodes: vocabulary ids and their probabilities; each [target]."""

    ids: torch.Tensor
    probabilities: torch.Tensor

    @classmethod
    def choose(cls, logits: torch.Tensor) -> "Logits":
        """From the last position's logits [vocabulary]: the fewest that reach 95 %, at most ten."""
        probabilities, ids = logits.softmax(-1).topk(min(MAX_LOGITS, len(logits)))
        n = int((probabilities.cumsum(0) < LOGIT_SHARE).sum()) + 1
        return cls(ids[:n], probabilities[:n])


class Attribution:
    """The nodes of one prompt's graph, and the graph."""

    def __init__(self, model, transcoder, frozen, prompt, zero_first=False, memory=None):
        self.model, self.frozen, self.prompt = model, frozen, prompt
        self.memory = min(bytes_of(memory), bytes_of(None))
        self.logits = Logits.choose(frozen.logits[-1])
        self.sweep = Sweep(frozen, transcoder, self.logits.ids, zero_first, self.memory)
        self.n_logits, self.n_features = len(self.logits.ids), self.sweep.n_features

    @property
    def n_sources(self) -> int:
        """Nodes that write: features, errors and embeddings."""
        return self.n_features + (self.frozen.n_layers + 1) * self.frozen.n_positions

    def graph(self, max_features: int | None = None) -> AttributionGraph:
        capped = max_features is not None and max_features < self.n_features
        self._check_memory(max_features if capped else None)
        if capped:
            kept, adjacency, bias, left_out = self._most_influential(max_features)
        else:
            kept, left_out = torch.arange(self.n_features), None
            adjacency, bias = self._everything()
        tokens = self.model.tokens(self.frozen.ids)
        nodes = self._node_table(tokens, kept, bias)
        if left_out is not None:
            nodes["left_out"] = left_out
        return AttributionGraph(
            prompt=self.prompt,
            tokens=tokens,
            n_layers=self.frozen.n_layers,
            nodes=nodes,
            adjacency=adjacency,
            about={"model": self.model.name, "fingerprint": self.model.fingerprint},
        )

    def _check_memory(self, max_features):
        """Before computing: the adjacency and what the sweep holds at once."""
        item = self.sweep.bytes_per_number
        others = self.n_sources - self.n_features + self.n_logits

        def needed(n):  # the rows of n features, the adjacency, and the scores' copy of it
            rows = (n + self.n_logits) * self.n_sources if n < self.n_features else 0
            return item * (rows + 2 * (n + others) ** 2) + self.sweep.bytes

        n = self.n_features if max_features is None else max_features
        if needed(n) > self.memory:
            fits = max((m for m in range(0, n, 100) if needed(m) <= self.memory), default=0)
            smaller = f"max_features={fits}, " if fits else ""
            raise MemoryError(
                f"this graph needs about {needed(n) / 1e9:.2f} GB ({n + others:,} nodes, {n:,} of them features, on "
                f"{self.frozen.n_positions} tokens) and {self.memory / 1e9:.2f} GB are free. Use {smaller}a shorter "
                "prompt, a sparser transcoder, or float32"
            )

    # ------------------------------------------------------------------ rows

    def _everything(self):
        """adjacency [target, source] over all nodes and bias [node]; rows of errors and embeddings are zero."""
        n_nodes = self.n_sources + self.n_logits
        adjacency = np.zeros((n_nodes, n_nodes), dtype=_numpy_dtype(self.frozen.embeddings))
        bias = np.zeros(n_nodes)
        rows = np.r_[: self.n_features, self.n_sources : n_nodes]  # features, then logits: the sweep's targets
        for targets, edges, constant in self.sweep.rows(torch.arange(len(rows))):
            adjacency[rows[targets], : self.n_sources] = edges
            bias[rows[targets]] = constant
        return adjacency, bias

    def _most_influential(self, n):
        """The n features with the most influence on the logits: kept [n], adjacency, bias and left_out [node]."""
        edges = np.zeros((self.n_logits + n, self.n_sources), dtype=_numpy_dtype(self.frozen.embeddings))
        bias, chosen = np.zeros(len(edges)), np.zeros(0, dtype=int)
        logits = torch.arange(self.n_features, self.n_features + self.n_logits)
        self._fill(edges, bias, 0, logits)
        weights, layer = self.logits.probabilities.numpy(), self.sweep.layer.numpy()
        while len(chosen) < n:
            done = self.n_logits + len(chosen)
            influence = influence_so_far(edges[:done], chosen, layer[chosen], weights)
            order = np.argsort(-influence[: self.n_features], kind="stable")
            new = order[~np.isin(order, chosen)][: min(EXPAND, n - len(chosen))]
            self._fill(edges, bias, done, torch.from_numpy(new))
            chosen = np.r_[chosen, new]
        return self._without_the_rest(chosen, edges, bias)

    def _fill(self, edges, bias, start, targets):
        place = {target: start + i for i, target in enumerate(targets.tolist())}
        for block, rows, constant in self.sweep.rows(targets):
            at = [place[target] for target in block.tolist()]
            edges[at], bias[at] = rows, constant

    def _without_the_rest(self, chosen, edges, bias):
        """From rows [logits, then chosen] over all sources to a graph of the chosen features."""
        order = np.argsort(chosen)
        kept = chosen[order]
        columns = np.r_[kept, self.n_features : self.n_sources]
        n_nodes = len(columns) + self.n_logits
        rows = np.r_[len(columns) : n_nodes, np.argsort(order)]  # where each row of `edges` belongs
        adjacency = np.zeros((n_nodes, n_nodes), dtype=edges.dtype)
        for i, row in enumerate(rows):  # one by one: a copy of all would be large
            adjacency[row, : len(columns)] = edges[i, columns]
        all_bias, left_out, dropped = np.zeros(n_nodes), np.zeros(n_nodes), np.zeros(self.n_sources, edges.dtype)
        dropped[np.setdiff1d(np.arange(self.n_features), kept)] = 1
        all_bias[rows], left_out[rows] = bias, edges @ dropped
        return torch.from_numpy(kept), adjacency, all_bias, left_out

    # ------------------------------------------------------------------ the table

    def _node_table(self, tokens, kept, bias) -> pd.DataFrame:
        t, layers, sweep = self.frozen.n_positions, self.frozen.n_layers, self.sweep
        positions = list(range(t))
        features = pd.DataFrame(
            {
                "kind": "feature",
                "layer": sweep.layer[kept].numpy(),
                "position": sweep.position[kept].numpy(),
                "feature": sweep.feature[kept].numpy(),
                "token": [tokens[p] for p in sweep.position[kept].tolist()],
                "activation": sweep.activation[kept].double().numpy(),
            }
        )
        errors = pd.DataFrame(
            {
                "kind": "error",
                "layer": [layer for layer in range(layers) for _ in positions],
                "position": positions * layers,
                "feature": -1,
                "token": tokens * layers,
            }
        )
        ids = self.frozen.ids.tolist()
        embeddings = pd.DataFrame(
            {"kind": "embedding", "layer": -1, "position": positions, "feature": ids, "token": tokens}
        )
        outputs = pd.DataFrame(
            {
                "kind": "logit",
                "layer": layers,
                "position": t - 1,
                "feature": self.logits.ids.numpy(),
                "token": self.model.tokens(self.logits.ids),
                "activation": sweep.logit_values.double().numpy(),
                "probability": self.logits.probabilities.double().numpy(),
            }
        )
        table = pd.concat([features, errors, embeddings, outputs], ignore_index=True)
        table["bias"] = bias
        return table


def _numpy_dtype(tensor):
    return np.float64 if tensor.dtype == torch.float64 else np.float32
