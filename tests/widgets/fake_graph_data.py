"""A made-up attribution graph in the shape that `interp_kit.widgets` draws: the Dallas prompt, 6 layers."""

import random

TOKENS = ["The", " capital", " of", " the", " state", " containing", " Dallas", " is", "\n"]
OUTPUTS = [(" Austin", 0.43), (" Houston", 0.12), (" Texas", 0.081), (" Dallas", 0.044), (" the", 0.021)]
STORY = [  # label, layer, position, activation, influence
    ("capital", 0, 1, 3.2, 0.060),
    ("state", 0, 4, 2.7, 0.035),
    ("Dallas", 0, 6, 5.1, 0.075),
    ("say a capital", 2, 1, 1.9, 0.045),
    ("a US state", 2, 4, 1.4, 0.020),
    ("Texas", 3, 6, 4.4, 0.110),
    ("Texas", 4, 8, 2.1, 0.065),
    ("cities of Texas", 2, 6, 2.2, 0.040),
    ("say a capital", 3, 8, 3.0, 0.080),
    ("say Austin", 5, 8, 4.9, 0.140),
    ("say a city", 4, 8, 1.2, 0.018),
    ("place names", 1, 6, 1.8, 0.015),
]
STORY_EDGES = [  # source, target, weight; names as (label, layer, position)
    (("Dallas", 0, 6), ("Texas", 3, 6), 2.4),
    (("Texas", 3, 6), ("Texas", 4, 8), 0.9),
    (("Dallas", 0, 6), ("cities of Texas", 2, 6), 1.3),
    (("cities of Texas", 2, 6), ("Texas", 3, 6), 1.1),
    (("Texas", 3, 6), ("say Austin", 5, 8), 2.1),
    (("capital", 0, 1), ("say a capital", 2, 1), 1.7),
    (("say a capital", 2, 1), ("say a capital", 3, 8), 1.9),
    (("say a capital", 3, 8), ("say Austin", 5, 8), 1.6),
    (("state", 0, 4), ("a US state", 2, 4), 1.2),
    (("a US state", 2, 4), ("Texas", 4, 8), 0.6),
    (("say a city", 4, 8), ("say Austin", 5, 8), -0.8),
    (("Texas", 4, 8), ("say Austin", 5, 8), 1.5),
]


def node(name, kind, layer, position, label, influence=0.0, **more):
    """One node with every key of the contract."""
    return {
        "id": name,
        "kind": kind,
        "layer": layer,
        "position": position,
        "feature": None,
        "label": label,
        "activation": None,
        "bias": None,
        "influence": influence,
        "cumulative": 0.0,
        "probability": None,
        "concept": None,
        "examples": [],
        "top_logits": [],
        "bottom_logits": [],
        **more,
    }


def fake_graph(seed=0, n_filler=32):
    """About 70 nodes for the default; the story above plus random small features and errors."""
    rng = random.Random(seed)
    nodes = [node(f"e{i}", "embedding", -1, i, token) for i, token in enumerate(TOKENS)]
    nodes += [_story_feature(rng, *row) for row in STORY]
    nodes += [_filler(rng, k) for k in range(n_filler)]
    nodes += [
        node(f"x{layer}_{i}", "error", layer, i, "error", rng.uniform(0.001, 0.02))
        for layer in range(6)
        for i in (1, 6, 8)
    ]
    _rank(nodes)
    nodes += [node(f"out{k}", "logit", 6, 8, token, p, probability=p) for k, (token, p) in enumerate(OUTPUTS)]
    return {
        "title": "Two steps to Austin",
        "prompt": "".join(TOKENS),
        "tokens": TOKENS,
        "n_layers": 6,
        "scores": {"replacement": 0.62, "completeness": 0.83, "completeness (with inputs)": 0.71},
        "nodes": nodes,
        "edges": _edges(rng, nodes),
        "supernodes": [],
    }


def _story_feature(rng, label, layer, position, activation, influence):
    name = f"f{layer}_{position}_{label.replace(' ', '-')}"
    return node(
        name,
        "feature",
        layer,
        position,
        label,
        influence,
        feature=rng.randrange(4096),
        activation=activation,
        bias=round(rng.uniform(-0.5, 0.5), 3),
        concept=f"concept of {label}",
        examples=[_example(label), _example(label, " and")],
        top_logits=[" Austin", " Texas", "\n"],
        bottom_logits=[" Paris", " London"],
    )


def _example(label, joint=" in"):
    tokens = [" She", " lived", joint, f" {label}", " for", " years", "."]
    return {"tokens": tokens, "activations": [0.0, 0.1, 0.7, 3.4, 1.1, 0.2, 0.0]}


def _filler(rng, k):
    layer, position = rng.randrange(6), rng.choice([1, 1, 3, 4, 5, 6, 6, 7, 8, 8, 8])
    return node(
        f"g{k}",
        "feature",
        layer,
        position,
        f"filler {k}",
        rng.uniform(0.0005, 0.015),
        feature=rng.randrange(4096),
        activation=round(rng.uniform(0.1, 2), 3),
        bias=0.0,
    )


def _rank(nodes):
    """Scale influence to sum to one and fill in the cumulative share, as graph pruning does."""
    total = sum(n["influence"] for n in nodes)
    so_far = 0.0
    for n in sorted(nodes, key=lambda n: -n["influence"]):
        n["influence"] /= total
        so_far += n["influence"]
        n["cumulative"] = so_far if n["kind"] in ("feature", "error") else 0.0


def _edges(rng, nodes):
    place = {(n["label"], n["layer"], n["position"]): i for i, n in enumerate(nodes)}
    edges = [[place[a], place[b], w] for a, b, w in STORY_EDGES]
    edges += [
        [place[token, -1, i], place[token.strip(), 0, i], 1.5]
        for i, token in enumerate(TOKENS)
        if (token.strip(), 0, i) in place
    ]
    last = place["say Austin", 5, 8]
    edges += [[last, place[token, 6, 8], w] for (token, _), w in zip(OUTPUTS, [3.1, -0.9, 0.4, -1.2, -0.3])]
    edges.append([place["Texas", 4, 8], place[" Texas", 6, 8], 1.4])
    for target, node_ in enumerate(nodes):
        below = [i for i, n in enumerate(nodes) if n["layer"] < node_["layer"] and n["position"] <= node_["position"]]
        for source in rng.sample(below, min(6, len(below))) if node_["kind"] in ("feature", "logit") else ():
            edges.append([source, target, round(rng.gauss(0, 0.15), 4)])
    return edges
