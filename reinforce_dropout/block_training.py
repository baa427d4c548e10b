"""A training step that touches only the units in use, where a mini-batch is one block.

All examples then have the same masks, so that "the remaining computation is a smaller dense one": a
network of the parts of the weight matrices that units in use below and above have in common. It is
cut out, makes one step of back-propagation, and is put back.

The L2 penalty shrinks every weight at every step, also those that are not touched. So the matrices
hold the weights divided by a common factor, and a step multiplies that factor by 1 - 2 lr l2: exact
but for rounding. `normalise` multiplies it in, once an epoch.
"""

from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import bernoulli, blocks, costs
from reinforce_dropout.algorithm import TrainingStep, network_cost, policy_updates, statistics
from reinforce_dropout.alignment import aligned
from reinforce_dropout.network import ForwardPass
from reinforce_dropout.submatrix import PutSubmatrix, Submatrix
from reinforce_dropout.updates import sgd

_ONE = np.float32(1)


class Part(NamedTuple):
    """The part of a layer that is in use.

    Attributes
    ----------
    rows, columns : int64 tensor
        Numbers of the units in use below and above.
    V : tensor (len(rows), len(columns))
        Their weights.
    c : tensor (len(columns),)
        Their biases.
    """

    rows: object
    columns: object
    V: object
    c: object


def cut_out(layer, rows, columns, factor):
    """Return the :class:`Part` of a layer, whose matrix holds its weights over `factor`."""
    return Part(rows, columns, Submatrix()(layer.W, rows, columns, factor), layer.b[columns])


def put_back(layer, part, V, c, factor):
    """Return the updates of a layer that put V and c in the place of those of its part."""
    W = PutSubmatrix()(layer.W, part.rows, part.columns, V, 1 / factor)
    return [(layer.W, W), (layer.b, pt.set_subtensor(layer.b[part.columns], c))]


def forward(network, x, factor, rng=None, mask=bernoulli.sample):
    """Propagate the one block `x` through the parts of the layers that are in use.

    Parameters
    ----------
    network : MaskedNetwork
    x : tensor (m_b, n_in)
    factor : scalar tensor
        What the weight matrices have to be multiplied by.
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
    rows = pt.nonzero(pt.neq(x, 0).any(axis=0))[0]
    s = Submatrix()(x, blocks.row_numbers(x), rows, _ONE)
    for layer, policy, n_units in zip(
        network.layers, network.policies, network.n_units, strict=True
    ):
        in_use = blocks.block_state(s, None, network.block_state)
        state = pt.zeros((1, layer.W.shape[0]), dtype=s.dtype)
        z = policy.logits(PutSubmatrix()(state, [0], rows, in_use, _ONE))
        u, rng = mask(z, rng)
        U.append(blocks.expand_units(u, n_units, network.units_per_block))
        part = cut_out(layer, rows, pt.nonzero(U[-1][0])[0], factor)
        S.append(s)
        s = layer.activation(s @ part.V + part.c)
        rows = part.columns
        Z.append(z)
        decisions.append(u)
        parts.append(part)
    parts.append(cut_out(network.output, rows, pt.arange(network.output.b.shape[0]), factor))
    logits = s @ parts[-1].V + parts[-1].c
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
        The same as `algorithm.training_step` gives, but for rounding and the ``factor``.
    """
    factor = pytensor.shared(np.ones((), "float32"), name="factor")
    passed, parts = forward(network, x, factor, rng, mask)
    nll = costs.nll(passed.logits, y)
    updates, averages = policy_updates(network, passed, nll, experiment)

    cost = network_cost(nll, [part.V for part in parts], experiment)
    params = [p for part in parts for p in (part.V, part.c)]
    new = [p for _, p in sgd(params, pytensor.grad(cost, params), experiment.learning_rate)]
    shrunk = factor * np.float32(1 - 2 * experiment.learning_rate * experiment.l2)
    updates.append((factor, shrunk))
    layers = [*network.layers, network.output]
    for layer, part, V, c in zip(layers, parts, new[::2], new[1::2], strict=True):
        updates += put_back(layer, part, V, c, shrunk)
    if passed.rng is not rng:
        updates.append((rng, passed.rng))
    return TrainingStep(statistics(nll, passed), updates, averages, factor)


def normalise(network, factor):
    """Multiply the factor into the weight matrices: a copy of each, so once an epoch is enough."""
    value = factor.get_value()
    for W in network.weights:
        normalised = aligned(W.get_value(borrow=True))
        normalised *= value
        W.set_value(normalised, borrow=True)
    factor.set_value(np.ones_like(value))
