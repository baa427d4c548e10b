"""A training step that skips, with masks for every instance over groups of units.

An instance has gradients for the weights between its own units, and for no others. The lists of the
forward pass name them, see `lists`. So the way back and the updates take the same lists.

No weight is differentiated. A layer adds a step d, which is zero: ``h = act(s W + b + d)``. Plain
gradient descent would move d to d', which is minus the learning rate times the gradient. By the
chain rule it moves W by ``s.T d'``, and b by the sum of d'. The same holds for a policy.
"""

from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout import costs
from reinforce_dropout.algorithm import Step, draws, statistics
from reinforce_dropout.blocks import by_instance
from reinforce_dropout.blocks.forward import first_product
from reinforce_dropout.blocks.list_updates import GroupUpdate, UnitUpdate
from reinforce_dropout.blocks.lists import GroupProduct, ListNonZeros
from reinforce_dropout.blocks.sharing import expand, shared
from reinforce_dropout.blocks.step_weights import LEAST_FACTOR, PANELS, StepWeights, steps_until
from reinforce_dropout.gates import Stage
from reinforce_dropout.network import Network, Pass, sampled


class Use(NamedTuple):
    """What the instances use of a layer: its parameter is the step.

    Attributes
    ----------
    below : list
        Lists of the layer below: values, units, counts.
    units, counts
        Of the lists of this layer.
    step : tensor (m_b, capacity)
        Zeros that are added to the values of this layer, before the activation.
    """

    below: list
    units: Any
    counts: Any
    step: Any

    @property
    def params(self):
        """What back-propagation learns."""
        return [self.step]

    @property
    def weights(self):
        """What the L2 penalty counts: nothing, because all weights shrink together."""
        return []

    def update(self, W, step):
        """Return the weights in panels after a step (m_b, capacity)."""
        return GroupUpdate()(W, *self.below, step, self.units, self.counts)


class Decided(NamedTuple):
    """Stands for a policy whose logits are known: only what it learns."""

    theta: list


def suits(network, sharing):
    """Whether `training_step` can train a network: its policies begin with products, too."""
    products = all(first_product(gate.policy) for gate in network.gates)
    return by_instance.suits(network, sharing) and products


def use(below, W, b, groups, size, factor=1):
    """Return ``factor * s W + b`` (m_b, capacity) for the groups in use, and `Use`."""
    values, units, counts = GroupProduct(size)(*below, W, b / factor, groups)
    step = pt.zeros_like(values)
    return factor * values + step, Use(below, units, counts, step)


def use_all(below, W, b, factor=1):
    """Return ``factor * s W + b`` (m_b, n_units), and `Use`: all units are in use."""
    n_panels, _, lanes = W.get_value(borrow=True).shape
    everything = pt.ones((below[2].shape[0], n_panels), dtype="bool")
    values, used = use(below, W, b, everything, lanes, factor)
    return values[:, : b.shape[0]], used


def decide(gate, Z, below):
    """Return the logits of a policy, its `Use`, and what it learns: its steps and other theta."""
    first = first_product(gate.policy)
    sZ, used = use_all(below, Z, pt.zeros_like(first.biases))
    rest = [p for p in gate.policy.theta if p is not first.matrix]
    return first.then(sZ + first.biases), used, Decided([used.step, *rest])


class Walk(NamedTuple):
    """A forward pass, and what it used.

    Attributes
    ----------
    passed : Pass
        ``s`` of a stage is `x`, or the values of a list. Its policy is `Decided`.
    used : Network
        Its layers are each layer's `Use`.
    decided : list of Use
        Of each policy's first product.
    """

    passed: Pass
    used: Network
    decided: list


def forward(network, sharing, weights, policies, x, rng=None, rule=sampled):
    """Propagate `x` through the groups that take part.

    Parameters
    ----------
    network : Network
        One that `suits`.
    sharing : Sharing
        Of one instance, and of units that fill whole panels.
    weights, policies : StepWeights
        In panels: of the network, and of each policy's first product. Used instead of the network's
        own.
    x : tensor (m_b, n_in)
    rng : random generator variable, optional
    rule : callable
        As for `network.forward`, but its decisions must be zeros and ones.

    Returns
    -------
    Walk
    """
    stages, used, decided = [], [], []
    below, factor = ListNonZeros()(x), weights.factor
    *hidden, last = weights.matrices
    layers = zip(network.layers, network.gates, hidden, policies.matrices, strict=True)
    for i, (layer, gate, W, Z) in enumerate(layers, start=1):
        z, deciding, policy = decide(gate, Z, below)
        decided.append(deciding)
        u, rng = rule(gate.family, z, rng)
        n_units = layer.b.get_value(borrow=True).size
        learning = shared(gate, sharing, n_units)._replace(policy=policy)
        U = expand(u, x, n_units, sharing)
        stages.append(Stage(learning, str(i), below[0] if stages else x, z, u, U))
        values, own = use(below, W, layer.b, pt.neq(u, 0), sharing.units, factor)
        used.append(own)
        below = [layer.activation(values), own.units, own.counts]
    logits, output = use_all(below, last, network.output.b, factor)
    return Walk(Pass(logits, stages, rng), Network(used, network.gates, output), decided)


def training_step(network, sharing, x, y, rng, learn, shrinkage, rule=sampled):
    """Build the step for the mini-batch (x, y), with masks for every instance.

    Parameters
    ----------
    network, sharing, rule
        As for `forward`.
    x : tensor (m_b, n_in)
    y : integer tensor (m_b,)
    rng : shared random generator
    learn : callable
        As for `algorithm.training_step`; plain gradient descent, of the policies, too.
    shrinkage : float
        1 - 2 lr l2: the penalty, which `learn` leaves out, multiplies every weight by this.

    Returns
    -------
    Step
        As `algorithm.training_step` returns it, except for rounding.
    """
    first = [first_product(gate.policy).matrix for gate in network.gates]
    weights, policies = StepWeights(network.weights, PANELS), StepWeights(first, PANELS)
    passed, used, decided = forward(network, sharing, weights, policies, x, rng, rule)
    nll = costs.nll(passed.logits, y)
    updates = learn(used, passed, nll)
    shrunk = weights.factor * np.float32(shrinkage)
    updates[weights.factor] = shrunk
    layers, uses = [*network.layers, network.output], [*used.layers, used.output]
    for layer, W, own in zip(layers, weights.matrices, uses, strict=True):
        step = updates.pop(own.step)
        updates[W] = own.update(W, step / shrunk)
        updates[layer.b] = UnitUpdate()(layer.b, step, own.units, own.counts)
    for Z, own in zip(policies.matrices, decided, strict=True):
        if own.step in updates:  # not if `learn` leaves the policies alone
            updates[Z] = own.update(Z, updates.pop(own.step))
    updates |= draws(rng, passed.rng)

    def settle():
        weights.store()
        policies.store()

    every = steps_until(LEAST_FACTOR, shrinkage)
    return Step(_statistics(passed, used, nll), updates, settle, every)


def _statistics(passed, used, nll):
    """Return those of `algorithm.statistics`. The lengths of the lists tell the units in use."""
    fractions = [
        (own.counts.mean() / stage.U.shape[1]).astype(nll.dtype)
        for own, stage in zip(used.layers, passed.stages, strict=True)
    ]
    return statistics(passed.stages, nll) | {"active_fraction": fractions}
