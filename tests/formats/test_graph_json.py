import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from graph_files import CLT, circuit_tracer_file, eleuther_file, link, neuronpedia_file, public_node
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik
from interp_kit.graphs import NodeId

PROMPT = "the capital of Texas is"


@pytest.fixture(scope="module")
def graph():
    model = tiny_model()
    full = ik.attribute(model, tiny_transcoder(model), PROMPT)
    some = full.features["id"].head(2).tolist()
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


def test_a_capped_graph_keeps_what_its_left_out_features_write(content, tmp_path):
    model = tiny_model()
    capped = ik.attribute(model, tiny_transcoder(model), PROMPT, max_features=5)
    for some in (capped, capped.prune()):
        some.save(tmp_path / "capped.json")
        back = ik.load_graph(tmp_path / "capped.json")
        assert back.nodes.columns.tolist() == some.nodes.columns.tolist() and back.scores == some.scores
        assert back.kinds.tolist() == some.kinds.tolist() and back.layers.tolist() == some.layers.tolist()
        assert back.nodes["id"][back.kinds == "left_out"].tolist() == ["E_-1_0"]
        np.testing.assert_array_equal(back.adjacency, some.adjacency)
    before = json.loads((tmp_path / "capped.json").read_text())
    back.save(tmp_path / "capped.json")
    assert json.loads((tmp_path / "capped.json").read_text()) == before
    # Readers that do not know of it take it for an error; a graph without a limit has none.
    assert [node["feature_type"] for node in before["nodes"] if "is_left_out" in node] == ["mlp reconstruction error"]
    assert not any("is_left_out" in node for node in content["nodes"])


def test_the_public_schema(content):
    metadata = content["metadata"]
    assert {"slug", "scan", "prompt_tokens", "prompt"} <= metadata.keys() and metadata["schema_version"] == 1
    assert {"pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos"} <= content["qParams"].keys()
    by_type = {}
    for node in content["nodes"]:
        by_type.setdefault(node["feature_type"], node)
    feature, error = by_type["cross layer transcoder"], by_type["mlp reconstruction error"]
    layer, index, position = NodeId.parse(feature["node_id"])
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
    assert back.logits["label"].iloc[0] in {
        "city",
        "state",
        "is",
        ".",
        "a",
        "<unk>",
    } | set(back.nodes["token"])


# ---------------------------------------------------------------------- the public viewer and Neuronpedia

NEURONPEDIA = {  # what its schema requires
    "metadata": {"slug": str, "scan": str, "prompt_tokens": list, "prompt": str},
    "nodes": {
        "node_id": str,
        "feature": int,
        "layer": str,
        "ctx_idx": int,
        "feature_type": str,
        "jsNodeId": str,
        "clerp": str,
    },
    "links": {"source": str, "target": str, "weight": float},
}


@pytest.mark.parametrize("pruned", [False, True])
def test_the_public_viewer_and_neuronpedia_find_all_they_need(graph, tmp_path, pruned):
    graph = graph.prune() if pruned else graph
    graph.save(tmp_path / "my graph.json", listed=True)
    content = json.loads((tmp_path / "my graph.json").read_text())
    for part, keys in NEURONPEDIA.items():
        for entry in [content[part]] if part == "metadata" else content[part]:
            assert {key: type(entry[key]) for key in keys} == keys
    assert isinstance(content["qParams"], dict) and content["metadata"]["slug"] == "my-graph"
    nodes, n_tokens = content["nodes"], len(content["metadata"]["prompt_tokens"])
    assert len({n["node_id"] for n in nodes}) == len(nodes) and all(0 <= n["ctx_idx"] < n_tokens for n in nodes)
    # The viewer's slider starts at node_threshold and hides what lies above; a logit needs "(p=...)".
    assert all(n["influence"] <= content["metadata"]["node_threshold"] for n in nodes)
    for n in nodes:
        assert n["feature_type"] != "logit" or 0 <= float(n["clerp"].split("(p=")[1].split(")")[0]) <= 1
    assert json.loads((tmp_path / "graph-metadata.json").read_text()) == {"graphs": [content["metadata"]]}


