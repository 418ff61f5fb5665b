"""Every public function that takes a model, with models of every precision, and on a GPU where there is one.

Which functions those are is found by looking at all rooms, so that a new one without a row here fails.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from functools import cached_property
from types import SimpleNamespace

import elsewhere
import pandas as pd
import pytest
import torch
from tiny import tiny_model, tiny_texts, tiny_transcoder

import interp_kit as ik
from interp_kit.models import Target

ROOMS = ("features", "graphs", "lenses", "lit", "models", "studies", "transcoders", "worlds")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
PROMPT, OTHER = "the capital of Texas is", "the capital of Ohio is"


class Given:
    """What the functions are asked with, made once for a precision and a device."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu"):
        self.dtype, self.device, self.texts = dtype, device, tiny_texts(20)
        self.model = self.moved(tiny_model())
        self.transcoder = tiny_transcoder(self.model)

    def moved(self, model: ik.LanguageModel) -> ik.LanguageModel:
        if self.device == elsewhere.DEVICE:
            elsewhere.moved(model.hf.to(self.dtype))
        else:
            model.hf.to(device=self.device, dtype=self.dtype)
        return model

    @cached_property
    def store(self) -> ik.FeatureStore:
        return ik.collect_features(self.model, self.transcoder, self.texts, n_examples=3)

    @cached_property
    def labels(self) -> pd.DataFrame:
        return ik.label_features(self.store)

    @cached_property
    def graph(self) -> ik.AttributionGraph:
        return ik.attribute(self.model, self.transcoder, PROMPT)

    @cached_property
    def world(self) -> ik.worlds.Geography:
        return ik.load_world("geography")

    @cached_property
    def pocket(self) -> SimpleNamespace:
        """What tells of the world needs a model that knows its words."""
        model, transcoder = ik.load_model("pocket"), ik.load_transcoder("pocket")
        assert model.fingerprint == transcoder.config.model["fingerprint"]  # kept, when what is moved is also rounded
        model = self.moved(model)
        return SimpleNamespace(
            model=model, transcoder=transcoder, features=ik.load_features("pocket"), labels=ik.load_labels("pocket")
        )


def recover(given: Given):
    train, test = given.world.sentences(60, "train"), given.world.sentences(60, "test")
    neurons = {"neurons": ik.features.Neurons(given.pocket.model)}
    return ik.studies.recover_concepts(given.pocket.model, neurons, train, test)


def grade(given: Given):
    p = given.pocket
    return ik.studies.grade_lenses(p.model, given.world, p.transcoder, p.features, p.labels, n=1)


def frontier(given: Given):
    options = {"ks": (2,), "kinds": ("per-layer",), "n_features": 16, "steps": 2}
    return ik.studies.frontier(given.model, given.texts, given.texts, [PROMPT], **options)


