"""Separable natural evolution strategy (SNES; Schaul, Glasmachers and Schmidhuber, 2011).

It searches for the maximum of a fitness of d numbers, which it never differentiates. Candidates are
``mu + sig * s_k`` with s_k ~ N(0, I). Their ranks, not their fitnesses, move mu and sig, which has
one entry a dimension.
"""

import math

import numpy as np
import pytensor.tensor as pt


def population_size(d):
    """Return the recommended number of candidates in d dimensions, ``4 + floor(3 log d)``."""
    return 4 + int(3 * math.log(d))


def step_size_rate(d):
    """Return the recommended learning rate of sig, ``(3 + log d) / (5 sqrt d)``."""
    return (3 + math.log(d)) / (5 * math.sqrt(d))


def utilities(fitness):
    """Return the weights (P,) of candidates by rank: the best has the largest, their sum is 0.

    ``max(0, log(P/2 + 1) - log rank)``, divided by its sum, minus 1/P. Among equal fitnesses the
    first has the better rank.
    """
    P = fitness.shape[0]
    others, own = fitness[None, :], fitness[:, None]
    earlier = pt.arange(P)[None, :] < pt.arange(P)[:, None]
    rank = 1 + (pt.gt(others, own) | (pt.eq(others, own) & earlier)).sum(axis=1)
    n = P.astype(fitness.dtype)
    raw = pt.maximum(0, pt.log(n / 2 + 1) - pt.log(rank.astype(fitness.dtype)))
    return raw / raw.sum() - 1 / n


def snes(mu, sig, s, fitness, mean_rate=1.0):
    """One generation.

    Parameters
    ----------
    mu, sig : shared (d,)
        Mean and standard deviations of the search.
    s : tensor (P, d)
        Standard normal numbers, from which the candidates ``mu + sig * s_k`` were made.
    fitness : tensor (P,)
        Of the candidates; larger is better.
    mean_rate : float
        Learning rate of mu.

    Returns
    -------
    dict from shared variable to tensor
        The updates of mu and sig.
    """
    u = utilities(fitness)
    eta_mu, eta_sig = (
        np.asarray(eta, mu.dtype)
        for eta in (mean_rate, step_size_rate(mu.get_value(borrow=True).size))
    )
    return {
        mu: mu + eta_mu * sig * (u @ s),
        sig: sig * pt.exp(eta_sig / 2 * (u @ (s**2 - 1))),
    }
