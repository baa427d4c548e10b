"""Intervals over seeds by Student's t; of an error rate by the binomial; a paired test."""

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def over_seeds(values):
    """Return mean, and lower and upper end of the 95 % interval of the mean, by Student's t."""
    values = np.asarray(values, "float64")
    mean, error = values.mean(), stats.sem(values)
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, mean, error)
    return mean, low, high


def of_rate(rate, n):
    """Return the 95 % interval (Wilson) of an error rate that was measured on `n` examples."""
    found = stats.binomtest(round(rate * n), n).proportion_ci(CONFIDENCE, "wilson")
    return found.low, found.high


def of_difference(values, others):
    """Return the difference of two means and its 95 % interval, by Welch's t."""
    test = stats.ttest_ind(values, others, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE)
    return np.mean(values) - np.mean(others), low, high


def paired(wrong, other):
    """Compare two models on the same examples by McNemar's exact test.

    Parameters
    ----------
    wrong, other : ndarray (n,) bool
        Which examples each model gets wrong.

    Returns
    -------
    only, only_other : int
        Examples that just one of them gets wrong.
    p : float
        Two-sided. 1 if they are wrong on the same examples.
    """
    only, only_other = int((wrong & ~other).sum()), int((other & ~wrong).sum())
    n = only + only_other
    return only, only_other, stats.binomtest(only, n).pvalue if n else 1.0
