"""Put another place's features in a place's stead, and see whether the answer becomes the other's.

    python benchmarks/swap.py           a minute on two cores

On pocket, where the truth is known: 200 times a question about a city's capital that training never asked ("The capital
of the state containing Dallas is"), and another place of the same kind. The features that detect the question's place
are switched off, and those of the other place switched on, once or twice as strongly as in a question about it. The
answer should become the other's capital. The control switches off as many other active features at the same positions,
and switches on as many random ones, at the same positions and layers and with the same norm of what they write.
"""

import random
from collections import Counter
from dataclasses import replace

import interp_kit as ik
from interp_kit.graphs import NodeId

QUESTIONS = 200
STRENGTHS = (1.0, 2.0)  # times the activation in a question about the other place


def features_of(place, graph, concepts):
    """The graph's features that detect a place, by the known truth: [node id]."""
    found = graph.features
    return [n.id for n in found.itertuples() if concepts.get((n.layer, n.feature)) == f"place:{place}"]


def written_norm(transcoder, layer, feature):
    return float(transcoder.W_dec[transcoder.layers.index(layer)][feature].norm())


def control(graph, transcoder, steers, concepts, place, rng):
    """As many changes at the same layers and positions, of features that have nothing to do with the places."""
    taken, random_steers = {s.node for s in steers}, []
    table = graph.features
    for steer in steers:
        layer, feature, position = NodeId.parse(steer.node)
        if steer.value == 0:
            here = table[(table["position"] == position) & ~table["id"].isin(taken)]
            here = [n.id for n in here.itertuples() if concepts.get((n.layer, n.feature)) != f"place:{place}"]
            if here:
                random_steers.append(replace(steer, node=rng.choice(here)))
                taken.add(random_steers[-1].node)
        else:
            other = rng.randrange(transcoder.n_features_per_layer[transcoder.layers.index(layer)])
            norms = (written_norm(transcoder, layer, f) for f in (feature, other))
            scale = next(norms) / next(norms)
            random_steers.append(ik.Steer(NodeId(layer, other, position), value=steer.value * scale))
    return random_steers


def is_answer(model, table, answer):
    return table["token"].iloc[0] == model.tokens(model.encode("is " + answer))[2]


def main():
    model, transcoder, world = ik.load_model("pocket"), ik.load_transcoder("pocket"), ik.load_world()
    features = ik.load_features("pocket").features
    concepts = {(f.layer, f.feature): f.concept for f in features.itertuples() if f.F1 > 0}
    rng = random.Random(0)
    asked = [q for q in world.questions(held_out=True) if q.relation == "capital"]
    about = {q.place: q for held_out in (False, True) for q in world.questions(held_out) if q.relation == "capital"}
    swapped, controlled, silent, changes = Counter(), Counter(), 0, 0
    for number in range(QUESTIONS):
        question = asked[number % len(asked)]
        other = rng.choice([q for p, q in about.items() if world.kind_of[p] == world.kind_of[question.place]
                            and q.answer != question.answer])  # fmt: skip
        graph, others = (ik.attribute(model, transcoder, q.prompt) for q in (question, other))
        off, on = features_of(question.place, graph, concepts), features_of(other.place, others, concepts)
        silent += not (off and on)
        for strength in STRENGTHS:
            steers = ik.swap(graph, off, others, on, strength)
            table = ik.intervene(model, transcoder, question.prompt, steers).table
            swapped[strength] += is_answer(model, table, other.answer)
            random_steers = control(graph, transcoder, steers, concepts, question.place, rng)
            table = ik.intervene(model, transcoder, question.prompt, random_steers).table
            controlled[strength] += is_answer(model, table, other.answer)
        changes += len(steers)
    print(f"{QUESTIONS} questions, {changes / QUESTIONS:.1f} features changed in each")
    for strength in STRENGTHS:
        shares = (f"{count[strength] / QUESTIONS:.1%}" for count in (swapped, controlled))
        print("strength {}: the answer becomes the other's capital {}, control {}".format(strength, *shares))
    print(f"questions where one of the places had no feature of its own: {silent}")


if __name__ == "__main__":
    main()
