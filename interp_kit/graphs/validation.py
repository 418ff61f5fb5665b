"""Is the graph true? Switch its nodes off in the real model, one after another, and compare what happens with what the
graph said would happen (the test of Ameisen et al. 2025, "Evaluating mechanistic faithfulness")."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from ..formats.graph_tables import node_rows
from ..formats.node_id import NodeId
from ..formats.provenance import check_belongs
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.frozen import FrozenModel
from ..statistics import spearman
from ..transcoders import CrossLayerTranscoder
from ..widgets.plain_text import literal, printable
from ..widgets.progress import ProgressBar
from .attribution import in_same_dtype
from .feature_edits import FeatureEdits, Run
from .graph import AttributionGraph
from .interventions import Ids, Steer, as_list

if TYPE_CHECKING:  # heavy, and imported where something is drawn
    from ..widgets.chart import Chart

MAX_EFFECTS = 1_000_000  # rows of the table
MAX_VERSIONS = 32  # prompts with one node off that run at once
MAX_VERSION_BYTES = 5e8  # that these hold
Steps = dict[str, list[str]]  # ids of features, by the name of their supernode or their own
CLAIM_SHARE = 0.1  # an edge counts as a claim when it is this share of its target's absolute inputs


@dataclass(repr=False)
class Validation:
    """Predictions of a graph beside measurements on the model.

    effects: one row for each source and each target above it: distance (in layers), hops (the edges of the paths that
    carry the most of the prediction; 0 where no path leads), share (of the target's absolute inputs), direct (the
    edge), predicted (over all the graph's paths) and measured (in the model): the change of the target's
    pre-activation, or of a logit less the mean logit, when the source is switched off. Members of a supernode go off
    together and their effects are added up.
    nodes: one row a source: label, influence (the graph's), ablation (Kullback-Leibler divergence of the next token's
    distribution from what it was, in nats). prompt: the graph's.
    """

    effects: pd.DataFrame
    nodes: pd.DataFrame
    prompt: str = ""

    @property
    def by_distance(self) -> pd.DataFrame:
        """For each distance in layers how well predicted and measured effects agree: pairs, spearman, cosine, nmse (the
        squared difference as a share of the measured effects' square)."""
        return agreement_by("distance", self.effects)

    @property
    def by_hops(self) -> pd.DataFrame:
        """The same for each length of the paths that carry the most of a prediction. Long chains amplify and cancel:
        from which length on does the model contradict the graph?"""
        return agreement_by("hops", self.effects[self.effects["hops"] > 0])

    @property
    def spearman(self) -> float:
        """Rank correlation of the nodes' influence in the graph with the effect of switching them off in the model. The
        paper reports 0.72."""
        return spearman(self.nodes["influence"], self.nodes["ablation"])

    def distrust(self, factor: float = 2.0) -> pd.DataFrame:
        """The graph's notable edges (at least a tenth of their target's inputs) whose source, switched off, moved the
        target the other way than predicted, or more than `factor` times as much or as little; worst first."""
        claims = self.effects[self.effects["share"] >= CLAIM_SHARE].copy()
        ratio = _ratio(claims)
        why = ["the other way", f"more than {factor:g} times as much", f"less than 1/{factor:g} as much"]
        claims["why"] = np.select([ratio <= 0, ratio > factor, ratio < 1 / factor], why, default="")
        claims["off_by"] = (claims["measured"] - claims["predicted"]).abs()
        return claims[claims["why"] != ""].sort_values("off_by", ascending=False, ignore_index=True)

    def show(self) -> "Chart":
        """A plotly scatter of measured over predicted effects; on the line the graph is right."""
        from ..widgets.chart import Chart

        table = self.effects
        reach = float(np.abs(table[["predicted", "measured"]].to_numpy()).max() or 1)
        ends, line = [-reach, reach], {"color": "#999999", "dash": "dash"}
        marker = {"size": 5, "opacity": 0.6, "color": table["distance"], "colorscale": "Cividis"}
        marker["colorbar"] = {"title": "layers apart"}
        figure = Chart().add_scatter(x=ends, y=ends, mode="lines", name="measured = predicted", line=line)
        figure.add_scatter(
            x=table["predicted"], y=table["measured"], mode="markers", name="source → target", marker=marker,
            text=table["source"] + " → " + table["target"],
        )  # fmt: skip
        figure.update_layout(
            title=f"What switching a node off does to another, “{self.prompt}”", template="plotly_white", height=460,
            xaxis_title="the graph predicts", yaxis_title="the model does", legend={"orientation": "h", "y": -0.2},
        )  # fmt: skip
        return figure

    def __repr__(self) -> str:
        n, effects = len(self.nodes), len(self.effects)
        return printable(f"Validation({n} nodes switched off, {effects:,} effects; spearman {self.spearman:.2f})")

    def _repr_html_(self) -> str:
        n, rho = len(self.nodes), self.spearman
        said = f"<p>{n} nodes switched off; influence against ablation effect: Spearman {rho:.2f} (paper: 0.72)</p>"
        return literal(said + self.by_distance.to_html(index=False, float_format="{:.2f}".format))


def confirmed(effects: pd.DataFrame, factor: float = 2.0) -> pd.Series:
    """For each row of `Validation.effects`: did the target move the right way, and at most `factor` times as much or as
    little as predicted?"""
    return _ratio(effects).between(1 / factor, factor)


def _ratio(effects: pd.DataFrame) -> pd.Series:
    return effects["measured"] / effects["predicted"].where(effects["predicted"] != 0)


def agreement(predicted: ArrayLike, measured: ArrayLike) -> dict[str, float]:
    """spearman, cosine and nmse of two columns of numbers; NaN where a column has no spread."""
    p, m = np.asarray(predicted, float), np.asarray(measured, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = p @ m / np.sqrt((p @ p) * (m @ m))
        nmse = ((p - m) @ (p - m)) / (m @ m)
    return {"spearman": spearman(p, m), "cosine": float(cosine), "nmse": float(nmse)}


def agreement_by(column: str, effects: pd.DataFrame) -> pd.DataFrame:
    """One row for each value of a column of `Validation.effects`, then one for all: pairs and `agreement`."""
    groups = [*effects.groupby(column, sort=True), ("all", effects)]
    rows = [{column: value, "pairs": len(g), **agreement(g["predicted"], g["measured"])} for value, g in groups]
    return pd.DataFrame(rows)


@checked
def validate(
    graph: AttributionGraph,
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    nodes: Ids | None = None,
    constrained_layers: range | None = None,
    freeze_attention: bool = True,
) -> Validation:
    """Switches each feature of `graph` off in the real model and compares with what the graph predicts.

    nodes: ids of features and names of supernodes; by default all supernodes and the features outside them. Use a
    pruned graph, `ik.validate(graph.prune(), ...)`, to test what is drawn: predictions use the edges that are there.
    The modes are those of `ik.intervene`; constrained to all layers, a measured effect is the graph's edge exactly.

    Raises ValueError for a graph of another model or transcoder, or a node that is no feature of the graph.

    >>> ik.validate(graph.prune(), model, transcoder).by_distance
    """
    transcoder.check_model(model)
    check_belongs(graph, "graph", model, "model", keys=["fingerprint"])
    check_belongs(graph, "graph", transcoder, "transcoder", keys=["transcoder"])
    sources = targets = _steps(graph)
    if nodes is not None:
        sources = {str(name): _members(graph, str(name)) for name in as_list(nodes)}
    if not all(sources.values()) or not sources:
        raise ValueError("there is nothing to switch off: the graph, or a supernode named, has no feature left")
    if len(sources) * len(targets) > MAX_EFFECTS:
        raise ValueError(
            f"{len(sources):,} nodes with effects on {len(targets):,} are more than one can look at; validate a pruned "
            "graph, ik.validate(graph.prune(), ...), or name some nodes"
        )
    frozen = FrozenModel(model, graph.prompt if graph.ids is None else graph.ids)
    edits = FeatureEdits(frozen, in_same_dtype(transcoder, torch.float32))
    _check_transcoder(graph, edits)
    measured, divergence = _measure(graph, edits, sources, constrained_layers, freeze_attention)
    effects = _effects(graph, sources, targets, measured, _activations(graph, edits))
    return Validation(effects, _node_table(graph, sources, divergence), graph.prompt)


def _check_transcoder(graph: AttributionGraph, edits: FeatureEdits) -> None:
    layers, active = edits.transcoder.layers, edits.activations
    for n in node_rows(graph.features):
        inside = n.layer in layers and n.position < active.shape[1] and n.feature < active.shape[2]
        if not inside or active[layers.index(n.layer), n.position, n.feature] == 0:
            raise ValueError(f"feature {n.id} of the graph is not active here: it was made with another transcoder")


def _steps(graph: AttributionGraph) -> Steps:
    """{name: ids of features} of supernodes, and of the features outside them."""
    grouped = {i for ids in graph.supernodes.values() for i in ids}
    steps = {name: ids for name in graph.supernodes if (ids := _members(graph, name))}
    return steps | {i: [i] for i in graph.features["id"] if i not in grouped}


def _members(graph: AttributionGraph, name: str) -> list[str]:
    """The features of a supernode, or the one feature of that id."""
    features = set(graph.features["id"])
    ids = [i for i in graph.supernodes.get(name, [name]) if i in features]
    if not ids and name not in graph.supernodes:
        raise ValueError(f"{name!r} is neither a feature nor a supernode of this graph")
    return ids


def _measure(
    graph: AttributionGraph, edits: FeatureEdits, steps: Steps, constrained_layers: range | None, freeze_attention: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Changes [step, target] of the graph's features and logits, and the divergence of the next token [step]."""
    layers, frozen = edits.transcoder.layers, edits.frozen
    places = _places(graph, layers)
    before = torch.stack([edits.preactivations[place] for place in places])
    log_before = frozen.logits[-1].log_softmax(-1)
    value_before = _explained(
        graph, layers, Run(frozen.logits, frozen.uncapped, list(edits.preactivations), frozen.residual_final)
    )
    n_at_once = _versions(edits)
    changes, divergence, names = [], [], list(steps)
    for start in ProgressBar(range(0, len(names), n_at_once), desc="switching nodes off", delay=1, leave=False):
        part = [Steer(steps[name], factor=0.0).changes(edits) for name in names[start : start + n_at_once]]
        run = edits.run(part, constrained_layers, freeze_attention)
        now = torch.stack([run.preactivations[i][:, p, f] for i, p, f in places], 1)
        value = _explained(graph, layers, run)
        changes.append(torch.cat([now - before, value - value_before], 1))
        divergence.append((log_before.exp() * (log_before - run.logits[:, -1].log_softmax(-1))).sum(-1))
    return torch.cat(changes).double().numpy(), torch.cat(divergence).double().numpy()


def _versions(edits: FeatureEdits) -> int:
    """How many versions of the prompt run at once: what they hold should fit in half a gigabyte."""
    t, n_layers, n_features = edits.frozen.n_positions, *edits.transcoder.threshold.shape
    numbers = t * (n_layers * n_features + 2 * edits.frozen.logits.shape[-1])
    return int(min(MAX_VERSIONS, max(1, MAX_VERSION_BYTES / (4 * numbers))))


def _explained(graph: AttributionGraph, layers: list[int], run: Run) -> torch.Tensor:
    """What the graph explains, at the last position: [..., logit]."""
    if feature := graph.asked.get("feature"):
        node = NodeId.parse(feature)
        return run.preactivations[layers.index(node.layer)][..., -1, [node.feature]]
    if direction := graph.asked.get("direction"):
        return (run.final[..., -1, :] @ torch.tensor(direction).to(run.final))[..., None]
    logits = run.uncapped[..., -1, :]
    centred = logits - logits.mean(-1, keepdim=True)
    if "target" not in graph.asked:
        return centred[..., graph.logits["feature"].tolist()]
    value = centred[..., graph.asked["target"]].mean(-1, keepdim=True)
    contrast = graph.asked.get("contrast")
    return value - centred[..., contrast].mean(-1, keepdim=True) if contrast else value


def _places(graph: AttributionGraph, layers: list[int]) -> list[tuple[int, int, int]]:
    """Of each feature of the graph: which transcoded layer, position, feature."""
    return [(layers.index(n.layer), n.position, n.feature) for n in node_rows(graph.features)]


def _activations(graph: AttributionGraph, edits: FeatureEdits) -> np.ndarray:
    """Of the graph's features, then 0 for its logits: as they are here, since a file may lack them."""
    here = [float(edits.activations[place]) for place in _places(graph, edits.transcoder.layers)]
    return np.array(here + [0.0] * len(graph.logits))


def _effects(
    graph: AttributionGraph, sources: Steps, targets: Steps, measured: np.ndarray, activation: np.ndarray
) -> pd.DataFrame:
    """The table of effects of sources on targets and logits; members' effects are added up. measured [source, row] and
    activation [row]: of the features, then the logits."""
    table = pd.concat([graph.features, graph.logits])
    place = {node: i for i, node in enumerate(table["id"])}
    rows = table.index.to_numpy()
    edges = graph.adjacency[np.ix_(rows, rows)].astype(float)
    inputs = np.maximum(np.abs(graph.adjacency[rows]).sum(1), 1e-30)
    layer = table["layer"].to_numpy(float)
    targets = targets | {i: [i] for i in graph.logits["id"]}
    off, at = _members_matrix(sources.values(), place), _members_matrix(targets.values(), place)
    predicted, hops = _spread(edges / np.where(activation == 0, 1, activation), activation, off, at)
    distance = (at @ layer / at.sum(1))[:, None] - off @ layer / off.sum(1)
    pairs = (distance > 0) & (at @ off.T == 0)
    target, source = pairs.T.nonzero()[::-1]
    found = {
        "source": np.array(list(sources))[source],
        "target": np.array(list(targets))[target],
        "distance": np.ceil(distance).astype(int)[target, source],
        "hops": hops[target, source],
        "share": (at @ (np.abs(edges) @ off.T) / (at @ inputs)[:, None])[target, source],
        "direct": -(at @ (edges @ off.T))[target, source],
        "predicted": predicted[target, source],
        "measured": (at @ measured.T)[target, source],
    }
    return pd.DataFrame(found)


def _members_matrix(steps: Iterable[list[str]], place: dict[str, int]) -> np.ndarray:
    """[step, row]: 1 for its members."""
    steps = list(steps)
    found = np.zeros((len(steps), len(place)))
    for number, ids in enumerate(steps):
        found[number, [place[i] for i in ids]] = 1
    return found


def _spread(
    per_unit: np.ndarray, activation: np.ndarray, off: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far each target moves when a source goes off, over all the graph's paths; and the length, in edges, of the
    paths that carry the most of it: both [target, source].

    per_unit [row, row]: edges for each unit of their source's activation; off [source, row] and at [target, row], the
    members. A pre-activation moves by the sum over its sources of edge times their relative change, and a feature that
    is on passes its change on whole. What is off is held at zero, whatever else arrives at it.
    """
    change = -(activation * off).T
    total, most = at @ change, np.zeros((len(at), len(off)))
    hops = np.zeros(most.shape, dtype=int)
    for length in range(1, len(per_unit) + 1):  # a graph without loops ends sooner
        change = per_unit @ change
        change[off.T > 0] = 0
        if not change.any():
            break
        arrives = at @ change
        total += arrives
        hops[np.abs(arrives) > most] = length
        most = np.maximum(most, np.abs(arrives))
    return total, hops


def _node_table(graph: AttributionGraph, sources: Steps, divergence: np.ndarray) -> pd.DataFrame:
    table = graph.nodes.set_index("id")
    labels = [table.loc[ids[0], "label"] if len(ids) == 1 else name for name, ids in sources.items()]
    influence = [table.loc[ids, "influence"].sum() for ids in sources.values()]
    found = pd.DataFrame({"node": list(sources), "label": labels, "influence": influence, "ablation": divergence})
    return found.sort_values("influence", ascending=False, ignore_index=True)
