"""Intervals: over seeds by Student's t, and of one error rate by the binomial distribution."""

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