CASES: dict[str, Callable[[Given], object]] = {
    "features.Neurons": lambda g: ik.collect_features(g.model, ik.features.Neurons(g.model), g.texts, n_examples=3),
    "features.RandomDirections": lambda g: ik.collect_features(
        g.model, ik.features.RandomDirections(g.model, 6), g.texts, n_examples=3
    ),
    "features.collect_features": lambda g: g.store,
    "features.neuron_examples": lambda g: ik.features.neuron_examples(g.model, 1, 2, g.texts),
    "features.score_labels": lambda g: ik.score_labels(g.store, g.labels, judge="model", model=g.model, only=[(1, 2)]),
    "features.steering_scores": lambda g: ik.features.steering_scores(
        g.model, g.transcoder, g.store, g.labels, only=[(1, 2)]
    ),
    "graphs.attribute": lambda g: g.graph,
    "graphs.browse_heads": lambda g: ik.graphs.browse_heads(g.graph.prune(), g.model, g.transcoder),
    "graphs.grade_edges": lambda g: ik.graphs.grade_edges(g.model, g.transcoder, [g.graph.believe()], n_sources=2),
    "graphs.head_loadings": lambda g: ik.graphs.head_loadings(g.graph.prune(), g.model, g.transcoder),
    "graphs.qk_attribution": lambda g: ik.graphs.qk_attribution(g.model, g.transcoder, PROMPT, 2, 1, key=2),
    "graphs.intervene": lambda g: ik.intervene(
        g.model, g.transcoder, PROMPT, ik.Steer(ik.graphs.NodeId(1, 2), add=2.0, positions=slice(2, None)), generate=3
    ),
    "graphs.validate": lambda g: ik.validate(g.graph, g.model, g.transcoder),
    "lenses.ablate": lambda g: [
        ik.lenses.ablate(g.model, PROMPT, how=how, texts=g.texts[:4]) for how in ("zero", "mean", "resample")
    ],
    "lenses.attention_patterns": lambda g: ik.lenses.attention_patterns(g.model, PROMPT),
    "lenses.calibration": lambda g: ik.lenses.calibration(g.model, g.texts),
    "lenses.compare_explanations": lambda g: ik.lenses.compare_explanations(
        g.model, pd.DataFrame({"prompt": [PROMPT], "target": "Austin", "contrast": "Ohio", "matters": [["Texas"]]}),
        ["gradient", "input_x_gradient", "occlusion", "shapley", "attention", "rollout"], "zero", "mean",
    ),
    "lenses.cot_faithfulness": lambda g: ik.lenses.cot_faithfulness(g.pocket.model, ik.lenses.stories(g.world, 2)),
    "lenses.decompose": lambda g: [ik.lenses.decompose(g.model, PROMPT, position=p) for p in (-1, "all")],
    "lenses.explain_tokens": lambda g: [
        ik.lenses.explain_tokens(g.model, PROMPT, method=method, baseline=baseline)
        for method, baseline in (("integrated_gradients", "boundary"), ("shap", "mean"), ("lime", "zero"))
    ],
    "lenses.JacobianLens": lambda g: ik.lenses.fit_jacobian_lens(g.model, g.texts[:3]).read(g.model, PROMPT),
    "lenses.fit_jacobian_lens": lambda g: ik.lenses.fit_jacobian_lens(g.model, g.texts[:3]),
    "lenses.logit_lens": lambda g: ik.lenses.logit_lens(g.model, PROMPT),
    "lenses.logprobs": lambda g: [
        ik.lenses.logprobs(g.model, PROMPT), ik.lenses.logprobs(g.model, prompt=PROMPT, max_new_tokens=3)
    ],
    "lenses.patch_activations": lambda g: [
        ik.lenses.patch_activations(g.model, PROMPT, OTHER, what, "Austin", "Ohio")
        for what in ("residual", "attention", "MLP", "heads")
    ],
    "lenses.reliance": lambda g: ik.lenses.reliance(
        g.pocket.model, g.pocket.transcoder, ik.lenses.stories(g.world, 1), times=1
    ),
    "lenses.side_by_side": lambda g: ik.side_by_side(
        g.pocket.model, "Dallas is a city in", transcoder=g.pocket.transcoder, features=g.pocket.features
    ),
    "models.LanguageModel": lambda g: [
        g.model.next_tokens(PROMPT), g.model.complete(PROMPT, 3), g.model.logits([0, 3]), g.model.tokens(PROMPT)
    ],
    "models.Target": lambda g: Target.of(g.model, None, "Ohio", g.model.logits(PROMPT)[-1]),
    "studies.frontier": frontier,
    "studies.grade_lenses": grade,
    "studies.hop_in_model": lambda g: ik.studies.hop_in_model(g.pocket.model, g.world, g.world.questions(True)[:1]),
    "studies.middle_hop": lambda g: ik.studies.middle_hop(
        g.pocket.model, g.pocket.transcoder, g.world, g.world.questions(True)[:1], g.pocket.features.features
    ),
    "studies.polysemanticity": lambda g: ik.studies.polysemanticity(
        g.pocket.model, {"neurons": ik.features.Neurons(g.pocket.model)}, g.world.sentences(60, "test")
    ),
    "studies.recover_concepts": recover,
    "studies.two_hop_accuracy": lambda g: ik.studies.two_hop_accuracy(g.pocket.model, g.world.questions(True)[:4]),
    "transcoders.CrossLayerTranscoder": lambda g: g.transcoder.check_model(g.model),
    "transcoders.evaluate_transcoder": lambda g: ik.evaluate_transcoder(g.model, g.transcoder, g.texts),
    "transcoders.plan_training": lambda g: ik.plan_training(g.model, 64, tokens=1e4, devices="T4"),
    "transcoders.train_transcoder": lambda g: [
        ik.train_transcoder(g.model, g.texts, n_features=16, steps=3, batch=16, activation=activation)
        for activation in ("topk", "batchtopk", "jumprelu")
    ],
}  # fmt: skip
# A blank cell of the table, and its reason.
BLANK = {
    "lit.open_lit": "a process in an environment of its own, which loads the model anew: tests/lit",
    "features.LLM": "its model is a service's name",
    "transcoders.TranscoderConfig": "its model is a note about one",
}


