import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.formats.node_id import NodeId


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("3_127_8", (3, 127, 8)),
        ("3_-1_8", (3, -1, 8)),
        ("E_50_0", (-1, 50, 0)),
        ("31_50_8", (31, 50, 8)),
        ("3_127", (3, 127, None)),
    ],
)
def test_spelling(text, parts):
    node = NodeId.parse(text)
    assert node == parts and str(node) == text and NodeId.parse(node) == node


@pytest.mark.parametrize(
    "text",
    ["", "3", "Texas", "3_127_8_1", "3_127_", "-1_127_8", "E_1_-1", "3_-2_8", " 3_1_8", "3_1_8\n", "3_1e1_8", "3_½_8",
     "9" * 10 + "_1_1", None, 3],
)  # fmt: skip
def test_what_is_no_id(text):
    with pytest.raises(ValueError, match="is not a node's id: expected 'layer_feature_position'"):
        NodeId.parse(text)


def test_the_ids_of_a_graph_say_where_its_nodes_are():
    model = tiny_model()
    graph = ik.attribute(model, tiny_transcoder(model), "the capital of Texas is")
    for node in graph.nodes.itertuples():
        layer, feature, position = NodeId.parse(node.id)
        assert (layer, feature, position) == (node.layer + (node.kind == "logit"), node.feature, node.position)
