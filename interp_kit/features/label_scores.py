"""Is a label any good? Tested on texts that were kept aside before any label was made.

    detection   told the label, a judge says of each text whether the feature fires in it; balanced accuracy, the mean
                of the shares of right answers where it fires and where it does not. Up to half of the texts in which
                it does not fire have the token in them on which it is strongest, so that a label too wide is found out.
    fuzzing     likewise, but tokens are marked, the right ones or as many others, and the judge says whether the
                feature fires on those: a label that only knows the topic is found out.
    embedding   area under the curve of the label's similarity with texts where it fires against texts where it does not
                (0.5: none); similarity is the highest cosine of the model's input embeddings.

0.5 is guessing. (Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models".)
"""

import random
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..statistics import roc_auc
from .corpus import Corpus
from .labels import Rule
from .llm import JUDGE_TOKENS, judge_prompt, marked, strong

TEXTS_AT_ONCE = 5  # shown to an LLM in one question


class Judge(Protocol):
    """Says of each text whether it believes that a feature of that label fires: anywhere, or on the marked tokens."""

    def __call__(self, label: pd.Series, texts: list[list[str]], marks: list[list[int]] | None) -> list[bool]: ...


def score_labels(store, labels: pd.DataFrame, judge="rule", model=None, only=None, seed: int = 0) -> pd.DataFrame:
    """The table of labels with detection, fuzzing, embedding (where `model` is given) and n, the texts used.

    judge: "rule" (a label from `label_features` says what it expects; of any other label the words are looked for),
        "model" (the studied model: it says yes where the label makes the text likelier; needs `model`), an
        `ik.features.LLM`, or
        a function like `Judge`.
    only: the (layer, feature) pairs to score, by default all; an LLM is asked some ten questions for each.

    Features with no held-out example get NaN. Raises ValueError for a judge that is none of these.
    """
    judge = _judge(judge, store, model)
    wanted = None if only is None else {(int(layer), int(feature)) for layer, feature in only}
    rows = []
    for row in tqdm(list(labels.to_dict("records")), desc="scoring labels", leave=False):
        at = row["layer"], row["feature"]
        if wanted is None or at in wanted:
            rows.append(row | _score(pd.Series(row), store.of(*at), judge, model, random.Random(f"{seed}{at}")))
    return pd.DataFrame(rows)


def _score(label, examples, judge, model, draw):
    of = {group: part for group, part in examples.groupby("group")}
    there = of.get("held", examples[:0])
    near, silent = (of.get(name, examples[:0]) for name in ("near", "silent"))
    half = len(there) // 2
    away = pd.concat([near[:half], silent])[: len(there)]  # at most half of them hard
    result = {"detection": np.nan, "fuzzing": np.nan, "embedding": np.nan, "n": len(there) + len(away)}
    if not len(there) or not len(away):
        return result
    texts = [list(tokens) for tokens in [*there["tokens"], *away["tokens"]]]
    truth = [True] * len(there) + [False] * len(away)
    result["detection"] = _balanced(judge(label, texts, None), truth)
    right = [strong(active) for active in there["activations"]]
    pairs = [(list(t), on, _others(t, on, draw)) for t, on in zip(there["tokens"], right)]
    pairs = [pair for pair in pairs if pair[2]]
    if pairs:
        texts = [tokens for tokens, _, _ in pairs] * 2
        marks = [on for _, on, _ in pairs] + [off for _, _, off in pairs]
        result["fuzzing"] = _balanced(judge(label, texts, marks), [True] * len(pairs) + [False] * len(pairs))
    if model is not None:
        likeness = _likeness(model, label["label"], [*there["tokens"], *away["tokens"]])
        result["embedding"] = roc_auc(likeness, truth)
    return result


def _others(tokens, on, draw):
    """As many positions at which it is not strong, or as many as there are."""
    off = [i for i in range(len(tokens)) if i not in on]
    return sorted(draw.sample(off, min(len(on), len(off))))


def _balanced(said, truth):
    """Mean of the shares of right answers, among the true and among the false; None counts as wrong."""
    truth = np.array(truth)
    right = np.array([s is not None and bool(s) == t for s, t in zip(said, truth)])
    return float((right[truth].mean() + right[~truth].mean()) / 2)


