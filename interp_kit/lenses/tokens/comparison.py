"""Which method of token attribution should one believe? All of them on the same prompts, scored without their own help.

Hiding words and asking how much the answer suffers favours the methods that are made of hiding words with the same
mask, so that the tests here use a second baseline, which no method has seen. Two tests need no mask: weights put to
random must change an explanation (Adebayo et al. 2018), and where it is known which words matter, these should lead.
"""

import copy
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ...models import LanguageModel
from ...models.anatomy import anatomy
from ...statistics import bootstrap_interval, roc_auc, spearman
from .masking import MaskedPrompt
from .token_attribution import explain_tokens

# Shares of the tokens, for comprehensiveness and sufficiency (DeYoung et al. 2020, who also take 1 and 5 %: prompts
# here are short, and those would be one token as well).
BINS = (0.1, 0.2, 0.5)
FIRST = ("gradient", "input_x_gradient", "integrated_gradients", "occlusion", "shapley", "attention", "rollout")
RANDOM = "random order"
ORDERS = 10  # of which it is the mean
MEASURES = {
    "deletion": "mean fall of the answer's probability while its words are hidden, the highest first",
    "insertion": "mean probability while words are shown, the highest first",
    "comprehensiveness": "fall of the probability without the highest 10, 20, 50 %",
    "sufficiency": "fall of the probability with only these; lower is better",
    "truth": "chance that a token that decides ranks above one that does not",
    "low": "the lower end of its 95 % bootstrap interval",
    "high": "the upper end",
    "sanity": "rank correlation with the explanation of a half-randomised model; lower is better",
    "residual": "share of f(x) - f(x0) that the values miss (median)",
    "forwards": "versions of the prompt read, for one question",
}


@dataclass(repr=False)
class Comparison:
    """table: a row a method, its columns described in MEASURES, means over the questions. rows: the same for each of
    them. agreement: DataFrame [method, method], mean rank correlation. mask: the second baseline."""

    table: pd.DataFrame
    rows: pd.DataFrame
    agreement: pd.DataFrame
    baseline: str
    mask: str

    def show(self):
        """A plotly heat map of the agreement."""
        from ...widgets.heat_map import heat_map

        names, title = list(self.agreement.index), "do they rank the words alike? (mean rank correlation)"
        return heat_map(self.agreement, names, names, title, 1, texttemplate="%{z:.2f}")

    def __repr__(self):
        table = self.table.to_string(float_format="{:.3f}".format)
        return f"Comparison({self.rows['question'].nunique()} questions)\n{table}"

    def _repr_html_(self):
        n = self.rows["question"].nunique()
        described = [f"{name}: {text}" for name, text in MEASURES.items() if name in self.table]
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in described)
        head = html.escape(f"{n} questions; explained with baseline {self.baseline!r}, tested with {self.mask!r}")
        return f"<p>{head}</p>{self.table.to_html(float_format='{:.3f}'.format)}<ul>{notes}</ul>"


