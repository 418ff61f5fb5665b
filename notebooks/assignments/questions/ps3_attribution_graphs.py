"""ps3: reading an attribution graph. What its numbers mean, and which of its claims to believe."""

import random
from functools import cache
from itertools import combinations, pairwise
from math import prod

import torch
from torch import Tensor

import interp_kit as ik
from interp_kit.course import FunctionQuestion, ValueQuestion, variant
from interp_kit.course.puzzles.puzzle import normal

CITIES = [
    "Newark", "Norfolk", "Savannah", "Eugene", "Omaha", "Racine", "Detroit", "Chicago", "Buffalo", "Stamford",
    "Anchorage", "Seattle",
]  # fmt: skip
SECRET = ["Los Angeles", "San Diego", "Fort Collins", "New Haven", "Cape Coral", "Erie", "Memphis", "Akron"]
KINDS = ["feature"] * 4 + ["error"] * 3 + ["embedding"] * 2 + ["logit"] * 2  # of a small graph, in the kit's order


@cache
def model() -> ik.LanguageModel:
    return ik.load_model("pocket")


@cache
def transcoder():
    return ik.load_transcoder("pocket")


def prompt(city: str) -> str:
    return f"The capital of the state containing {city} is"


@cache
def graph_of(city: str) -> ik.AttributionGraph:
    return ik.attribute(model(), transcoder(), prompt(city))


# ---------------------------------------------------------------------- q1: influence


def influence(adjacency: Tensor, probability: Tensor) -> Tensor:
    """adjacency [target, source], probability [node] (0 but for logits) -> how much each node feeds the logits over
    all paths [node]"""
    share = torch.zeros_like(adjacency)
    for target, row in enumerate(adjacency):
        if row.abs().sum() > 0:
            share[target] = row.abs() / row.abs().sum()
    total, passed_on = torch.zeros_like(probability), probability
    for _ in range(len(adjacency)):  # no path has more edges than there are nodes
        passed_on = passed_on @ share
        total = total + passed_on
    return total


def all_paths(share: Tensor, probability: Tensor) -> Tensor:
    """What influence would be with other shares than those that are meant."""
    return probability @ sum(torch.linalg.matrix_power(share, hops) for hops in range(1, len(share)))


def draw_graph(draw: random.Random) -> tuple[Tensor, Tensor]:
    """A small graph in the kit's order, with edges of both signs, and the logits' probabilities."""
    n = len(KINDS)
    from_below = [i for i in range(n) if KINDS[i] in ("error", "embedding")] + [0, 1, 2, 3, 9, 10]
    adjacency = torch.zeros(n, n)
    for place in range(5, n):
        for source in from_below[: min(place, 9)]:  # logits feed nothing
            if draw.random() < 0.75:
                adjacency[from_below[place], source] = normal(draw, 1)[0] * 3
    probability = torch.zeros(n)
    probability[9], probability[10] = 0.5 + 0.3 * draw.random(), 0.1
    return adjacency, probability


def size(adjacency: Tensor, dim: int = 1) -> Tensor:
    return adjacency.abs().sum(dim, keepdim=True).clamp(min=1e-10)


INFLUENCE = FunctionQuestion(
    "q1",
    "influence",
    influence,
    {
        "These are direct edges to the logits only: a node also feeds them by way of others.": (
            lambda a, p: p @ (a.abs() / size(a))
        ),
        "Signs are kept, so paths cancel. Influence asks how much passes, whichever way it pushes.": (
            lambda a, p: all_paths(a / size(a), p)
        ),
        "Here each source's edges add up to one. What counts is which part of a target's inputs an edge is.": (
            lambda a, p: all_paths(a.abs() / size(a, 0), p)
        ),
        "The weights are not normalised: a large edge into a target that gets much is a small share.": (
            lambda a, p: all_paths(a.abs(), p)
        ),
        "The logits' own probabilities are counted in: the sum begins with paths of one edge.": (
            lambda a, p: influence(a, p) + p
        ),
        "This walks from sources to targets. Begin at the logits, and hand on to what feeds them.": (
            lambda a, p: all_paths((a.abs() / size(a)).T, p)
        ),
    },
    draw_graph,
)


# ---------------------------------------------------------------------- q2: completeness


def completeness(adjacency: Tensor, kinds: list[str], reach: Tensor) -> float:
    """adjacency [target, source], kinds [node], reach [node] -> which part of the inputs of features and logits comes
    from what we can read, each counting as far as it reaches"""
    explained, weights = 0.0, 0.0
    for target, row in enumerate(adjacency):
        if kinds[target] not in ("feature", "logit"):
            continue
        unread = sum(abs(float(edge)) for edge, kind in zip(row, kinds) if kind == "error")
        explained += float(reach[target]) * (1 - unread / float(row.abs().sum()))
        weights += float(reach[target])
    return explained / weights


