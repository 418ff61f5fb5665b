"""Statistics that several rooms report."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

RESAMPLES = 2_000  # of the bootstrap


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Rank correlation of two columns of numbers, from -1 to 1; NaN where one of them never changes."""
    return float(pd.Series(np.asarray(a)).rank().corr(pd.Series(np.asarray(b)).rank()))


def roc_auc(values: ArrayLike, truth: ArrayLike) -> float:
    """The area under the ROC curve of `values` for `truth` (true or false, one a value).

    Of all pairs of a true and a false case, the share in which the true one has the higher value; a tie counts half.
    NaN where all are true or all false.

        roc_auc([0.9, 0.2, 0.4], [True, False, False]) == 1.0
    """
    values, truth = np.array(values), np.array(truth)
    if truth.all() or not truth.any():
        return np.nan
    higher = values[truth][:, None] - values[~truth][None]
    return float(((higher > 0) + 0.5 * (higher == 0)).mean())


def bootstrap_interval(values: ArrayLike, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """An interval for the mean of `values`, one a problem: the bootstrap, which draws problems again and again."""
    values = np.asarray(values, float)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_share(
    hits: ArrayLike, totals: ArrayLike, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """The share of all cases that are hits, and its bootstrap interval: hits and totals [problem] are counted in each
    problem, and whole problems are drawn again and again, since cases of one problem are alike. NaN without a case."""
    hits, totals = np.asarray(hits, float), np.asarray(totals, float)
    if not totals.sum():
        return np.nan, np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(hits), size=(RESAMPLES, len(hits)))
    drawn = totals[draws].sum(1)
    low, high = np.quantile(hits[draws].sum(1)[drawn > 0] / drawn[drawn > 0], [(1 - level) / 2, (1 + level) / 2])
    return float(hits.sum() / totals.sum()), float(low), float(high)


def adjusted_rand(truth: ArrayLike, groups: ArrayLike) -> float:
    """The adjusted Rand index of two groupings [case]: 1 for the same groups, 0 in the mean for groups at random
    (Hubert and Arabie 1985).

        adjusted_rand([0, 0, 1, 1], [5, 5, 7, 7]) == 1.0
    """
    table = pd.crosstab(pd.Series(np.asarray(truth)), pd.Series(np.asarray(groups))).to_numpy(float)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    together, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    by_chance = rows * columns / max(pairs(table.sum(keepdims=True)), 1)
    most = (rows + columns) / 2
    return 1.0 if most == by_chance else (together - by_chance) / (most - by_chance)