def test_the_list_of_graphs_keeps_the_others(graph, tmp_path):
    for name in ("one", "two", "one"):
        graph.save(tmp_path / f"{name}.json", listed=True)
    listed = json.loads((tmp_path / "graph-metadata.json").read_text())["graphs"]
    assert [g["slug"] for g in listed] == ["two", "one"]
    (tmp_path / "graph-metadata.json").write_text('{"graphs": [1]}')
    with pytest.raises(ValueError, match=r"list of graphs: graphs\[0\] should be an object"):
        graph.save(tmp_path / "one.json", listed=True)


def test_features_are_written_where_the_viewer_looks(tmp_path):
    model = tiny_model()
    clt = tiny_transcoder(model)
    store = ik.collect_features(model, clt, [PROMPT + " Austin .", "Dallas is a city"], n_examples=2)
    graph = ik.attribute(model, clt, PROMPT)
    graph.save(tmp_path / "g.json", features=store)
    content = json.loads((tmp_path / "g.json").read_text())
    folder = tmp_path / content["metadata"]["scan"].removeprefix("./data/")  # the viewer's ./data is the graphs' folder
    wanted = {n["feature"] for n in content["nodes"] if n["feature_type"] == "cross layer transcoder"}
    assert {int(path.stem) for path in folder.glob("[0-9]*.json")} == wanted
    assert ik.load_graph(tmp_path / "g.json").about["model"] == model.name


# ---------------------------------------------------------------------- files of other tools


def loaded(content, folder, name="a-graph.json"):
    (folder / name).write_text(json.dumps(content))
    return ik.load_graph(folder / name)


@pytest.mark.parametrize("file", [circuit_tracer_file, neuronpedia_file, eleuther_file])
def test_a_file_of_another_tool_is_saved_as_it_was(tmp_path, file):
    graph = loaded(file(), tmp_path)
    graph.save(tmp_path / "again" / "a-graph.json")
    assert json.loads((tmp_path / "again" / "a-graph.json").read_text()) == file()
    graph.save(tmp_path / "renamed.json")
    assert json.loads((tmp_path / "renamed.json").read_text())["metadata"]["slug"] == "renamed"


def test_a_file_of_circuit_tracer_is_a_graph_like_ours(tmp_path):
    graph = loaded(circuit_tracer_file(), tmp_path)
    nodes = graph.nodes.set_index("id")
    assert graph.n_layers == 3 and nodes.loc["4_55_2", ["layer", "token", "feature"]].tolist() == [3, " Austin", 55]
    assert nodes.loc["2_7_1", ["feature", "label", "token"]].tolist() == [7, "feature 2/7", " b"]
    assert nodes["feature"].tolist() == [1, 7, -1, 100, 101, 55]
    # The file has no influence of its own: w = .364, shares 1/6 and 5/6 of the logit's inputs.
    assert nodes["influence"].tolist() == pytest.approx([0.364 / 6, 0.364 / 6, 0.364 * 5 / 6, 0, 0.364 / 6, 0])
    assert nodes["cumulative"].tolist() == pytest.approx([0.1, 0.5, 0.7, 1, 0.9, 1], abs=1e-5)
    assert graph.scores["replacement"] == pytest.approx(1 / 6)
    assert graph.paths()["steps"].tolist()[0] == "b → feature 0/1 → feature 2/7 → Austin"
    graph.show()


def test_what_the_viewer_saved_is_understood(tmp_path):
    graph = loaded(neuronpedia_file(), tmp_path)
    assert graph.supernodes == {"group": ["0_1_1"], "group (2)": ["2_7_1", "0_2_2"], "empty": []}
    assert graph.nodes["label"].tolist()[:2] == ["cities", "typed in the viewer"]
    assert graph.adjacency[1, 0] == 0.75  # listed twice: the sum
    shown = loaded(eleuther_file(), tmp_path).nodes
    assert shown["feature"].tolist() == [7, -1, -1, 55] and shown["token"].iloc[-1] == " Austin"
    assert shown["probability"].iloc[-1] == 0.364


