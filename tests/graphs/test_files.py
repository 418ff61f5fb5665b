import json

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik

PROMPT = "the capital of Texas is"


@pytest.fixture(scope="module")
def graph():
    model = tiny_model()
    full = ik.attribute(model, tiny_transcoder(model), PROMPT)
    some = full.nodes.loc[full.nodes["kind"] == "feature", "id"].head(2).tolist()
    return full.group({"two": some})


@pytest.fixture
def content(graph, tmp_path):
    graph.save(tmp_path / "graph.json")
    return json.loads((tmp_path / "graph.json").read_text())


def test_round_trip(graph, tmp_path):
    graph.save(tmp_path / "g.json")
    back = ik.load_graph(tmp_path / "g.json")
    np.testing.assert_array_equal(back.adjacency, graph.adjacency)
    assert back.tokens == graph.tokens and back.prompt == graph.prompt and back.n_layers == graph.n_layers
    assert back.supernodes == graph.supernodes and back.scores == graph.scores
    columns = ["id", "kind", "layer", "position", "token", "feature", "label", "influence", "activation", "bias"]
    for column in columns:
        pd.testing.assert_series_equal(back.nodes[column], graph.nodes[column], check_dtype=False, rtol=1e-12)
    back.save(tmp_path / "again.json")
    first, again = (json.loads((tmp_path / n).read_text()) for n in ("g.json", "again.json"))
    first["metadata"]["slug"] = again["metadata"]["slug"] = ""
    assert first == again


def test_the_public_schema(content):
    metadata = content["metadata"]
    assert {"slug", "scan", "prompt_tokens", "prompt"} <= metadata.keys() and metadata["schema_version"] == 1
    assert {"pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos"} <= content["qParams"].keys()
    by_type = {}
    for node in content["nodes"]:
        by_type.setdefault(node["feature_type"], node)
    feature, error = by_type["cross layer transcoder"], by_type["mlp reconstruction error"]
    layer, index, position = map(int, feature["node_id"].split("_"))
    assert feature["feature"] == (layer + index) * (layer + index + 1) // 2 + index
    assert feature["layer"] == str(layer) and feature["ctx_idx"] == position
    assert feature["jsNodeId"] == f"{layer}_{index}-0"
    assert error["node_id"] == "0_-1_0" and error["feature"] == -1
    assert by_type["embedding"]["node_id"] == "E_0_0" and by_type["embedding"]["layer"] == "E"
    logit = by_type["logit"]
    assert logit["layer"] == "5" and logit["is_target_logit"] and "(p=" in logit["clerp"]
    assert sum(n["is_target_logit"] for n in content["nodes"]) == 1
    ids = {n["node_id"] for n in content["nodes"]}
    assert all(link["source"] in ids and link["target"] in ids for link in content["links"])


def test_a_file_without_our_extras_opens(content, tmp_path):
    del content["metadata"]["interp_kit"]
    for node in content["nodes"]:
        for key in ("bias", "token", "raw_influence"):
            del node[key]
    (tmp_path / "public.json").write_text(json.dumps(content))
    back = ik.load_graph(tmp_path / "public.json")
    assert back.n_layers == 4 and len(back.nodes) == len(content["nodes"])
    assert back.nodes.loc[back.nodes["kind"] == "logit", "label"].iloc[0] in {
        "city",
        "state",
        "is",
        ".",
        "a",
        "<unk>",
    } | set(back.nodes["token"])


def broken(change):
    def apply(content):
        change(content)
        return content

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("nodes"), "'nodes' should be a list"),
        (lambda c: c["metadata"].pop("prompt"), "metadata.prompt"),
        (lambda c: c["nodes"][3].pop("clerp"), "node 3 lacks clerp"),
        (lambda c: c["nodes"][0].update(feature_type="lorsa"), "feature_type 'lorsa'"),
        (lambda c: c["nodes"][0].update(ctx_idx=99), "ctx_idx 99"),
        (lambda c: c["nodes"][1].update(node_id=c["nodes"][0]["node_id"]), "share one node_id"),
        (lambda c: c["links"][0].update(source="nowhere"), "link 0 does not join"),
        (lambda c: c["links"][0].update(weight="1"), "link 0 has the weight '1'"),
    ],
)
def test_a_strange_file_says_what_is_wrong(content, tmp_path, change, message):
    change(content)
    (tmp_path / "strange.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        ik.load_graph(tmp_path / "strange.json")


def test_a_truncated_file(graph, tmp_path):
    graph.save(tmp_path / "g.json")
    text = (tmp_path / "g.json").read_text()
    (tmp_path / "g.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="cut short"):
        ik.load_graph(tmp_path / "g.json")


def test_a_failed_save_leaves_the_old_file(graph, tmp_path, monkeypatch):
    graph.save(tmp_path / "g.json")
    before = (tmp_path / "g.json").read_bytes()
    monkeypatch.setattr("pathlib.Path.write_text", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        graph.save(tmp_path / "g.json")
    assert (tmp_path / "g.json").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
