"""The backward sweep: rows of the adjacency for any targets, block by block, in bounded memory.

A target is a feature (its encoder row) or a logit. The sweep carries the gradient of a block of targets
[position, target, d_model] from the last layer down. At layer l it reads off the edges from what MLP l writes, then
starts the layer's own targets at their encoder rows, then goes through the layer (`models.frozen.algebra`).

What makes it fast: a target at position p has no gradient at later positions, so targets are grouped by position and
a block holds only the positions that it needs; a block's targets are sorted by layer, so those already started are a
slice; and what MLP l writes, gathered once, is sorted by position, so that the edges of one position are one product.
Blocks are independent: each core takes its own, which scales better than sharing out every small product.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tqdm.auto import tqdm

from ..hardware import one_core_pool
from ..models.frozen import linear_maps

BLOCK_BYTES = 32e6  # of one block's gradient: large enough for efficient products, small enough for the caches
FEW_TARGETS = 128  # a block with fewer goes on into the next position: products of a few rows are slow
KEEP = 0.25  # the share of the memory for what features write
SCRATCH = 4  # copies of the gradient alive while it passes through attention


class Sweep:
    """One prompt, one transcoder. Targets are numbered features first, by (layer, position, feature), then logits.

    For each feature [feature node]: `source` (index into transcoder.layers), `layer`, `position`, `feature`,
    `activation`. `rebuilt` and `error` [layer, position, d_model]: what the transcoder says each MLP writes, and the
    rest of it.
    """

    @torch.no_grad()
    def __init__(self, frozen, transcoder, logit_ids, zero_first: bool, memory: float):
        self.frozen, self.transcoder = frozen, transcoder
        self.maps = linear_maps(frozen, transcoder.config.feature_input_hook)
        self.workers = torch.get_num_threads() if self.maps.thread_safe else 1
        self.block_bytes = min(BLOCK_BYTES, memory / 64 / self.workers)
        self.logit_values, self.logit_gradients, self.logit_bias = frozen.readout(logit_ids)
        self._find_features(zero_first)
        self._order_columns()
        self._keep_what_is_written(KEEP * memory)
        self._split_off_errors(zero_first)

    # ------------------------------------------------------------------ nodes

    def _find_features(self, zero_first):
        transcoder = self.transcoder
        self.x = self.frozen.transcoder_input(transcoder.config.feature_input_hook)[transcoder.layers]
        features = transcoder.encode(self.x)
        if zero_first:
            features[:, 0] = 0
        self.source, self.position, self.feature = features.nonzero(as_tuple=True)
        self.activation = features[self.source, self.position, self.feature]
        self.layer = torch.tensor(transcoder.layers)[self.source]
        self.feature_bias = transcoder.b_enc[self.source, self.feature]

    def _split_off_errors(self, zero_first):
        """`rebuilt`, `error`, and `constant`, the part of each MLP's output that is neither feature nor error."""
        frozen, config = self.frozen, self.transcoder.config
        self.rebuilt, self.constant = torch.zeros_like(frozen.mlp_out), torch.zeros_like(frozen.mlp_out)
        for index, layer in enumerate(self.transcoder.layers):
            nodes, rows = self._written(index)
            self.constant[layer] = self.transcoder.b_dec[index]
            rebuilt = self.rebuilt[layer].index_add_(0, self.position[nodes], rows)
            if self.transcoder.W_skip is not None:
                rebuilt += self.x[index] @ self.transcoder.W_skip[index].T
            rebuilt += self.constant[layer]
            if config.excludes_first_position:
                rebuilt[0] = self.constant[layer, 0] = 0
        self.error = frozen.mlp_out - self.rebuilt
        if zero_first:
            self.constant[:, 0] += self.error[:, 0]
            self.error[:, 0] = 0

    @property
    def n_features(self) -> int:
        return len(self.source)

    @property
    def bytes_per_number(self) -> int:
        return self.frozen.embeddings.element_size()

    # ------------------------------------------------------------------ columns

    def _order_columns(self):
        """Inside a block columns are sorted by position: its features, then errors by layer, then the embedding.

        So a block that needs the first positions fills the first columns, and what the features of one position write
        to a layer goes to columns side by side. `to_graph` [source] says where each of the graph's sources is.
        """
        t, layers = self.frozen.n_positions, self.frozen.n_layers
        self.by_position = self.position.argsort(stable=True)
        per_position = torch.bincount(self.position, minlength=t)
        self.features_end = per_position.cumsum(0) + torch.arange(t) * (layers + 1)  # the column after q's features
        self.column = torch.empty_like(self.position)
        self.column[self.by_position] = torch.arange(self.n_features) + self.position[self.by_position] * (layers + 1)
        errors = self.features_end + torch.arange(layers)[:, None]
        self.to_graph = torch.cat([self.column, errors.flatten(), self.features_end + layers])

    # ------------------------------------------------------------------ what MLPs write

    def _keep_what_is_written(self, most_bytes):
        """What features write takes [(feature, layer), d_model]: gathered once where that fits, else anew each time."""
        span = self.transcoder.config.span
        near = [(self.source <= i) & (i - self.source < span) for i in range(len(self.transcoder.layers))]
        row = self.frozen.embeddings.shape[1] * self.bytes_per_number
        writers = [int(n.sum()) for n in near]
        self._kept = {} if sum(writers) * row <= most_bytes else None
        held = sum(writers) if self._kept is not None else max(writers) * self.workers
        self.bytes = held * row + SCRATCH * self.block_bytes * self.workers

    def _written(self, index):
        """What features write to the index-th transcoded layer: nodes [writer], by position; rows [writer, d_model]."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        near = (self.source <= index) & (index - self.source < self.transcoder.config.span)
        nodes = self.by_position[near[self.by_position]]
        rows = torch.empty(len(nodes), self.frozen.embeddings.shape[1], dtype=self.frozen.embeddings.dtype)
        for source in self.source[nodes].unique().tolist():
            here = (self.source[nodes] == source).nonzero()[:, 0]
            rows[here] = self.transcoder.decoder_rows(source, self.feature[nodes[here]], index)
        rows *= self.activation[nodes, None]
        if self._kept is not None:
            self._kept[index] = nodes, rows
        return nodes, rows

    # ------------------------------------------------------------------ the sweep

    def rows(self, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For blocks of targets: the block [target], its edges from all sources [target, source] in the graph's order,
        and the bias of each target."""
        blocks = list(self._blocks(targets))
        with _in_parallel(lambda block: self._sweep(*block), blocks, self.workers) as sweeps:
            sweeps = tqdm(sweeps, desc="attributing", total=len(blocks), delay=1, leave=False)
            for (block, _), (edges, bias) in zip(blocks, sweeps, strict=True):
                yield block, edges.index_select(1, self.to_graph), bias

    def _layer_and_position(self, targets):
        """A logit counts as a layer above the last, at the last position."""
        logits = targets >= self.n_features
        inside = targets.clamp(max=max(self.n_features - 1, 0))
        if not self.n_features:
            inside_layer = inside_position = torch.zeros_like(targets)
        else:
            inside_layer, inside_position = self.layer[inside], self.position[inside]
        last = self.frozen.n_positions - 1
        return inside_layer.where(~logits, self.frozen.n_layers), inside_position.where(~logits, last)

    def _blocks(self, targets):
        """Cuts targets, sorted by position, where memory or the end of a position says so: (block, positions needed),
        each block sorted by layer, the last layer first."""
        layer, position = self._layer_and_position(targets)
        order = position.argsort(stable=True)
        targets, layer, position = targets[order], layer[order], position[order]
        ends = (position.bincount(minlength=self.frozen.n_positions)).cumsum(0).tolist()
        row = self.frozen.embeddings.shape[1] * self.bytes_per_number
        start = 0
        for q, end in enumerate(ends, 1):
            most = max(1, int(self.block_bytes / (q * row)))
            while end - start >= (FEW_TARGETS if q < len(ends) else 1):
                part = slice(start, min(start + most, end))
                yield targets[part][layer[part].argsort(descending=True, stable=True)], q
                start = part.stop

    @torch.no_grad()  # here, since the workers' threads do not inherit it
    def _sweep(self, targets, n_positions):
        frozen = self.frozen
        layer_of, position_of = self._layer_and_position(targets)
        gradient = frozen.embeddings.new_zeros(n_positions, len(targets), frozen.embeddings.shape[1])
        edges = frozen.embeddings.new_zeros(len(targets), len(self.to_graph))
        bias = frozen.embeddings.new_zeros(len(targets))
        n = int((layer_of == frozen.n_layers).sum())
        logits = targets[:n] - self.n_features
        gradient[-1, :n], bias[:n] = self.logit_gradients[logits], self.logit_bias[logits]
        for layer in range(frozen.n_layers - 1, -1, -1):
            skip = None
            if n:
                at_mlp = self.maps.mlp_gradient(layer, gradient[:, :n])
                self._read_off(layer, at_mlp, edges[:n], bias[:n])
                skip = self._through_skip(layer, at_mlp)
            started = n + int((layer_of == layer).sum())
            own = targets[n:started]
            rows = self.transcoder.W_enc[self.source[own], self.feature[own]]
            bias[n:started] = self.feature_bias[own]
            if started:
                at = position_of[n:started]
                self.maps.pull(layer, gradient[:, :started], n, rows, at, skip, bias[:started])
            n = started
        below = frozen.embeddings[:n_positions], frozen.position_embeddings[:n_positions]
        edges[:, self.features_end[:n_positions] + frozen.n_layers] = torch.einsum("qnd,qd->nq", gradient, below[0])
        bias += torch.einsum("qnd,qd->n", gradient, below[1])
        return edges, bias

    def _read_off(self, layer, gradient, edges, bias):
        """Edges from what MLP `layer` writes: features of this layer and below, its error, and its constant part."""
        rest = torch.stack([self.error[layer], self.constant[layer]], 1)  # [position, 2, d_model]
        nodes, rows, ends = self._writers(layer)
        start = 0
        for q, at_position in enumerate(gradient):
            end = ends[q]
            found = at_position @ torch.cat([rows[start:end], rest[q]]).T
            if end > start:
                first = self.column[nodes[start]]
                edges[:, first : first + end - start] += found[:, :-2]
            edges[:, self.features_end[q] + layer] = found[:, -2]
            bias += found[:, -1]
            start = end

    def _writers(self, layer):
        """Nodes and rows that write to a layer, and where each position's end."""
        if layer not in self.transcoder.layers:
            return [], self.error.new_zeros(0, self.error.shape[-1]), [0] * self.frozen.n_positions
        nodes, rows = self._written(self.transcoder.layers.index(layer))
        return nodes, rows, self.position[nodes].bincount(minlength=self.frozen.n_positions).cumsum(0).tolist()

    def _through_skip(self, layer, gradient):
        """The gradient [position, target, d_model] at the encoder's input, by the layer's skip connection."""
        if self.transcoder.W_skip is None or layer not in self.transcoder.layers:
            return None
        back = gradient @ self.transcoder.W_skip[self.transcoder.layers.index(layer)]
        if self.transcoder.config.excludes_first_position:
            back[0] = 0
        return back


@contextmanager
def _in_parallel(function, items, workers):
    """The results of `function` for the items, in order; each of several workers computes on one core."""
    if workers == 1:
        yield map(function, items)
        return
    pool = one_core_pool(workers)
    try:
        yield pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
