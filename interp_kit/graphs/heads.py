"""Through which attention heads does an edge run?

An edge sums over all ways through the frozen model that meet no feature. A head's loading is the part of the edge whose
ways pass that head: the source's writing is carried up to the head, the target's gradient down to it, and the head's
pattern, values and output lie between. Where ways pass one attention layer only, the loadings of all heads and the part
that stays in its position add up to the edge; ways through several count in each of their heads.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from ..formats.graph_tables import node_rows
from ..formats.node_id import NodeId
from ..formats.provenance import check_belongs
from ..hardware import check_memory
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.frozen import FrozenModel
from ..models.frozen.algebra import Algebra
from ..transcoders import CrossLayerTranscoder
from .attribution import in_same_dtype
from .explained import target_gradients
from .graph import AttributionGraph, check_single
from .influence import LEFT_OUT

Ids = Sequence[str | NodeId] | str | NodeId | None
COPIES = 3  # of all sources' vectors, alive at once
BYTES_A_PAIR, BYTES_A_ROW = 16, 80  # of each head: two copies of its matrix; the table and its sorted copy
STAYS = -1  # in the columns layer and head: what passes no head


@checked
def head_loadings(
    graph: AttributionGraph,
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    source: Ids = None,
    target: Ids = None,
    dtype: torch.dtype = torch.float32,
) -> pd.DataFrame:
    """Through which heads the edges of a graph run: one row for each edge and head, the largest loadings first.

    source, target: ids of the nodes whose edges are taken apart; by default all. Use a pruned graph.

    Columns: source, target, edge (its weight), layer and head, loading (what ways through this head carry of the edge),
    share (of the edge). The row with layer and head -1 is what passes no head. Where only one attention layer lies
    between the two nodes, an edge's loadings add up to it. What a capped graph left out has none.

    Raises ValueError for a graph of another model or transcoder or of a family of prompts, a node that the graph does
    not have, or nodes without an edge between them; NotImplementedError for a family of models whose heads are not
    known; MemoryError for more edges than fit.

    >>> ik.graphs.head_loadings(graph.prune(), model, transcoder, target=graph.logits["id"].iloc[0])
    """
    transcoder.check_model(model)
    check_single(graph)
    check_belongs(graph, "graph", model, "model", keys=["fingerprint"])
    check_belongs(graph, "graph", transcoder, "transcoder", keys=["transcoder"])
    targets, sources = _rows(graph, target, "target"), _rows(graph, source, "source")
    sources = sources[graph.kinds[sources] != LEFT_OUT]
    weights = graph.adjacency[np.ix_(targets, sources)]
    if not weights.any():
        raise ValueError("no edge of the graph leads from these sources to these targets")
    targets, sources = targets[weights.any(1)], sources[weights.any(0)]
    frozen = FrozenModel(model, graph.prompt if graph.ids is None else graph.ids, dtype)
    if frozen.parts.layout is None:
        raise NotImplementedError(f"where the heads of {frozen.hf.config.model_type!r} models are is not known")
    n_vectors, n_edges = 2 * frozen.n_layers * len(targets) + COPIES * len(sources), int(np.count_nonzero(weights))
    per_head = len(targets) * len(sources) * BYTES_A_PAIR + n_edges * BYTES_A_ROW
    needed = n_vectors * frozen.embeddings.nbytes + frozen.n_layers * len(frozen.patterns[0]) * per_head
    check_memory(needed, f"the heads of {n_edges:,} edges", "Use fewer: graph.prune(0.5), or source=, target=")
    walk = Walk(frozen, in_same_dtype(transcoder, dtype), graph, targets, sources)
    return _table(graph, targets, sources, *walk.loadings())


def _rows(graph: AttributionGraph, ids: Ids, what: str) -> np.ndarray:
    """Where the nodes are in `graph.nodes`."""
    if ids is None:
        return np.arange(len(graph.nodes))
    names = [str(i) for i in ([ids] if isinstance(ids, str | NodeId) else ids)]
    row = {node: i for i, node in enumerate(graph.nodes["id"])}
    if unknown := [name for name in names if name not in row]:
        raise ValueError(f"{what} {unknown[0]!r} is not the id of a node of this graph")
    return np.array([row[name] for name in names], dtype=int)


class Walk:
    """Carries what sources write up through the frozen layers, and what targets read down; targets, sources: rows of
    the graph's nodes. Vectors are [target or source, position, d_model]."""

    def __init__(
        self, frozen: FrozenModel, transcoder: CrossLayerTranscoder, graph: AttributionGraph, targets: np.ndarray,
        sources: np.ndarray,
    ) -> None:  # fmt: skip
        self.frozen, self.transcoder, self.graph = frozen, transcoder, graph
        self.maps = Algebra(frozen, transcoder.config.feature_input_hook)
        self.targets, self.sources = (list(node_rows(graph.nodes.iloc[rows])) for rows in (targets, sources))
        self.x = frozen.transcoder_input(transcoder.config.feature_input_hook)[transcoder.layers]

    @torch.no_grad()
    def loadings(self) -> tuple[np.ndarray, np.ndarray]:
        """[layer, head, target, source], and what passes no head [target, source]."""
        rows, at_attention = self._down()
        x = self._zeros(len(self.sources))
        for k, n in enumerate(self.sources):
            if n.kind == "embedding":
                x[k, n.position] = self.frozen.embeddings[n.position]
        alone, passing_none, by_head = x.clone(), [], []
        for layer, attention in enumerate(self.maps.attentions):
            by_head.append(attention.by_head(at_attention[layer], x))
            after = x + attention.push(x)
            passing_none.append(torch.einsum("tqd,sqd->ts", rows[layer], alone))
            written, parallel = self._written(layer), self.frozen.parts.blocks[layer].parallel
            alone = alone + written + self._skip(layer, alone)
            x = after + written + self._skip(layer, x if parallel else after)
        passing_none.append(torch.einsum("tqd,sqd->ts", rows[-1], alone))
        return torch.stack(by_head).numpy(), torch.stack(passing_none).sum(0).numpy()

    def _down(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """By layer, where targets start (rows at the stream that is read there; last, those above all layers), and the
        gradient of all targets at what attention writes."""
        rows = [self._own(layer) for layer in range(self.frozen.n_layers + 1)]
        gradient, at_attention, unused = rows[-1].clone(), [], torch.zeros(len(self.targets)).to(rows[-1])
        for layer in reversed(range(self.frozen.n_layers)):
            read, parallel = rows[layer] + self._skip_back(layer, gradient), self.frozen.parts.blocks[layer].parallel
            if not parallel:
                gradient += read
            at_attention.append(gradient.clone())
            self.maps.attentions[layer].pull(gradient, unused)
            if parallel:  # the MLP reads what attention reads
                gradient += read
        return rows, at_attention[::-1]

    def _own(self, layer: int) -> torch.Tensor:
        """The rows of the targets that start in a layer; n_layers stands for above all of them."""
        found, feature = self._zeros(len(self.targets)), self.graph.asked.get("feature")
        for k, n in enumerate(self.targets):
            # where a feature is explained, that is where the "logit" starts
            node = NodeId.parse(feature) if feature and n.kind == "logit" else n
            if n.kind == "logit" and not feature:
                if layer == self.frozen.n_layers:
                    found[k, -1] = self._gradients[n.id]
            elif node.layer == layer:
                row = self.transcoder.W_enc[self.transcoder.layers.index(layer), node.feature].to(found)
                found[k, n.position] = self.maps.read_back(layer, row[None], torch.tensor([n.position]))[0][0]
        return found

    @cached_property
    def _gradients(self) -> dict[str, torch.Tensor]:
        """[d_model] of each logit, by its id."""
        logits = self.graph.logits
        found = target_gradients(self.frozen, self.graph.asked, logits["feature"].tolist())
        return dict(zip(logits["id"], found, strict=True))

    def _written(self, layer: int) -> torch.Tensor:
        """What the sources write in a layer."""
        found, layers = self._zeros(len(self.sources)), self.transcoder.layers
        for k, n in enumerate(self.sources):
            if n.kind == "error" and n.layer == layer:
                found[k, n.position] = self._errors[layer, n.position]
            elif n.kind == "feature" and layer in layers:
                index, to = layers.index(n.layer), layers.index(layer)
                if 0 <= to - index < self.transcoder.config.span:
                    activation = self.activations[index, n.position, n.feature]
                    row = self.transcoder.decoder_rows(index, torch.tensor([n.feature]), to)[0]
                    found[k, n.position] = activation * row
        return found

    @cached_property
    def activations(self) -> torch.Tensor:
        """[transcoded layer, position, feature]"""
        return self.transcoder.encode(self.x)

    @cached_property
    def _errors(self) -> torch.Tensor:
        """[layer, position, d_model]: what the transcoder does not rebuild. (Position 0 may have features that the
        graph counts as a bias; then it has no error either.)"""
        rebuilt = self.transcoder.decode(self.activations, self.x)
        if self.transcoder.config.excludes_first_position:
            rebuilt[:, 0] = 0
        errors = self.frozen.mlp_out.clone()
        errors[self.transcoder.layers] -= rebuilt
        return errors

    def _skip(self, layer: int, x: torch.Tensor) -> torch.Tensor | float:
        """What a skip connection writes of stream vectors."""
        matrix = self._skip_matrix(layer)
        return 0.0 if matrix is None else self._but_first(self.maps.read(layer, x)) @ matrix.T

    def _skip_back(self, layer: int, gradient: torch.Tensor) -> torch.Tensor | float:
        """The gradient that comes back through a skip connection."""
        matrix = self._skip_matrix(layer)
        if matrix is None:
            return 0.0
        return self.maps.read_back(layer, self._but_first(gradient @ matrix), torch.arange(gradient.shape[1]))[0]

    def _skip_matrix(self, layer: int) -> torch.Tensor | None:
        if self.transcoder.W_skip is None or layer not in self.transcoder.layers:
            return None
        return self.transcoder.W_skip[self.transcoder.layers.index(layer)]

    def _but_first(self, x: torch.Tensor) -> torch.Tensor:
        """x [node, position, ...], without position 0 where the transcoder leaves it out."""
        if not self.transcoder.config.excludes_first_position:
            return x
        return torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], 1)

    def _zeros(self, n: int) -> torch.Tensor:
        return self.frozen.embeddings.new_zeros(n, *self.frozen.embeddings.shape)


