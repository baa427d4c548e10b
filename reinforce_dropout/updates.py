"""Updates of shared variables: dictionaries that are returned, never applied here.

A dictionary maps shared variables to their next values. Its keys are all that a step changes. So a
checkpoint holds exactly these, and also what a function below remembers: velocities and averages.

`sgd`, `momentum`, `rmsprop` and `adam` produce updates from parameters and gradients. `max_norm`
wraps updates. Rates may be scalar tensors, which change from step to step without a new
compilation. Each function keeps the dtype of the parameters.
"""

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout.initializers import parameter


def sgd(params, grads, learning_rate):
    """One step of stochastic gradient descent, ``p - learning_rate * g``.

    Parameters
    ----------
    params : sequence of shared variables
    grads : sequence of tensor
        One for each parameter.
    learning_rate : float or scalar tensor

    Returns
    -------
    dict from shared variable to tensor

    Examples
    --------
    >>> p = pytensor.shared(np.array([1.0, 2.0]))
    >>> sgd([p], [np.array([10.0, 0.0])], 0.1)[p].eval()
    array([0., 2.])
    """
    return {p: p - pt.cast(learning_rate, p.dtype) * g for p, g in zip(params, grads, strict=True)}


def momentum(params, grads, learning_rate, mu):
    """Hinton et al. (2012): ``v' = mu v - (1 - mu) learning_rate g``, and ``p + v'``.

    The factor 1 - mu makes the velocity an average of steps. So a rate that suits `sgd` suits every
    mu, and mu may change during a run.

    Parameters
    ----------
    params, grads, learning_rate
        As for `sgd`.
    mu : float or scalar tensor
        Weight of the past velocity, a fraction in [0, 1).

    Returns
    -------
    dict from shared variable to tensor
        Also of the velocities ``velocity_<name>``, 0 at first.

    Examples
    --------
    >>> p = pytensor.shared(np.array([1.0, 2.0]), name="p")
    >>> updates = momentum([p], [pt.as_tensor([10.0, 0.0])], 0.1, mu=0.9)
    >>> updates[p].eval(), len(updates)
    (array([0.9, 2. ]), 2)
    """
    updates = {}
    for p, g in zip(params, grads, strict=True):
        v, past = _remembered(p, "velocity"), pt.cast(mu, p.dtype)
        step = past * v - (1 - past) * pt.cast(learning_rate, p.dtype) * g
        updates |= {v: step, p: p + step}
    return updates


def rmsprop(params, grads, learning_rate, decay=0.9, epsilon=1e-6):
    """Divide each gradient by the root of the average of its squares (Tieleman and Hinton, 2012).

    ``r' = decay r + (1 - decay) g^2``, and ``p - learning_rate g / sqrt(r' + epsilon)``.

    Parameters
    ----------
    params, grads, learning_rate
        As for `sgd`.
    decay : float
        Weight of the past squares.
    epsilon : float
        Keeps the quotient finite.

    Returns
    -------
    dict from shared variable to tensor
        Also of the averages ``square_<name>``, 0 at first.

    Examples
    --------
    >>> p = pytensor.shared(np.array([1.0, 2.0]), name="p")
    >>> updates = rmsprop([p], [pt.as_tensor([10.0, 0.0])], 0.1)
    >>> updates[p].eval().round(3), len(updates)
    (array([0.684, 2.   ]), 2)
    """
    updates = {}
    for p, g in zip(params, grads, strict=True):
        r, (past, small) = _remembered(p, "square"), np.asarray([decay, epsilon], p.dtype)
        after = past * r + (1 - past) * g**2
        updates |= {r: after, p: p - pt.cast(learning_rate, p.dtype) * g / pt.sqrt(after + small)}
    return updates


def adam(params, grads, learning_rate, mu, decay=0.999, epsilon=1e-8):
    """Divide an average of gradients by the root of an average of squares (Kingma and Ba, 2015).

    Both averages start at 0. Each is divided by its weights' sum, which starts at 0 too. With a
    constant mu that sum is their ``1 - mu^t``. It stays right if mu changes.

    Parameters
    ----------
    params, grads, learning_rate
        As for `sgd`.
    mu : float or scalar tensor
        Weight of the past gradients; their beta_1.
    decay : float
        Weight of the past squares; their beta_2.
    epsilon : float
        Keeps the quotient finite.

    Returns
    -------
    dict from shared variable to tensor
        Also of the averages ``mean_<name>`` and ``square_<name>``, and of their weights' sums
        ``mean_weight_<name>`` and ``square_weight_<name>``.

    Examples
    --------
    >>> p = pytensor.shared(np.array([1.0, 2.0]), name="p")
    >>> updates = adam([p], [pt.as_tensor([10.0, 0.0])], 0.1, mu=0.9)
    >>> updates[p].eval().round(3), len(updates)
    (array([0.9, 2. ]), 5)
    """
    updates = {}
    for p, g in zip(params, grads, strict=True):
        past, (past_squares, small) = pt.cast(mu, p.dtype), np.asarray([decay, epsilon], p.dtype)
        mean, mean_updates = _average(p, "mean", g, past)
        square, square_updates = _average(p, "square", g**2, past_squares)
        step = pt.cast(learning_rate, p.dtype) * mean / (pt.sqrt(square) + small)
        updates |= mean_updates | square_updates | {p: p - step}
    return updates


def max_norm(updates, weights, limit):
    """Scale back every column of a weight matrix that the updates make too long.

    A column holds the incoming weights of a unit. One whose squared length exceeds the limit gets
    the limit as its squared length; the others stay as they are.

    Parameters
    ----------
    updates : dict from shared variable to tensor
    weights : sequence of shared variables (n_in, n_out)
        The matrices to limit, all of them keys of `updates`.
    limit : float
        Largest squared length of a column.

    Returns
    -------
    dict from shared variable to tensor

    Examples
    --------
    >>> W = pytensor.shared(np.array([[3.0, 0.3], [4.0, 0.4]]), name="W")
    >>> max_norm({W: W}, [W], limit=1.0)[W].eval()
    array([[0.6, 0.3],
           [0.8, 0.4]])
    """
    limited = {}
    for W in weights:
        squares, most = (updates[W] ** 2).sum(axis=0), np.asarray(limit, W.dtype)
        limited[W] = updates[W] * pt.sqrt(most / pt.maximum(squares, most))
    return updates | limited


def _remembered(p, what, shape=None):
    """Return a shared variable of zeros for the parameter p, by default in its shape."""
    shape = p.get_value(borrow=True).shape if shape is None else shape
    return parameter(np.zeros(shape, p.dtype), f"{what}_{p.name}")


def _average(p, what, value, past):
    """Return the exponential average of a value of p's shape, and the updates that remember it."""
    total, weight = _remembered(p, what), _remembered(p, f"{what}_weight", shape=())
    after = {total: past * total + (1 - past) * value, weight: past * weight + (1 - past)}
    return after[total] / after[weight], after
