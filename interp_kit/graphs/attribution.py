"""Attribution: the direct effect of every node on every other, by one backward sweep.

An edge is the effect of a source (what a feature, an MLP error or an embedding writes) on a target (a
feature's pre-activation, or a logit less the mean logit) through residual connections and frozen
attention only, never through another feature: Ameisen et al. 2025, with circuit-tracer's conventions for
the choice of logits and the order of nodes.

The sweep carries a gradient [target, position, d_model] from the last layer down. At layer l it reads off
the edges from what MLP l writes, then adds the encoder rows of that layer's own targets, then passes
through the layer's frozen attention. The linear maps are `models.frozen`'s; nothing here uses autograd.
"""

from dataclasses import dataclass

import pandas as pd
import psutil
import torch
from tqdm.auto import tqdm

from ..models.frozen import FrozenModel
from .graph import AttributionGraph

MAX_LOGITS = 10
LOGIT_SHARE = 0.95
BLOCK_BYTES = 256e6  # the gradient of one block of targets
SCRATCH = 4  # copies of the gradient alive while it passes through attention


def attribute(model, transcoder, prompt: str, dtype: torch.dtype = torch.float32) -> AttributionGraph:
    """The attribution graph of `prompt`: which features, errors and tokens drew the model's next token.

    Nodes, in the order of `graph.adjacency`: active features by (layer, position, feature); errors by (layer,
    position), the part of each MLP's output that the transcoder does not rebuild (all of it in layers without
    one); embeddings by position; the smallest set of logits that reaches 95 % of probability, at most 10.
    `dtype` is float32, or float64 where an identity should hold to the last digits.

    Raises TypeError or ValueError for a prompt that is empty, too long or no string, ValueError for a
    transcoder of another model, MemoryError, before computing, when the graph would not fit.
    """
    transcoder.check_model(model)
    frozen = FrozenModel(model, model.encode(prompt), dtype)
    transcoder = transcoder if transcoder.W_enc.dtype == dtype else _copy(transcoder, dtype)
    return Attribution(model, transcoder, frozen, prompt).graph()


def _copy(transcoder, dtype):
    copy = type(transcoder)(transcoder.config).to(dtype)
    copy.load_state_dict(transcoder.state_dict())
    return copy.requires_grad_(False)


@dataclass
class Logits:
    """The logit nodes: vocabulary ids, their probabilities, and their values less the mean logit; each [target]."""

    ids: torch.Tensor
    probabilities: torch.Tensor
    values: torch.Tensor

    @classmethod
    def choose(cls, logits: torch.Tensor) -> "Logits":
        """From the last position's logits [vocabulary]: the fewest that reach 95 %, at most ten."""
        probabilities, ids = logits.softmax(-1).topk(min(MAX_LOGITS, len(logits)))
        n = int((probabilities.cumsum(0) < LOGIT_SHARE).sum()) + 1
        ids = ids[:n]
        return cls(ids, probabilities[:n], logits[ids] - logits.mean())