def test_a_change_is_saved_and_the_rest_stays(tmp_path):
    graph = loaded(neuronpedia_file(), tmp_path)
    cards = pd.DataFrame([{"layer": 0, "feature": 1, "label": "renamed"}])
    store = ik.FeatureStore(
        pd.DataFrame(columns=["layer", "feature", "density", "max_activation", "top_logits", "bottom_logits"]),
        pd.DataFrame(columns=["layer", "feature", "group", "rank", "tokens", "activations", "peak"]),
    )
    graph.annotate(store, cards).group({"mine": ["2_7_1"]}).save(tmp_path / "a-graph.json")
    expected = neuronpedia_file()
    expected["nodes"][0]["clerp"] = "renamed"
    expected["qParams"]["supernodes"] = [["mine", "2_7_1"]]
    assert json.loads((tmp_path / "a-graph.json").read_text()) == expected
    graph.adjacency[1, 0] = 0.5
    graph.save(tmp_path / "a-graph.json")
    saved = json.loads((tmp_path / "a-graph.json").read_text())["links"]
    assert [x for x in saved if x["target"] == "2_7_1"] == [link("0_1_1", "2_7_1", 0.5)]


def test_a_pruned_graph_of_another_tool_forgets_what_is_gone(tmp_path):
    content = neuronpedia_file()
    content["qParams"]["pinnedIds"] = ["0_2_2", "0_1_1", "virtual-diff-a-vs-b"]
    content["qParams"]["supernodes"] = [["group", "2_7_1", "0_2_2"], ["one", "0_1_1"]]
    content["links"][4]["weight"] = 100  # the error is all that counts
    smaller = loaded(content, tmp_path).prune(0.5)
    smaller.save(tmp_path / "a-graph.json")
    saved = json.loads((tmp_path / "a-graph.json").read_text())
    assert saved["nodes"] == [content["nodes"][i] for i in (2, 3, 4, 5)] and saved["links"] == [content["links"][4]]
    assert saved["qParams"] == content["qParams"] | {
        "pinnedIds": ["0_2_2", "virtual-diff-a-vs-b"],
        "supernodes": [["group", "0_2_2"]],
        "clickedId": "",
    }
    assert saved["metadata"] == content["metadata"]
    assert ik.load_graph(tmp_path / "a-graph.json").supernodes == smaller.supernodes


def test_two_nodes_of_one_id(tmp_path):
    """circuit-tracer 0.5 calls feature 2 of layer 0 and the error of layer 2 "0_2_2" alike."""
    content = circuit_tracer_file()
    content["nodes"].insert(0, public_node(CLT, "0_2_2", "0", 2, 5))
    content["links"] += [link("E_101_1", "0_2_2", 1.0), link("0_2_2", "4_55_2", -0.75)]
    with pytest.warns(UserWarning, match="'0_2_2' to '2_-1_2'"):
        graph = loaded(content, tmp_path)
    assert graph.nodes.set_index("id")["kind"][["0_2_2", "2_-1_2"]].tolist() == ["feature", "error"]
    weight = graph.edges.set_index(["source", "target"])["weight"]
    assert weight["0_2_2", "4_55_2"] == 0.5 and weight["2_-1_2", "4_55_2"] == -0.75
    graph.save(tmp_path / "a-graph.json")
    again = ik.load_graph(tmp_path / "a-graph.json")  # now without a warning
    assert again.nodes["id"].tolist() == graph.nodes["id"].tolist()
    content["nodes"].insert(0, public_node(CLT, "0_2_2", "0", 2, 5))
    with pytest.raises(ValueError, match=r"nodes\[1\].node_id should be different"):
        loaded(content, tmp_path)


