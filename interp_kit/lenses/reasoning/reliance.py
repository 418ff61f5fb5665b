"""What does an answer rely on? The attribution graph says where its influence comes from: the question, or which step
of the reasoning. Putting other words in the place of each says what happens. The two should agree.

The graph is drawn for the undisturbed reasoning alone: it must tell beforehand what the replacements will do.
"""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...graphs import AttributionGraph, attribute
from ...models import LanguageModel
from ...models.arguments import checked
from ...statistics import bootstrap_interval, roc_auc, spearman
from ...transcoders import CrossLayerTranscoder
from ...widgets.chart import Chart
from ...widgets.colours import BLUE, ORANGE
from ...widgets.plain_text import literal, printable
from ...widgets.progress import ProgressBar
from .chain_of_thought import ANSWER_TOKENS, Variant, undisturbed
from .faithfulness import overlap
from .greedy import continue_all
from .problems import Mistake, Problem

MEANS = {name: (name, "mean") for name in ("share", "changed", "follows")}  # as groupby's `agg` takes them


@dataclass(repr=False)
class Reliance:
    """What `reliance` found.

    table: a row a problem, source ("question", "step 1", ...) and replacement. Its other columns:

        text, replacement: of the source.
        prompt, start, stop: the undisturbed prompt, and the positions in it whose tokens are replaced.
        share: of the influence on the answer that enters the graph at tokens, the part that enters at those replaced;
            the rest enters at all that stays, such as what forces the answer.
        changed: how much the distribution of the answer's first token moves with the replacement (total variation, 0 to
            1).
        answer, implied, follows: the answer now, the one that the replacement implies, and whether they are the same.
    seed: of the bootstrap interval.
    """

    table: pd.DataFrame
    seed: int = 0

    @cached_property
    def means(self) -> pd.DataFrame:
        """A row a problem and source: the means of share, changed and follows over the replacements."""
        return self.table.groupby(["problem", "source"], sort=False).agg(**MEANS).reset_index()

    @property
    def summary(self) -> pd.DataFrame:
        """A row a source: mean share, changed and follows, and spearman, the rank correlation over problems of share
        with changed; NaN where nothing varies."""
        by = self.means.groupby("source", sort=False)
        return by.agg(**MEANS).assign(spearman=[spearman(part["share"], part["changed"]) for _, part in by])

    @property
    def pairs(self) -> pd.DataFrame:
        """A row a pair of sources, which the graph has to put in order: n problems; spearman, of the difference of
        their shares with that of what replacing them changes; auc, of a problem in which the first changes more and one
        in which it does not, how often the graph tells which is which (0.5: a coin; NaN where all problems are alike).
        """
        wide = self.means.pivot(index="problem", columns="source", values=["share", "changed"])
        rows = []
        for a, b in combinations(self.table["source"].unique(), 2):
            share, changed = ((wide[what, a] - wide[what, b]).dropna() for what in ("share", "changed"))
            rows.append((a, b, len(share), spearman(share, changed), roc_auc(share, changed > 0)))
        return pd.DataFrame(rows, columns=["first", "second", "n", "spearman", "auc"])

    @property
    def agreement(self) -> pd.Series:
        """Over all problems and sources.

        spearman: rank correlation of share with changed. auc: of a single replacement that the answer followed and one
        that it did not, how often the graph gives the first the larger share. strongest: the share of problems in which
        the source with the largest share is the one whose replacement changes most; low, high: its 95 % bootstrap
        interval.
        commonest: the same for a guess without a graph, that it is always the source that it is most often.
        """
        by = self.means.groupby("problem")
        named, found = (self.means.loc[by[what].idxmax(), "source"].to_numpy() for what in ("share", "changed"))
        hits = (named == found).astype(float)
        low, high = bootstrap_interval(hits, self.seed)
        return pd.Series(
            {"spearman": spearman(self.means["share"], self.means["changed"]),
             "auc": roc_auc(self.table["share"], self.table["follows"] == 1), "strongest": hits.mean(), "low": low,
             "high": high, "commonest": pd.Series(found).value_counts(normalize=True).iloc[0]}
        )  # fmt: skip

    def show(self) -> Chart:
        """A plotly scatter of changed over share, a colour and a symbol for each source."""
        figure, colours = Chart(), [BLUE, ORANGE, "#777777", "#56B4E9", "#E69F00", "#CC79A7"]
        for i, (source, part) in enumerate(self.means.groupby("source", sort=False)):
            figure.add_scatter(
                x=part["share"], y=part["changed"], mode="markers", name=source,
                text=[f"problem {number}" for number in part["problem"]],
                marker={"color": colours[i % len(colours)], "symbol": i, "size": 8, "opacity": 0.7},
            )  # fmt: skip
        return figure.update_layout(
            template="plotly_white", height=420, legend={"orientation": "h", "y": -0.25},
            xaxis_title="share of influence in the graph", yaxis_title="change when replaced",
        )  # fmt: skip

    def __repr__(self) -> str:
        tables = self.summary, self.pairs, self.agreement.to_frame("agreement")
        return printable("\n\n".join(table.to_string(float_format="{:.2f}".format) for table in tables))

    def _repr_html_(self) -> str:
        tables = self.summary, self.pairs, self.agreement.to_frame("agreement").T
        return literal("".join(table.to_html(float_format="{:.2f}".format) for table in tables))