def compare_explanations(
    model,
    questions: pd.DataFrame,
    methods: Sequence[str] = FIRST,
    baseline: str = "space",
    mask: str = "mean",
    seed: int = 0,
) -> Comparison:
    """Explains every question with every method, and scores the explanations.

    questions: columns prompt and, where wanted, target, contrast (texts, of which the first token counts) and matters
    (a list of the words in the prompt that decide it), as from `world.why_questions`. baseline: for the methods; mask:
    for the tests, another one. A random order of the tokens stands among the methods as the floor.

    Raises ValueError for a mask that is the baseline, a table without prompts, a target that begins as its contrast
    does, and a word that is not in its prompt.
    """
    if "prompt" not in questions or questions.empty:
        raise ValueError(f"questions should be a table with a column `prompt`; got columns {list(questions.columns)}")
    scrambled, draw = randomised(model, seed), np.random.default_rng(seed)
    rows, agreement = [], []
    for i, question in enumerate(tqdm(questions.to_dict("records"), desc="explanations", leave=False)):
        target, contrast = (_first_token(model, question.get(name)) for name in ("target", "contrast"))
        test = MaskedPrompt(model, question["prompt"], target, contrast, mask)
        if torch.equal(test.absent, MaskedPrompt(model, question["prompt"], target, contrast, baseline).absent):
            raise ValueError(f"mask {mask!r} is the baseline: the test would favour methods that hide words with it")
        if test.target == test.contrast:
            raise ValueError(f"{question['prompt']!r}: target and contrast begin with the same token")
        truth = (
            important(model, question["prompt"], question["matters"])[test.positions] if "matters" in question else None
        )
        ask = dict(target=test.target, contrast=contrast, baseline=baseline, seed=seed)
        found = {method: explain_tokens(model, question["prompt"], method=method, **ask) for method in methods}
        for method, it in found.items():
            other = explain_tokens(scrambled, question["prompt"], method=method, **ask)
            row = {"question": i, "method": method, "residual": it.residual, "forwards": it.forwards}
            row |= {"sanity": rank_correlation(it.values, other.values)}
            rows.append(row | _scores(test, np.array(it.values), truth))
        orders = [_scores(test, draw.random(len(test.positions)), truth) for _ in range(ORDERS)]
        rows.append({"question": i, "method": RANDOM} | pd.DataFrame(orders).mean().to_dict())
        agreement.append([[rank_correlation(a.values, b.values) for b in found.values()] for a in found.values()])
    rows = pd.DataFrame(rows)
    table = rows.groupby("method", sort=False).mean().drop(columns="question")
    table["residual"] = rows.groupby("method")["residual"].median()
    if "truth" in table:
        intervals = rows.groupby("method", sort=False)["truth"].apply(
            lambda values: bootstrap_interval(values.dropna(), seed)
        )
        table["low"], table["high"] = zip(*intervals)
    order = [name for name in MEASURES if name in table]
    together = pd.DataFrame(np.nanmean(agreement, 0), list(methods), list(methods))
    return Comparison(table.loc[[RANDOM, *methods], order], rows, together, baseline, mask)


def _first_token(model, text):
    return None if pd.isna(text) else model.tokenizer.encode(text, add_special_tokens=False)[0]


@torch.no_grad()
def _scores(test: MaskedPrompt, values, truth) -> dict:
    """The measures of one explanation [token], by hiding tokens with the test's own baseline."""
    n = len(values)
    order = np.argsort(-values, kind="stable")
    rank = np.empty(n, int)
    rank[order] = np.arange(n)
    firsts = np.arange(n + 1)
    without = torch.tensor(rank[None] >= firsts[:, None]).float()  # row k: the k highest are hidden
    p = test.probability(test.value(torch.cat([without, 1 - without]))).double().numpy()
    hidden, shown = p[: n + 1], p[n + 1 :]
    counts = [max(1, round(share * n)) for share in BINS]
    found = {
        "deletion": float(np.mean(p[0] - hidden)),
        "insertion": float(np.mean(shown)),
        "comprehensiveness": float(np.mean(p[0] - hidden[counts])),
        "sufficiency": float(np.mean(p[0] - shown[counts])),
    }
    if truth is not None:
        found["truth"] = roc_auc(values, truth)
    return found


def important(model, prompt: str, words: Sequence[str]) -> np.ndarray:
    """Which tokens of a prompt hold (a part of) one of the words: bool [position].

    Raises ValueError for a word that is not in the prompt.
    """
    encoded = model.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    before = len(model.encode(prompt)) - len(encoded["input_ids"])
    found = np.zeros(before + len(encoded["input_ids"]), bool)
    for word in words:
        places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", prompt)]
        if not places:
            raise ValueError(f"{word!r} should matter, but it is not in {prompt!r}")
        for start, end in places:
            for i, (a, b) in enumerate(encoded["offset_mapping"]):
                found[before + i] |= a < end and b > start
    return found


def rank_correlation(a, b) -> float:
    """Spearman's, of absolute values: methods without a sign are compared too. NaN where all are equal."""
    return spearman(np.abs(a), np.abs(b))


def randomised(model, seed: int = 0) -> LanguageModel:
    """A copy whose upper half of layers has its matrices shuffled, entry by entry; embeddings and norms stay."""
    hf, generator = copy.deepcopy(model.hf), torch.Generator().manual_seed(seed)
    for block in anatomy(hf).blocks[model.n_layers // 2 :]:
        for parameter in block.layer.parameters():
            if parameter.dim() > 1:
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.data = parameter.data.flatten()[order].view_as(parameter)
    return LanguageModel(hf, model.tokenizer, f"{model.name}, upper half randomised")
