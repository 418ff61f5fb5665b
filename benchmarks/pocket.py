"""The README's numbers about the pocket model and its transcoder, measured again from what ships.

python benchmarks/pocket.py         about five minutes on two cores
"""

import random

import interp_kit as ik
from interp_kit.studies.recovery import recover_concepts
from recipes.build import graded_sentences, report

PROMPT = "The capital of the state containing Dallas is"


def steps_found(model, transcoder, world, n=100):
    """Of n held-out questions: in how many pruned graphs a feature is named after the right place, and in how many the
    strongest path of the city's last token, of at most three edges and of any length, runs through it."""
    features = ik.load_features("pocket")
    labels = ik.load_labels("pocket")
    questions = world.questions(held_out=True)
    random.Random(0).shuffle(questions)
    named, through = 0, {3: 0, None: 0}
    for question in questions[:n]:
        graph = ik.attribute(model, transcoder, question.prompt).annotate(features, labels).prune()
        named += (graph.nodes["label"] == question.place).any()
        for longest in through:
            paths = graph.paths(longest=longest)
            city = paths[paths["position"] == len(graph.tokens) - 2]  # the prompt ends "... <city> is"
            through[longest] += int(city["steps"].str.contains(f" → {question.place} → ", regex=False).any())
    return named, through


def main():
    model, transcoder, world = ik.load_model("pocket"), ik.load_transcoder("pocket"), ik.load_world()
    recovery = recover_concepts(model, {"cross-layer": transcoder}, *graded_sentences(world))
    numbers = report(model, transcoder, world, recovery)
    places = recovery.table[recovery.table["kind"] == "place"]
    numbers |= numbers.pop("transcoder")
    del numbers["recovered"]  # a table, printed below
    for name, value in numbers.items():
        print(f"{name:45} {value:.4f}")
    print(f"\nF1 of the best feature of each place:\n{places['F1'].describe().round(3).to_string()}")
    print(f"\nThe weakest:\n{places.sort_values('F1').head(12).to_string(index=False)}")
    named, through = steps_found(model, transcoder, world)
    print(f"\n{recovery}")
    print(f"\nOf 100 held-out questions: graphs naming the place {named}, best path of the city through it {through}")
    graph = ik.attribute(model, transcoder, PROMPT)
    print(f"\n{graph}\n" + "\n".join(f"{name:25} {value:.3f}" for name, value in graph.scores.items()))


if __name__ == "__main__":
    main()
