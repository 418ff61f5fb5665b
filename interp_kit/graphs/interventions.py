"""Interventions: change features in the real model and see what its next token becomes.

A graph is a hypothesis; this is how to test it. `Steer` says what to change, `swap` makes the changes that put one
concept in another's place, `intervene` runs the model with them; what reacts is said in `feature_edits.py`.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

import pandas as pd
import torch

from ..formats.node_id import NodeId
from ..formats.provenance import About, check_belongs
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.frozen import FrozenModel
from ..transcoders import CrossLayerTranscoder
from ..widgets.plain_text import literal, printable
from .attribution import in_same_dtype
from .feature_edits import RULES, FeatureEdit, FeatureEdits, Rule, Run
from .graph import AttributionGraph

if TYPE_CHECKING:  # heavy, and imported where something is drawn
    from ..widgets.chart import Chart

Ids = str | NodeId | Sequence[str | NodeId]  # one node or several


@dataclass(frozen=True)
class Steer:
    """One change of a feature or of several together: Steer("3_127_8", factor=-2), Steer(graph.supernodes["Texas"], 0).

    node: a feature's id, "layer_feature_position" as in `graph.nodes` or a `NodeId`, or a list of ids. With `positions`
        the id may end before the position: "3_127".
    factor: multiplies the activation: 0 switches the feature off, -2 pushes twice as hard the other way.
    value: sets the activation, whatever it was. add: is added to it. Exactly one of the three. factor and add start
        from the prompt's own activation (on generated tokens from the current one): factor=1 holds a feature still.
    positions: an index (negative ones count from the end), or a slice or range of them, in place of the id's own;
        an open slice, slice(5, None), goes on acting on the tokens that are generated.
    about: the graph's that the ids are from; `swap` fills it in.
    """

    node: Ids
    factor: float | None = None
    value: float | None = None
    add: float | None = None
    positions: int | slice | range | None = None
    about: About = field(default_factory=About, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = [name for name in RULES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"Steer takes exactly one of factor, value and add; got {', '.join(given) or 'none'}")

    @property
    def nodes(self) -> list[str]:
        """The ids as text."""
        return [str(node) for node in as_list(self.node)]

    def changes(self, edits: FeatureEdits) -> list[FeatureEdit]:
        """Raises ValueError for an id that is no feature's, that lies outside, or that is not active though `factor`
        multiplies it."""
        rule: Rule = next(name for name in RULES if getattr(self, name) is not None)
        layers, n_features, changes = edits.transcoder.layers, edits.transcoder.n_features, []
        for node in self.nodes:
            layer, feature, positions = self._place(node, edits.frozen.n_positions)
            if layer not in layers or feature >= n_features:
                raise ValueError(
                    f"{node!r} lies outside: the transcoder has layers {layers[0]} to {layers[-1]} and {n_features} "
                    "features a layer"
                )
            index = layers.index(layer)
            if rule == "factor" and not edits.activations[index, positions, feature].any():
                raise ValueError(f"feature {node} is not active there on this prompt: there is nothing to multiply")
            changes.append(FeatureEdit(index, feature, positions, rule, float(getattr(self, rule))))
        return changes

    def _place(self, node: str, n_positions: int) -> tuple[int, int, slice]:
        """Layer, feature and positions (a slice)."""
        wrong = ValueError(
            f"{node!r} is not a feature's id: expected 'layer_feature_position' as in graph.nodes, "
            "like '3_127_8' (for a label: graph.find(label)['id']), or 'layer_feature' with positions=..."
        )
        try:
            layer, feature, position = NodeId.parse(node)
        except ValueError:
            raise wrong from None
        positions = position if self.positions is None else self.positions
        if layer < 0 or feature < 0 or positions is None:
            raise wrong
        return layer, feature, _slice(positions, n_positions, node)


def _slice(positions: int | slice | range, n: int, node: str) -> slice:
    """An index, slice or range as a slice of positions; an open end stays open."""
    outside = ValueError(f"{node!r} lies outside: the prompt has positions 0 to {n - 1}")
    if not isinstance(positions, slice | range):
        try:
            position = range(n)[operator.index(positions)]
        except TypeError:
            raise ValueError(f"positions {positions!r}: expected an index, a slice or a range") from None
        except IndexError:
            raise outside from None
        return slice(position, position + 1, 1)
    first, last, step = positions.start or 0, positions.stop, positions.step or 1
    if step < 1 or (last is None and step > 1):
        raise ValueError(f"positions {positions}: expected a step of 1 or more, and of 1 without an end")
    start, stop, _ = slice(first, last).indices(n)
    if first < -n or (last is not None and not -n <= last <= n) or start >= stop:
        raise outside
    return slice(start, None if last is None else stop, step)


def as_list(nodes: Ids) -> list[str | NodeId]:
    """One node or several as a list."""
    return [nodes] if isinstance(nodes, str | NodeId) else list(nodes)


@checked
def swap(graph: AttributionGraph, off: Ids, other: AttributionGraph, on: Ids, strength: float = 1.0) -> list[Steer]:
    """Changes that switch off some features of `graph` and switch on features of `other`, the graph of another prompt.

    `off` and `on` are node ids or names of supernodes. A feature that comes on gets `strength` times the
    activation it has in its own prompt; places are counted from the prompts' ends, so that prompts which end in the
    same words match. A feature that is in both is switched on.

    Raises ValueError for graphs of different models or transcoders, for a node that is no feature of its graph, or
    that has no place in this prompt.

    >>> steers = ik.swap(graph, graph.find("Texas")["id"], other, other.find("California")["id"])
    """
    check_belongs(other, "graph", graph, "first graph")
    shift = len(graph.tokens) - len(other.tokens)
    switched_on = {}
    for node in _features(other, on):
        if node.position + shift < 0:
            raise ValueError(f"{node.id!r} would lie before the beginning of {graph.prompt!r}")
        place = NodeId(node.layer, node.feature, node.position + shift)
        switched_on[str(place)] = strength * float(node.activation)
    switched_off = [node.id for node in _features(graph, off) if node.id not in switched_on]
    values = dict.fromkeys(switched_off, 0.0) | switched_on
    return [Steer(node, value=value, about=graph.about) for node, value in values.items()]


def _features(graph: AttributionGraph, names: Ids) -> list:
    """The rows of the features named, by ids or as supernodes."""
    names = [str(name) for name in as_list(names)]
    ids = list(dict.fromkeys(i for name in names for i in graph.supernodes.get(name, [name])))
    table = graph.features.set_index("id", drop=False)
    if missing := [i for i in ids if i not in table.index]:
        raise ValueError(
            f"{missing[0]!r} is neither a feature nor a supernode of the graph of {graph.prompt!r}; for the ids of all "
            "features with a label: graph.find(label)['id']"
        )
    return list(table.loc[ids].itertuples())


@dataclass(repr=False)
class Intervention:
    """What a change did.

    steers: the changes. table: token, probability before and after, change; the likeliest tokens of either run. before
    and after: logits and uncapped [position, vocabulary], preactivations, one [position, feature] a transcoded layer
    (see `Run`). text_before and text_after: the continuations, where some were asked for. edits: the run on the prompt,
    on which the changes were made.
    """

    prompt: str
    steers: list[Steer]
    table: pd.DataFrame
    before: Run
    after: Run
    edits: FeatureEdits
    text_before: str | None = None
    text_after: str | None = None

    @cached_property
    def features(self) -> pd.DataFrame:
        """The features that reacted, most first: id, layer, position, feature, before, after, change. What is said of
        a feature that was changed itself is what it would have been, not what it was changed to."""
        transcoder, rows = self.edits.transcoder, []
        for index, (layer, pre) in enumerate(zip(transcoder.layers, self.after.preactivations, strict=True)):
            before, after = self.edits.activations[index], transcoder.activate(pre, transcoder.threshold[index])
            if transcoder.config.excludes_first_position:
                after[0] = 0
            for position, feature in (before != after).nonzero().tolist():
                values = before[position, feature].item(), after[position, feature].item()
                rows.append((str(NodeId(layer, feature, position)), layer, position, feature, *values))
        table = pd.DataFrame(rows, columns=["id", "layer", "position", "feature", "before", "after"])
        table["change"] = table["after"] - table["before"]
        return table.sort_values("change", key=abs, ascending=False, ignore_index=True)

    def show(self) -> "Chart":
        """A plotly bar chart of the next token's probabilities before and after."""
        from ..widgets.chart import Chart

        table = self.table.iloc[::-1]
        bars = (("before", "#0072B2", ""), ("after", "#D55E00", "/"))  # hatched: readable without colour too
        figure = Chart()
        for name, colour, shape in bars:
            marker = {"color": colour, "pattern": {"shape": shape}}
            figure.add_bar(name=name, y=table["token"], x=table[name], orientation="h", marker=marker)
        figure.update_layout(
            title=f"Next token of “{self.prompt}”", xaxis_title="probability", template="plotly_white", height=360
        )
        return figure

    def __repr__(self) -> str:
        top = "; ".join(f"{r.token!r} {r.before:.3f} → {r.after:.3f}" for r in self.table.head(2).itertuples())
        return printable(f"Intervention({sum(len(steer.nodes) for steer in self.steers)} features changed; {top})")

    def _repr_html_(self) -> str:
        texts = (("before", self.text_before), ("after", self.text_after))
        said = "".join(f"<p><b>{when}</b>: {escape(text)}</p>" for when, text in texts if text is not None)
        return literal(self.table.to_html(index=False, float_format="{:.3f}".format) + said)


