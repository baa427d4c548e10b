"""Baselines b of eq. (2), which usually lower the variance of the score-function gradient.

A baseline that does not depend on an example's own mask leaves the expectation of its gradient
unchanged, because the score has mean zero. One that does depend on it biases the gradient; each
docstring says whether and by how much. Throughout, ``c`` holds the costs of the N examples of a
mini-batch, (m_b,), in nats, and g is the true gradient of their expected mean.
"""

import pytensor.tensor as pt


def none(c):
    """Zero. Unbiased."""
    return pt.zeros_like(c)


def batch_mean(c):
    """Mean of the mini-batch.

    It holds the example's own cost, which scales the expectation of the score-function gradient:
    (N-1)/N times g. Its direction is kept; at N = 20 it is 5 % short. The direct term of
    ``kl_gradient="total"`` is not scaled, so with lambda > 0 the direction of the sum is kept only
    nearly.
    """
    return pt.zeros_like(c) + c.mean()


def leave_one_out_mean(c):
    """Mean of the other examples' costs, for each example.

    Unbiased, and exactly N/(N-1) times the gradient with the batch mean: the two differ in the
    learning rate alone. An example alone in its mini-batch gets its own cost, hence no update.
    """
    n = c.shape[0].astype(c.dtype)
    alone = pt.eq(n, 1)
    return pt.switch(alone, c, (c.sum() - c) / pt.maximum(n - 1, 1))


def batch_minimum(c):
    """Lowest cost of the mini-batch, so that no example is rewarded.

    Biased: the expectation is g less (1/N) times the gradient of E[min_n c_n], because the lowest
    cost depends on the mask of its own example.
    """
    return pt.zeros_like(c) + c.min()


def moving_average(c, average, decay):
    """Exponential moving average of the mean costs of earlier mini-batches.

    Unbiased: it depends on earlier masks only.

    Parameters
    ----------
    c : tensor (m_b,)
    average : tensor ()
        The average before this mini-batch.
    decay : float
        Weight of the past, a fraction in [0, 1).

    Returns
    -------
    baseline : tensor (m_b,)
    next_average : tensor ()
    """
    decay = pt.constant(decay, dtype=c.dtype)
    return pt.zeros_like(c) + average, decay * average + (1 - decay) * c.mean()


BATCH_BASELINES = {
    "none": none,
    "batch-mean": batch_mean,
    "leave-one-out-mean": leave_one_out_mean,
    "batch-minimum": batch_minimum,
}
"""Baselines that are functions of the mini-batch alone, by the names an experiment uses."""

BASELINES = (*BATCH_BASELINES, "moving-average")
"""Names of all baselines."""
