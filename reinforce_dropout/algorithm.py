"""The algorithm of section 3.3.

Every mini-batch makes one step of back-propagation on the network's parameters, and one step of
REINFORCE on every policy. Both use the same forward pass with the same masks.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytensor
import pytensor.tensor as pt

from reinforce_dropout import costs
from reinforce_dropout.network import forward, sampled
from reinforce_dropout.returns import plus_direct


class Step(NamedTuple):
    """Expressions of one step.

    Attributes
    ----------
    statistics : dict from str to scalar tensor, or list of them
        Values before the update. The names become curves of the record. A list has one entry for
        each stage.
    updates : dict from shared variable to tensor
        The keys are all that the step changes.
    settle : callable
        Brings the parameters up to date. Called before they are read.
    settle_every : int
        `settle` is also called after this many steps.
    """

    statistics: dict
    updates: dict
    settle: Callable = lambda: None
    settle_every: int = sys.maxsize


def backpropagation_updates(network, nll, *, reduce, l2, descend, penalty=costs.l2):
    """Back-propagation: one step down the gradient of the loss, with the masks held constant.

    Parameters
    ----------
    network : Network
    nll : tensor (m_b,)
        In nats.
    reduce : callable
        Makes the loss of a mini-batch from the nll: `pytensor.tensor.sum` or ``mean``.
    l2 : float
        Coefficient of the penalty.
    descend : callable
        ``descend(params, grads) -> updates``
    penalty : callable
        ``penalty(weights) -> scalar``: the sum of squared weights, see `costs.l2`.

    Returns
    -------
    dict from shared variable to tensor
    """
    loss = reduce(nll) + pt.constant(l2, dtype=nll.dtype) * penalty(network.weights)
    return descend(network.params, pytensor.grad(loss, network.params))


def reinforce_updates(stages, nll, *, cost, lam, returns, baseline, estimate, descend):
    """REINFORCE: one step down eq. (4) for every policy.

    The policies share no parameters, so eq. (2) has no sum over stages.

    Parameters
    ----------
    stages : list of Stage
        Their policies learn.
    nll : tensor (m_b,)
        In nats.
    cost : callable
        ``cost(stages, i) -> Paid``: what stage i pays, see `costs.kl_to_rate`.
    lam : float
        lambda of eq. (6).
    returns : callable
        ``returns(nll, paid, lam, i) -> (C_i, direct)``, see `reinforce_dropout.returns`.
    baseline : callable
        ``baseline(C, stage) -> (b, updates)``, see `reinforce_dropout.baselines`.
    estimate : callable
        ``estimate(log_pi, theta, c) -> grads``, see `reinforce_dropout.reinforce`.
    descend : callable
        ``descend(theta, grads) -> updates``, see `reinforce_dropout.updates`.

    Returns
    -------
    dict from shared variable to tensor
    """
    updates = {}
    paid = [cost(stages, i) for i in range(len(stages))]
    for i, stage in enumerate(stages):
        gate, theta = stage.gate, stage.gate.policy.theta
        C, direct = returns(gate.pool(nll), paid, lam, i)
        b, remembered = baseline(C, stage)
        grads = estimate(gate.family.log_prob(stage.z, stage.u), theta, C - b)
        updates |= remembered | descend(theta, plus_direct(grads, direct, theta))
    return updates


def training_step(network, x, y, rng, learn, rule=sampled):
    """Build the step for the mini-batch (x, y).

    Parameters
    ----------
    network : Network
    x : tensor (m_b, n_in)
    y : integer tensor (m_b,)
    rng : shared random generator, or None where nothing is drawn
    learn : callable
        ``learn(network, passed, nll) -> updates``
    rule : callable
        How the pass decides, see `network.RULES`.

    Returns
    -------
    Step
    """
    passed = forward(network, x, rng, rule)
    nll = costs.nll(passed.logits, y)
    updates = learn(network, passed, nll)
    return Step(statistics(passed.stages, nll), updates | draws(rng, passed.rng))


def draws(rng, after):
    """Return the update of a generator, or none if nothing was drawn."""
    return {} if after is rng else {rng: after}


def statistics(stages, nll):
    """Return the `Step.statistics` of a pass.

    ``train_nll`` is in nats an example, ``active_fraction`` a fraction for each stage, and
    ``policy_entropy`` in nats a decision for each stage.
    """
    return {
        "train_nll": nll.mean(),
        "active_fraction": [stage.gate.active(stage.U).mean() for stage in stages],
        "policy_entropy": [
            (s.gate.family.entropy(s.z) / s.z.shape[1].astype(s.z.dtype)).mean() for s in stages
        ],
    }
