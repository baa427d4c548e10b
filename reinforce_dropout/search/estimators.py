"""Estimators of a policy's gradient from other decisions in the same state.

All are unbiased, and need no baseline. Each pays with passes from its layer upwards. What lies
below is not computed again. The cost C of eq. (6) may be that of any reading in `returns`.

An estimator has the signature ``estimator(stage, C, cost_of, rng) -> reinforce.Estimate``. C (N,)
are the costs of the decisions that the pass drew. ``cost_of(u, rng, above) -> (C, rng)`` gives the
costs of other decisions u (N, k), see `algorithm.policy_updates`. `arm` and `disarm` are for
Bernoulli decisions.
"""

import pytensor.tensor as pt
from pytensor.gradient import pullback

from reinforce_dropout.network import thresholded
from reinforce_dropout.reinforce import Estimate


def leave_one_out(n_masks):
    """Return the score-function estimator from several decisions in each state.

    The baseline of one is the mean cost of the others (Kool, van Hoof and Welling, 2019).

    Parameters
    ----------
    n_masks : int
        K, with the decision that the pass drew; 2 or more.

    Returns
    -------
    callable
    """

    def estimator(stage, C, cost_of, rng):
        family, z = stage.gate.family, stage.z
        decisions, costs = [stage.u], [C]
        for _ in range(n_masks - 1):
            u, rng = family.sample(z, rng)
            C, rng = cost_of(u, rng)
            decisions.append(u)
            costs.append(C)
        K = pt.constant(n_masks, dtype=C.dtype)
        weighted_scores = [
            pullback(family.log_prob(z, u), z, C - (sum(costs) - C) / (K - 1))
            for u, C in zip(decisions, costs, strict=True)
        ]
        return Estimate(z, sum(weighted_scores) / K, {}, rng)

    return estimator


def self_critical(stage, C, cost_of, rng):
    """Compare with the most probable decisions, here and above (Rennie et al., 2017)."""
    family = stage.gate.family
    b, rng = cost_of(family.mode(stage.z), rng, above=thresholded)
    return Estimate(family.log_prob(stage.z, stage.u), C - b, {}, rng)


def arm(stage, C, cost_of, rng):
    """Compare with the antithetic decisions, made by the opposite noise (Yin and Zhou, 2019).

    With noise n, ``(f(1[n > 1 - sigma]) - f(1[n < sigma])) (n - 1/2)`` estimates dE[f]/dz. The
    decisions that the pass drew are ``1[n < sigma]``.
    """
    family, z = stage.gate.family, stage.z
    n, rng = family.noise(z, stage.u, rng)
    C_antithetic, rng = cost_of(family.antithetic(z, n), rng)
    return Estimate(z, (C_antithetic - C)[:, None] * (n - 0.5), {}, rng)


def disarm(stage, C, cost_of, rng):
    """Average `arm` over the noise that gives the same pair of decisions.

    ``1/2 (f(b1) - f(b2)) 1[b1 != b2] (-1)^b2 sigm(|z|)`` estimates dE[f]/dz (Dong, Mnih and Tucker,
    2020; Yin et al., 2020). b2 are the decisions that the pass drew, b1 the antithetic ones.
    """
    family, z, b2 = stage.gate.family, stage.z, stage.u
    n, rng = family.noise(z, b2, rng)
    b1 = family.antithetic(z, n)
    C_antithetic, rng = cost_of(b1, rng)
    # b1 - b2 is 1[b1 != b2] (-1)^b2.
    return Estimate(z, 0.5 * (C_antithetic - C)[:, None] * (b1 - b2) * pt.sigmoid(abs(z)), {}, rng)
