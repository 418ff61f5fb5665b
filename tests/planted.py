"""Every result of the kit, made of texts that would do something if they were taken for markup or for commands.

The texts stand wherever they can come from a stranger: tokens of a model, its name, prompts, labels, evidence, names of
files, of dictionaries and of columns. `RESULTS` makes one of each class that shows itself.
"""

import random
import tempfile
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from tiny import tiny_model, tiny_transcoder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import interp_kit as ik
from interp_kit.graphs.edge_grades import EdgeGrades
from interp_kit.graphs.validation import Validation
from interp_kit.lenses.components.ablation import Ablation
from interp_kit.lenses.components.patching import ActivationPatching
from interp_kit.lenses.reasoning.faithfulness import CotFaithfulness
from interp_kit.lenses.reasoning.reliance import Reliance
from interp_kit.lenses.tokens.comparison import ExplanationComparison
from interp_kit.lit.server import LitServer
from interp_kit.models import LanguageModel
from interp_kit.studies.frontier import Frontier
from interp_kit.studies.lens_grading import LensGrades
from interp_kit.studies.polysemanticity import Polysemanticity
from interp_kit.studies.recovery import Recovery
from interp_kit.studies.superposition import ToySuperposition
from interp_kit.transcoders.evaluation import Evaluation
from interp_kit.transcoders.training.planning import Plan
from interp_kit.transcoders.training.train import TrainingRun
from interp_kit.widgets import FeatureCard
from interp_kit.widgets.answer_card import AnswerCard
from interp_kit.widgets.text_table import text_table
from interp_kit.widgets.token_strip import TokenStrip

# Each tells the page that it ran, or asks the network. No blanks: they are also the words of a tokenizer.
WORDS = [
    '<img/src=x/onerror="window.planted=1">',
    "</script><script>window.planted=2</script>",
    '<a/href="javascript:window.planted=3">click</a>',
    "]]></noscript><planted/>",
    "\x1b]8;;http://evil.example\x07link\x1b[31m",
    "<svg/onload=window.planted=4>",
    "\"'><iframe/src=//evil.example>",
    "$\\href{http://evil.example}{x}$",
    "\u202eback\u2028",
    "<style>@import'http://evil.example'</style>",
]
PROMPT = " ".join(WORDS)
EVIL = "".join(WORDS)


@cache
def model() -> LanguageModel:
    """A tiny model whose every token and whose name is planted."""
    vocabulary = {word: i for i, word in enumerate(["<bos>", "<eos>", "<unk>", *WORDS, "a"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer.decoder = decoders.WordPiece(prefix="")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    return LanguageModel(tiny_model().hf, wrapped, f"tiny{EVIL}")


@cache
def transcoder():
    return tiny_transcoder(model())


@cache
def texts():
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=6)) for _ in range(40)]


@cache
def store():
    return ik.collect_features(model(), transcoder(), texts(), n_examples=4)


@cache
def labels():
    return ik.label_features(store()).assign(label=EVIL, evidence=EVIL)


@cache
def graph():
    return ik.attribute(model(), transcoder(), PROMPT).annotate(store(), labels())


def frame(n=3, **columns):
    """A table of planted texts, and of numbers for the columns that are called None."""
    numbers = np.linspace(0.1, 0.9, n)
    return pd.DataFrame({name: numbers if value is None else value for name, value in columns.items()}, index=range(n))


def feature_at():
    row = store().features.query("density > 0").iloc[0]
    return int(row["layer"]), int(row["feature"])


def intervention():
    feature = graph().features.iloc[0]
    return ik.intervene(model(), transcoder(), PROMPT, ik.Steer(feature["id"], factor=-1.0), generate=2)


def logprobs_read():
    top = [{"token": word, "logprob": -1.0, "bytes": list(word.encode())} for word in WORDS[:2]]
    content = [{"token": word, "logprob": -1.0, "bytes": list(word.encode()), "top_logprobs": top} for word in WORDS]
    return ik.lenses.read_logprobs({"content": content})


def closed_server(running=False):
    server = object.__new__(LitServer)
    server.name, server.prompts, server.port, server._first, server._token = EVIL, 1, 1, "x", "y"
    server._process = SimpleNamespace(poll=lambda: None if running else 0)
    return server


def faithfulness():
    own = frame(steps=2, reasoning=EVIL, answer=EVIL, correct=None)
    table = frame(problem=[0, 1, 2], test="early", kept=None, reasoning=EVIL, answer=EVIL, same=True, overlap=None,
                  correct=None, implied=EVIL, follows=0.0, verbalised=0.0)  # fmt: skip
    return CotFaithfulness(own, table)


def reliance():
    table = frame(
        4, problem=[0, 0, 1, 1], source=[EVIL, "b", EVIL, "b"], text=EVIL, share=None, changed=None, follows=1
    )
    return Reliance(table)


def frontier():
    table = frame(2, kind=["cross-layer", "per-layer"], k=None, L0=None, NMSE=None, replacement=None)
    baselines = pd.DataFrame({"NMSE": [0.5, 0.6]}, index=[EVIL, "mean output"])
    return Frontier(table, baselines, {})


def evaluation():
    one = pd.DataFrame({EVIL: [1.0]}, index=[EVIL])
    return Evaluation(pd.Series({EVIL: 1.0}), one, one, torch.zeros(1))


