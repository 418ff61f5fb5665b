"""What a node is called, here and in the public graph files: "layer_feature_position"."""

import re
from typing import NamedTuple

EMBEDDING_LAYER = -1  # written "E"
SPELLING = re.compile(r"(E|[0-9]{1,9})_(-1|[0-9]{1,9})(?:_([0-9]{1,9}))?")


class NodeId(NamedTuple):
    """A node's id in parts; `str` spells it as `graph.nodes["id"]` and the public graph files do.

    Feature 127 of layer 3 at position 8 is "3_127_8", the error of that layer "3_-1_8". An embedding has the layer "E"
    (here -1), a logit the layer `n_layers + 1`; the feature of both is the token's id: "E_50_8" and "31_50_8".

    >>> NodeId.parse("3_127_8")
    NodeId(layer=3, feature=127, position=8)
    >>> str(NodeId(3, 127, 8))
    '3_127_8'
    """

    layer: int
    feature: int
    position: int | None = None  # None: wherever it is active, "3_127"

    @classmethod
    def parse(cls, text: "str | NodeId") -> "NodeId":
        """Raises ValueError for anything but an id."""
        found = SPELLING.fullmatch(str(text))
        if not found:
            raise ValueError(f"{text!r} is not a node's id: expected 'layer_feature_position', like '3_127_8'")
        layer = EMBEDDING_LAYER if found[1] == "E" else int(found[1])
        return cls(layer, int(found[2]), None if found[3] is None else int(found[3]))

    def __str__(self) -> str:
        layer = "E" if self.layer == EMBEDDING_LAYER else self.layer
        place = "" if self.position is None else f"_{self.position}"
        return f"{layer}_{self.feature}{place}"
