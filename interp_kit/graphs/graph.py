"""The graph object: nodes and edges as tables, pruning, supernodes, paths, and its view."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd

from ..storage.atomic import atomic_file
from . import influence as scoring

FIRST_COLUMNS = ["id", "kind", "layer", "position", "token", "feature", "label", "influence", "cumulative"]


@dataclass
class AttributionGraph:
    """Nodes and the direct effects between them, for one prompt.

    adjacency [target, source]: the effect of a source on a target's pre-activation, or on a logit less the mean
    logit; one row and one column a node, in the order of `nodes`. For a feature, its row and its `bias` add up to
    its activation (before the threshold).

    `nodes` has one row a node: kind (embedding, feature, error, logit), layer (-1 for embeddings, n_layers for
    logits), position, feature (its index; the token id for embeddings and logits; -1 for errors), token (at that
    position; the predicted one for logits), activation (a logit's value less the mean), probability (logits), bias,
    label, influence (how much it feeds the logits over all paths), cumulative (the share of all influence that it
    and the more influential nodes make up: small means important).

    `origin`, where the graph was loaded: its file, of which `save` writes back what these fields do not hold.
    """

    prompt: str
    tokens: list[str]
    n_layers: int
    nodes: pd.DataFrame
    adjacency: np.ndarray
    about: dict = field(default_factory=dict)
    supernodes: dict[str, list[str]] = field(default_factory=dict)
    cards: dict[tuple[int, int], dict] = field(default_factory=dict, repr=False)
    scores: dict[str, float] | None = None
    origin: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        fresh = "influence" not in self.nodes  # a pruned graph keeps the full graph's numbers
        if fresh or self.scores is None:
            share = scoring.shares(self.adjacency)
            total = scoring.influence(share, self._weights)
            self.scores = self.scores or scoring.scores(share, self.kinds, self._weights, total)
        if fresh:
            self.nodes = self._with_influence(self.nodes.copy(), total)

    def _with_influence(self, nodes, values):
        nodes["id"] = [_node_id(n, self.n_layers) for n in nodes.itertuples()]
        nodes["label"] = [plain_label(n) for n in nodes.itertuples()]
        nodes["influence"], nodes["cumulative"] = values, scoring.cumulative_share(values)
        return nodes[FIRST_COLUMNS + [c for c in nodes if c not in FIRST_COLUMNS]]

    @property
    def kinds(self) -> np.ndarray:
        return self.nodes["kind"].to_numpy(str)

    @property
    def _weights(self) -> np.ndarray:
        return self.nodes["probability"].fillna(0).to_numpy(float)

    @cached_property
    def edges(self) -> pd.DataFrame:
        """One row an edge, largest first: source and target (ids), weight, share of the target's absolute inputs."""
        target, source = self.adjacency.nonzero()
        ids = self.nodes["id"].to_numpy()
        table = pd.DataFrame(
            {
                "source": ids[source],
                "target": ids[target],
                "weight": self.adjacency[target, source],
                "share": scoring.shares(self.adjacency)[target, source],
            }
        )
        return table.sort_values("weight", key=np.abs, ascending=False, ignore_index=True)

    # ------------------------------------------------------------------ smaller graphs

    def prune(self, node_threshold: float = 0.8, edge_threshold: float = 0.98) -> "AttributionGraph":
        """The nodes that make up `node_threshold` of all influence, and the edges that make up `edge_threshold`
        of the edge scores between them; tokens and logits stay. Influence and scores remain those of the full graph.

        Raises ValueError for a threshold outside 0 to 1.
        """
        for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, got {value}")
        keep, edges = scoring.prune(self.adjacency, self.kinds, self._weights, node_threshold, edge_threshold)
        return self._part(keep, np.where(edges, self.adjacency, 0))

    def _part(self, keep, adjacency):
        nodes = self.nodes[keep].reset_index(drop=True)
        left = set(nodes["id"])
        supernodes = {name: [i for i in ids if i in left] for name, ids in self.supernodes.items()}
        supernodes = {name: ids for name, ids in supernodes.items() if ids}
        return replace(self, nodes=nodes, adjacency=adjacency[np.ix_(keep, keep)], supernodes=supernodes)

    # ------------------------------------------------------------------ meaning

    def annotate(self, features, labels: pd.DataFrame | None = None) -> "AttributionGraph":
        """The same graph with feature cards from a FeatureStore and, where given, labels (of `ik.label_features`)."""
        nodes, cards = self.nodes.copy(), {}
        named = {} if labels is None else {(r.layer, r.feature): r.label for r in labels.itertuples()}
        mine = nodes["kind"] == "feature"
        for i, layer, feature in nodes.loc[mine, ["layer", "feature"]].itertuples():
            cards[layer, feature] = features.card(layer, feature)
            nodes.loc[i, "label"] = named.get((layer, feature)) or nodes.loc[i, "label"]
        return replace(self, nodes=nodes, cards=cards)

    def group(self, supernodes: dict[str, list[str]]) -> "AttributionGraph":
        """The same graph with named groups of nodes: {"Texas": [node ids]}.

        Raises ValueError for an id that is not in the graph or is in two groups.
        """
        known, seen = set(self.nodes["id"]), set()
        for name, ids in supernodes.items():
            for node in ids:
                if node not in known:
                    raise ValueError(f"supernode {name!r}: {node!r} is not the id of a node of this graph")
                if node in seen:
                    raise ValueError(f"supernode {name!r}: node {node!r} is in another group already")
                seen.add(node)
        return replace(self, supernodes={str(name): list(ids) for name, ids in supernodes.items()})

    def find(self, text: str) -> pd.DataFrame:
        """The nodes whose label holds `text`, most influential first."""
        hit = self.nodes["label"].str.contains(text, regex=False)
        return self.nodes[hit].sort_values("influence", ascending=False)

    # ------------------------------------------------------------------ paths

    def paths(self, k: int = 1, to: str | None = None, by_label: bool = True) -> pd.DataFrame:
        """For each token of the prompt its k strongest paths, through at least one feature, to the logit `to`.

        `to` is a logit's id, by default the likeliest. A path's strength is the product of its edges' shares of their
        targets' inputs. With `by_label`, features of one label at one position are one step (their shares add up), as
        are the members of a supernode. Columns: token, position, strength, sign (of the effect), steps (labels joined
        by arrows), nodes (a list of node ids a step); strongest first.

        Raises ValueError when `to` is not a logit of the graph.
        """
        logits = self.nodes[self.nodes["kind"] == "logit"]
        to = to or logits["id"].iloc[0]
        if to not in set(logits["id"]):
            raise ValueError(f"{to!r} is not a logit of this graph; its logits: {', '.join(logits['id'])}")
        names, members, share, weight = self._condensed(by_label)
        network = self._network(members, share)
        place = {node: i for i, ids in enumerate(members) for node in ids}
        rows = []
        for token in self.nodes[self.nodes["kind"] == "embedding"].itertuples():
            for steps in _shortest(network, place[token.id], place[to], k):
                hops = list(zip(steps[1:], steps, strict=False))  # (target, source)
                rows.append(
                    {
                        "token": token.token,
                        "position": token.position,
                        "strength": math.prod(share[hop] for hop in hops),
                        "sign": math.prod(int(np.sign(weight[hop])) for hop in hops),
                        "steps": " → ".join(names[i].strip() for i in steps),
                        "nodes": [members[i] for i in steps],
                    }
                )
        table = pd.DataFrame(rows, columns=["token", "position", "strength", "sign", "steps", "nodes"])
        return table.sort_values("strength", ascending=False, ignore_index=True)

    def _network(self, members, share):
        """The steps as a networkx graph; a short way is a strong path. A token's direct edge to a logit is left out."""
        kind_of = dict(zip(self.nodes["id"], self.kinds, strict=True))
        kinds = [kind_of[ids[0]] for ids in members]
        network = nx.DiGraph()
        network.add_nodes_from(range(len(members)))
        for target, source in zip(*share.nonzero(), strict=True):
            direct = kinds[source] == "embedding" and kinds[target] == "logit"
            if target != source and not direct:
                network.add_edge(int(source), int(target), cost=-math.log(min(share[target, source], 1)))
        return network

    def _condensed(self, by_label):
        """Groups of nodes: names, members (ids), share and weight [target group, source group].

        A group's share is the average over its members, each weighing as much as it influences the logits.
        """
        table = self.nodes
        group_of = {node: ("supernode", name) for name, ids in self.supernodes.items() for node in ids}
        keys = [
            group_of.get(n.id) or ((n.label, n.position) if by_label and n.kind == "feature" else n.id)
            for n in table.itertuples()
        ]
        order = list(dict.fromkeys(keys))
        index = np.array([order.index(key) for key in keys])
        belongs = np.zeros((len(order), len(keys)))
        belongs[index, np.arange(len(keys))] = 1
        importance = table["influence"].to_numpy(float) + self._weights
        average = belongs * importance
        average /= np.maximum(average.sum(1, keepdims=True), 1e-30)
        share = average @ scoring.shares(self.adjacency) @ belongs.T
        weight = average @ self.adjacency @ belongs.T
        members = [[i for i, key in zip(table["id"], keys, strict=True) if key == group] for group in order]
        label_of = dict(zip(table["id"], table["label"], strict=True))
        names = [key[1] if isinstance(key, tuple) and key[0] == "supernode" else label_of[m[0]]
                 for key, m in zip(order, members, strict=True)]  # fmt: skip
        return names, members, share, weight

    # ------------------------------------------------------------------ files and views

    def save(self, path: str | Path, features=None, listed: bool = False) -> None:
        """Writes the public attribution-graph JSON (schema version 1), which Neuronpedia and the public viewer read.

        The file's name is the graph's name (slug) there: letters, digits and "-". With `features`, a FeatureStore, the
        cards of the graph's features are written too, beside it in features/SLUG, where the viewer finds them. `listed`
        enters the graph in graph-metadata.json beside it: the viewer shows the graphs of that list.

        Raises ValueError for a feature that the store does not have, and where a file in the way is something else.
        """
        from .graph_file import save_graph

        save_graph(self, path, features, listed)

    def view_data(self) -> dict:
        """The plain data that the view draws; see `interp_kit.widgets.GraphView`."""
        nodes = []
        for n in self.nodes.astype(object).where(self.nodes.notna(), None).to_dict("records"):
            card = self.cards.get((n["layer"], n["feature"]), {}) if n["kind"] == "feature" else {}
            nodes.append(
                {key: n.get(key) for key in ("id", "kind", "label", "activation", "bias", "probability")}
                | {key: int(n[key]) for key in ("layer", "position", "feature")}
                | {key: float(n[key]) for key in ("influence", "cumulative")}
                | {"concept": card.get("concept")}
                | {key: card.get(key, []) for key in ("examples", "top_logits", "bottom_logits")}
            )
        target, source = self.adjacency.nonzero()
        weights = self.adjacency[target, source].tolist()
        return {
            "title": f"Attribution graph, {self.about.get('model', '')}",
            "prompt": self.prompt,
            "tokens": self.tokens,
            "n_layers": self.n_layers,
            "scores": {k: float(v) for k, v in self.scores.items()},
            "nodes": nodes,
            "edges": [list(e) for e in zip(source.tolist(), target.tolist(), weights, strict=True)],
            "supernodes": [{"name": name, "nodes": ids} for name, ids in self.supernodes.items()],
        }

    def show(self, threshold: float = 0.8):
        """The interactive view; `view.pinned` reads the selection back. A large graph is drawn pruned to 300 nodes."""
        from ..widgets import GraphView

        return GraphView(self._drawable().view_data(), threshold=threshold)

    def to_html(self, path: str | Path, threshold: float = 0.8) -> None:
        """Writes the interactive view as one self-contained HTML file: no server, no network."""
        from ..widgets import graph_page

        page = graph_page(self._drawable().view_data(), threshold=threshold)
        with atomic_file(path) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def _drawable(self, most: int = 300):
        """The graph, pruned (edges too) as little as it takes to have at most `most` features and errors."""
        for threshold in (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5):
            smaller = self.prune(threshold, 0.98)
            if smaller.nodes["kind"].isin(["feature", "error"]).sum() <= most:
                return smaller
        return smaller

    def __repr__(self):
        count = self.nodes["kind"].value_counts()
        kinds = ", ".join(f"{count.get(k, 0)} {k}s" for k in ("feature", "error", "embedding", "logit"))
        return f"AttributionGraph({self.prompt!r}: {kinds}, {np.count_nonzero(self.adjacency):,} edges)"

    def _repr_html_(self):
        from html import escape

        rows = "".join(f"<tr><th>{escape(k)}</th><td>{v:.3f}</td></tr>" for k, v in self.scores.items())
        top = self.nodes.sort_values("influence", ascending=False).head(8)[FIRST_COLUMNS]
        return f"<p>{escape(repr(self))}</p><table>{rows}</table>{top.to_html(index=False)}"


def _shortest(network, start, end, k):
    """The k shortest ways as lists of nodes; fewer, or none, where there are not so many."""
    ways = nx.shortest_simple_paths(network, start, end, weight="cost")
    try:
        return list(islice(ways, k))
    except nx.NetworkXNoPath:
        return []


def _node_id(n, n_layers):
    """Ids as in the public graph files."""
    if n.kind == "feature":
        return f"{n.layer}_{n.feature}_{n.position}"
    if n.kind == "error":
        return f"{n.layer}_-1_{n.position}"
    if n.kind == "embedding":
        return f"E_{n.feature}_{n.position}"
    return f"{n_layers + 1}_{n.feature}_{n.position}"


def plain_label(n):
    if n.kind == "feature":
        return f"feature {n.layer}/{n.feature}"
    if n.kind == "error":
        return f"error, layer {n.layer}"
    return n.token
