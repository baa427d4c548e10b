"""The algorithm of section 3.3 as one list of updates.

For every mini-batch: one step of back-propagation on the network's parameters and one step of
REINFORCE on every policy, both from the same forward pass with the same masks.
"""

from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import baselines, bernoulli, blocks, costs, reinforce
from reinforce_dropout.updates import sgd


class TrainingStep(NamedTuple):
    """Expressions of one step.

    Attributes
    ----------
    statistics : tensor (1 + 2 L,)
        Before the update: mean nll in nats; with policies also the active fraction of each layer
        and then the entropy of each policy in nats per decision.
    updates : list of (shared variable, tensor)
    averages : list of shared ()
        State of the moving-average baselines, one a policy; else empty.
    weights : block_training.StepWeights or None
        What is updated in the place of the network's weight matrices, if not these themselves.
    """

    statistics: object
    updates: list
    averages: list
    weights: object = None


def network_cost(nll, weights, experiment):
    """Loss of the network: nll, summed or averaged over the mini-batch, plus the L2 penalty."""
    loss = nll.sum() if experiment.loss_reduction == "sum" else nll.mean()
    return loss + pt.constant(experiment.l2, dtype=nll.dtype) * costs.l2(weights)


def network_updates(network, nll, experiment):
    """Back-propagation: a step down the gradient of `network_cost`, masks held constant."""
    cost = network_cost(nll, network.weights, experiment)
    return sgd(network.params, pytensor.grad(cost, network.params), experiment.learning_rate)


def policy_updates(network, forward, nll, experiment):
    """REINFORCE: a step down eq. (4) for every policy.

    The block is the policies' example: log pi is taken once a block, its cost is the mean nll of
    its instances with lambda times its own divergences, and N is the number of blocks. Uniform
    policies do not learn.

    Returns
    -------
    updates : list of (shared variable, tensor)
    averages : list of shared ()
    """
    updates, averages = [], []
    if experiment.uniform:
        return updates, averages
    nll = blocks.block_mean(nll, network.instances_per_block)
    kls = [bernoulli.kl(z, experiment.q) for z in forward.z]
    for i, (theta, z, u) in enumerate(zip(network.thetas, forward.z, forward.u, strict=True)):
        C = reinforce.score_cost(nll, kls, experiment.lam, i, experiment.kl_gradient)
        if experiment.baseline == "moving-average":
            average = pytensor.shared(np.zeros((), C.dtype), name=f"average_{i + 1}")
            averages.append(average)
            b, next_average = baselines.moving_average(C, average, experiment.baseline_decay)
            updates.append((average, next_average))
        else:
            b = baselines.BATCH_BASELINES[experiment.baseline](C)
        grads = reinforce.policy_gradient(bernoulli.log_prob(z, u), theta, C - b)
        if experiment.kl_gradient == "total" and experiment.lam > 0:
            direct = reinforce.kl_penalty_gradient(kls[i], theta, experiment.lam)
            grads = [score + d for score, d in zip(grads, direct, strict=True)]
        updates += sgd(theta, grads, experiment.policy_learning_rate)
    return updates, averages


def training_step(network, x, y, experiment, rng=None, mask=bernoulli.sample):
    """Build the step for the mini-batch (x, y).

    Parameters
    ----------
    network : MaskedNetwork
    x : tensor (m_b, n_in)
    y : integer tensor (m_b,)
    experiment : Experiment
    rng : shared random generator, optional
        Needed when the network has policies and `mask` draws; its update is among the updates.
    mask : callable
        Where the masks come from, see `MaskedNetwork.forward`.

    Returns
    -------
    TrainingStep
    """
    forward = network.forward(x, rng, mask)
    nll = costs.nll(forward.logits, y)
    reinforce_updates, averages = policy_updates(network, forward, nll, experiment)
    updates = network_updates(network, nll, experiment) + reinforce_updates
    if forward.rng is not rng:
        updates.append((rng, forward.rng))
    return TrainingStep(statistics(nll, forward), updates, averages)


def statistics(nll, forward):
    """Return `TrainingStep.statistics` of a `network.ForwardPass`."""
    return pt.stack(
        [nll.mean()]
        + [u.mean() for u in forward.U]
        + [(bernoulli.entropy(z) / z.shape[1].astype(z.dtype)).mean() for z in forward.z]
    )
