"""Maturation, the paper's "asynchronous" updates: the network first, the policies later or rarer.

The phases share their parameters. Each has a compiled step and compiled passes of its own. Until
the policies' first epoch the network is the plain one, to the last bit. Or it has random masks at
the rate q: the control for what comes of masks alone.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout import backends
from reinforce_dropout.algorithm import training_step
from reinforce_dropout.network import RULES, forward
from reinforce_dropout.systems.learner import Learner, compile_learner


class RandomPolicy(NamedTuple):
    """The same logit for every decision that another policy makes. It does not learn.

    Attributes
    ----------
    policy : callable
    rate : float
        A fraction between 0 and 1.
    """

    policy: Any
    rate: float

    theta = ()
    """Nothing that learns."""

    def __call__(self, s):
        """Logits of the other policy's shape, for the activations `s` (m_b, n_in)."""
        logit = np.float32(np.log(self.rate) - np.log1p(-self.rate))
        return pt.zeros_like(self.policy(s)) + logit


def all_units(network, settings):
    """Return the plain network."""
    return network._replace(gates=[None] * len(network.gates))


def random_masks(network, settings):
    """Return the network with masks at the rate q that look at nothing."""
    return network._replace(
        gates=[g._replace(policy=RandomPolicy(g.policy, settings.q)) for g in network.gates]
    )


MATURING = {"all-units": all_units, "random-masks": random_masks}
"""``network(network, settings) -> network``: what learns before the policies do."""


def learner(system, experiment, mode, *, network, learn_network):
    """Make the `Learner` of a system whose policies wait, see `System.learner`.

    Parameters
    ----------
    system, experiment, mode
        As for `learner.compile_learner`. The step of `system` is that with policies.
    network : Network
        With the policies' gates.
    learn_network : callable
        ``learn(network, passed, nll) -> updates``: back-propagation alone.
    """
    young = MATURING[experiment.matures_with](network, experiment)
    systems = [
        system._replace(
            step=partial(_step, young, learn_network),
            predict={name: partial(forward, young, rule=rule) for name, rule in RULES.items()},
        ),
        system,
    ]
    if experiment.policy_every > 1:
        systems.append(system._replace(step=partial(training_step, network, learn=learn_network)))
    learners = [compile_learner(s, experiment, mode, i) for i, s in enumerate(systems)]

    def choose(epoch, batch):
        if epoch < experiment.policy_from_epoch:
            return 0
        return 1 if batch % experiment.policy_every == 0 else 2

    return by_turns(learners, choose)


def _step(network, learn, x, y, rng):
    """Build the step before the policies learn; layers without a gate are active and sure."""
    step = training_step(network, x, y, rng, learn)
    if all(network.gates):
        return step
    one, zero = (pt.constant(v, dtype=x.dtype) for v in (1, 0))
    sure = {
        "active_fraction": [one for _ in network.gates],
        "policy_entropy": [zero for _ in network.gates],
    }
    return step._replace(statistics=step.statistics | sure)


def by_turns(learners, choose):
    """Return a learner of several that share their parameters, one at a time.

    Parameters
    ----------
    learners : list of Learner
        Their statistics have the same names, and so have their rules.
    choose : callable
        ``choose(epoch, batch) -> index``: which of them takes the step of a mini-batch, from 1 in
        each epoch. Batch 0 stands for the passes after the epoch.
    """
    epoch = batch = 0
    model = learners[0].parameters().keys()

    def begin(number):
        nonlocal epoch, batch
        epoch, batch = number, 0
        for one in learners:
            one.begin(number)

    def step(images, labels):
        nonlocal batch
        batch += 1
        return learners[choose(epoch, batch)].step(images, labels)

    def state():
        arrays, generators = {}, {}
        for i, one in enumerate(learners):
            found, generators[f"learner {i}"] = one.state()
            arrays |= {own_name(name, i): value for name, value in found.items()}
        return arrays, generators

    def restore(arrays, generators):
        # Each learner takes what it has a variable for.
        for i, one in enumerate(learners):
            own = {name.removesuffix(suffix(i)): v for name, v in arrays.items()}
            one.restore(own, generators[f"learner {i}"])

    def suffix(i):
        return f" of learner {i}"

    def own_name(name, i):
        """Name what the learners do not share, such as velocities, after one of them."""
        return name if name in model else name + suffix(i)

    return Learner(
        step,
        backends.one_by_one(step),
        learners[0].curves,
        learners[0].rules,
        lambda images, rules=None: learners[choose(epoch, 0)].predict(images, rules),
        learners[0].parameters,
        state,
        restore,
        begin,
    )