# ---------------------------------------------------------------- judges


def _judge(judge, store, model):
    if callable(judge):
        return judge
    if judge == "rule":
        return RuleJudge(store)
    if judge == "model" and model is not None:
        return ModelJudge(model)
    if hasattr(judge, "ask"):
        return LLMJudge(judge)
    raise ValueError(f"judge {judge!r}: expected 'rule', 'model' (with model=...), an ik.features.LLM, or a function")


class RuleJudge:
    """A label's rule is asked token by token. A label without a rule (an LLM's, a student's) means its words."""

    def __init__(self, store):
        self.corpus = Corpus(store.texts())

    def __call__(self, label, texts, marks):
        rule = self._rule(label)
        answers = []
        for i, tokens in enumerate(texts):
            words = self.corpus.words(tuple(tokens))
            positions = range(len(tokens)) if marks is None else marks[i]
            answers.append(any(rule.expects(words, position) for position in positions))
        return answers

    def _rule(self, label):
        if isinstance(label.get("rule"), str):
            return Rule(label["rule"], tuple(label["words"]))
        words = self.corpus.words((str(label["label"]),)).pieces
        telling = [word for word in words if self.corpus.tells(word)]
        return Rule("words", tuple(telling or words))


class LLMJudge:
    """Asks an LLM, five texts at a time. An answer that is not as many digits as texts counts as wrong."""

    def __init__(self, llm):
        self.llm = llm

    def __call__(self, label, texts, marks):
        shown = [marked(t, [] if marks is None else marks[i]) for i, t in enumerate(texts)]
        answers = []
        for i in range(0, len(shown), TEXTS_AT_ONCE):
            some = shown[i : i + TEXTS_AT_ONCE]
            said = self.llm.ask(judge_prompt(label["label"], some, marks is not None), JUDGE_TOKENS)
            digits = [c == "1" for c in said if c in "01"]
            answers += digits if len(digits) == len(some) else [None] * len(some)
        return answers


class ModelJudge:
    """The studied model itself: yes, where the label in front makes the text (or the marked tokens) likelier."""

    def __init__(self, model):
        self.model = model

    def __call__(self, label, texts, marks):
        name = self.model.tokenizer(f"{label['label']}.", add_special_tokens=False)["input_ids"]
        return [self._gain(name, tokens, None if marks is None else marks[i]) > 0 for i, tokens in enumerate(texts)]

    def _gain(self, name, tokens, marks):
        text = "".join(tokens)
        encoded = self.model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = encoded["input_ids"]
        chosen = range(len(ids)) if marks is None else _at(tokens, marks, encoded["offset_mapping"])
        first = self.model.prefix_ids
        with_it, without = (self._logprobs(first + begin + ids)[-len(ids) :] for begin in (name, []))
        return float((with_it - without)[list(chosen)].mean()) if len(chosen) else 0.0

    @torch.no_grad()
    def _logprobs(self, ids):
        """Of each token given those before; 0 for the first of all."""
        ids = torch.tensor([ids], device=self.model.device)
        scores = self.model.hf(ids).logits[0, :-1].log_softmax(-1)
        found = scores.gather(1, ids[0, 1:, None])[:, 0]
        return torch.cat([found.new_zeros(1), found])


def _at(tokens, positions, offsets):
    """Which of the pieces at `offsets` the tokens at `positions` cover."""
    ends = np.cumsum([len(token) for token in tokens])
    spans = [(ends[p] - len(tokens[p]), ends[p]) for p in positions]
    return [i for i, (a, b) in enumerate(offsets) if any(a < end and b > start for start, end in spans)]


@torch.no_grad()
def _likeness(model, label, texts):
    """The highest cosine of an input embedding of the label with one of each text."""
    embedding = model.hf.get_input_embeddings().weight
    centre = embedding.mean(0)

    def vectors(text):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.nn.functional.normalize(embedding[ids] - centre, dim=-1)

    mine = torch.cat([vectors(label), vectors(" " + label)])
    return [float((vectors("".join(tokens)) @ mine.T).max()) for tokens in texts]
