"""Why does attention look there? A score of one head, taken apart into pairs of nodes.

A score is a product of a query and a key. With norms' denominators held, each is a sum over the nodes that write to the
stream below (through frozen attention, as in the graph), so the score is a sum over pairs of a node on the query's side
and one on the key's (Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions"). The softmax
does not see what all keys have in common: by default the key's side is less its mean over the keys.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch

from ..formats.node_id import NodeId
from ..hardware import bytes_of
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.frozen import FrozenModel, noted_scores
from ..models.frozen.freezing import frozen_norms
from ..models.language_model import Prompt
from ..transcoders import CrossLayerTranscoder
from ..widgets.plain_text import literal, printable
from .attribution import in_same_dtype
from .explained import Logits
from .graph import plain_label
from .nodes import Nodes, activations_of, find_nodes
from .sweep import Sweep

if TYPE_CHECKING:  # heavy, and imported where something is drawn
    from ..widgets.chart import Chart

N_PAIRS = 1000  # kept of all
BIAS = "bias"
ROWS_AT_ONCE = 512


@dataclass(repr=False)
class QKAttribution:
    """What `qk_attribution` found.

    score: of the query and the key before the softmax; mean: of the query and all its keys; attention: the pattern's
    value. nodes: one row a node, with "bias" last: id, kind, layer, position, feature, token, label, on_query and
    on_key, what it makes up of the score on either side; each column adds up to the score (less the mean, by
    default).
    pairs: the strongest pairs: query_node and key_node (ids), query_label, key_label, contribution.
    """

    prompt: str
    layer: int
    head: int
    query: int
    key: int
    score: float
    mean: float
    attention: float
    nodes: pd.DataFrame
    pairs: pd.DataFrame

    def show(self, k: int = 10) -> "Chart":
        """A plotly bar chart of the k strongest pairs."""
        from ..widgets.bars import signed_bars

        top = self.pairs.head(k)
        labels = zip(top["query_label"].str.strip(), top["key_label"].str.strip())
        names = [f"{query} × {key}" for query, key in labels]
        title = f"Why head {self.head} of layer {self.layer} looks there (query × key)"
        return signed_bars(top["contribution"].tolist(), names, title, "part of the score")

    def __repr__(self) -> str:
        return printable(
            f"QKAttribution(layer {self.layer}, head {self.head}: position {self.query} looks at {self.key} with "
            f"{self.attention:.0%}; score {self.score:.2f}, mean over its keys {self.mean:.2f})\n"
            f"{self.pairs.head(8).to_string(index=False)}"
        )

    def _repr_html_(self) -> str:
        said = f"<p>Layer {self.layer}, head {self.head}: position {self.query} looks at {self.key} with "
        said += f"{self.attention:.0%}; score {self.score:.2f}, mean over its keys {self.mean:.2f}</p>"
        return literal(said + self.pairs.head(8).to_html(index=False, float_format="{:.3f}".format))


@checked
def qk_attribution(
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    prompt: Prompt,
    layer: int,
    head: int,
    key: int,
    query: int = -1,
    less_mean: bool = True,
    labels: pd.DataFrame | None = None,
    dtype: torch.dtype = torch.float32,
) -> QKAttribution:
    """Which features make head `head` of layer `layer` look from position `query` at position `key`.

    less_mean: take the key less the mean over all keys that the query sees, which is what the softmax sees. labels: of
    `ik.label_features`, to name features. Gemma 2's cap on scores comes after these.

    Raises ValueError for a layer, head or position that there is not, a key after the query, a transcoder of another
    model, or a model whose attention cannot be exchanged.

    >>> ik.graphs.qk_attribution(model, transcoder, prompt, layer=2, head=1, key=5).show()
    """
    transcoder.check_model(model)
    ids = model.input_ids(prompt)
    query, key = _places(model, len(ids), layer, head, query, key)
    transcoder = in_same_dtype(transcoder, dtype)
    frozen = FrozenModel(model, ids[: query + 1], dtype)
    read = score_maps(frozen, layer, head)
    keys = torch.zeros(query + 1).to(read.keys)
    keys[key] = 1
    seen = frozen.patterns[layer][head, query] > 0  # the mask of a sliding window lets it see the last ones only
    mean = float((read.key_values[seen].mean(0) @ read.query_values[-1]) * read.scaling)
    score = float((read.key_values[key] @ read.query_values[-1]) * read.scaling)
    if less_mean:
        keys -= seen.to(keys) / seen.sum()
    activations = activations_of(frozen, transcoder)
    zero_first = int(ids[0]) in model.special_ids
    sides = [
        _side(frozen.below(layer), transcoder, activations, zero_first, rows, biases)
        for rows, biases in (
            (read.queries * (torch.arange(query + 1) == query)[:, None, None], read.query_biases[-1]),
            (read.keys * keys[:, None, None], keys @ read.key_biases),
        )
    ]
    nodes, (of_query, of_key) = sides[0][0], (side for _, side in sides)
    table = _node_table(model, nodes, ids.tolist(), labels)
    table["on_query"] = (of_query.T @ of_key.sum(1) * read.scaling).double().numpy()
    table["on_key"] = (of_key.T @ of_query.sum(1) * read.scaling).double().numpy()
    attention = float(frozen.patterns[layer][head, query, key])
    pairs = _strongest_pairs(of_query, of_key * read.scaling, table)
    return QKAttribution(model.text_of(prompt), layer, head, query, key, score, mean, attention, table, pairs)


def _places(model: LanguageModel, n: int, layer: int, head: int, query: int, key: int) -> tuple[int, int]:
    """Query and key counted from the start. Raises ValueError for what there is not."""
    for name, value, most in (
        ("layer", layer, model.n_layers),
        ("head", head, model.hf.config.get_text_config().num_attention_heads),
    ):
        if not 0 <= value < most:
            raise ValueError(f"{name} {value} is not there: the model has {most} {name}s, from 0")
    for name, value in (("query", query), ("key", key)):
        if not -n <= value < n:
            raise ValueError(f"{name} {value} is not a position of the prompt, which has {n} tokens")
    query, key = query % n, key % n
    if key > query:
        raise ValueError(f"key {key} comes after query {query}: a position attends to itself and to those before it")
    return query, key


@dataclass
class ScoreMaps:
    """A head's queries and keys as affine maps of the stream that attention reads, norms' denominators held.

    queries, keys [position, width, d_model]; their biases and values [position, width]; a score is scaling times the
    product of two values.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    query_biases: torch.Tensor
    key_biases: torch.Tensor
    query_values: torch.Tensor
    key_values: torch.Tensor
    scaling: float


