"""Is a label any good? Tested on texts that were kept aside before any label was made.

    detection   told the label, a judge says of each text whether the feature fires in it; balanced accuracy, the mean
                of the shares of right answers where it fires and where it does not. Up to half of the texts in which
                it does not fire have the token in them on which it is strongest, so that a label too wide is found out.
    fuzzing     likewise, but tokens are marked, the right ones or as many others, and the judge says whether the
                feature fires on those: a label that only knows the topic is found out.
    embedding   area under the ROC curve of the label's similarity with texts where it fires against texts where it does
                not (0.5: none); similarity is the highest cosine of the model's input embeddings.

0.5 is guessing. (Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models".)
"""

import random
from collections.abc import Sequence
from functools import partial
from typing import Literal, Protocol

import numpy as np
import pandas as pd
import torch

from ..formats.provenance import about_of, check_belongs
from ..models import LanguageModel
from ..models.arguments import checked
from ..models.families import input_embeddings
from ..models.precision import at_least_float32
from ..statistics import roc_auc
from ..widgets.progress import ProgressBar
from .corpus import Corpus
from .llm import LLM, MAX_JUDGE_TOKENS, AnswerRefused, judge_prompt, marked, strong
from .rules import Rule, with_rules
from .store import FeatureStore, Pairs, rows_of
from .verdicts import read_verdicts

TEXTS_PER_QUESTION = 5  # shown to an LLM together
SCORES = ("detection", "fuzzing", "embedding", "n", "unread")

TokenLists = Sequence[Sequence[str]]
Marks = Sequence[Sequence[int]] | None


class Judge(Protocol):
    """Says of each text whether it believes that a feature of that label fires: anywhere, or on the marked tokens.

    label: a row of the table of labels. texts: lists of tokens. marks: for each text the positions of the marked
    tokens, or None where the whole text is asked about. An answer for each text; None where there is none that can be
    read, and then the text is left out.
    """

    def __call__(self, label: pd.Series, texts: TokenLists, marks: Marks) -> Sequence[bool | None]: ...


