"""Kinds of stochastic gates (Bengio, Leonard and Courville, 2013), functions of their logits z.

Each says how a gate h is drawn, and how the gradient reaches z. It also says which term holds the
target for the fraction of gates that are on. `NEURONS` lists them by name. The system that uses
them is `systems.stochastic_neurons`. All functions keep the shape (m_b, n_units) and the dtype of
z.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from reinforce_dropout import baselines
from reinforce_dropout.initializers import parameter
from reinforce_dropout.layers import relu


class Neuron(NamedTuple):
    """A kind of gate.

    Attributes
    ----------
    sample : callable
        ``sample(z, rng, settings) -> (h, next_rng)``. Where back-propagation reaches z through h,
        it gives the estimate of the paper.
    smooth : callable
        ``smooth(z) -> h``: the gate without noise.
    height : callable
        ``height(z) -> h``: the gate's value where it is on, when a threshold decides.
    sparsity : callable
        ``sparsity(z, h, settings) -> (cost, updates)``: the term that holds the target.
    gradient : callable
        ``gradient(stage, nll, loss) -> (dL/dz, updates)``; the loss L sums or averages nll (m_b,).
    """

    sample: Callable
    smooth: Callable
    height: Callable
    sparsity: Callable
    gradient: Callable


def root_of_sigmoid(z):
    """``sqrt(sigm(z))``, of -60 where z is below: there sigm(z) would underflow in the gradient."""
    return pt.sqrt(pt.sigmoid(pt.maximum(z, np.float32(-60))))


def with_gradient_of(value, through):
    """Return `value`; back-propagation sees the expression `through` of the same shape instead."""
    return value + (through - disconnected_grad(through))


def drawn(rate, rng):
    """Draw ``b ~ Bernoulli(rate)``, a constant for back-propagation; return the next state too."""
    rng, uniform = pt.random.uniform(
        size=rate.shape, rng=rng, dtype=rate.dtype, return_next_rng=True
    )
    return disconnected_grad((uniform < rate).astype(rate.dtype)), rng


def straight_through(z, rng, settings):
    """``h ~ Bernoulli(sigma)``; dL/dz := dL/dh."""
    h, rng = drawn(pt.sigmoid(z), rng)
    return with_gradient_of(h, z), rng


def straight_through_with_slope(z, rng, settings):
    """``h ~ Bernoulli(sigma)``; dL/dz := dL/dh sigma (1 - sigma)."""
    h, rng = drawn(pt.sigmoid(z), rng)
    return with_gradient_of(h, pt.sigmoid(z)), rng


def stochastic_times_smooth(z, rng, settings):
    """``h = b sqrt(sigma)``, ``b ~ Bernoulli(sqrt(sigma))``."""
    root = root_of_sigmoid(z)
    b, rng = drawn(root, rng)
    return b * root, rng


def sts_sampled_with_sigma(z, rng, settings):
    """``h = b sqrt(sigma)``, ``b ~ Bernoulli(sigma)``, as in the authors' code."""
    b, rng = drawn(pt.sigmoid(z), rng)
    return b * root_of_sigmoid(z), rng


def noisy_rectifier(z, rng, settings):
    """``h = max(0, z + n)``, n normal."""
    rng, n = pt.random.normal(size=z.shape, rng=rng, dtype=z.dtype, return_next_rng=True)
    return relu(z + np.float32(settings.noise_std) * n), rng


def rectifier(z, rng, settings):
    """``h = max(0, z)``."""
    return relu(z), rng


def stochastic_binary(z, rng, settings):
    """``h ~ Bernoulli(sigma)``, a constant for back-propagation."""
    return drawn(pt.sigmoid(z), rng)


def cross_entropy(rate):
    """Return the sparsity term of sigmoid gates, ``rate(z)`` their probability of being on.

    The cross-entropy of the target with the mini-batch mean of each unit, in nats, summed over the
    units and times ``sparsity``.
    """

    def sparsity(z, h, settings):
        mean = rate(z).mean(axis=0)
        tiny, target = np.float32(1e-6), np.float32(settings.target)
        nats = -(target * pt.log(mean + tiny) + (1 - target) * pt.log(1 - mean + tiny))
        return np.float32(settings.sparsity) * nats.sum(), {}

    return sparsity


def adaptive_l1(z, h, settings):
    """Return the sparsity term of rectifiers: the sum of the gates, mean over the mini-batch.

    Its weight ``lam`` begins with ``sparsity``. It is multiplied by 1.1 or by 0.9 if the fraction
    of gates that are on is more than 0.01 above the target or below it.
    """
    lam = parameter(np.float32(settings.sparsity), "lam")
    excess = is_on(h).mean() - np.float32(settings.target)
    far = (pt.abs(excess) > np.float32(0.01)).astype(h.dtype)
    factor = 1 + np.float32(0.1) * far * pt.sign(excess)
    return lam * h.sum(axis=1).mean(), {lam: pt.clip(factor * lam, np.float32(1e-10), 1)}


def is_on(h):
    """1 where a gate is not 0, else 0; (m_b, n_units)."""
    return pt.neq(h, 0).astype(h.dtype)


def back_propagated(stage, nll, loss):
    """Return what back-propagation through h gives."""
    return pytensor.grad(loss, stage.z), {}


def score(stage, nll, loss):
    """``(h - sigma)(L - baseline)``. Unbiased, as the baseline is of earlier mini-batches."""
    baseline, updates = baselines.per_unit(PAST)(nll, stage)
    share = pytensor.grad(loss, nll)[:, None]  # 1, or 1 / m_b of a mean
    return (stage.u - stage.gate.family.mean(stage.z)) * (nll[:, None] - baseline) * share, updates


PAST = 0.9
"""Weight of the past in the averages of the baseline."""

NEURONS = {
    "straight-through": Neuron(
        straight_through, pt.sigmoid, pt.ones_like, cross_entropy(pt.sigmoid), back_propagated
    ),
    "straight-through-with-slope": Neuron(
        straight_through_with_slope,
        pt.sigmoid,
        pt.ones_like,
        cross_entropy(pt.sigmoid),
        back_propagated,
    ),
    "noisy-rectifier": Neuron(noisy_rectifier, relu, relu, adaptive_l1, back_propagated),
    "sts": Neuron(
        stochastic_times_smooth,
        pt.sigmoid,
        root_of_sigmoid,
        cross_entropy(root_of_sigmoid),
        back_propagated,
    ),
    "sts-sampled-with-sigma": Neuron(
        sts_sampled_with_sigma,
        lambda z: pt.sigmoid(z) * root_of_sigmoid(z),
        root_of_sigmoid,
        cross_entropy(pt.sigmoid),
        back_propagated,
    ),
    "stochastic-binary": Neuron(
        stochastic_binary, pt.sigmoid, pt.ones_like, cross_entropy(pt.sigmoid), score
    ),
    "rectifier": Neuron(rectifier, relu, relu, adaptive_l1, back_propagated),
}
"""Kinds of gates by name."""
