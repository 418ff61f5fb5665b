"""Attribution: the direct effect of every node on every other, by one backward sweep.

An edge is the effect of a source (what a feature, an MLP error or an embedding writes) on a target (a
feature's pre-activation, or a logit less the mean logit) through residual connections, frozen attention and a
transcoder's skip connections only, never through another feature: Ameisen et al. 2025, with circuit-tracer's
conventions for the choice of logits and the order of nodes.

The nodes are found in `nodes.py`, and `sweep.py` does the arithmetic. Here: how one follows the other, which features
stay in a capped graph, and the graph that comes out.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from numbers import Integral
from typing import Literal

import numpy as np
import pandas as pd
import torch

from ..formats.provenance import About, insisted
from ..hardware import bytes_of, check_memory
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.frozen import FrozenModel
from ..models.language_model import Prompt
from ..models.targets import Tokens
from ..transcoders import CrossLayerTranscoder
from ..widgets.progress import ProgressBar
from .deprecation import renamed_keyword
from .explained import Explains, explained, feature_of, prompt_up_to
from .graph import AttributionGraph
from .influence import LEFT_OUT, influence_so_far, shares
from .nodes import activations_of, find_nodes
from .sweep import Rows, Sweep

MAX_FEATURES = 4000  # that "auto" keeps
FEATURES_PER_RANKING = 512  # with fewer features than there are: rows computed before they are ranked again, at least
COPIES = 1.2  # of the adjacency, with the rows of it that are copied together


@checked
@renamed_keyword("zero_first", "zero_first_position")
def attribute(
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    prompt: Prompt,
    target: Explains = None,
    contrast: Tokens | None = None,
    *,
    max_features: int | Literal["auto"] | None = "auto",
    memory: str | float | None = None,
    zero_first_position: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> AttributionGraph:
    """The attribution graph of `prompt`: which features, errors and tokens drew the model's next token.

    prompt: text, messages of a chat, or ids [position].
    target: what is explained. A token, " Austin" or its id; a list of tokens, whose mean it is; a feature at a
        position, `NodeId(3, 127, 8)` or "3_127_8", of the prompt up to there; a direction of the stream after the last
        layer, floats [d_model]. By default the likeliest next tokens, which reach 95 % of probability, at most 10.
    contrast: a token, or the mean of a list: why the target rather than that. With a contrast the target is by default
        the likeliest next token.

    Nodes, in the order of `graph.adjacency`: active features by (layer, position, feature); errors by (layer,
    position), the part of each MLP's output that the transcoder does not rebuild (all of it in layers without
    one); embeddings by position; where features were left out, one node for all of them; and what is explained.

    max_features: keep only so many features, the most influential ones; None keeps all, "auto" at most 4,000. They are
        found as circuit-tracer does: starting from the logits, the rows of the features that matter most so far are
        computed next. What the others write into each node is its edge from the node "left_out".
    memory: how much the graph's computation may take beside model and transcoder, "2GB" or a number of bytes;
        by default what is free.
    zero_first_position: whether what MLPs write at the first position counts as bias, so that it has no features and
        no errors, as in circuit-tracer (its `zero_positions`). By default where the prompt begins with a special token,
        as the model's own beginning of a text is: what is written there does not depend on the prompt.
    dtype: float32, or float64 where an identity should hold to the last digits.

    Raises TypeError or ValueError for a prompt that is empty, too long or none, and for a target or a contrast that
    cannot be explained, with the nearest that can; ValueError for a transcoder of another model, an option that makes
    no sense, or a model whose attention cannot be frozen; MemoryError, before computing, when the graph would not fit.

    >>> ik.attribute(model, transcoder, "The capital of Texas is", " Austin", contrast=" Sacramento").prune().show()
    """
    free = bytes_of(None)
    budget = free if memory is None else min(bytes_of(memory), free)
    most = most_features(max_features)
    transcoder.check_model(model)
    about = insisted(transcoder.about, model)
    all_ids, text = model.input_ids(prompt), model.text_of(prompt)
    ids = prompt_up_to(all_ids, feature_of(target))
    transcoder = in_same_dtype(transcoder, dtype)
    frozen = FrozenModel(model, ids, dtype)  # runs the model; attention and norms stay as they are in this run
    if zero_first_position is None:
        zero_first_position = int(ids[0]) in model.special_ids
    activations = activations_of(frozen, transcoder)
    logits, asked = explained(model, frozen, transcoder, activations, target, contrast)
    nodes = find_nodes(frozen, transcoder, zero_first_position, activations, logits)
    n_kept = int(min(most, len(nodes.features)))
    sweep = Sweep(frozen, transcoder, nodes, budget)
    check_room(sweep, n_kept, budget)  # before computing
    n_rows = n_kept + len(nodes.logits)
    with ProgressBar(total=n_rows, desc="attributing", unit=" nodes", delay=1, leave=False) as bar:
        if n_kept == len(nodes.features):
            kept, rows = torch.arange(n_kept), sweep.rows(torch.arange(nodes.n_targets), bar)
        else:
            kept, rows = most_influential(sweep, n_kept, bar)
        graph = assemble(model, text if len(ids) == len(all_ids) else model.decode(ids), about, sweep, kept, rows)
    graph.asked = asked
    return graph


def most_features(max_features: object) -> float:
    """How many features a graph may have. Raises ValueError for what is no number of them."""
    if max_features is None:
        return math.inf
    if isinstance(max_features, str) and max_features == "auto":
        return MAX_FEATURES
    if isinstance(max_features, Integral) and not isinstance(max_features, bool) and int(max_features) >= 0:
        return int(max_features)
    raise ValueError(
        f'max_features should be "auto", None (all), or a whole number of at least 0, got {max_features!r}'
    )


def in_same_dtype(transcoder: CrossLayerTranscoder, dtype: torch.dtype) -> CrossLayerTranscoder:
    """The transcoder itself, or a copy in `dtype`, on the CPU, where the frozen model is."""
    return transcoder.in_dtype(dtype, torch.device("cpu"))


def check_room(sweep: Sweep, n_kept: int, budget: float) -> None:
    """Raises MemoryError where a graph of `n_kept` features, with all that is held to compute it, takes more than
    `budget` bytes."""
    nodes = sweep.nodes
    n_features, number_bytes = len(nodes.features), sweep.frozen.embeddings.element_size()
    n_others, held = nodes.n_sources - n_features + len(nodes.logits), sweep.max_bytes

    def needed(n: int) -> float:
        """The adjacency, and what scores and influence copy of it; with fewer features than there are, also the rows
        that wait for the last ranking."""
        rows = (sum(rounds(n)[:-1]) + len(nodes.logits)) * nodes.n_sources if n < n_features else 0
        return number_bytes * (rows + COPIES * (n + n_others) ** 2) + held

    fits = max((n for n in range(0, n_kept, 100) if needed(n) <= budget), default=0)
    smaller = f"max_features={fits}, " if fits else ""
    check_memory(
        needed(n_kept),
        f"this graph ({n_kept + n_others:,} nodes, {n_kept:,} of them features, on {nodes.n_positions} tokens)",
        f"Use {smaller}a shorter prompt, a sparser transcoder, or float32",
        budget,
    )


def most_influential(sweep: Sweep, n: int, bar: ProgressBar | None = None) -> tuple[torch.Tensor, Iterable[Rows]]:
    """The n features with the most influence on the logits [n], ascending; and the rows of logits and these features.

    The features are ranked again and again, by the rows known so far, and each time the best get their rows.
    """
    nodes, columns, layer = sweep.nodes, sweep.order.features, sweep.nodes.features.layer
    of_logits = list(sweep.rows(torch.arange(len(layer), nodes.n_targets), bar))
    start, of_features = straight_to_logits(sweep, of_logits), []
    chosen, rows = torch.zeros(0, dtype=torch.long), iter(())
    for size in rounds(n):
        of_features += rows
        known = [(b.edges.numpy(), columns[b.targets].numpy(), layer[b.targets].numpy()) for b in of_features]
        influence = torch.from_numpy(influence_so_far(start, known))[columns]
        ranking = influence.argsort(descending=True, stable=True)
        following = ranking[~torch.isin(ranking, chosen)][:size]
        chosen, rows = torch.cat([chosen, following]), sweep.rows(following, bar)
    # The rows of the last round are computed when the graph asks for them, and go straight into it.
    return chosen.sort().values, chain(handed_over(of_logits + of_features), rows)


def rounds(n: int) -> list[int]:
    """How many of n features get their rows each time: as many as have them, since blocks of many targets take fewer
    passes."""
    sizes = []
    while (done := sum(sizes)) < n:
        sizes.append(min(max(FEATURES_PER_RANKING, done), n - done))
    return sizes


def straight_to_logits(sweep: Sweep, of_logits: Iterable[Rows]) -> np.ndarray:
    """The influence of each source [source] by its own edges to the logits."""
    total = np.zeros(sweep.nodes.n_sources, sweep.frozen.embeddings.numpy().dtype)
    for targets, edges, _ in of_logits:
        weights = sweep.nodes.logits.probabilities[targets - len(sweep.nodes.features)].to(edges.dtype)
        total[: edges.shape[1]] += weights.numpy() @ shares(edges.numpy())
    return total


def handed_over(blocks: list[Rows]) -> Iterator[Rows]:
    """The blocks, each forgotten when the next one is asked for: the graph takes the memory that they leave."""
    while blocks:
        yield blocks.pop()


# ---------------------------------------------------------------------- the graph that comes out


def assemble(
    model: LanguageModel, prompt: str, about: About, sweep: Sweep, kept: torch.Tensor, rows: Iterable[Rows]
) -> AttributionGraph:
    """The graph of the features `kept` [feature node], from their rows and those of the logits."""
    tokens = model.tokens(sweep.frozen.ids)
    adjacency, bias = in_graph_order(sweep, kept, rows)
    nodes = _node_table(model, sweep, kept, tokens).assign(bias=bias)
    graph = AttributionGraph(prompt, tokens, sweep.nodes.n_layers, nodes, adjacency, about)
    if name := sweep.nodes.logits.name:
        graph.nodes.loc[graph.kinds == "logit", "label"] = name
    return graph


def in_graph_order(sweep: Sweep, kept: torch.Tensor, rows: Iterable[Rows]) -> tuple[np.ndarray, np.ndarray]:
    """The adjacency [target, source] with nodes in the graph's order, not the sweep's; and the bias of each node."""
    nodes, n_features = sweep.nodes, len(sweep.nodes.features)
    columns = sweep.order.sources[torch.cat([kept, torch.arange(n_features, nodes.n_sources)])]
    n_left_out = n_features - len(kept)
    n_nodes = len(columns) + (n_left_out > 0) + len(nodes.logits)
    row_of = torch.zeros(nodes.n_targets, dtype=torch.long)
    row_of[kept], row_of[n_features:] = torch.arange(len(kept)), torch.arange(n_nodes - len(nodes.logits), n_nodes)
    is_left_out = sweep.frozen.embeddings.new_zeros(nodes.n_sources)
    is_left_out[sweep.order.features], is_left_out[columns] = 1, 0

    adjacency = np.zeros((n_nodes, n_nodes), dtype=is_left_out.numpy().dtype)  # numpy's zeros take memory when written
    to_sources, biases = torch.from_numpy(adjacency)[:, : len(columns)], np.zeros(n_nodes)
    for block in rows:
        here = row_of[block.targets]
        to_sources.index_copy_(0, here, block.edges_from(columns))
        biases[here] = block.bias
        if n_left_out:
            adjacency[here, len(columns)] = block.edges @ is_left_out[: block.edges.shape[1]]
    return adjacency, biases


def _node_table(model: LanguageModel, sweep: Sweep, kept: torch.Tensor, tokens: list[str]) -> pd.DataFrame:
    features, logits, n_layers = sweep.nodes.features, sweep.nodes.logits, sweep.nodes.n_layers
    layers, positions = np.arange(n_layers), np.arange(len(tokens))
    found = {name: getattr(features, name)[kept].numpy() for name in ("layer", "position", "feature")}
    numbers = {"activation": logits.values.double().numpy(), "probability": logits.probabilities.double().numpy()}
    parts = [
        {"kind": "feature", **found, "activation": features.activation[kept].double().numpy()},
        {"kind": "error", "layer": layers.repeat(len(tokens)), "position": np.tile(positions, n_layers), "feature": -1},
        {"kind": "embedding", "layer": -1, "position": positions, "feature": sweep.frozen.ids.numpy()},
        {"kind": LEFT_OUT, "layer": -1, "position": positions[: len(kept) < len(features)], "feature": -1},
        {"kind": "logit", "layer": n_layers, "position": positions[-1], "feature": logits.ids.numpy(), **numbers},
    ]
    table = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    read = [tokens[position] for position in table["position"].iloc[: -len(logits)]]
    is_token = logits.layer == n_layers and int(logits.ids[0]) >= 0
    return table.assign(token=read + (model.tokens(logits.ids) if is_token else [logits.name]))