def score_maps(frozen: FrozenModel, layer: int, head: int) -> ScoreMaps:
    """By autograd through the model's own projections, norms and rotation, whatever they look like.

    Raises ValueError for a family whose attention transformers does not let us exchange.
    """
    stream = frozen.residual_pre[layer].detach().clone().requires_grad_()
    args, kwargs = frozen.block_arguments[layer]
    with torch.enable_grad(), frozen_norms(frozen), noted_scores(frozen.hf) as notes:
        frozen.parts.blocks[layer].layer(stream[None], *args, **kwargs)
    query, keys, scaling = notes[layer][0]
    per_key = query.shape[1] // keys.shape[1]  # grouped queries share a key
    found = []
    for values in (query[0, head], keys[0, head // per_key]):
        # A position's values depend on its own stream alone: the gradient of a sum over positions has the row of each.
        rows = [torch.autograd.grad(values[:, i].sum(), stream, retain_graph=True)[0] for i in range(values.shape[1])]
        maps, values = torch.stack(rows, 1), values.detach()
        found.append((maps, values - torch.einsum("pwd,pd->pw", maps, stream.detach()), values))
    (queries, query_biases, query_values), (key_maps, key_biases, key_values) = found
    return ScoreMaps(queries, key_maps, query_biases, key_biases, query_values, key_values, scaling)


@torch.no_grad()
def _side(
    frozen: FrozenModel, transcoder: CrossLayerTranscoder, activations: torch.Tensor, zero_first: bool,
    rows: torch.Tensor, biases: torch.Tensor,
) -> tuple[Nodes, torch.Tensor]:  # fmt: skip
    """What each node below adds to a vector [width] that reads the stream by rows [position, width, d_model]: [width,
    node], with what biases add last."""
    width = rows.shape[1]
    zeros, ones = torch.zeros(width).to(rows), torch.ones(width).to(rows)
    target = Logits(torch.arange(width), ones, zeros, rows[-1], biases, frozen.n_layers, elsewhere=rows[:-1])
    nodes = find_nodes(frozen, transcoder, zero_first, activations, target)
    sweep = Sweep(frozen, transcoder, nodes, bytes_of(None))
    found = rows.new_zeros(width, nodes.n_sources + 1)
    for part in sweep.rows(torch.arange(len(nodes.features), nodes.n_targets)):
        at = part.targets - len(nodes.features)
        found[at, :-1], found[at, -1] = part.edges_from(sweep.order.sources), part.bias
    return nodes, found


def _node_table(model: LanguageModel, nodes: Nodes, ids: list[int], labels: pd.DataFrame | None) -> pd.DataFrame:
    """In the graph's order: features, errors by layer and position, embeddings; then the biases."""
    features, n = nodes.features, nodes.n_positions
    named = {} if labels is None else dict(zip(zip(labels["layer"], labels["feature"]), labels["label"]))
    numbers = (features.layer.tolist(), features.position.tolist(), features.feature.tolist())
    places = [("feature", *place) for place in zip(*numbers)]
    places += [("error", layer, position, -1) for layer in range(nodes.n_layers) for position in range(n)]
    places += [("embedding", -1, position, ids[position]) for position in range(n)]
    tokens = model.tokens(ids[:n])
    rows = []
    for kind, layer, position, feature in places:
        label = named.get((layer, feature)) or plain_label(kind, layer, feature, tokens[position])
        rows.append((str(NodeId(layer, feature, position)), kind, layer, position, feature, tokens[position], label))
    rows.append((BIAS, BIAS, -1, -1, -1, "", "biases"))
    return pd.DataFrame(rows, columns=["id", "kind", "layer", "position", "feature", "token", "label"])


def _strongest_pairs(of_query: torch.Tensor, of_key: torch.Tensor, nodes: pd.DataFrame) -> pd.DataFrame:
    """[width, node] each: the pairs with the largest products, a block of queries at a time."""
    places, values = torch.zeros(2, 0, dtype=torch.long), of_query.new_zeros(0)
    for rows in torch.arange(of_query.shape[1]).split(ROWS_AT_ONCE):
        products = of_query[:, rows].T @ of_key
        at, other = products.nonzero(as_tuple=True)
        values = torch.cat([values, products[at, other]])
        places = torch.cat([places, torch.stack([rows[at], other])], 1)
        strongest = values.abs().topk(min(N_PAIRS, len(values))).indices
        values, places = values[strongest], places[:, strongest]
    ids, labels = nodes["id"].to_numpy(), nodes["label"].to_numpy()
    query, key = places.numpy()
    return pd.DataFrame({
        "query_node": ids[query], "key_node": ids[key], "query_label": labels[query], "key_label": labels[key],
        "contribution": values.double().numpy(),
    })  # fmt: skip