def _table(
    graph: AttributionGraph, targets: np.ndarray, sources: np.ndarray, by_head: np.ndarray, passing_none: np.ndarray
) -> pd.DataFrame:
    """One row for each edge that the graph has, and each head."""
    n_layers, n_heads = by_head.shape[:2]
    edges = graph.adjacency[np.ix_(targets, sources)]
    target, source = edges.nonzero()
    weight, ids = edges[target, source], graph.nodes["id"].to_numpy()
    loading = np.concatenate([passing_none[None, target, source], by_head.reshape(-1, *edges.shape)[:, target, source]])
    layer = np.concatenate([[STAYS], np.arange(n_layers).repeat(n_heads)])
    head = np.concatenate([[STAYS], np.tile(np.arange(n_heads), n_layers)])
    table = pd.DataFrame({
        "source": np.tile(ids[sources[source]], len(head)), "target": np.tile(ids[targets[target]], len(head)),
        "edge": np.tile(weight, len(head)), "layer": layer.repeat(len(weight)), "head": head.repeat(len(weight)),
        "loading": loading.ravel(),
    })  # fmt: skip
    table["share"] = table["loading"] / table["edge"]
    table = table[table["loading"] != 0]
    return table.sort_values("loading", key=np.abs, ascending=False, ignore_index=True)