class Source(NamedTuple):
    """The question or a step.

    number: of the problem. name: "question", "step 1", ... replaced: the prompt with other words in this one's place.
    """

    number: int
    name: str
    text: str
    replacement: Mistake
    replaced: str


@checked
def reliance(
    model: LanguageModel, transcoder: CrossLayerTranscoder, problems: Sequence[Problem], times: int = 8, seed: int = 0
) -> Reliance:
    """Has the model reason about each problem, draws the graph of its answer, and replaces the question and the steps
    one by one by `Problem.another` and `Problem.mistake`; all other words stay, also where they now contradict.

    transcoder: for the graphs.
    times: replacements of each. One may be easier to believe than another, which the graph cannot know.
    seed: of their choice.

        ik.lenses.reliance(model, transcoder, ik.lenses.stories(world, 30)).agreement

    Raises ValueError for no problems, for a problem that does not say what another question or a mistake is, and what
    `ik.attribute` does.
    """
    own = undisturbed(model, problems)
    sources = [
        source for v in own for t in range(times) for source in _sources(v, random.Random(f"{seed}-{v.number}-{t}"))
    ]
    prompts = [v.context + v.asked for v in own]
    stops = [v.problem.until for v in own] + [own[source.number].problem.until for source in sources]
    replaced = [source.replaced for source in sources]
    answers = continue_all(model, prompts + replaced, stops, ANSWER_TOKENS, "answers")
    bar = ProgressBar(prompts, desc="graphs", delay=1, leave=False)
    shares = [share_by_position(attribute(model, transcoder, prompt)) for prompt in bar]
    rows = []
    for source, after in zip(sources, answers[len(own) :]):
        prompt, before = prompts[source.number], answers[source.number]
        here = replaced_positions(model.encode(prompt).tolist(), model.encode(source.replaced).tolist())
        answer, implied = after.text.strip(), source.replacement.implies
        row = {
            "problem": source.number, "source": source.name, "text": source.text.strip(),
            "replacement": source.replacement.text.strip(), "prompt": prompt, "start": here.start, "stop": here.stop,
            "share": shares[source.number][here].sum(), "changed": 1 - overlap(before.logprobs, after.logprobs),
            "answer": answer, "implied": implied, "follows": float(answer == implied),
        }  # fmt: skip
        rows.append(row)
    return Reliance(pd.DataFrame(rows), seed)


def _sources(v: Variant, draw: random.Random) -> Iterator[Source]:
    """Those that have a replacement."""
    texts = [v.prompt, *v.steps]
    others = [v.problem.another(draw), *(v.problem.mistake(k, step, draw) for k, step in enumerate(v.steps))]
    names = ["question", *(f"step {k + 1}" for k in range(len(v.steps)))]
    for i, (name, text, other) in enumerate(zip(names, texts, others)):
        if other is not None:
            yield Source(v.number, name, text, other, "".join([*texts[:i], other.text, *texts[i + 1 :], v.asked]))


@checked
def share_by_position(graph: AttributionGraph) -> np.ndarray:
    """Where a graph's influence enters: [position], the influence of each token's embedding, as shares."""
    inputs = graph.embeddings.sort_values("position")
    influence = inputs["influence"].to_numpy(float)
    return influence / max(influence.sum(), 1e-30)


def replaced_positions(ids: list[int], others: list[int]) -> slice:
    """Which of the tokens `ids` are others in `others`: all from the first to the last that differs."""
    before, after = (len(os.path.commonprefix(pair)) for pair in ([ids, others], [ids[::-1], others[::-1]]))
    after = min(after, min(len(ids), len(others)) - before)  # a token counts once
    return slice(before, len(ids) - after)
