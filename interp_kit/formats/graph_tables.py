"""A graph as plain tables: what the graph files are made of, and made into."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from typing_extensions import TypedDict  # pydantic, which checks these in a file, wants it before Python 3.12

if TYPE_CHECKING:
    from .graph_schema import GraphFile


class About(TypedDict, total=False):
    """The model that a graph is of: its name, and the fingerprint of its weights."""

    model: str
    fingerprint: str


class Origin(TypedDict, total=False):
    """Where a graph was read from: the file's content, and the table of nodes that was made of it."""

    content: "GraphFile"
    nodes: pd.DataFrame


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
    origin: Origin = field(default_factory=Origin)