HISTORY = pd.DataFrame({"step": [1, 2], "NMSE": [1.0, 0.5], "L0": [3.0, 3.0], "dead": [0.0, 0.1]})
PAIR = pd.DataFrame(np.eye(2), index=[EVIL, "b"], columns=[EVIL, "b"])


def prediction():
    with tempfile.TemporaryDirectory() as folder:
        box = ik.course.predict(EVIL, EVIL, file=f"{folder}/predictions.json")
        box.answer = EVIL
        return box


def stopped(*_):
    raise ValueError(EVIL)


RESULTS = {
    "answer": lambda: AnswerCard(EVIL, False, [EVIL], {EVIL: [[EVIL, 1.0]], f"{EVIL}2": [[1.0, EVIL]]}),
    "check": lambda: ik.course.check("label_rule", lambda tokens, fires: EVIL),
    "check that stopped": lambda: ik.course.check("topk", stopped),
    "prediction": prediction,
    "model": model,
    "transcoder": transcoder,
    "next tokens": lambda: model().next_tokens(PROMPT),
    "store": store,
    "card": lambda: store().show(*feature_at(), labels=labels(), graph=graph()),
    "bare card": lambda: FeatureCard({"title": EVIL, "facts": {EVIL: EVIL}, "lists": {EVIL: [EVIL]}, "nodes": [EVIL]}),
    "browser": lambda: store().browse(labels(), graph()),
    "graph": graph,
    "graph view": lambda: graph().show(1.0),
    "graph of boxes": lambda: graph().show(1.0, boxes=True),
    "graph that is sure": lambda: graph().believe(),
    "family": lambda: ik.graphs.family([graph(), graph()]),
    "head browser": lambda: ik.graphs.browse_heads(graph().prune(), model(), transcoder()),
    "score": lambda: ik.graphs.qk_attribution(model(), transcoder(), PROMPT, 1, 0, key=1, labels=labels()),
    "edges": lambda: EdgeGrades(
        frame(graph=[0, 1, 1], belief="0 to 25 %", consensus="core", confirmed=1.0, at_random=1.0, of_equal_size=0.0)
    ),
    "Jacobian lens": lambda: ik.lenses.fit_jacobian_lens(model(), texts()[:3]),
    "paths": lambda: graph().prune().paths(),
    "intervention": intervention,
    "validation": lambda: Validation(
        frame(source=EVIL, target=EVIL, predicted=None, measured=None, distance=[1, 2, 3], hops=[1, 2, 3]),
        frame(id=EVIL, influence=None, ablation=None), PROMPT,
    ),
    "decomposition": lambda: ik.lenses.decompose(model(), PROMPT, contrast=WORDS[1]),
    "ablation": lambda: Ablation(
        EVIL, "zero", frame(component=EVIL, kind="MLP", layer=[0, 1, 2], head=[None] * 3, effect=None), 0.5
    ),
    "patching": lambda: ActivationPatching(EVIL, "residual", PAIR, 1.0, 0.0),
    "logit lens": lambda: ik.lenses.logit_lens(model(), PROMPT, target=WORDS[0]),
    "attention": lambda: ik.lenses.attention_patterns(model(), PROMPT),
    "attention browser": lambda: ik.lenses.attention_patterns(model(), PROMPT).browse(),
    "calibration": lambda: ik.lenses.calibration(model(), texts()),
    "logprobs": lambda: ik.lenses.logprobs(model(), PROMPT),
    "logprobs of a service": logprobs_read,
    "token attribution": lambda: ik.lenses.explain_tokens(
        model(), PROMPT, WORDS[0], WORDS[1], method="occlusion", baseline="a"
    ),
    "comparison": lambda: ExplanationComparison(PAIR, frame(question=EVIL), PAIR, EVIL, EVIL),
    "side by side": lambda: ik.side_by_side(
        model(), PROMPT, WORDS[0], WORDS[1], transcoder=transcoder(), baseline="a"
    ),
    "faithfulness": faithfulness,
    "reliance": reliance,
    "evaluation": evaluation,
    "plan": lambda: Plan(pd.Series({EVIL: 1.0}), frame(device=EVIL, hours=None)),
    "training run": lambda: TrainingRun(transcoder(), HISTORY),
    "frontier": frontier,
    "grades": lambda: LensGrades(frame(lens=EVIL, claim=EVIL, accuracy=None, n=2, wrong=EVIL), frame(a=None)),
    "polysemanticity": lambda: Polysemanticity(
        frame(dictionary=EVIL, layer=0, feature=[1, 2, 3], best=EVIL, explained=None, concepts=1)
    ),
    "recovery": lambda: Recovery(
        frame(dictionary=EVIL, concept=EVIL, kind=EVIL, F1=None), frame(concept=EVIL, F1=None)
    ),
    "superposition": lambda: ToySuperposition(torch.eye(2), torch.zeros(2), 0.1, 0.5),
    "superposition of three": lambda: ToySuperposition(torch.eye(3), torch.zeros(3), 0.1, 0.5),
    "strip": lambda: TokenStrip(WORDS, [1.0] * len(WORDS), WORDS, title=EVIL, note=EVIL),
    "LIT, closed": closed_server,
}  # fmt: skip
RESULTS = {name: cache(make) for name, make in RESULTS.items()}


def planted_tables():
    """HTML of tables, with texts in the cells, the columns and the index."""
    table = pd.DataFrame({EVIL: [EVIL]}, index=pd.Index([EVIL], name=EVIL))
    return [table._repr_html_(), text_table(table)]