def by_target(adjacency: Tensor, kinds: list[str]) -> tuple[Tensor, Tensor]:
    """The part of each node's inputs that is no error, and which nodes have inputs."""
    is_error = torch.tensor([kind == "error" for kind in kinds])
    has_inputs = torch.tensor([kind in ("feature", "logit") for kind in kinds])
    return 1 - adjacency.abs()[:, is_error].sum(1) / size(adjacency)[:, 0], has_inputs


def unweighted(adjacency: Tensor, kinds: list[str], reach: Tensor) -> float:
    good, has_inputs = by_target(adjacency, kinds)
    return float(good[has_inputs].mean())


def over_all_nodes(adjacency: Tensor, kinds: list[str], reach: Tensor) -> float:
    good, _ = by_target(adjacency, kinds)
    return float(good @ reach / reach.sum())


def pooled(adjacency: Tensor, kinds: list[str], reach: Tensor) -> float:
    good, has_inputs = by_target(adjacency, kinds)
    counts = (reach * size(adjacency)[:, 0])[has_inputs]
    return float(good[has_inputs] @ counts / counts.sum())


def with_signs(adjacency: Tensor, kinds: list[str], reach: Tensor) -> float:
    is_error, (_, has_inputs) = torch.tensor([kind == "error" for kind in kinds]), by_target(adjacency, kinds)
    good = 1 - (adjacency[:, is_error].sum(1) / adjacency.sum(1))[has_inputs]
    return float(good @ reach[has_inputs] / reach[has_inputs].sum())


def draw_scored(draw: random.Random) -> tuple:
    while True:
        adjacency, probability = draw_graph(draw)
        if all(adjacency[target].any() for target in (0, 1, 2, 3, 9, 10)):
            return adjacency, list(KINDS), influence(adjacency, probability) + probability


COMPLETENESS = FunctionQuestion(
    "q2",
    "completeness",
    completeness,
    {
        "Every target counts alike here. One that hardly reaches the answer hardly counts: use reach.": unweighted,
        "Errors and tokens are counted as targets. They have no inputs, so they would always be complete.": (
            over_all_nodes
        ),
        "This is the part that comes from errors; the rest of the inputs is asked.": (
            lambda a, kinds, reach: 1 - completeness(a, kinds, reach)
        ),
        "The edges of all targets are added up before dividing. Take each target's share first.": pooled,
        "Edges of opposite sign cancel here. An input that pushes down is an input too.": with_signs,
    },
    draw_scored,
)


# ---------------------------------------------------------------------- q3: the strongest path


def strongest_path(share: Tensor) -> list[int]:
    """share [target, source] of a graph whose nodes are numbered upwards, 0 the token and the last one the logit -> the
    nodes of the path between the two whose shares have the largest product"""
    last = len(share) - 1
    best, found = 0.0, []
    for between in (some for n in range(last) for some in combinations(range(1, last), n)):
        path = [0, *between, last]
        strength = prod(float(share[target, source]) for source, target in pairwise(path))
        if strength > best:
            best, found = strength, path
    return found


def best_path(share: Tensor, value) -> list[int]:
    """The path with the largest value of its list of shares."""
    last = len(share) - 1
    paths = [[0, *some, last] for n in range(last) for some in combinations(range(1, last), n)]
    steps = {tuple(path): [float(share[target, source]) for source, target in pairwise(path)] for path in paths}
    there = [path for path in paths if min(steps[tuple(path)]) > 0]
    return max(there, key=lambda path: value(steps[tuple(path)]))


def greedy(share: Tensor, upwards: bool) -> list[int]:
    path = [0 if upwards else len(share) - 1]
    while path[-1] != (len(share) - 1 if upwards else 0):
        path.append(int((share[:, path[-1]] if upwards else share[path[-1]]).argmax()))
    return path if upwards else path[::-1]


def draw_shares(draw: random.Random) -> tuple:
    """Rows add up to less than one: the rest comes from errors. There is no edge from the token to the logit."""
    n = draw.randint(6, 8)
    share = torch.zeros(n, n)
    for target in range(1, n):
        for source in range(target):
            if source == target - 1 or draw.random() < 0.7:
                share[target, source] = 0.05 + draw.random() ** 2
    share[n - 1, 0] = 0
    return (share / share.sum(1, keepdim=True).clamp(min=1e-10) * (0.7 + 0.2 * draw.random()),)


