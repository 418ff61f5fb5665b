"""Statistics that several rooms report."""

import numpy as np
import pandas as pd

RESAMPLES = 2_000  # of the bootstrap


def spearman(a, b) -> float:
    """Rank correlation of two columns of numbers."""
    return float(pd.Series(np.asarray(a)).rank().corr(pd.Series(np.asarray(b)).rank()))


def roc_auc(values, truth) -> float:
    """The area under the ROC curve: of the pairs of a true and a false case, the share in which the true one has the
    higher value. NaN where all are true or all false."""
    values, truth = np.array(values), np.array(truth)
    if truth.all() or not truth.any():
        return np.nan
    higher = values[truth][:, None] - values[~truth][None]
    return float(((higher > 0) + 0.5 * (higher == 0)).mean())


def bootstrap_interval(values, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """An interval for the mean of `values`, one a problem, by drawing problems again and again."""
    values = np.asarray(values, float)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
