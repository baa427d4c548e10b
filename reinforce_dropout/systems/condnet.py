r"""Condnet (Bengio, Bacon, Pineau and Precup, 2015): the authors' own follow-up.

Policies decide for groups of neighbouring units, by each instance, also at test time. With sigma_ij
the participation probability of group j for example i of a mini-batch, three penalties shape them,
eqs. (6) and (7):

.. math:: L_b = \sum_j |\mathrm{mean}_i \sigma_{ij} - \tau| \qquad
          L_e = \mathrm{mean}_i |\mathrm{mean}_j \sigma_{ij} - \tau| \qquad
          L_v = -\sum_j \mathrm{var}_i \sigma_{ij}

L_b wants each group on for a fraction tau of the examples, and L_e a fraction tau of the groups on
for each example. L_v wants policies that differ between examples. By the paper's algorithm 2, the
network descends nll + l2 |W|^2. A policy makes two steps. One is REINFORCE on the nll, at a rate of
its own. The other goes down ``lam_s (L_b + L_e) + lam_v L_v + l2 |Z|^2``, at the network's rate.
Here the second rate is a setting, ``penalty_learning_rate``. Our preset learns at other rates than
the paper's, because with those nothing was learned.

The paper leaves open what reduces the nll of a mini-batch, and the baseline. The authors' code
sums, also in REINFORCE, and takes the mini-batch's lowest cost as baseline. The sum is kept here
(``loss_reduction``). The baseline is the mean, because the lowest cost biases the gradient and
punishes every mask. L2 counts weights only, and one tau serves all layers.

The paper compares it on MNIST with plain networks of as many units (256), and of as many
multiplications (32): the presets ``plain-256`` and ``plain-32``.
"""

from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import pullback

from reinforce_dropout.algorithm import training_step
from reinforce_dropout.blocks.sharing import Sharing, n_groups, shared
from reinforce_dropout.gates import sigmoid_bernoulli
from reinforce_dropout.network import RULES
from reinforce_dropout.systems import descent, plain, policy
from reinforce_dropout.systems.settings import (
    at_least,
    fraction,
    less_than,
    one_of,
    setting,
    settings,
)
from reinforce_dropout.systems.system import System
from reinforce_dropout.updates import sgd


def by_group(sigma, tau):
    """L_b: how far each group's mean rate is from tau, summed; sigma (m_b, n_groups)."""
    return pt.abs(sigma.mean(axis=0) - np.float32(tau)).sum()


def by_example(sigma, tau):
    """L_e: how far each example's mean rate is from tau, mean over the examples."""
    return pt.abs(sigma.mean(axis=1) - np.float32(tau)).mean()


def variance(sigma):
    """L_v: minus the variance of each group's rate over the examples, summed."""
    return -sigma.var(axis=0).sum()


@settings
class Settings(plain.Settings):
    """Settings of a network whose policies decide for groups of units."""

    system: ClassVar[str] = "condnet"

    units_per_group: int = setting(
        16, at_least(1), "Neighbouring units that share a decision; the last group may be shorter."
    )
    tau: float = setting(1 / 16, fraction(), "Target rate of participation; 1/16 on MNIST.")
    lam_s: float = setting(200.0, at_least(0), "Weight of L_b + L_e; 200 on MNIST.")
    lam_v: float = setting(200.0, at_least(0), "Weight of L_v; 200 on MNIST.")
    policy_learning_rate: float = setting(5e-5, at_least(0), "Of REINFORCE; 5e-5 on MNIST.")
    penalty_learning_rate: float = setting(
        0.001,
        at_least(0),
        "Of the policies' penalties; by algorithm 2 that of the network. High rates saturate the "
        "policies before they have learned; with low ones they stay uniform for long.",
    )
    initial_rate: float = setting(
        0.5, fraction(), "Fraction of the groups that take part at first. Open in the paper."
    )
    baseline: str = setting(
        "batch-mean", one_of(policy.BASELINES), "Baseline of REINFORCE. Open in the paper."
    )
    baseline_decay: float = setting(
        0.9, less_than(1, "1"), "Weight of the past in the moving average."
    )
    evaluation_rule: str = setting(
        "sampled", one_of(RULES), "Where the masks come from when a model is judged."
    )


def with_gates(network, settings, rng):
    """Return the network with policies for groups of units, drawn from `rng`."""
    sharing = Sharing(units=settings.units_per_group)
    widths = [len(network.layers[0].W.get_value(borrow=True)), *settings.n_units]
    gates = [
        sigmoid_bernoulli(rng, n_in, n_groups(n, sharing.units), str(i), settings.initial_rate)
        for i, (n_in, n) in enumerate(pairwise(widths), start=1)
    ]
    shares = zip(gates, settings.n_units, strict=True)
    return network._replace(gates=[shared(gate, sharing, n) for gate, n in shares])


def penalty(stage, settings):
    """Return what a policy descends, apart from REINFORCE."""
    sigma, (Z, _) = stage.gate.family.mean(stage.z), stage.gate.policy.theta
    rates = by_group(sigma, settings.tau) + by_example(sigma, settings.tau)
    return (
        np.float32(settings.lam_s) * rates
        + np.float32(settings.lam_v) * variance(sigma)
        + np.float32(settings.l2) * plain.L2_PENALTIES[settings.l2_of]([Z])
    )


def learn_both(settings, pace):
    """Return ``learn(network, passed, nll) -> updates``: algorithm 2.

    The network descends by the settings' optimizer, the policies by plain steps.
    """
    learn_network = plain.learn_network(settings, pace)
    reduce = plain.LOSS_REDUCTIONS[settings.loss_reduction]
    baseline = policy.BASELINES[settings.baseline](settings)
    rates = np.float32([settings.policy_learning_rate, settings.penalty_learning_rate])

    def learn(network, passed, nll):
        updates = learn_network(network, passed, nll)
        share = pytensor.grad(reduce(nll), nll)  # 1, or 1 / m_b of a mean
        for stage in passed.stages:
            theta = stage.gate.policy.theta
            b, remembered = baseline(nll, stage)
            log_pi = stage.gate.family.log_prob(stage.z, stage.u)
            score = pullback(log_pi, theta, share * (nll - b))
            direct = pytensor.grad(penalty(stage, settings), theta)
            both = [rates[0] * s + rates[1] * d for s, d in zip(score, direct, strict=True)]
            updates |= remembered | sgd(theta, both, pace.factor)
        return updates

    return learn


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    rng = np.random.default_rng(settings.seeds().init)
    network = plain.perceptron(settings, image_shape, n_classes, rng)
    network, pace = with_gates(network, settings, rng), descent.pace(settings)
    return System(
        parameters=policy.parameters(network),
        step=partial(training_step, network, learn=learn_both(settings, pace)),
        predict=policy.passes(network),
        schedule=pace.schedule,
    )


TRAINING = PREDICTION = {"dense": build}

PRESETS = (
    # With the paper's rates the policies saturate before they have learned. These have the lowest
    # validation error of 60 epochs with at most a quarter of the units.
    Settings(
        name="condnet-256",
        n_units=(256,),
        learning_rate=0.005,
        policy_learning_rate=0.01,
        penalty_learning_rate=3e-5,
        initial_rate=1 / 16,
        l2=0.005,
    ),
)
