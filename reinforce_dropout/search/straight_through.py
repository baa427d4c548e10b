"""Estimators that differentiate the cost by the decisions, as if these were numbers.

A network multiplies by its masks. So its cost C has a derivative with respect to them, which says
what a little more of a unit would do. A decision is all or nothing, so both estimators are biased.
In return they tell each unit its own part in the cost, without a baseline. They have the signature
of `search.estimators`, and need no further pass forwards.
"""

import pytensor
import pytensor.tensor as pt

from reinforce_dropout.reinforce import Estimate


def straight_through(stage, C, cost_of, rng):
    """``dE[C]/dz := dC/du`` (Bengio, Léonard and Courville, 2013)."""
    return Estimate(stage.z, by_decision(stage, C), {}, rng)


def straight_through_with_slope(stage, C, cost_of, rng):
    """``dE[C]/dz := dC/du sigma (1 - sigma)``; right where C is linear in each decision.

    ``sigma (1 - sigma)`` is the derivative of a decision's expectation. The exact gradient has
    ``C(u = 1) - C(u = 0)`` in place of dC/du. For Bernoulli decisions.
    """
    sigma = pt.sigmoid(stage.z)
    return Estimate(stage.z, by_decision(stage, C) * sigma * (1 - sigma), {}, rng)


def by_decision(stage, C):
    """Return ``dC/du`` (N, k): what each decision changes in the sum of the costs C (N,).

    The masks above are constants. The policies above are not: they see what the layer gives.
    """
    return pytensor.grad(C.sum(), stage.u, disconnected_inputs="ignore")
