"""A training step that touches only the units in use, where a mini-batch is one block.

All examples then have the same masks, so that "the remaining computation is a smaller dense one": a
network of the parts of the weight matrices that units in use below and above have in common. It is
cut out, makes one step of back-propagation, and is put back.

The matrices are kept transposed for that. The pixels in use are neighbours, the units in use are
not: so the first layer's part is most of a few rows, where of a matrix (n_in, n_units) it would be
a few numbers in nearly every line of the cache.

The L2 penalty shrinks every weight at every step, also those that are not touched. So the matrices
hold the weights divided by a common factor, and a step multiplies that factor by 1 - 2 lr l2. This
is exact except for rounding. `StepWeights.store` multiplies the factor in, once an epoch or when it
becomes small.
"""

from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import bernoulli, blocks, costs
from reinforce_dropout.algorithm import TrainingStep, network_cost, policy_updates, statistics
from reinforce_dropout.alignment import aligned
from reinforce_dropout.block_sparse import transposed
from reinforce_dropout.network import ForwardPass
from reinforce_dropout.submatrix import PutSubmatrix, Submatrix
from reinforce_dropout.updates import sgd

_ONE = np.float32(1)
LEAST_FACTOR = 1e-3
"""A smaller one is multiplied in at once: what is divided by it must stay within float32."""


class StepWeights:
    """The weights of a network as the steps of an epoch read and change them.

    Parameters
    ----------
    network : MaskedNetwork

    Attributes
    ----------
    factor : shared () float32
        What the matrices have to be multiplied by.
    Wt : list of shared (n_units, n_in)
        Of the hidden layers, then of the output.
    """

    def __init__(self, network):
        self.network = network
        self.factor = pytensor.shared(np.ones((), "float32"), name="factor")
        self.Wt = transposed(network)

    def load(self):
        """Take the network's weights."""
        for W, Wt in zip(self.network.weights, self.Wt, strict=True):
            Wt.set_value(aligned(W.get_value(borrow=True).T), borrow=True)
        self.factor.set_value(np.ones_like(self.factor.get_value()))

    def settle(self):
        """Multiply the factor in if it has become small; call it after every step."""
        if self.factor.get_value(borrow=True) < LEAST_FACTOR:
            self.store()

    def store(self):
        """Give the network its weights back, multiplied by the factor, which is 1 afterwards."""
        for W, Wt in zip(self.network.weights, self.Wt, strict=True):
            value = Wt.get_value(borrow=True)
            value *= self.factor.get_value()
            W.set_value(aligned(value.T), borrow=True)
        self.factor.set_value(np.ones_like(self.factor.get_value()))


class Part(NamedTuple):
    """The part of a layer that is in use.

    Attributes
    ----------
    inputs, units : int64 tensor
        Numbers of the units in use below and above.
    Vt : tensor (len(units), len(inputs))
        Their weights.
    c : tensor (len(units),)
        Their biases.
    """

    inputs: object
    units: object
    Vt: object
    c: object


def cut_out(layer, Wt, inputs, units, factor):
    """Return the :class:`Part` of a layer, `Wt` its weights over `factor`, transposed."""
    return Part(inputs, units, Submatrix()(Wt, units, inputs, factor), layer.b[units])


def put_back(layer, Wt, part, Vt, c, factor):
    """Return the updates of a layer that put Vt and c in the place of those of its part."""
    return [
        (Wt, PutSubmatrix()(Wt, part.units, part.inputs, Vt, 1 / factor)),
        (layer.b, pt.set_subtensor(layer.b[part.units], c)),
    ]


def forward(network, weights, x, rng=None, mask=bernoulli.sample):
    """Propagate the one block `x` through the parts of the layers that are in use.

    Parameters
    ----------
    network : MaskedNetwork
    weights : StepWeights
        In the place of the network's own.
    x : tensor (m_b, n_in)
    rng : random generator variable, optional
    mask : callable
        As for `MaskedNetwork.forward`, but with zeros and ones only.

    Returns
    -------
    ForwardPass
        ``S``: activations of the units in use below each hidden layer. ``U``: one row, the mask of
        all examples.
    parts : list of Part
        Of the hidden layers, then of the output.
    """
    S, Z, decisions, U, parts = [], [], [], [], []
    inputs = pt.nonzero(pt.neq(x, 0).any(axis=0))[0]
    s = Submatrix()(x, blocks.row_numbers(x), inputs, _ONE)
    for layer, policy, Wt, n_units in zip(
        network.layers, network.policies, weights.Wt[:-1], network.n_units, strict=True
    ):
        in_use = blocks.block_state(s, None, network.block_state)
        state = pt.zeros((1, Wt.shape[1]), dtype=s.dtype)
        z = policy.logits(PutSubmatrix()(state, [0], inputs, in_use, _ONE))
        u, rng = mask(z, rng)
        U.append(blocks.expand_units(u, n_units, network.units_per_block))
        part = cut_out(layer, Wt, inputs, pt.nonzero(U[-1][0])[0], weights.factor)
        S.append(s)
        s = layer.activation(s @ part.Vt.T + part.c)
        inputs = part.units
        Z.append(z)
        decisions.append(u)
        parts.append(part)
    everything = pt.arange(network.output.b.shape[0])
    parts.append(cut_out(network.output, weights.Wt[-1], inputs, everything, weights.factor))
    logits = s @ parts[-1].Vt.T + parts[-1].c
    return ForwardPass(S, Z, decisions, U, logits, rng), parts


def training_step(network, x, y, experiment, rng=None, mask=bernoulli.sample):
    """Build the step for the mini-batch (x, y), one block.

    Parameters
    ----------
    network : MaskedNetwork
        With policies.
    x : tensor (m_b, n_in)
    y : integer tensor (m_b,)
    experiment : Experiment
        With ``instances_per_block == batch_size``.
    rng : shared random generator, optional
    mask : callable
        As for `forward`.

    Returns
    -------
    TrainingStep
        The same as `algorithm.training_step` gives, but for rounding and the ``weights``.
    """
    weights = StepWeights(network)
    passed, parts = forward(network, weights, x, rng, mask)
    nll = costs.nll(passed.logits, y)
    updates, averages = policy_updates(network, passed, nll, experiment)

    cost = network_cost(nll, [part.Vt for part in parts], experiment)
    params = [p for part in parts for p in (part.Vt, part.c)]
    new = [p for _, p in sgd(params, pytensor.grad(cost, params), experiment.learning_rate)]
    shrunk = weights.factor * np.float32(1 - 2 * experiment.learning_rate * experiment.l2)
    updates.append((weights.factor, shrunk))
    layers = [*network.layers, network.output]
    for layer, Wt, part, Vt, c in zip(layers, weights.Wt, parts, new[::2], new[1::2], strict=True):
        updates += put_back(layer, Wt, part, Vt, c, shrunk)
    if passed.rng is not rng:
        updates.append((rng, passed.rng))
    return TrainingStep(statistics(nll, passed), updates, averages, weights)
