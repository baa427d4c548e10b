"""The algorithm of section 3.3.

Every mini-batch makes one step of back-propagation on the network's parameters, and one step of
REINFORCE on every policy. Both use the same forward pass with the same masks.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytensor
import pytensor.tensor as pt

from reinforce_dropout import costs
from reinforce_dropout.network import forward, sampled
from reinforce_dropout.reinforce import score_function
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


def reinforce_updates(stages, nll, *, baseline, estimate, **options):
    """REINFORCE: one step down eq. (4) for every policy.

    Parameters
    ----------
    stages, nll
        As for `policy_updates`.
    baseline : callable
        ``baseline(C, stage) -> (b, updates)``, see `reinforce_dropout.baselines`.
    estimate : callable
        ``estimate(log_pi, theta, c) -> grads``, see `reinforce_dropout.reinforce`.
    **options
        ``cost``, ``lam``, ``returns`` and ``descend`` of `policy_updates`.

    Returns
    -------
    dict from shared variable to tensor
    """
    return policy_updates(
        stages,
        nll,
        estimator=score_function(baseline),
        gradient=partial(to_theta, product=estimate),
        **options,
    )


def policy_updates(
    stages, nll, *, cost, lam, returns, estimator, gradient, descend, again=None, rng=None
):
    """One step down an estimate of the gradient for every policy.

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
    estimator : callable
        ``estimator(stage, C, cost_of, rng) -> reinforce.Estimate``. ``cost_of(u, rng, above)``
        returns the costs (n_decisions,) if the stage decides u and those above decide anew by the
        rule ``above``, and the generator's next state.
    gradient : callable
        ``gradient(stage, estimate, direct) -> grads``, such as `to_theta`: one for each parameter
        of the policy.
    descend : callable
        ``descend(theta, grads) -> updates``, see `reinforce_dropout.updates`.
    again : callable, optional
        ``again(i, u, rng, above) -> (stages, nll, rng)``: the pass anew from stage i, which decides
        u. Only some estimators need it.
    rng : random generator variable, optional
        The state from which estimators draw.

    Returns
    -------
    dict from shared variable to tensor
        If something was drawn, `rng` is a key, too: its value is the state afterwards.
    """

    def paid_by(stages):
        return [cost(stages, i) for i in range(len(stages))]

    updates, paid, drawn = {}, paid_by(stages), rng
    for i, stage in enumerate(stages):
        C, direct = returns(stage.gate.pool(nll), paid, lam, i)

        def cost_of(u, rng, above=sampled, i=i, pool=stage.gate.pool):
            upper, tried_nll, rng = again(i, u, rng, above)
            tried_C, _ = returns(pool(tried_nll), paid_by([*stages[:i], *upper]), lam, i)
            return tried_C, rng

        estimate = estimator(stage, C, cost_of, drawn)
        drawn = estimate.rng
        updates |= estimate.updates | descend(
            stage.gate.policy.theta, gradient(stage, estimate, direct)
        )
    return updates | draws(rng, drawn)


def to_theta(stage, estimate, direct, product):
    """Carry an estimate to the parameters of the stage's policy, and add the direct term if any.

    `product` is one of the four in `reinforce_dropout.reinforce`.
    """
    theta = stage.gate.policy.theta
    return plus_direct(product(estimate.of, theta, estimate.c), direct, theta)


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


def training_step(network, x, y, rng, learn, rule=sampled, measure=statistics):
    """Build the step for the mini-batch (x, y).

    Parameters
    ----------
    network : Network
    x : tensor (m_b, n_in)
    y : integer tensor (m_b,)
    rng : shared random generator, or None where nothing is drawn
    learn : callable
        ``learn(network, passed, nll) -> updates``. If it goes on drawing from ``passed.rng``, that
        is a key, too: its value is the state afterwards.
    rule : callable
        How the pass decides, see `network.RULES`.
    measure : callable
        ``measure(stages, nll) -> statistics``, see `Step`.

    Returns
    -------
    Step
    """
    passed = forward(network, x, rng, rule)
    nll = costs.nll(passed.logits, y)
    updates = learn(network, passed, nll)
    after = updates.pop(passed.rng, passed.rng)
    return Step(measure(passed.stages, nll), updates | draws(rng, after))


def draws(rng, after):
    """Return the update of a generator, or none if nothing was drawn."""
    return {} if after is rng else {rng: after}
