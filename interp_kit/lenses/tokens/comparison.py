"""Which method of token attribution should one believe? All of them on the same prompts, scored without their own help.

Hiding words and asking how much the answer suffers favours the methods that are made of hiding words with the same
mask, so that the tests here use a second baseline, which no method has seen. Two tests need no mask: weights put to
random must change an explanation (Adebayo et al. 2018), and where it is known which words matter, these should lead.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch

from ...models import LanguageModel
from ...models.arguments import checked
from ...models.targets import Tokens
from ...statistics import bootstrap_interval
from ...widgets.chart import Chart
from ...widgets.heat_map import heat_map
from ...widgets.plain_text import literal, printable
from ...widgets.progress import ProgressBar
from .masking import Baseline, MaskedPrompt
from .measures import MEASURES, randomise_upper_half, rank_correlation, scores
from .methods import Method
from .token_attribution import TokenAttribution, explain_tokens
from .words import first_token, word_mask

DEFAULT_METHODS: tuple[Method, ...] = (
    "gradient", "input_x_gradient", "integrated_gradients", "occlusion", "shapley", "attention", "rollout",
)  # fmt: skip
RANDOM_ORDER = "random order"  # stands among the methods as the floor
N_RANDOM_ORDERS = 10  # of which it is the mean


@dataclass(repr=False)
class ExplanationComparison:
    """What `compare_explanations` found.

    table: a row a method; its columns are described in `measures.MEASURES`; means over the questions.
    rows: the same for each question.
    agreement: [method, method], mean rank correlation.
    baseline: of the explanations.
    mask: the other baseline, which hides tokens in the tests.
    """

    table: pd.DataFrame
    rows: pd.DataFrame
    agreement: pd.DataFrame
    baseline: str
    mask: str

    def show(self) -> Chart:
        """A plotly heat map of the agreement."""
        names, title = list(self.agreement.index), "do they rank the words alike? (mean rank correlation)"
        return heat_map(self.agreement, names, names, title, 1, texttemplate="%{z:.2f}")

    def __repr__(self) -> str:
        table = self.table.to_string(float_format="{:.3f}".format)
        return printable(f"ExplanationComparison({self.rows['question'].nunique()} questions)\n{table}")

    def _repr_html_(self) -> str:
        n = self.rows["question"].nunique()
        described = [f"{name}: {text}" for name, text in MEASURES.items() if name in self.table]
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in described)
        head = html.escape(f"{n} questions; explained with baseline {self.baseline!r}, tested with {self.mask!r}")
        return literal(f"<p>{head}</p>{self.table.to_html(float_format='{:.3f}'.format)}<ul>{notes}</ul>")


@checked
def compare_explanations(
    model: LanguageModel,
    questions: pd.DataFrame,
    methods: Sequence[Method] = DEFAULT_METHODS,
    baseline: Baseline | str = "space",
    mask: Baseline | str = "mean",
    seed: int = 0,
) -> ExplanationComparison:
    """Explains every question with every method, and scores the explanations.

    questions: columns prompt and, where wanted, target and contrast (as everywhere; a longer text stands for its first
        token) and matters (a list of the words in the prompt that decide it), as from `world.why_questions`.
    methods: as in `explain_tokens`. A random order of the tokens stands among them as the floor.
    baseline: for the methods.
    mask: for the tests, another one.
    seed: of the methods that draw, of the random orders and of the randomised model.

        ik.lenses.compare_explanations(model, world.why_questions(20), ["occlusion", "rollout"])

    Raises ValueError for a mask that is the baseline, a table without prompts, a target that begins as its contrast
    does, and a word that is not in its prompt.
    """
    if "prompt" not in questions or questions.empty:
        raise ValueError(f"questions should be a table with a column `prompt`; got columns {list(questions.columns)}")
    scrambled, draw = randomise_upper_half(model, seed), np.random.default_rng(seed)
    rows, agreement = [], []
    for i, question in enumerate(ProgressBar(questions.to_dict("records"), desc="explanations", leave=False)):
        prompt = question["prompt"]
        target, contrast = (_token(model, question.get(name)) for name in ("target", "contrast"))
        test = MaskedPrompt(model, prompt, target, contrast, mask)
        if torch.equal(test.absent, MaskedPrompt(model, prompt, target, contrast, baseline).absent):
            raise ValueError(f"mask {mask!r} is the baseline: the test would favour methods that hide words with it")
        truth = word_mask(model, prompt, question["matters"])[test.positions] if "matters" in question else None
        # The randomised model is asked about the same answer, also where that was the likeliest of the other.
        explain = partial(
            explain_tokens, prompt=prompt, target=test.target.ids, contrast=contrast, baseline=baseline, seed=seed
        )
        found: dict[Method, TokenAttribution] = {method: explain(model, method=method) for method in methods}
        for method, it in found.items():
            row = {"question": i, "method": method, "residual": it.residual, "forwards": it.forwards}
            row["sanity"] = rank_correlation(it.values, explain(scrambled, method=method).values)
            rows.append(row | scores(test, np.array(it.values), truth))
        orders = [scores(test, draw.random(len(test.positions)), truth) for _ in range(N_RANDOM_ORDERS)]
        rows.append({"question": i, "method": RANDOM_ORDER} | pd.DataFrame(orders).mean().to_dict())
        agreement.append([[rank_correlation(a.values, b.values) for b in found.values()] for a in found.values()])
    rows = pd.DataFrame(rows)
    by = rows.groupby("method", sort=False)
    table = by.mean().assign(residual=by["residual"].median())
    if "truth" in table:
        intervals = by["truth"].apply(lambda values: bootstrap_interval(values.dropna(), seed))
        table["low"], table["high"] = zip(*intervals)
    order = [name for name in MEASURES if name in table]
    together = pd.DataFrame(np.nanmean(agreement, 0), list(methods), list(methods))
    return ExplanationComparison(table.loc[[RANDOM_ORDER, *methods], order], rows, together, baseline, mask)


def _token(model: LanguageModel, said: Tokens | float | None) -> Tokens | None:
    """A cell of the table as a target; an empty one may be NaN."""
    if isinstance(said, str):
        return first_token(model, said)
    return None if isinstance(said, float) else said
