"""The backward sweep: rows of the adjacency for any targets, block by block, in bounded memory.

A target is a feature (its encoder row) or a logit. The sweep carries the gradient of a block of targets
[target, position, d_model] from the last layer down. At layer l it reads off the edges from what MLP l writes, then
starts the layer's own targets at their encoder rows, then goes through the layer (`models.frozen.algebra`).

Three things make it fast. A target at position p has no gradient at later positions: targets are grouped by position,
and a block holds only the positions that it needs. The targets of a block are sorted by layer, so that those already
started are a slice. The outputs of features are sorted by position, so that the edges of one position are one product.
Blocks are independent: each core takes its own, which scales better than sharing out every small product.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch

from ..hardware import one_core_pool
from ..models.frozen import FrozenModel, linear_maps
from ..transcoders import CrossLayerTranscoder
from ..widgets.progress import ProgressBar
from .nodes import NodeOrder, Nodes

GRADIENT_BYTES = 8e6  # of one block, or as many as MIN_BLOCK_TARGETS take: larger ones only take memory
GRADIENT_SHARE = 1 / 64  # of the budget, at most, for all blocks at work
GRADIENT_COPIES = 3  # alive while a gradient passes through attention
MIN_BLOCK_TARGETS = 128  # a block with fewer goes on into the next position: products of a few rows are slow
DECODER_CACHE_SHARE = 0.25  # of the budget, at most, for the outputs of features


class Rows(NamedTuple):
    """Some rows of the adjacency, as the sweep computes them."""

    targets: torch.Tensor  # [target]
    edges: torch.Tensor  # [target, source], sources in the columns of `NodeOrder`, up to those that only zeros follow
    bias: torch.Tensor  # [target]

    def edges_from(self, columns: torch.Tensor) -> torch.Tensor:
        """The edges from these columns [target, column]."""
        found, held = self.edges.new_zeros(len(self.targets), len(columns)), columns < self.edges.shape[1]
        found[:, held] = self.edges[:, columns[held]]
        return found


class LayerOutputs(NamedTuple):
    """What active features write to one layer, by position."""

    nodes: torch.Tensor  # [writer]: the features
    vectors: torch.Tensor  # [writer, d_model]
    ends: list[int]  # [position]: where the writers of each position end


class FeatureOutputs:
    """What active features write to each transcoded layer: activation times decoder row.

    All of it, [(feature, layer), d_model], is cached if it fits into `cache_bytes`. Else a layer's is read again for
    each block of targets.
    """

    def __init__(self, transcoder: CrossLayerTranscoder, nodes: Nodes, order: NodeOrder, cache_bytes: float) -> None:
        self.transcoder, self.nodes, self.by_position = transcoder, nodes, order.by_position
        self.n_writers = [int(self._writes_to(index).sum()) for index in range(len(transcoder.layers))]
        self.vector_bytes = transcoder.config.d_model * nodes.features.activation.element_size()
        fits = sum(self.n_writers) * self.vector_bytes <= cache_bytes
        self.cache: dict[int, LayerOutputs] | None = {} if fits else None

    def max_bytes(self, workers: int) -> int:
        """The most that is held at once."""
        n = sum(self.n_writers) if self.cache is not None else max(self.n_writers) * workers
        return n * self.vector_bytes

    def to_layer(self, index: int) -> LayerOutputs:
        """To the index-th transcoded layer."""
        if self.cache is not None and index in self.cache:
            return self.cache[index]
        features = self.nodes.features
        nodes = self.by_position[self._writes_to(index)[self.by_position]]
        vectors = features.activation.new_empty(len(nodes), self.transcoder.config.d_model)
        for source in features.source[nodes].unique().tolist():
            here = (features.source[nodes] == source).nonzero()[:, 0]
            vectors[here] = self.transcoder.decoder_rows(source, features.feature[nodes[here]], index)
        vectors *= features.activation[nodes, None]
        ends = features.position[nodes].bincount(minlength=self.nodes.n_positions).cumsum(0).tolist()
        found = LayerOutputs(nodes, vectors, ends)
        if self.cache is not None:
            self.cache[index] = found
        return found

    def _writes_to(self, index: int) -> torch.Tensor:
        """Whether each feature does: [feature node]."""
        source = self.nodes.features.source
        return (source <= index) & (index - source < self.transcoder.config.span)


class Sweep:
    """One prompt, one transcoder. Nothing is computed before `rows` is asked for some.

    budget: bytes that the whole graph may take; the sweep keeps to parts of it.
    """

    def __init__(self, frozen: FrozenModel, transcoder: CrossLayerTranscoder, nodes: Nodes, budget: float) -> None:
        self.frozen, self.transcoder, self.nodes = frozen, transcoder, nodes
        self.maps = linear_maps(frozen, transcoder.config.feature_input_hook)
        self.workers = torch.get_num_threads() if self.maps.thread_safe else 1
        enough = max(GRADIENT_BYTES, MIN_BLOCK_TARGETS * frozen.embeddings.nbytes)
        self.gradient_bytes = min(enough, budget * GRADIENT_SHARE / self.workers)
        self.order = NodeOrder(nodes)
        self.outputs = FeatureOutputs(transcoder, nodes, self.order, DECODER_CACHE_SHARE * budget)

    @property
    def max_bytes(self) -> float:
        """The most that the sweep holds at once, beside the rows."""
        gradient = min(self.gradient_bytes * self.workers, self.nodes.n_targets * self.frozen.embeddings.nbytes)
        return self.outputs.max_bytes(self.workers) + GRADIENT_COPIES * gradient

    @cached_property
    @torch.no_grad()
    def errors_and_constants(self) -> torch.Tensor:
        """[layer, position, 2, d_model]: the part of each MLP's output that the transcoder does not rebuild; and the
        part that is neither feature nor error, the decoder's bias."""
        frozen, transcoder = self.frozen, self.transcoder
        layers = [layer for layer in transcoder.layers if layer < frozen.n_layers]
        x = frozen.transcoder_input(transcoder.config.feature_input_hook)[torch.tensor(layers, dtype=torch.long)]
        rebuilt, constants = torch.zeros_like(frozen.mlp_out), torch.zeros_like(frozen.mlp_out)
        for index, layer in enumerate(layers):
            nodes, vectors, _ = self.outputs.to_layer(index)
            constants[layer] = transcoder.b_dec[index]
            rebuilt[layer].index_add_(0, self.nodes.features.position[nodes], vectors)
            if transcoder.W_skip is not None:
                rebuilt[layer] += x[index] @ transcoder.W_skip[index].T
            rebuilt[layer] += constants[layer]
            if transcoder.config.excludes_first_position:
                rebuilt[layer, 0] = constants[layer, 0] = 0
        errors = frozen.mlp_out - rebuilt
        if self.nodes.zero_first_position:
            constants[:, 0] += errors[:, 0]
            errors[:, 0] = 0
        return torch.stack([errors, constants], 2)

    # ------------------------------------------------------------------ the sweep

    def rows(self, targets: torch.Tensor, bar: ProgressBar | None = None) -> Iterator[Rows]:
        """The rows of `targets` [target], which are numbered as in `Nodes`, block by block; `bar` counts them."""
        blocks, beside_features = list(self._blocks(targets)), self.errors_and_constants  # the workers share it

        def sweep(block: tuple[torch.Tensor, int]) -> Rows:
            return self._sweep_block(*block, beside_features)

        pool = one_core_pool(self.workers) if self.workers > 1 else None
        try:
            for block in pool.map(sweep, blocks) if pool else map(sweep, blocks):
                yield block
                if bar is not None:
                    bar.update(len(block.targets))
        finally:
            if pool:
                pool.shutdown(cancel_futures=True)

    def _blocks(self, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, int]]:
        """Cuts targets, sorted by position, where memory or the end of a position says so: the block, sorted by layer
        with the last layer first, and how many positions it needs."""
        position = self.nodes.target_position[targets]
        targets = targets[position.argsort(stable=True)]
        layer = self.nodes.target_layer[targets]
        ends = position.bincount(minlength=self.nodes.n_positions).cumsum(0).tolist()
        vector_bytes = self.frozen.embeddings[0].nbytes
        start = 0
        for n_positions, end in enumerate(ends, 1):
            most = max(1, int(self.gradient_bytes / (n_positions * vector_bytes)))
            fewest = MIN_BLOCK_TARGETS if n_positions < len(ends) else 1
            while end - start >= fewest:
                part = slice(start, min(start + most, end))
                yield targets[part][layer[part].argsort(descending=True, stable=True)], n_positions
                start = part.stop

    @torch.no_grad()  # here, since the workers' threads do not inherit it
    def _sweep_block(self, targets: torch.Tensor, n_positions: int, beside_features: torch.Tensor) -> Rows:
        frozen = self.frozen
        layer_of, position_of = self.nodes.target_layer[targets], self.nodes.target_position[targets]
        embeddings, position_embeddings = frozen.embeddings[:n_positions], frozen.position_embeddings[:n_positions]
        gradient = embeddings.new_zeros(len(targets), n_positions, embeddings.shape[1])
        edges = embeddings.new_zeros(len(targets), self.order.ends[n_positions - 1])
        bias = embeddings.new_zeros(len(targets))
        n = int((layer_of == frozen.n_layers).sum())  # targets that have started: first the logits
        gradient[:n, -1], bias[:n] = self._own(targets[:n])
        if n and self.nodes.logits.elsewhere is not None:
            elsewhere = self.nodes.logits.elsewhere[:, targets[:n] - len(self.nodes.features)]
            gradient[:n, :-1] = elsewhere.transpose(0, 1)
        for layer in reversed(range(frozen.n_layers)):
            skip = None
            if n:
                at_mlp = self.maps.mlp_gradient(layer, gradient[:n])
                self._read_off(layer, at_mlp, beside_features[layer], edges[:n], bias[:n])
                skip = self._through_skip(layer, at_mlp)
            started = n + int((layer_of == layer).sum())
            at = position_of[n:started]
            encoder_rows, bias[n:started] = self._own(targets[n:started])
            if started:
                self.maps.pull(layer, gradient[:started], n, encoder_rows, at, skip, bias[:started])
            n = started
        edges[:, self.order.embeddings[:n_positions]] = torch.einsum("nqd,qd->nq", gradient, embeddings)
        bias += torch.einsum("nqd,qd->n", gradient, position_embeddings)
        return Rows(targets, edges, bias)

    def _own(self, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where targets start: encoder rows of features, gradients of what is explained [target, d_model]; biases."""
        features, logits = self.nodes.features, self.nodes.logits
        is_feature = targets < len(features)
        own, explained = targets[is_feature], targets[~is_feature] - len(features)
        rows = logits.gradients.new_empty(len(targets), logits.gradients.shape[1])
        rows[is_feature] = self.transcoder.W_enc[features.source[own], features.feature[own]]
        rows[~is_feature] = logits.gradients[explained]
        bias = logits.biases.new_empty(len(targets))
        bias[is_feature], bias[~is_feature] = features.encoder_bias[own], logits.biases[explained]
        return rows, bias

    def _read_off(
        self, layer: int, gradient: torch.Tensor, beside_features: torch.Tensor, edges: torch.Tensor, bias: torch.Tensor
    ) -> None:
        """The edges of targets with `gradient` [target, position, d_model] at what MLP `layer` writes: its features,
        those of the layers below that write there, its error; its constant part goes to the bias."""
        nodes, vectors, ends = self._writers(layer)
        start = 0
        for position, here in enumerate(gradient.unbind(1)):
            end = ends[position]
            found = here @ torch.cat([vectors[start:end], beside_features[position]]).T
            if end > start:
                first = self.order.features[nodes[start]]
                edges[:, first : first + end - start] += found[:, :-2]
            edges[:, self.order.errors[layer, position]] = found[:, -2]
            bias += found[:, -1]
            start = end

    def _writers(self, layer: int) -> LayerOutputs:
        """None for a layer that is not transcoded."""
        if layer in self.transcoder.layers:
            return self.outputs.to_layer(self.transcoder.layers.index(layer))
        none = torch.zeros(0, dtype=torch.long)
        return LayerOutputs(none, self.frozen.embeddings[:0], [0] * self.nodes.n_positions)

    def _through_skip(self, layer: int, gradient: torch.Tensor) -> torch.Tensor | None:
        """The gradient [target, position, d_model] at the encoder's input, by the layer's skip connection."""
        if self.transcoder.W_skip is None or layer not in self.transcoder.layers:
            return None
        back = gradient @ self.transcoder.W_skip[self.transcoder.layers.index(layer)]
        if self.transcoder.config.excludes_first_position:
            back[:, 0] = 0
        return back