@checked
def intervene(
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    prompt: str,
    steers: Steer | Sequence[Steer],
    k: int = 5,
    constrained_layers: range | None = None,
    freeze_attention: bool = True,
    generate: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Intervention:
    """Runs `prompt` with some features changed, and compares the k likeliest next tokens before and after.

    By default attention patterns stay as they were and MLPs and norms react, so that later layers may answer.
    freeze_attention: False lets attention react too. constrained_layers: MLPs in these layers do not react, and the
    change acts in these layers only; over all layers norms are frozen as well, and the effect of a change is what the
    graph's edges say. generate: so many tokens are written greedily after the prompt, before and after; a change at an
    open-ended slice of positions keeps acting on them.

    Raises ValueError for changes of another model or transcoder, for a node that is no feature of this one on this
    prompt, or, with a factor, that is not active there.

    >>> ik.intervene(model, transcoder, prompt, ik.Steer(graph.supernodes["Texas"], factor=-1)).table
    """
    transcoder.check_model(model)
    frozen = FrozenModel(model, prompt, dtype)
    edits = FeatureEdits(frozen, in_same_dtype(transcoder, dtype))
    steers = [steers] if isinstance(steers, Steer) else list(steers)
    if not all(isinstance(steer, Steer) for steer in steers):
        raise TypeError("steers should be ik.Steer, or a list of them, such as ik.Steer('3_127_8', factor=0)")
    for steer in [steer for steer in steers if steer.about]:  # one written by hand says nothing
        check_belongs(steer, "changes", model, "model", keys=["fingerprint"])
        check_belongs(steer, "changes", transcoder, "transcoder", keys=["transcoder"])
    changes = [change for steer in steers for change in steer.changes(edits)]
    before = Run(frozen.logits, frozen.uncapped, list(edits.preactivations), frozen.residual_final)
    after = edits.run([changes], constrained_layers, freeze_attention)
    after = Run(after.logits[0], after.uncapped[0], [pre[0] for pre in after.preactivations], after.final[0])
    result = Intervention(prompt, steers, _likeliest(model, before, after, k), before, after, edits)
    if generate:
        room = int(min(generate, (model.context_length or math.inf) - len(frozen.ids) + 1))
        plain = edits.generate([], room, model.end_ids, freeze_attention=False)
        changed = edits.generate(changes, room, model.end_ids, constrained_layers, freeze_attention)
        result.text_before = model.continuation(frozen.ids, plain)
        result.text_after = model.continuation(frozen.ids, changed)
    return result


def _likeliest(model: LanguageModel, before: Run, after: Run, k: int) -> pd.DataFrame:
    """The k likeliest tokens of either run."""
    was, now = before.logits[-1].softmax(-1), after.logits[-1].softmax(-1)
    k = min(k, len(was))
    shown = torch.cat([now.topk(k).indices, was.topk(k).indices]).unique()
    shown = shown[now[shown].argsort(descending=True)]
    table = pd.DataFrame({"token": model.tokens(shown), "before": was[shown].tolist(), "after": now[shown].tolist()})
    table["change"] = table["after"] - table["before"]
    return table