class Attribution:
    """The sweep and all it needs for one prompt."""

    def __init__(self, model, transcoder, frozen, prompt):
        self.model, self.transcoder, self.frozen, self.prompt = model, transcoder, frozen, prompt
        x = frozen.transcoder_input(transcoder.config.reads)[transcoder.layers]
        features = transcoder.encode(x)
        # [feature node] each: index into transcoder.layers, position, feature; sorted by the three
        self.source, self.position, self.feature = features.nonzero(as_tuple=True)
        self.activation = features[self.source, self.position, self.feature]
        self.layer = torch.tensor(transcoder.layers)[self.source]
        self.bias_of_feature = transcoder.b_enc[self.source, self.feature]
        self.rebuilt = torch.zeros_like(frozen.mlp_out)
        self.rebuilt[transcoder.layers] = self._rebuild(features)
        self.error = frozen.mlp_out - self.rebuilt
        self.logits = Logits.choose(frozen.logits[-1])

    def _rebuild(self, features):
        rebuilt = self.transcoder.decode(features)
        if self.transcoder.config.skips_first:
            rebuilt[:, 0] = 0
        return rebuilt

    @property
    def n_features(self) -> int:
        return len(self.source)

    @property
    def n_nodes(self) -> int:
        t, layers = self.frozen.n_positions, self.frozen.n_layers
        return self.n_features + layers * t + t + len(self.logits.ids)

    def graph(self) -> AttributionGraph:
        self._check_memory()
        adjacency, bias = self._sweep_all()
        tokens = self.model.tokens(self.frozen.ids)
        return AttributionGraph(
            prompt=self.prompt,
            tokens=tokens,
            n_layers=self.frozen.n_layers,
            nodes=self._node_table(tokens, bias),
            adjacency=adjacency.numpy(),
            about={"model": self.model.name, "fingerprint": self.model.fingerprint},
        )

    # ------------------------------------------------------------------ the sweep

    def _check_memory(self):
        """Before computing: the adjacency, and the gradient and its scratch space of one block of targets."""
        item = self.rebuilt.element_size()
        gradient = min(self._bytes_a_target() * self._n_targets, max(BLOCK_BYTES, self._bytes_a_target()))
        needed = self.n_nodes**2 * item * 2 + gradient * SCRATCH
        free = psutil.virtual_memory().available
        if needed > free:
            raise MemoryError(
                f"this graph needs about {needed / 1e9:.1f} GB ({self.n_nodes:,} nodes, {self.n_features:,} of them "
                f"features, on {self.frozen.n_positions} tokens) and {free / 1e9:.1f} GB are free. Use a shorter "
                "prompt, a sparser transcoder, or float32"
            )

    def _bytes_a_target(self):
        return self.frozen.n_positions * self.frozen.embeddings.shape[1] * self.rebuilt.element_size()

    @property
    def _n_targets(self):
        return self.n_features + len(self.logits.ids)

    def _sweep_all(self):
        """adjacency [target, source] over all nodes and bias [node]; rows of errors and embeddings are zero."""
        block = max(1, int(BLOCK_BYTES / self._bytes_a_target()))
        rows = torch.zeros(self._n_targets, self.n_nodes - len(self.logits.ids), dtype=self.rebuilt.dtype)
        bias = torch.cat([self.bias_of_feature, torch.zeros(len(self.logits.ids), dtype=rows.dtype)])
        starts = range(0, self._n_targets, block)
        for start in tqdm(starts, desc="attributing", disable=len(starts) < 3, leave=False):
            part = slice(start, start + block)
            self._sweep(torch.arange(self._n_targets)[part], rows[part], bias[part])
        adjacency = torch.zeros(self.n_nodes, self.n_nodes, dtype=rows.dtype)
        adjacency[: self.n_features, : rows.shape[1]] = rows[: self.n_features]
        adjacency[rows.shape[1] :, : rows.shape[1]] = rows[self.n_features :]
        all_bias = torch.zeros(self.n_nodes, dtype=rows.dtype)
        all_bias[: self.n_features], all_bias[rows.shape[1] :] = bias[: self.n_features], bias[self.n_features :]
        return adjacency, all_bias

    def _sweep(self, targets, rows, bias):
        """Fills rows [target, source] and adds to bias [target] for some targets, ascending by layer, logits last."""
        frozen, t = self.frozen, self.frozen.n_positions
        n_features = int((targets < self.n_features).sum())
        layer_of = self.layer[targets[:n_features]]
        gradient = torch.zeros(len(targets), t, frozen.embeddings.shape[1], dtype=rows.dtype)
        logits = targets[n_features:] - self.n_features
        gradient[n_features:, -1] = frozen.logit_gradient(self.logits.ids[logits])
        for layer in range(frozen.n_layers - 1, -1, -1):
            above = int((layer_of <= layer).sum())  # targets of this layer read before its MLP writes
            if above < len(targets):
                self._read_off(layer, gradient[above:], rows[above:], bias[above:])
            own = int((layer_of < layer).sum())
            if own < above:
                self._inject(layer, targets[own:above], gradient[own:above])
            if own < len(targets):
                self._through_attention(layer, gradient[own:], bias[own:])
        embeddings = torch.einsum("npd,pd->np", gradient, frozen.embeddings)
        rows[:, self.n_features + frozen.n_layers * t :] = embeddings

    def _read_off(self, layer, gradient, rows, bias):
        """Edges from what MLP `layer` writes: features of this layer and below, its errors, its biases."""
        t = self.frozen.n_positions
        first = self.n_features + layer * t
        rows[:, first : first + t] = torch.einsum("npd,pd->np", gradient, self.error[layer])
        if layer not in self.transcoder.layers:
            return
        target = self.transcoder.layers.index(layer)
        skip = int(self.transcoder.config.skips_first)
        bias += gradient[:, skip:].sum(1) @ self.transcoder.b_dec[target]
        near = (self.source <= target) & (target - self.source < self.transcoder.config.span)
        for source in self.source[near].unique().tolist():
            for position in range(t):
                here = (self.source == source) & (self.position == position)
                columns = here.nonzero()[:, 0]
                if len(columns):  # consecutive, since features are sorted by layer and position
                    written = self.transcoder.decoder_rows(source, self.feature[columns], target)
                    written = written * self.activation[columns, None]
                    rows[:, columns[0] : columns[-1] + 1] += gradient[:, position] @ written.T

    def _inject(self, layer, targets, gradient):
        """Starts the gradient of this layer's own targets: their encoder rows, at their positions."""
        rows = self.transcoder.W_enc[self.source[targets], self.feature[targets]]
        positions = self.position[targets]
        rows = self.frozen.input_gradient(self.transcoder.config.reads, layer, rows, positions)
        gradient[torch.arange(len(targets)), positions] += rows

    def _through_attention(self, layer, gradient, bias):
        constant = self.frozen.attention_bias(layer)
        if constant is not None:
            bias += torch.einsum("npd,pd->n", gradient, constant)
        gradient += self.frozen.through_attention(layer, gradient)

    # ------------------------------------------------------------------ the table

    def _node_table(self, tokens, bias) -> pd.DataFrame:
        t, layers = self.frozen.n_positions, self.frozen.n_layers
        positions = list(range(t))
        logits = [self.model.tokens(i[None])[0] for i in self.logits.ids]
        features = pd.DataFrame(
            {
                "kind": "feature",
                "layer": self.layer.numpy(),
                "position": self.position.numpy(),
                "feature": self.feature.numpy(),
                "token": [tokens[p] for p in self.position.tolist()],
                "activation": self.activation.double().numpy(),
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
                "token": logits,
                "activation": self.logits.values.double().numpy(),
                "probability": self.logits.probabilities.double().numpy(),
            }
        )
        table = pd.concat([features, errors, embeddings, outputs], ignore_index=True)
        table["bias"] = bias.double().numpy()
        return table
