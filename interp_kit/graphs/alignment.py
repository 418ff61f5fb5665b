"""Which position of one prompt plays the part of which in another: a paraphrase, or the same template filled anew."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..formats.graph_tables import node_rows

if TYPE_CHECKING:  # of a room that draws on this
    from .graph import AttributionGraph

Key = tuple[str, int | str, int | str, int]  # kind, layer, feature or label, position


def align(mine: Sequence[str], others: Sequence[str], fillers: bool = True) -> list[int | None]:
    """For each token of another prompt the position of mine that it answers to, None where there is none.

    The last tokens answer to each other, and so do equal tokens, counted from the end. With `fillers`, what lies
    between two of them and is not equal, as where a template is filled with another name, is paired from its end, where
    a name is complete.

    >>> align(["The", " capital", " of", " Texas", " is"], ["The", " capital", " of", " New", " York", " is"])
    [0, 1, 2, None, 3, 4]
    """
    at = defaultdict(list)
    for position, token in enumerate(mine[:-1]):
        at[token].append(position)
    found: list[int | None] = [None] * len(others)
    found[-1] = len(mine) - 1
    for position in reversed(range(len(others) - 1)):
        if at[others[position]]:
            found[position] = at[others[position]].pop()
    if fillers:
        _pair_fillers(found)
    return found


def _pair_fillers(found: list[int | None]) -> None:
    """Fills in what lies between two neighbours that are paired in order; in place."""
    taken, after = set(found), found[-1]
    for position in reversed(range(len(found) - 1)):
        here = found[position]
        if here is None and after is not None and after - 1 >= 0 and after - 1 not in taken:
            found[position] = here = after - 1
            taken.add(here)
        after = here


def node_keys(graph: "AttributionGraph", by_label: bool, place: Sequence[int | None] | None = None) -> list[Key | None]:
    """What makes each node the same as one of another graph [node]: its kind, layer and feature, or its label, at a
    position. place: the positions of the other graph that this one's answer to; None where there is none."""
    keys: list[Key | None] = []
    for n in node_rows(graph.nodes):
        position = n.position if place is None else place[n.position]
        if position is None:
            keys.append(None)
        elif by_label and n.kind == "feature":
            keys.append(("feature", "", n.label, position))
        elif n.kind == "embedding":
            keys.append((n.kind, -1, "", position))  # whichever token fills the place
        else:
            keys.append((n.kind, n.layer, n.feature, position))
    return keys