PATH = FunctionQuestion(
    "q3",
    "strongest_path",
    strongest_path,
    {
        "This takes the largest step at each node on the way up. A weaker first step may lead to a stronger path.": (
            lambda share: greedy(share, upwards=True)
        ),
        "This takes the largest input at each node on the way down. A weaker last step may end a stronger path.": (
            lambda share: greedy(share, upwards=False)
        ),
        "This path has the largest sum of shares. A long path of weak steps has a large sum and a small product.": (
            lambda share: best_path(share, sum)
        ),
        "This runs from the logit down to the token; the path is asked from the token up.": (
            lambda share: strongest_path(share)[::-1]
        ),
        "This is the shortest path. A longer one is stronger where its steps are.": (
            lambda share: best_path(share, lambda steps: (-len(steps), prod(steps)))
        ),
    },
    draw_shares,
)


# ---------------------------------------------------------------------- q4: what holds half of it


def hold_half(graph: ik.AttributionGraph) -> set[str]:
    """The ids of the fewest features at the city's last token that hold half of the influence of all features there."""
    city = len(graph.tokens) - 2
    here = graph.features[graph.features["position"] == city].sort_values("influence", ascending=False)
    enough = here["influence"].sum() / 2
    found, held = set(), 0.0
    for row in here.itertuples():
        if held >= enough:
            break
        found.add(row.id)
        held += row.influence
    return found


def first_half(nodes, by: str = "influence", short: bool = False) -> set[str]:
    """The ids of the first of these nodes that hold half of what they all have."""
    nodes = nodes.sort_values(by, ascending=False, key=abs)
    before = nodes[by].abs().cumsum() - (0 if short else nodes[by].abs())
    return set(nodes["id"][before < nodes[by].abs().sum() / 2])


def at(nodes, position: int):
    return nodes[nodes["position"] == position]


@cache
def small_graph(city: str) -> ik.AttributionGraph:
    """Pruned, which leaves the influence as it was: a file of it is small."""
    return graph_of(city).prune(0.95, 0.9)


HALF = FunctionQuestion(
    "q4",
    "hold_half",
    hold_half,
    {
        "This is one feature short: with the one that crosses the half, they hold half of it.": (
            lambda graph: first_half(at(graph.features, len(graph.tokens) - 2), short=True)
        ),
        "Error nodes and the token are counted too. What holds half of the features' influence is asked.": (
            lambda graph: first_half(at(graph.nodes, len(graph.tokens) - 2))
        ),
        "These are features of the last word; the city's last token stands before it.": (
            lambda graph: first_half(at(graph.features, len(graph.tokens) - 1))
        ),
        "These are at position 7. A city of two tokens ends later: count from the end.": (
            lambda graph: first_half(at(graph.features, 7))
        ),
        "These are sorted by activation. A feature may be strongly on and feed nothing that matters.": (
            lambda graph: first_half(at(graph.features, len(graph.tokens) - 2), by="activation")
        ),
        "Features of all positions are in it; only those at the city's last token are asked.": (
            lambda graph: first_half(graph.features)
        ),
    },
    lambda draw: (small_graph(draw.choice(SECRET)),),
)


# ---------------------------------------------------------------------- q5: an edge through attention


def through_heads(
    written: Tensor, reads: Tensor, pattern: Tensor, w_v: Tensor, w_o: Tensor, rms: Tensor, source: int, target: int
) -> Tensor:
    """written [d_model] at position source, reads [d_model] at position target, pattern [head, query, key], w_v [head,
    d_head, d_model], w_o [head, d_model, d_head], rms [position] -> what each head carries of the edge [head]"""
    found = []
    for head in range(len(pattern)):
        value = w_v[head] @ (written / rms[source])
        arrives = w_o[head] @ value * pattern[head, target, source]
        found.append(reads @ arrives)
    return torch.stack(found)


def draw_heads(draw: random.Random) -> tuple:
    heads, positions, width = draw.randint(2, 4), draw.randint(4, 6), 6
    target = draw.randint(2, positions - 1)
    scores = normal(draw, heads, positions, positions)
    pattern = scores.masked_fill(torch.ones(positions, positions).triu(1).bool(), -torch.inf).softmax(-1)
    w_v, w_o, rms = normal(draw, heads, 3, width), normal(draw, heads, width, 3), 0.5 + normal(draw, positions).abs()
    return normal(draw, width), normal(draw, width), pattern, w_v, w_o, rms, draw.randint(0, target - 1), target


