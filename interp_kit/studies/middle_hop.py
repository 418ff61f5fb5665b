"""Does a graph keep the middle hop, or does it go straight from the city to the answer?

Cross-layer transcoders may rewrite A -> B -> C as A -> C, since that takes fewer features (Lange et al. 2026). Where
the concepts are known, it can be counted: of what a city's tokens contribute to the answer, over all paths and with
their signs, how much passes features of the city's place? Beside it stands what the model itself does.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ..graphs import AttributionGraph
from ..graphs.attribution import attribute
from ..graphs.influence import contributions
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.edits import Edit, Edits, record
from ..transcoders import CrossLayerTranscoder
from ..widgets.progress import ProgressBar
from ..worlds import Geography, Question

N_CITIES = 8  # of one place, and of others, whose means are put in


@checked
def middle_hop(
    model: LanguageModel,
    transcoder: CrossLayerTranscoder,
    world: Geography,
    questions: Sequence[Question],
    detectors: pd.DataFrame,
) -> pd.DataFrame:
    """For each question, what the city's tokens contribute to the answer rather than the answers for other places (the
    logit less the mean of theirs; over all paths, with signs), and how much of that passes features of the place.

    detectors: columns layer, feature and concept ("place:Texas"), such as `Recovery.detectors` or the table of a
        FeatureStore that knows them.

    Columns: prompt, place, answer (its first token), total, through (the part that passes), share (through of total),
    features (of the place, that are on). A share may lie outside 0 to 1, where ways cancel: look at medians.

    >>> questions = world.questions(held_out=True)[:50]
    >>> ik.studies.middle_hop(model, clt, world, questions, features.features)["share"].median()
    """
    of_place = detectors.dropna(subset=["concept"]).groupby("concept")[["layer", "feature"]]
    known = {name: set(rows.itertuples(index=False, name=None)) for name, rows in of_place}
    rows = []
    for question in ProgressBar(questions, desc="graphs", delay=1, leave=False):
        target = answer_token(model, question)
        graph = attribute(model, transcoder, question.prompt, target, rivals(model, world, question))
        features = known.get(f"place:{question.place}", set())
        is_place = np.array(
            [n.kind == "feature" and (n.layer, n.feature) in features for n in graph.nodes.itertuples()]
        )
        total, around = (_from_city(model, graph, question, without) for without in (None, is_place))
        rows.append((question.prompt, question.place, model.decode([target]), total, total - around, is_place.sum()))
    table = pd.DataFrame(rows, columns=["prompt", "place", "answer", "total", "through", "features"])
    table.insert(5, "share", table["through"] / table["total"])
    return table


def _from_city(model: LanguageModel, graph: AttributionGraph, question: Question, without: np.ndarray | None) -> float:
    """What the city's tokens contribute to the answer; by ways around the nodes `without` [node], where given."""
    adjacency = graph.adjacency if without is None else np.where(without[:, None], 0, graph.adjacency)
    zeros = np.zeros(len(adjacency))
    activations = np.nan_to_num(graph.nodes["activation"].to_numpy(float))
    effects, _ = contributions(adjacency, graph.layers, activations, zeros, int(graph.logits.index[0]))
    is_city = (graph.kinds == "embedding") & graph.nodes["position"].isin(city_positions(model, question)).to_numpy()
    return float(effects[is_city].sum())


@checked
@torch.no_grad()
def hop_in_model(model: LanguageModel, world: Geography, questions: Sequence[Question], seed: int = 0) -> pd.DataFrame:
    """What the place alone carries in the model: the stream at the city's last token is replaced, before each layer, by
    the mean over other cities of the same place, and by that over cities of other places.

    Columns: prompt, layer, clean, same_place and other_places (the logit as in `middle_hop`), share: how much
    of what the other places' mean takes away the same place's mean leaves. 1: whatever the model takes from this token
    it takes from what the cities of a place have in common. Questions whose place has no second city are left out.

    >>> ik.studies.hop_in_model(model, world, questions).groupby("layer")["share"].median()
    """
    rng, rows = np.random.default_rng(seed), []
    for question in ProgressBar(questions, desc="patching", delay=1, leave=False):
        others = {place: [] for place in ("same", "other")}
        for city, place in world.place_of.items():
            if city != question.city:
                others["same" if place == question.place else "other"].append(city)
        if not others["same"]:
            continue
        means = [_mean_stream(model, question, rng.permutation(cities)[:N_CITIES]) for cities in others.values()]
        against = rivals(model, world, question)
        ids, at, target = (
            model.encode(question.prompt),
            city_positions(model, question)[-1],
            answer_token(model, question),
        )
        versions = [
            [Edit("residual", layer, mean[layer], slice(at, at + 1))]
            for mean in means
            for layer in range(model.n_layers)
        ]
        logits = Edits([[], *versions]).run(model.hf, ids.expand(1 + len(versions), -1))[:, -1]
        values = (logits[:, target] - logits[:, against].mean(-1)).double().tolist()
        for layer in range(model.n_layers):
            rows.append((question.prompt, layer, values[0], values[1 + layer], values[1 + model.n_layers + layer]))
    table = pd.DataFrame(rows, columns=["prompt", "layer", "clean", "same_place", "other_places"])
    kept, taken = table["same_place"] - table["other_places"], table["clean"] - table["other_places"]
    return table.assign(share=kept / taken)


def _mean_stream(model: LanguageModel, question: Question, cities: np.ndarray) -> torch.Tensor:
    """[layer, d_model]: the stream before each layer at the last token of other cities, asked alike."""
    found = []
    for city in cities.tolist():
        asked = Question(question.prompt.replace(question.city, city), "", city, "", "")
        stream = record(model.hf, model.encode(asked.prompt), ["residual"])["residual"]
        found.append(stream[:, city_positions(model, asked)[-1]])
    return torch.stack(found).mean(0)


def city_positions(model: LanguageModel, question: Question) -> list[int]:
    """Of the tokens of the question's city."""
    start = question.prompt.index(question.city)
    before = len(model.encode(question.prompt[:start].rstrip()))
    return list(range(before, len(model.encode(question.prompt[: start + len(question.city)]))))


def answer_token(model: LanguageModel, question: Question) -> int:
    """The id of the answer's first token, after the prompt."""
    prompt = len(model.encode(question.prompt))
    return int(model.encode(f"{question.prompt} {question.answer}")[prompt])


def rivals(model: LanguageModel, world: Geography, question: Question) -> list[int]:
    """The first tokens of what the same relation gives for other places, but for the answer's own."""
    answers = {facts[question.relation] for facts in world.facts.values() if question.relation in facts}
    tokens = {answer_token(model, Question(question.prompt, answer, "", "", "")) for answer in answers}
    return sorted(tokens - {answer_token(model, question)})