# ---------------------------------------------------------------------- strange and hostile files


def put(*place):
    """A change of the file: put(..., value) sets the value at a place."""
    *keys, last, value = place

    def change(content):
        for key in keys:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("nodes"), "the file lacks 'nodes'$"),
        (lambda c: c["metadata"].pop("prompt"), "metadata lacks 'prompt'"),
        (lambda c: c["nodes"][3].pop("clerp"), r"nodes\[3\] lacks 'clerp'"),
        (put("metadata", []), r"^[^ ]* is not .*: metadata should be an object, got \[\]"),
        (put("metadata", "prompt_tokens", ["a", 1]), r"metadata.prompt_tokens\[1\] should be a valid string, got 1"),
        (put("metadata", "interp_kit", {"n_layers": 10**6}), "metadata.interp_kit.n_layers should be less than"),
        (put("metadata", "interp_kit", {"scores": {"x": "1"}}), "metadata.interp_kit.scores.x should be a"),
        (put("metadata", "interp_kit", {"scores": {"\x1b[2J": "1"}}), r"interp_kit.scores.\\x1b\[2J should be a"),
        (
            put("metadata", "interp_kit", {"about": {"model": 7}}),
            "metadata.interp_kit.about.model should be a valid str",
        ),
        (put("qParams", "x"), "qParams should be an object, got 'x'"),
        (put("qParams", "supernodes", [["x", 1]]), r"qParams.supernodes\[0\]\[1\] should be a valid string, got 1"),
        (put("qParams", "supernodes", [[]]), r"qParams.supernodes\[0\] should have at least 1 item"),
        (put("qParams", "supernodes", "[[["), r"qParams.supernodes should be a valid list, got '\[\[\['"),
        (put("qParams", "supernodes", [["x", "nobody"]]), r"supernodes\[0\].*'nobody'"),
        (put("qParams", "clerps", [[1, 2]]), r"qParams.clerps\[0\]\[0\] should be a valid string, got 1"),
        (put("qParams", "pinnedIds", [1]), r"qParams.pinnedIds\[0\] should be a valid string, got 1"),
        (put("qParams", "pinnedIds", 0), "qParams.pinnedIds should be a valid list, got 0"),
        (put("nodes", [1]), r"nodes\[0\] should be an object, got 1"),
        (put("nodes", []), "nodes should be at least one logit"),
        (lambda c: c["nodes"][5].update(token_prob=0.0, clerp="x"), "nodes should be at least one logit"),
        (
            put("nodes", 0, "feature_type", "lorsa"),
            r"nodes\[0\].feature_type should be 'cross layer .*'logit', got 'lorsa'",
        ),
        (put("nodes", 0, "feature_type", ["x"]), r"nodes\[0\].feature_type"),
        (put("nodes", 0, "node_id", "x" * 10**6), r"nodes\[0\].node_id should have at most 1000 characters"),
        (put("nodes", 0, "layer", "abc"), r"nodes\[0\].layer should be a layer from 0 to 999, got 'abc'"),
        (put("nodes", 0, "layer", 10**9), r"nodes\[0\].layer"),
        (put("nodes", 0, "layer", 1.5), r"nodes\[0\].layer should be a valid string, got 1.5"),
        (put("nodes", 0, "influence", "x"), r"nodes\[0\].influence should be a valid number, got 'x'"),
        (put("nodes", 0, "is_left_out", "x"), r"nodes\[0\].is_left_out should be a valid boolean"),
        (put("nodes", 0, "token_prob", -1), r"nodes\[0\].token_prob should be greater than or equal to 0, got -1"),
        (put("nodes", 0, "feature", 1.5), r"nodes\[0\].feature should be a valid integer, got 1.5"),
        (put("nodes", 0, "ctx_idx", 99), r"nodes\[0\].ctx_idx should be from 0 to 2, a token, got 99"),
        (put("nodes", 0, "ctx_idx", True), r"nodes\[0\].ctx_idx should be a valid integer, got True"),
        (put("nodes", 0, "ctx_idx", 1.0), r"nodes\[0\].ctx_idx should be a valid integer, got 1.0"),
        (put("nodes", 0, "ctx_idx", -1), r"nodes\[0\].ctx_idx should be from 0 to 2"),
        (put("nodes", 0, "ctx_idx", 10**400), r"nodes\[0\].ctx_idx should be less than"),
        (lambda c: c["nodes"].append(c["nodes"][0]), r"nodes\[6\].node_id should be different from all others"),
        (put("nodes", 0, "deep", json.loads("[" * 60 + "]" * 60)), "nested more than 50 levels"),
        (put("nodes", 0, "clerp", "\ud800"), r"nodes\[0\].clerp is not text: it holds half of a surrogate pair"),
        (put("links", 0, "x"), r"links\[0\] should be an object"),
        (put("links", 0, "source", "nowhere"), r"links\[0\].source should be the node_id of a node, got 'nowhere'"),
        (put("links", 0, "target", ["x"]), r"links\[0\].target should be a valid string"),
        (put("links", 0, "weight", "1"), r"links\[0\].weight should be a valid number, got '1'"),
        (put("links", 0, "weight", float("nan")), r"links\[0\].weight should be a finite number, got nan"),
        (put("links", 0, "weight", float("-inf")), r"links\[0\].weight should be a finite number, got -inf"),
        (put("links", 0, "weight", 1e300), r"links\[0\].weight should be less than or equal to 1e\+30, got 1e\+300"),
        (lambda c: c["links"].append(link("2_7_1", "0_1_1", 1.0)), "links should not form a loop"),
        (lambda c: c["links"].append(link("2_7_1", "2_7_1", 1.0)), "links should not form a loop"),
    ],
)
def test_a_strange_file_says_what_is_wrong(tmp_path, change, message):
    content = circuit_tracer_file()
    change(content)
    with pytest.raises(ValueError, match=message) as caught:
        loaded(content, tmp_path)
    assert "a-graph.json" in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\x80", "not a readable JSON file"),
        (b"", "not a readable JSON file"),
        (b"[" * 10**6, "nested more than 50 levels"),
        (b"[1]", "the file should be an object"),
        (b'{"nodes": 1, "nodes": 2}', "has the key 'nodes' twice"),
        (b'{"nodes": [{"x": 1e400}]}', r"nodes\[0\].x should be a finite number, got inf"),
        (b"9" * 5000, "not a readable JSON file"),
    ],
)
def test_what_is_no_graph_file_at_all(tmp_path, text, message):
    (tmp_path / "strange.json").write_bytes(text)
    with pytest.raises(ValueError, match=message) as caught:
        ik.load_graph(tmp_path / "strange.json")
    assert "strange.json" in str(caught.value)


def test_a_file_from_an_editor_that_marks_utf8(tmp_path):
    (tmp_path / "g.json").write_text(json.dumps(circuit_tracer_file()), encoding="utf-8-sig")
    assert len(ik.load_graph(tmp_path / "g.json").nodes) == 6


def test_a_graph_too_large_is_refused_before_it_is_made(tmp_path, monkeypatch):
    content = circuit_tracer_file()
    content["nodes"] += [{}] * 20_000  # not even looked at
    (tmp_path / "large.json").write_text(json.dumps(content))
    free = {"available": 2_000_000_000}
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(**free))
    monkeypatch.setattr("numpy.zeros", lambda *a, **k: pytest.fail("allocated"))
    with pytest.raises(MemoryError, match="a graph of 20,006 nodes needs about 6.4 GB of memory and 2 GB are free"):
        ik.load_graph(tmp_path / "large.json")
    free["available"] = 1000
    with pytest.raises(MemoryError, match="reading .*large.json needs about"):
        ik.load_graph(tmp_path / "large.json")


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