HEADS = FunctionQuestion(
    "q5",
    "through_heads",
    through_heads,
    {
        "The pattern is read the wrong way round: the target's position asks, the source's is looked at.": (
            lambda written, reads, pattern, w_v, w_o, rms, source, target: through_heads(
                written, reads, pattern.transpose(1, 2), w_v, w_o, rms, source, target
            )
        ),
        "This divides by the norm at the target's position. The head reads where the source writes.": (
            lambda written, reads, pattern, w_v, w_o, rms, source, target: (
                through_heads(written, reads, pattern, w_v, w_o, rms, source, target) * rms[source] / rms[target]
            )
        ),
        "The norm is missing: a head reads the stream divided by its rms.": (
            lambda written, reads, pattern, w_v, w_o, rms, source, target: through_heads(
                written, reads, pattern, w_v, w_o, torch.ones_like(rms), source, target
            )
        ),
        "What was written is divided by its own size. The norm is frozen: it divides by the whole stream's rms.": (
            lambda written, reads, pattern, w_v, w_o, rms, source, target: through_heads(
                written, reads, pattern, w_v, w_o, written.pow(2).mean().sqrt().expand(len(rms)), source, target
            )
        ),
        "The pattern is missing: a head brings as much as it looks.": (
            lambda written, reads, pattern, w_v, w_o, rms, source, target: through_heads(
                written, reads, torch.ones_like(pattern), w_v, w_o, rms, source, target
            )
        ),
        "This is the sum of the heads; what each one carries is asked.": (
            lambda *given: through_heads(*given).sum(0, keepdim=True)
        ),
    },
    draw_heads,
)


# ---------------------------------------------------------------------- q6, q7: your own city, on pocket


def your_city(student: str) -> tuple[str]:
    return (variant(student, "graph city", CITIES),)


def errors_at_city(city: str) -> float:
    graph = graph_of(city)
    inputs = graph.embeddings["influence"].sum() + graph.errors["influence"].sum()
    return float(at(graph.errors, len(graph.tokens) - 2)["influence"].sum() / inputs)


def part_of(city: str, errors: str = "city", whole: str = "inputs") -> float:
    graph = graph_of(city)
    here = {"city": at(graph.errors, len(graph.tokens) - 2), "all": graph.errors}
    here["layer 0"] = here["city"][here["city"]["layer"] == 0]
    wholes = {"errors": graph.errors, "nodes": graph.nodes, "tokens": graph.embeddings}
    wholes["inputs"] = graph.nodes[graph.nodes["kind"].isin(["embedding", "error"])]
    return float(here[errors]["influence"].sum() / wholes[whole]["influence"].sum())


UNREAD = ValueQuestion(
    "q6",
    "unread",
    errors_at_city,
    {
        "These are the errors of all positions; those at the city's word are asked.": lambda city: part_of(city, "all"),
        "This is their part of the errors' influence. The whole is all that starts at tokens or at errors.": (
            lambda city: part_of(city, whole="errors")
        ),
        "This divides by all nodes' influence. What passes a feature has started at a token or an error already.": (
            lambda city: part_of(city, whole="nodes")
        ),
        "This divides by what starts at tokens; what starts at errors belongs to the whole too.": (
            lambda city: part_of(city, whole="tokens")
        ),
        "This is one error node, that of layer 0; every layer has one.": lambda city: part_of(city, "layer 0"),
    },
    your_city,
)


def crossing_edge(city: str):
    """The strongest edge from a feature at the city's word to one at the last word."""
    graph = graph_of(city)
    last, features = len(graph.tokens) - 1, graph.features
    of_city, of_last = (features["id"][features["position"] == position] for position in (last - 1, last))
    edges = graph.edges
    return edges[edges["source"].isin(of_city) & edges["target"].isin(of_last)].iloc[0]


def measured(city: str, factor: float = 0.0, **how) -> float:
    """By how much the edge's target changes when its source is switched off."""
    edge = crossing_edge(city)
    off = ik.Steer(edge["source"], factor=factor)
    result = ik.intervene(model(), transcoder(), prompt(city), off, **how)
    layer, feature, position = ik.graphs.NodeId.parse(edge["target"])
    before, after = (run.preactivations[layer][position, feature] for run in (result.before, result.after))
    return float(after - before)


HELD = ValueQuestion(
    "q7",
    "held",
    lambda city: measured(city) / -float(crossing_edge(city)["weight"]),
    {
        "This is the frozen world, in which every edge holds. Let the later MLPs react.": (
            lambda city: measured(city, constrained_layers=range(6)) / -float(crossing_edge(city)["weight"])
        ),
        "The sign is turned: without its source the edge claims a change of minus its weight.": (
            lambda city: measured(city) / float(crossing_edge(city)["weight"])
        ),
        "This is the measured change itself; which part it is of the claimed one is asked.": measured,
        "This is the claimed change divided by the measured one; the other way round is asked.": (
            lambda city: -float(crossing_edge(city)["weight"]) / measured(city)
        ),
        "The source is pushed the other way (-1). To switch it off, multiply by 0.": (
            lambda city: measured(city, factor=-1.0) / -float(crossing_edge(city)["weight"])
        ),
    },
    your_city,
)

QUESTIONS = [INFLUENCE, COMPLETENESS, PATH, HALF, HEADS, UNREAD, HELD]