def takes_a_model(thing: object) -> bool:
    if inspect.isfunction(thing):
        return "model" in inspect.signature(thing).parameters
    members = [getattr(member, "__func__", member) for member in vars(thing).values()] if inspect.isclass(thing) else []
    return any(inspect.isfunction(member) and takes_a_model(member) for member in members)


def entrances() -> Iterator[str]:
    """ "room.name" of everything public that takes a model, methods and the classes themselves included."""
    yield "models.LanguageModel"
    for room in ROOMS:
        module = importlib.import_module(f"interp_kit.{room}")
        yield from (f"{room}.{name}" for name in module.__all__ if takes_a_model(getattr(module, name)))


def test_the_table_has_a_row_for_every_entrance():
    assert set(entrances()) == CASES.keys() | BLANK.keys()


# Each with its reason: what is no function of a model, or asks for it under another kind.
UNCHECKED = {
    "features.LLM": "its model is a name",
    "lenses.JacobianLens": "made by fit_jacobian_lens, which checks",
    "models.LanguageModel": "is the model itself",
    "models.Target": "within the kit, behind functions that check",
    "transcoders.CrossLayerTranscoder": "its check of a model is behind functions that check",
    "transcoders.TranscoderConfig": "its model is a note",
    "transcoders.plan_training": "takes a config of transformers too",
}


@pytest.mark.parametrize("entrance", sorted(set(entrances()) - UNCHECKED.keys()))
def test_another_object_in_the_models_place_is_refused_with_words(entrance):
    room, name = entrance.split(".")
    function = getattr(getattr(ik, room), name)
    with pytest.raises(TypeError, match=rf"{name} takes \(.*model.* should be a LanguageModel, got list \['not'"):
        function(model=["not", "a model"])


def test_arguments_in_the_wrong_order_are_named():
    model = tiny_model()
    with pytest.raises(TypeError, match=r"attribute takes \(model, transcoder, prompt, .*transcoder should be a Cross"):
        ik.attribute(model, PROMPT, tiny_transcoder(model))
    with pytest.raises(TypeError, match=r"compare_explanations takes .*questions should be a DataFrame, got list"):
        ik.lenses.compare_explanations(model, [PROMPT])
    for several in ([PROMPT, OTHER], [[1, 2], [3]], {"prompt": PROMPT}, None, PROMPT.encode()):
        with pytest.raises((TypeError, ValueError), match="one prompt|Token ids are whole numbers|has no tokens"):
            model.next_tokens(several)


@pytest.fixture(scope="module", params=[name for name in DTYPES if name != "float32"])  # which all other tests are of
def given(request) -> Given:
    return Given(DTYPES[request.param])


@pytest.mark.parametrize("entrance", CASES)
def test_works_in_every_precision(entrance, given):
    CASES[entrance](given)


@pytest.fixture(scope="module")
def given_elsewhere() -> Given:
    return Given(torch.float32, elsewhere.DEVICE)


TRAINS = {"studies.frontier", "transcoders.train_transcoder"}  # with sparse tensors, for which `elsewhere` has no twin


@pytest.mark.parametrize("entrance", sorted(CASES.keys() - TRAINS))
def test_works_with_a_model_that_is_not_on_the_cpu(entrance, given_elsewhere):
    with elsewhere.everywhere():
        CASES[entrance](given_elsewhere)


@pytest.fixture(scope="module", params=["bfloat16", "float32"])
def on_gpu(request) -> Given:
    return Given(DTYPES[request.param], "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("entrance", CASES)
def test_works_on_a_gpu(entrance, on_gpu):
    CASES[entrance](on_gpu)
