"""One graph of many prompts: the same template with other fillers. What is common, and what differs?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..formats.graph_tables import node_rows
from ..formats.node_id import NodeId
from ..formats.provenance import check_belongs
from ..models.arguments import checked
from .alignment import Key, align, node_keys
from .graph import FIRST_COLUMNS, AttributionGraph
from .influence import LEFT_OUT, cumulative_share

SHOWN_FILLERS = 3
ANSWER: Key = ("logit", 0, "", 0)  # the likeliest logit of each prompt, whichever it is
MEANS = ("influence", "contribution")  # over all prompts: 0 where a node is not there


@checked
def family(graphs: Sequence[AttributionGraph]) -> AttributionGraph:
    """The graph of a family of prompts: mean effects, aligned by what each token does in the template.

    graphs: of prompts that differ in their fillers ("The capital of the state containing {Dallas, Oakland} is"), by one
        transcoder; pruned ones, since a node counts where the graph has it. Positions are the first prompt's: equal
        tokens answer to each other, and a filler of several tokens to another by its last ones (see `align`). The
        likeliest logits, or whatever the graphs explain, are one node: the answer.

    `nodes` has a further column `prompts`, the share of graphs that have the node; activation is the mean over those,
    influence and contribution over all. The adjacency is the mean over all graphs; an edge's `stability` is the share
    that has it: `edges` calls what is common to all "core", and the picture draws solid what half of them have.

    What a capped graph left out, other logits and positions that answer to none are not in it, so nothing adds up: no
    prompt's sums are these means.

    Raises ValueError for fewer than two graphs, graphs of different models or transcoders, and prompts that do not
    align.

    >>> cities = ["Dallas", "Oakland", "Miami"]
    >>> prompts = [f"The capital of the state containing {city} is" for city in cities]
    >>> ik.graphs.family([ik.attribute(model, transcoder, prompt).prune() for prompt in prompts]).show()
    """
    if len(graphs) < 2:
        raise ValueError(f"a family has at least two graphs, got {len(graphs)}")
    places = [_aligned(graphs[0], graph) for graph in graphs]
    parts = [_part(graph, place) for graph, place in zip(graphs, places, strict=True)]
    keys = sorted({key for part in parts for key in part}, key=_order)
    number = {key: i for i, key in enumerate(keys)}
    total, count = np.zeros((len(keys), len(keys))), np.zeros((len(keys), len(keys)))
    tables = []
    for graph, part in zip(graphs, parts, strict=True):
        rows, at = list(part.values()), [number[key] for key in part]
        edges = graph.adjacency[np.ix_(rows, rows)]
        total[np.ix_(at, at)] += edges
        count[np.ix_(at, at)] += edges != 0
        tables.append(graph.nodes.iloc[rows].assign(number=at))
    fillers = _fillers(graphs, places)
    nodes = _nodes(keys, pd.concat(tables), len(graphs), fillers, graphs[0].n_layers)
    first = graphs[0]
    begins = first.prompt.startswith(first.tokens[0].strip())  # or with a token of the model's own
    spoken = fillers if begins else fillers[1:]
    prompt = "".join(f" {{{text.strip()}}}" if " / " in text else text for text in spoken).strip()
    scores = {name: float(np.mean([g.scores[name] for g in graphs])) for name in ("replacement", "completeness")}
    adjacency, stability = ((x / len(graphs)).astype(np.float32) for x in (total, count))
    return AttributionGraph(
        prompt, fillers, first.n_layers, nodes, adjacency, first.about, scores=scores, stability=stability
    )


def _aligned(first: AttributionGraph, other: AttributionGraph) -> list[int | None]:
    """The first prompt's positions for the other's tokens."""
    for keys in (["fingerprint"], ["transcoder"]):
        check_belongs(other, "graph", first, "graph", keys=keys)
    place = align(first.tokens, other.tokens)
    paired = [(a, b) for a, b in zip(place, other.tokens) if a is not None]
    equal = sum(first.tokens[a] == token for a, token in paired)
    in_order = [a for a, _ in paired] == sorted(a for a, _ in paired)
    if not in_order or equal < len(first.tokens) / 2:
        raise ValueError(
            f"the prompts are not one template with other fillers: {first.prompt!r}, {other.prompt!r}; of "
            f"{len(first.tokens)} tokens {equal} are in both. To compare paraphrases: graph.believe(other)"
        )
    return place


def _part(graph: AttributionGraph, place: list[int | None]) -> dict[Key, int]:
    """The nodes of one graph that the family has, by their keys: where they are in the graph."""
    answer, found = graph.logits["id"].iloc[0], {}
    for row, (n, key) in enumerate(zip(node_rows(graph.nodes), node_keys(graph, False, place), strict=True)):
        if n.kind == "logit":
            key = ANSWER if n.id == answer else None
        if key is not None and n.kind != LEFT_OUT:
            found[key] = row
    return found


def _order(key: Key) -> tuple[int, int, int, int]:
    """Features by layer and position, errors, embeddings, the answer: as in every graph."""
    kind, layer, feature, position = key
    number = feature if isinstance(feature, int) else 0
    return ["feature", "error", "embedding", "logit"].index(kind), int(layer), position, number


def _fillers(graphs: Sequence[AttributionGraph], places: list[list[int | None]]) -> list[str]:
    """For each position its token, or the first few of what stands there."""
    found: list[dict[str, None]] = [{} for _ in graphs[0].tokens]
    for graph, place in zip(graphs, places, strict=True):
        for position, token in zip(place, graph.tokens, strict=True):
            if position is not None:
                found[position][token] = None
    return [_listed(list(tokens)) for tokens in found]


def _listed(texts: Sequence[str]) -> str:
    """One text, or the first few with strokes between."""
    if len(texts) == 1:
        return texts[0]
    rest = ["…"] if len(texts) > SHOWN_FILLERS else []
    return " " + " / ".join([text.strip() for text in texts[:SHOWN_FILLERS]] + rest)


def _nodes(keys: list[Key], found: pd.DataFrame, n_graphs: int, fillers: list[str], n_layers: int) -> pd.DataFrame:
    """One row a key. found: the nodes of all graphs, with the number of their key."""
    by = found.groupby("number")
    nodes = by[
        ["kind", "layer", "feature"]
    ].first()  # of what differs, such as the token of a filler, the first graph's
    nodes["position"] = [len(fillers) - 1 if key == ANSWER else key[3] for key in keys]
    nodes["label"] = by["label"].agg(lambda labels: _listed(list(dict.fromkeys(labels))))
    is_answer = nodes["kind"] == "logit"
    nodes["token"] = nodes["label"].where(is_answer, [fillers[position] for position in nodes["position"]])
    nodes["activation"] = by["activation"].mean()
    nodes[list(MEANS)] = by[list(MEANS)].sum() / n_graphs
    nodes["prompts"] = by.size() / n_graphs
    nodes["cumulative"] = cumulative_share(nodes["influence"].to_numpy())
    nodes["probability"], nodes["bias"] = by["probability"].mean(), np.nan
    places = zip(nodes["layer"].where(~is_answer, n_layers + 1), nodes["feature"], nodes["position"])
    nodes["id"] = [str(NodeId(*place)) for place in places]
    return nodes[FIRST_COLUMNS + [c for c in nodes if c not in FIRST_COLUMNS]].reset_index(drop=True)
