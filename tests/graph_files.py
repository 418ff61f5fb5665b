"""Attribution graphs as other tools write them: a small one of each."""

import json


def public_node(kind, name, layer, position, feature=None, clerp="", **more):
    return {
        "node_id": name,
        "feature": feature,
        "layer": layer,
        "ctx_idx": position,
        "feature_type": kind,
        "jsNodeId": f"{name}-0",
        "clerp": clerp,
    } | more


def link(source, target, weight):
    return {"source": source, "target": target, "weight": weight}


CLT, ERROR, EMBEDDING = "cross layer transcoder", "mlp reconstruction error", "embedding"


def circuit_tracer_file():
    """As circuit-tracer 0.5 writes it; the error of layer 2 has the same kind of id as a feature of layer 0."""
    usual = {"token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, "activation": None}
    return {
        "metadata": {
            "slug": "a-graph",
            "scan": "gemma",
            "transcoder_list": [],
            "prompt_tokens": ["a", " b", "\n"],
            "prompt": "a b\n",
            "node_threshold": 0.8,
            "schema_version": 1,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [
            public_node(CLT, "0_1_1", "0", 1, 4, **usual | {"influence": 0.1000001, "activation": 1.5}),
            public_node(CLT, "2_7_1", "2", 1, 52, **usual | {"influence": 0.5, "activation": 2.25}),
            public_node(ERROR, "0_2_2", "2", 2, -1, **usual | {"influence": 0.7}),
            public_node(EMBEDDING, "E_100_0", "E", 0, 0, **usual | {"influence": 1.0000002}),
            public_node(EMBEDDING, "E_101_1", "E", 1, 1, **usual | {"influence": 0.9}),
            public_node(
                "logit",
                "4_55_2",
                "4",
                2,
                55,
                'Output " Austin" (p=0.364)',
                **usual | {"token_prob": 0.364, "is_target_logit": True, "influence": None},
            ),
        ],
        "links": [
            link("2_7_1", "4_55_2", 0.1),  # no float32
            link("0_1_1", "2_7_1", 0.25),
            link("E_100_0", "0_1_1", 0.0),
            link("E_101_1", "0_1_1", -3),
            link("0_2_2", "4_55_2", 0.5),
        ],
    }


def neuronpedia_file():
    """Every optional key, extras of its own, the state that the viewer's Save button leaves, a link listed twice."""
    content = circuit_tracer_file()
    content["metadata"] |= {
        "info": {"creator_name": "x", "source_urls": ["https://example.org"], "create_time_ms": 1},
        "generation_settings": {"max_n_logits": 10},
        "pruning_settings": {"node_threshold": 0.8},
        "feature_details": {"neuronpedia_source_set": "clt"},
        "transcoder_list": ["a", "b", "c"],
    }
    content["qParams"] = {
        "pinnedIds": "2_7_1,virtual-diff-a-vs-b",
        "supernodes": json.dumps([["group", "0_1_1"], ["group", "2_7_1", "0_2_2"], ["empty"]]),
        "linkType": "either",
        "clickedId": "0_1_1",
        "clerps": json.dumps([["52", "typed in the viewer"]]),
        "pruningThreshold": "0.6",
        "sg_pos": None,
    }
    content["nodes"][0] |= {"clerp": "cities", "my_own": {"x": [1, None]}, "layer": 0}
    content["nodes"][1] |= {"influence": None}
    content["links"] += [link("0_1_1", "2_7_1", 0.5) | {"my_own": True}]
    content["qk_only_nodes"] = []
    return content


def eleuther_file():
    """EleutherAI's ids; and only the keys that Neuronpedia requires."""
    content = circuit_tracer_file()
    content["qParams"] = {"linkType": "both"}
    content["nodes"] = [
        public_node(CLT, "intermediate_1_2_7", "2", 1, 52),
        public_node(ERROR, "error_2_2", "2", 2),
        public_node(EMBEDDING, "input_0", "E", 0),
        public_node("logit", "output_2_0", "-1", 2, 55, 'output: " Austin" (p=0.364)'),
    ]
    content["links"] = [
        link("input_0", "intermediate_1_2_7", 1.0),
        link("intermediate_1_2_7", "output_2_0", 2),
        link("error_2_2", "output_2_0", 0.5),
    ]
    return content