@checked
def score_labels(
    store: FeatureStore,
    labels: pd.DataFrame,
    judge: Literal["rule", "model"] | LLM | Judge = "rule",
    model: LanguageModel | None = None,
    only: Pairs | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The table of labels with detection, fuzzing, embedding (where `model` is given), n, the texts used, and unread,
    the judge's answers that could not be read: those texts are left out.

    judge: "rule" (a label from `label_features` says what it expects; of any other label the words are looked for),
        "model" (the studied model: it says yes where the label makes the text likelier; needs `model`), an
        `ik.features.LLM`, or a function like `ik.features.Judge`.
    only: the (layer, feature) pairs to score, by default all; an LLM is asked some ten questions for each.

    Features with no held-out example, and those without a label (""), get NaN. Raises ValueError for a table that lacks
    a column or holds no rule where one should be, for labels of another model or transcoder, for a judge that is none
    of these or does not answer for each text; OSError where an LLM's endpoint does not answer.

    >>> ik.score_labels(store, labels)[["label", "detection", "fuzzing"]]
    """
    labels = with_rules(labels)
    check_belongs(labels, "labels", store, "features")
    ask = _judge(judge, store, model)
    rows = []
    for row in ProgressBar(rows_of(labels, only), desc="scoring labels", leave=False):
        at = row["layer"], row["feature"]
        examples, draw = store.examples_of(*at), random.Random(f"{seed}{at}")
        rows.append(row | _score(pd.Series(row), examples, ask, model, draw))
    scored = pd.DataFrame(rows, columns=None if rows else [*labels.columns, *SCORES])
    scored.attrs["about"] = about_of(labels)
    return scored


def _score(
    label: pd.Series, examples: pd.DataFrame, judge: Judge, model: LanguageModel | None, draw: random.Random
) -> dict[str, float]:
    """SCORES of one label."""
    of = {group: part for group, part in examples.groupby("group")}
    none = examples[:0]
    fires = of.get("held_out", none)
    half = len(fires) // 2  # at most half of the others are hard
    silent = pd.concat([of.get("hard_negative", none)[:half], of.get("non_activating", none)])[: len(fires)]
    result = dict.fromkeys(SCORES, np.nan) | {"n": len(fires) + len(silent), "unread": 0}
    if not (label["label"] and len(fires) and len(silent)):
        return result
    texts = [list(tokens) for tokens in [*fires["tokens"], *silent["tokens"]]]
    truth = [True] * len(fires) + [False] * len(silent)
    result["detection"], result["unread"] = _graded(judge(label, texts, None), truth)
    if model is not None:
        result["embedding"] = roc_auc(_similarity(model, label["label"], texts), truth)
    right, wrong = [], []  # texts with marks
    for tokens, activations in zip(texts, fires["activations"]):
        on = strong(activations)
        off = [i for i in range(len(tokens)) if i not in on]
        off = draw.sample(off, min(len(on), len(off)))  # as many positions at which it is not strong, where there are
        if off:
            right.append((tokens, on))
            wrong.append((tokens, sorted(off)))
    if right:
        texts, marks = map(list, zip(*right, *wrong))
        truth = [True] * len(right) + [False] * len(wrong)
        result["fuzzing"], unread = _graded(judge(label, texts, marks), truth)
        result["unread"] += unread
    return result


def _graded(said: Sequence[bool | None], truth: Sequence[bool]) -> tuple[float, int]:
    """The balanced accuracy of a judge's answers, and how many of them could not be read.

    Raises ValueError for a judge that does not answer for each text.
    """
    if len(said) != len(truth):
        raise ValueError(f"the judge was shown {len(truth)} texts and gave {len(said)} answers: expected one for each")
    return _balanced_accuracy(said, truth), sum(s is None for s in said)


def _balanced_accuracy(said: Sequence[bool | None], truth: Sequence[bool]) -> float:
    """Mean of the shares of right answers, among the true and among the false. None is left out, and where one of the
    two has no answer left, it is NaN."""
    right = [[bool(s) == t for s, t in zip(said, truth) if t == side and s is not None] for side in (True, False)]
    return float(np.mean([np.mean(some) for some in right])) if all(right) else np.nan


# ---------------------------------------------------------------- judges


def _judge(judge: Literal["rule", "model"] | LLM | Judge, store: FeatureStore, model: LanguageModel | None) -> Judge:
    if judge == "rule":
        return partial(_ask_rule, Corpus(store.windows()))
    if judge == "model" and model is not None:
        return partial(_ask_model, model)
    if isinstance(judge, LLM):
        return partial(_ask_llm, judge)
    if callable(judge):
        return judge
    raise ValueError(f"judge {judge!r}: expected 'rule', 'model' (with model=...), an ik.features.LLM, or a function")


def _ask_rule(corpus: Corpus, label: pd.Series, texts: TokenLists, marks: Marks) -> list[bool]:
    """A label's rule is asked token by token. A label without a rule (an LLM's, a student's) means its words."""
    if isinstance(label.get("rule"), str):
        rule = Rule(label["rule"], tuple(label["words"]))
    else:
        words = corpus.words((str(label["label"]),)).pieces
        rule = Rule("words", tuple(filter(corpus.is_informative, words)) or tuple(words))
    answers = []
    for i, tokens in enumerate(texts):
        words = corpus.words(tuple(tokens))
        positions = range(len(tokens)) if marks is None else marks[i]
        answers.append(any(rule.expects(words, position) for position in positions))
    return answers


def _ask_llm(llm: LLM, label: pd.Series, texts: TokenLists, marks: Marks) -> list[bool | None]:
    """Asks an LLM, five texts at a time; None for what could not be read of its answers."""
    shown = [marked(t, [] if marks is None else marks[i]) for i, t in enumerate(texts)]
    answers: list[bool | None] = []
    for i in range(0, len(shown), TEXTS_PER_QUESTION):
        some = shown[i : i + TEXTS_PER_QUESTION]
        try:
            said = llm.ask(judge_prompt(label["label"], some, marks is not None), MAX_JUDGE_TOKENS)
        except AnswerRefused:
            said = ""
        answers += read_verdicts(said, len(some))
    return answers


def _ask_model(model: LanguageModel, label: pd.Series, texts: TokenLists, marks: Marks) -> list[bool]:
    """The studied model itself: yes, where the label in front makes the text (or the marked tokens) likelier."""
    name = model.vocabulary.ids(f"{label['label']}.")
    return [_gain(model, name, tokens, None if marks is None else marks[i]) > 0 for i, tokens in enumerate(texts)]


def _gain(model: LanguageModel, name: list[int], tokens: Sequence[str], marks: Sequence[int] | None) -> float:
    """By how much the tokens' mean log-probability rises with the label in front."""
    ids, spans = model.vocabulary.offsets("".join(tokens))
    chosen = list(range(len(ids))) if marks is None else _at(tokens, marks, spans)
    with_it, without = (_logprobs(model, model.prefix_ids + begin + ids)[-len(ids) :] for begin in (name, []))
    return float((with_it - without)[chosen].mean()) if chosen else 0.0


@torch.no_grad()
def _logprobs(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """Of each token given those before [position]; 0 for the first of all."""
    row = torch.tensor([ids], device=model.device)
    logits = at_least_float32(model.hf(row).logits[0, :-1])
    found = logits.log_softmax(-1).gather(1, row[0, 1:, None])[:, 0]
    return torch.cat([found.new_zeros(1), found])


def _at(tokens: Sequence[str], positions: Sequence[int], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Which of the pieces at `offsets` the tokens at `positions` cover."""
    ends = np.cumsum([len(token) for token in tokens])
    spans = [(ends[p] - len(tokens[p]), ends[p]) for p in positions]
    return [i for i, (a, b) in enumerate(offsets) if any(a < end and b > start for start, end in spans)]


@torch.no_grad()
def _similarity(model: LanguageModel, label: str, texts: Sequence[Sequence[str]]) -> list[float]:
    """The highest cosine of an input embedding of the label with one of each text."""
    embedding = input_embeddings(model.hf)
    centre = embedding.mean(0)

    def vectors(text: str) -> torch.Tensor:
        return torch.nn.functional.normalize(embedding[model.vocabulary.ids(text)] - centre, dim=-1)

    mine = torch.cat([vectors(label), vectors(" " + label)])
    return [float((vectors("".join(tokens)) @ mine.T).max()) for tokens in texts]
