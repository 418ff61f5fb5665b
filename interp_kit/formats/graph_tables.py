"""A graph as plain tables: what the graph files are made of, and made into."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, cast

import numpy as np
import pandas as pd

from .graph_schema import GraphFile, Question
from .provenance import About


class Origin(TypedDict, total=False):
    """Where a graph was read from: the file's content, and the table of nodes that was made of it."""

    content: GraphFile
    nodes: pd.DataFrame


class Example(TypedDict):
    """A window of text on which a feature is active: a number for each token."""

    tokens: list[str]
    activations: list[float]


class Card(TypedDict, total=False):
    """What a graph shows of a feature; empty where the store does not have it."""

    concept: str | None
    examples: list[Example]
    top_logits: list[str]
    bottom_logits: list[str]


class NodeRow(Protocol):
    """A row of a graph's table of nodes."""

    id: str
    kind: str
    layer: int
    position: int
    feature: int
    token: str
    label: str


def node_rows(nodes: pd.DataFrame) -> Iterator[NodeRow]:
    """The rows of a table of nodes, whose columns pandas' own types do not know."""
    return cast("Iterator[NodeRow]", nodes.itertuples())


@dataclass
class GraphTables:
    """What a graph file holds; the docstring of `AttributionGraph`, which adds the methods, says what each field is."""

    prompt: str
    tokens: list[str]
    n_layers: int
    nodes: pd.DataFrame
    adjacency: np.ndarray
    about: About = field(default_factory=About)
    supernodes: dict[str, list[str]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    asked: Question = field(default_factory=Question)
    conditioning: dict[str, float] = field(default_factory=dict)
    stability: np.ndarray | None = None
    belief: np.ndarray | None = None
    origin: Origin = field(default_factory=Origin)
