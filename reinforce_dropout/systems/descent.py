"""How parameters descend: the optimizer, and what changes from epoch to epoch.

Hinton et al. (2012) let the learning rate decay and the momentum grow, in epoch t from 0::

    rate = f^t rate_0,   f = 0.998
    mu   = (t / T) mu_f + (1 - t / T) mu_i  for t < T, else mu_f;   mu_i = 0.5, T = 500

in 3000 epochs. (The printed formula has the two coefficients of mu the other way round. The text
says that momentum grows.) A shorter schedule keeps the shape: rate and momentum depend on the part
of the schedule that is done.

With the other schedule the rate falls along half a cosine (Loshchilov and Hutter, 2017), which
stays high for longer, and the momentum is constant::

    rate = (1 + cos(pi t / T)) / 2 rate_0   in epoch t of T
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytensor

from reinforce_dropout import updates

OPTIMIZERS = {
    "sgd": lambda mu: updates.sgd,
    "momentum": lambda mu: partial(updates.momentum, mu=mu),
    "rmsprop": lambda mu: updates.rmsprop,
    "adam": lambda mu: partial(updates.adam, mu=mu),
}
"""``optimizer(mu) -> descend(params, grads, learning_rate) -> updates``"""

EPOCHS = 3000
"""Length of the paper's schedule."""
DECAY = 0.998
"""Factor on the learning rate from one of these epochs to the next."""
RISE = 500 / EPOCHS
"""Part of the schedule in which the momentum grows."""
FIRST_MOMENTUM = 0.5


class Pace(NamedTuple):
    """What all steps of an epoch have in common.

    Attributes
    ----------
    factor : float or shared () float32
        On every learning rate.
    mu : float or shared () float32
        Momentum, a fraction.
    schedule : callable
        ``schedule(epoch)`` sets both for an epoch, from 1.
    """

    factor: Any
    mu: Any
    schedule: Callable = lambda epoch: None

    def descend(self, optimizer, learning_rate):
        """Return ``descend(params, grads) -> updates`` for an optimizer's name and its rate."""
        return partial(OPTIMIZERS[optimizer](self.mu), learning_rate=self.factor * learning_rate)


def constant(settings):
    """Return the `Pace` without a schedule."""
    return Pace(1.0, settings.momentum)


def pace(settings):
    """Return the `Pace` of settings: that of their schedule, if they have one.

    The variables are functions of the epoch alone, so a resumed run goes on as it would have.
    """
    n_epochs = settings.schedule_epochs
    if n_epochs == 0:
        return constant(settings)
    factor = pytensor.shared(np.float32(1), name="rate_factor")
    mu = pytensor.shared(np.float32(FIRST_MOMENTUM), name="momentum")
    rates_at, momentum_at = SCHEDULES[settings.schedule]

    def schedule(epoch):
        factor.set_value(np.float32(rates_at(epoch, n_epochs)))
        mu.set_value(np.float32(momentum_at(epoch, n_epochs, settings.momentum)))

    return Pace(factor, mu, schedule)


def rate_factor(epoch, n_epochs):
    """Return the factor on the learning rate in an epoch, from 1, of a schedule's `n_epochs`."""
    return DECAY ** ((epoch - 1) * EPOCHS / n_epochs)


def momentum(epoch, n_epochs, last):
    """Return the momentum in an epoch, from 1: it grows linearly to `last`."""
    done = min(1.0, (epoch - 1) / (RISE * n_epochs))
    return done * last + (1 - done) * FIRST_MOMENTUM


def cosine(epoch, n_epochs):
    """Return the factor on the learning rate in an epoch, from 1: half a cosine, towards 0."""
    return (1 + np.cos(np.pi * (epoch - 1) / n_epochs)) / 2


def same_momentum(epoch, n_epochs, last):
    """Return the momentum in an epoch: always `last`."""
    return last


SCHEDULES = {"exponential": (rate_factor, momentum), "cosine": (cosine, same_momentum)}
"""``factor(epoch, n_epochs)`` on the rates, and ``momentum(epoch, n_epochs, last)``, by name."""
