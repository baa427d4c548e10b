"""Computation time as the cost of a decision: a model of the block-sparse forward pass.

A layer whose dropped units are skipped takes time for each pair of an active input and an active
unit. So layers interact, unlike in the divergence. The time of a pass for one example is

    a + sum over layers i of  b n_{i-1} n_i + c n_i + p n_{i-1} k_i + d k_i

Here n_i are the active units of layer i, and n_0 the inputs that are not 0. k_i are the decisions
of layer i; its policy makes them for all units. The output layer is part of c.
``reproduce/compute_time.py`` fits the coefficients to measured times.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytensor.tensor as pt

from reinforce_dropout.costs import Paid

PACKAGED = Path(__file__).parents[1] / "data" / "compute_time.json"
"""The fit that the setting ``penalty=compute-time`` uses."""


class Coefficients(NamedTuple):
    """Times in nanoseconds.

    Attributes
    ----------
    per_pass : float
        a, for each example.
    per_product : float
        b, for each pair of an active input and an active unit.
    per_unit : float
        c, for each active unit.
    per_policy_product : float
        p, for each pair of an active input and a decision.
    per_decision : float
        d, for each decision.
    """

    per_pass: float
    per_product: float
    per_unit: float
    per_policy_product: float
    per_decision: float


def read(path=PACKAGED):
    """Return the `Coefficients` in a file of ``reproduce/compute_time.py``."""
    return Coefficients(**json.loads(Path(path).read_text())["nanoseconds"])


def features(n_inputs, n_active, n_decisions):
    """Return what the coefficients multiply, one entry for each.

    Parameters
    ----------
    n_inputs : int, array or tensor
        Inputs of the network that are not 0.
    n_active : list
        Active units of each hidden layer.
    n_decisions : list
        Decisions of each layer's policy; zeros if the masks are given.

    Returns
    -------
    list
    """
    below = [n_inputs, *n_active[:-1]]
    return [
        1,
        sum(n * m for n, m in zip(below, n_active, strict=True)),
        sum(n_active),
        sum(n * k for n, k in zip(below, n_decisions, strict=True)),
        sum(n_decisions),
    ]


def fraction_of_time(coefficients):
    """Return a penalty: the time of the pass, as a fraction of that with all units.

    A stage pays for what its decision changes: the products of its units with those below, its
    units, and the next policy's products with them. The first stage also pays what no decision
    changes. So the sum over the stages is t(u) / t(all).

    Parameters
    ----------
    coefficients : Coefficients

    Returns
    -------
    callable
        ``cost(stages, i) -> Paid``, fractions.
    """

    def time(n_inputs, n_active, n_decisions):
        terms = zip(coefficients, features(n_inputs, n_active, n_decisions), strict=True)
        return sum(pt.constant(c, dtype=n_inputs.dtype) * f for c, f in terms)

    def cost(stages, i):
        dtype = stages[0].z.dtype
        n_inputs = pt.neq(stages[0].s, 0).sum(axis=1).astype(dtype)
        n_decisions = [stage.z.shape[1].astype(dtype) for stage in stages]
        n_active = [stage.U.sum(axis=1) for stage in stages]

        def up_to(n_layers):
            """Time of the pass if all units above so many layers are off."""
            off = [pt.zeros_like(n) for n in n_active[n_layers:]]
            return time(n_inputs, n_active[:n_layers] + off, n_decisions)

        everything = time(n_inputs, [s.U.shape[1].astype(dtype) for s in stages], n_decisions)
        paid_below = up_to(i) if i else pt.zeros_like(n_inputs)
        return Paid(for_decision=stages[i].gate.pool((up_to(i + 1) - paid_below) / everything))

    return cost
