"""Baselines b of eq. (2), which usually lower the variance of the score-function gradient.

The score has mean zero. So a baseline that does not depend on an example's own mask leaves the
expected gradient unchanged. One that does depend on it biases the gradient. Each docstring says by
how much, where g is the true gradient of the expected mean cost.

A baseline has the signature ``baseline(C, stage) -> (b, updates)``. C (N,) are the costs of the N
examples of a mini-batch, in nats, and `stage` the `gates.Stage` that they weigh. b is in nats,
(N,) or (N, k): one entry an example or a decision. The dictionary ``updates`` changes what the
baseline remembers.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad


def none(C, stage):
    """Zero. Unbiased.

    Examples
    --------
    >>> b, updates = none(pt.as_tensor([1.0, 2.0, 6.0]), None)
    >>> b.eval(), updates
    (array([0., 0., 0.]), {})
    """
    return pt.zeros_like(C), {}


def batch_mean(C, stage):
    """Mean of the mini-batch.

    It contains the example's own cost. That scales the expectation of the score's part to (N-1)/N
    times g, 5 % less at N = 20. A direct term, see `returns.to_go`, is not scaled.

    Examples
    --------
    >>> b, _ = batch_mean(pt.as_tensor([1.0, 2.0, 6.0]), None)
    >>> b.eval()
    array([3., 3., 3.])
    """
    return pt.zeros_like(C) + C.mean(), {}


def leave_one_out_mean(C, stage):
    """Mean of the other examples' costs, for each example.

    Unbiased. The gradient is exactly N/(N-1) times that with the batch mean, so the two differ in
    the learning rate only. A single example gets its own cost, so it causes no update.

    Examples
    --------
    >>> b, _ = leave_one_out_mean(pt.as_tensor([1.0, 2.0, 6.0]), None)
    >>> b.eval()
    array([4. , 3.5, 1.5])
    """
    n = C.shape[0].astype(C.dtype)
    alone = pt.eq(n, 1)
    return pt.switch(alone, C, (C.sum() - C) / pt.maximum(n - 1, 1)), {}


def batch_minimum(C, stage):
    """Lowest cost of the mini-batch: no example is rewarded.

    Biased: the expectation is g minus (1/N) times the gradient of E[min_n C_n]. The lowest cost
    depends on the mask of its own example.

    Examples
    --------
    >>> b, _ = batch_minimum(pt.as_tensor([1.0, 2.0, 6.0]), None)
    >>> b.eval()
    array([1., 1., 1.])
    """
    return pt.zeros_like(C) + C.min(), {}


def moving_average(decay):
    """Return a baseline: the exponential moving average of earlier mini-batches' mean costs.

    Unbiased, because it depends on earlier masks only. It starts at 0.

    Parameters
    ----------
    decay : float
        Weight of the past, a fraction in [0, 1).

    Returns
    -------
    callable
        ``baseline(C, stage) -> (b, updates)``, with a shared variable ``average_<stage.name>``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> baseline = moving_average(0.75)
    >>> b, updates = baseline(pt.as_tensor([1.0, 2.0, 6.0]), SimpleNamespace(name="1"))
    >>> b.eval()
    array([0., 0., 0.])
    >>> ((average, new),) = updates.items()
    >>> average.name, float(new.eval())
    ('average_1', 0.75)
    """

    def baseline(C, stage):
        average = pytensor.shared(np.zeros((), C.dtype), name=f"average_{stage.name}")
        past = pt.constant(decay, dtype=C.dtype)
        return pt.zeros_like(C) + average, {average: past * average + (1 - past) * C.mean()}

    return baseline


def per_unit(decay):
    """Return the baseline of least variance for each unit: a weighted mean of the cost.

    The weight is the squared score: ``E[(u - sigma)^2 C] / E[(u - sigma)^2]`` (Bengio, Leonard and
    Courville, 2013). Both are exponential averages over earlier mini-batches. Unbiased, because it
    depends on earlier masks only. It starts at 0.

    Parameters
    ----------
    decay : float
        Weight of the past, a fraction in [0, 1).

    Returns
    -------
    callable
        ``baseline(C, stage) -> (b, updates)``, b (N, k), with shared variables (k,) called
        ``weighted_cost_<stage.name>`` and ``weight_<stage.name>``.

    Examples
    --------
    >>> from reinforce_dropout import gates, network
    >>> rng = np.random.default_rng(0)
    >>> net = network.multilayer_perceptron(rng, (3, 2, 2), pt.tanh)
    >>> net = net._replace(gates=[gates.sigmoid_bernoulli(rng, 3, 2, "1")])
    >>> (stage,) = network.forward(net, pt.ones((4, 3)), pytensor.shared(rng)).stages
    >>> b, updates = per_unit(0.9)(pt.as_tensor([1.0, 2.0, 6.0, 3.0]), stage)
    >>> b.eval().shape
    (4, 2)
    >>> [average.name for average in updates]
    ['weighted_cost_1', 'weight_1']
    """

    def baseline(C, stage):
        n_decisions = stage.gate.policy.theta[-1].get_value(borrow=True).size
        zeros = np.zeros(n_decisions, C.dtype)
        weighted = pytensor.shared(zeros, name=f"weighted_cost_{stage.name}")
        weight = pytensor.shared(zeros, name=f"weight_{stage.name}")
        past = pt.constant(decay, dtype=C.dtype)
        square = (stage.u - stage.gate.family.mean(stage.z)) ** 2
        b = pt.switch(weight > 0, weighted / pt.switch(weight > 0, weight, 1), 0)
        return pt.zeros_like(stage.z) + b, {
            weighted: past * weighted + (1 - past) * (C[:, None] * square).mean(axis=0),
            weight: past * weight + (1 - past) * square.mean(axis=0),
        }

    return baseline


def learned(learning_rate):
    """Return a baseline that predicts the cost from the state: a linear regression.

    Unbiased, because it depends on the state and on earlier masks only. It learns by least mean
    squares, normalised by the squared length of the states, and starts at 0. Mnih and Gregor (2014)
    use a network.

    Parameters
    ----------
    learning_rate : float
        Between 0 and 2; a single state would be learned at once with 1.

    Returns
    -------
    callable
        ``baseline(C, stage) -> (b, updates)``, with shared variables ``v_<stage.name>`` (n_in,) and
        ``v0_<stage.name>``.

    Examples
    --------
    >>> from reinforce_dropout import gates, network
    >>> rng = np.random.default_rng(0)
    >>> net = network.multilayer_perceptron(rng, (3, 2, 2), pt.tanh)
    >>> net = net._replace(gates=[gates.sigmoid_bernoulli(rng, 3, 2, "1")])
    >>> (stage,) = network.forward(net, pt.ones((4, 3)), pytensor.shared(rng)).stages
    >>> b, updates = learned(1.0)(pt.as_tensor([1.0, 2.0, 6.0, 3.0]), stage)
    >>> b.eval(), [v.name for v in updates]
    (array([0., 0., 0., 0.]), ['v_1', 'v0_1'])
    """

    def baseline(C, stage):
        n_in = stage.gate.policy.theta[0].get_value(borrow=True).shape[0]
        v = pytensor.shared(np.zeros(n_in, C.dtype), name=f"v_{stage.name}")
        v0 = pytensor.shared(np.zeros((), C.dtype), name=f"v0_{stage.name}")
        s = stage.gate.pool(stage.s)
        b = s @ v + v0
        length = 1 + (s**2).sum(axis=1).mean()
        error = pt.constant(learning_rate, dtype=C.dtype) * (C - b) / length
        return disconnected_grad(b), {
            v: v + s.T @ error / s.shape[0].astype(s.dtype),
            v0: v0 + error.mean(),
        }

    return baseline
