"""A training step that touches only the units in use, if a mini-batch is one block.

All examples then have the same masks. So "the remaining computation is a smaller dense one": a
network of the weights between units in use. It is cut out, makes one step, and is put back.

The matrices are kept transposed. The pixels in use are neighbours, but the units in use are not. So
the first layer's part is most of a few rows. In a matrix (n_in, n_units) it would be a few numbers
in nearly every line of the cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout import costs
from reinforce_dropout.algorithm import Step, draws, statistics
from reinforce_dropout.blocks.sharing import expand_units, shared
from reinforce_dropout.blocks.step_weights import (
    LEAST_FACTOR,
    TRANSPOSED,
    StepWeights,
    steps_until,
)
from reinforce_dropout.blocks.submatrix import PutSubmatrix, Submatrix
from reinforce_dropout.gates import Stage
from reinforce_dropout.network import Network, Pass, sampled

_ONE = np.float32(1)


class Part(NamedTuple):
    """The part of a layer that is in use: a smaller layer.

    Attributes
    ----------
    inputs, units : int64 tensor
        Indices of the units in use below and above.
    Vt : tensor (len(units), len(inputs))
        Weights.
    b : tensor (len(units),)
        Biases.
    activation : callable
    """

    inputs: Any
    units: Any
    Vt: Any
    b: Any
    activation: Callable

    @property
    def params(self):
        """What back-propagation learns."""
        return [self.Vt, self.b]

    @property
    def weights(self):
        """What the L2 penalty counts."""
        return [self.Vt]

    def __call__(self, s):
        """Map activations (m_b, len(inputs)) to (m_b, len(units))."""
        return self.activation(s @ self.Vt.T + self.b)


def cut_out(layer, Wt, inputs, units, factor):
    """Return the `Part` of a layer. `Wt` holds its transposed weights, divided by `factor`."""
    Vt = Submatrix()(Wt, units, inputs, factor)
    return Part(inputs, units, Vt, layer.b[units], layer.activation)


def put_back(layer, Wt, part, Vt, b, factor):
    """Return the updates that put Vt and b back to the place of the part."""
    return {
        Wt: PutSubmatrix()(Wt, part.units, part.inputs, Vt, 1 / factor),
        layer.b: pt.set_subtensor(layer.b[part.units], b),
    }


def forward(network, sharing, weights, x, rng=None, rule=sampled):
    """Propagate `x`, one block, through the parts of the layers that are in use.

    Parameters
    ----------
    network : Network
        Its gates decide for single states, `sharing` not yet applied.
    sharing : Sharing
        Its number of instances is ignored, because `x` is one block.
    weights : StepWeights
        Used instead of the network's own.
    x : tensor (m_b, n_in)
    rng : random generator variable, optional
    rule : callable
        As for `network.forward`, but its decisions must be zeros and ones.

    Returns
    -------
    passed : Pass
        ``s`` of a stage holds the units in use below. ``U`` has one row, the mask of all examples.
    parts : Network
        Its layers are the parts.
    """
    stages, parts = [], []
    over_rows = {"mean": pt.mean, "max": pt.max}[sharing.state]
    inputs = pt.nonzero(pt.neq(x, 0).any(axis=0))[0]
    s = Submatrix()(x, pt.arange(x.shape[0]), inputs, _ONE)
    layers = zip(network.layers, network.gates, weights.matrices[:-1], strict=True)
    for i, (layer, gate, Wt) in enumerate(layers, start=1):
        in_use = over_rows(s, axis=0, keepdims=True)
        nothing = pt.zeros((1, Wt.shape[1]), dtype=s.dtype)
        z = gate.policy(PutSubmatrix()(nothing, [0], inputs, in_use, _ONE))
        u, rng = rule(gate.family, z, rng)
        n_units = layer.b.get_value(borrow=True).size
        U = expand_units(u, n_units, sharing.units)
        part = cut_out(layer, Wt, inputs, pt.nonzero(U[0])[0], weights.factor)
        stages.append(Stage(shared(gate, sharing, n_units), str(i), s, z, u, U))
        s, inputs = part(s), part.units
        parts.append(part)
    everything = pt.arange(network.output.b.shape[0])
    output = cut_out(network.output, weights.matrices[-1], inputs, everything, weights.factor)
    return Pass(output(s), stages, rng), Network(parts, network.gates, output)


def training_step(network, sharing, x, y, rng, learn, shrinkage, rule=sampled):
    """Build the step for the mini-batch (x, y), one block.

    Parameters
    ----------
    network : Network
        Every layer has a gate that decides for single states.
    sharing : Sharing
    x : tensor (m_b, n_in)
    y : integer tensor (m_b,)
    rng : shared random generator
    learn : callable
        As for `algorithm.training_step`; plain gradient descent.
    shrinkage : float
        1 - 2 lr l2: a step of `learn` multiplies an unused weight by this.
    rule : callable
        As for `forward`.

    Returns
    -------
    Step
        As `algorithm.training_step` returns it, except for rounding.
    """
    weights = StepWeights(network.weights, TRANSPOSED)
    passed, parts = forward(network, sharing, weights, x, rng, rule)
    nll = costs.nll(passed.logits, y)
    updates = learn(parts, passed, nll)
    shrunk = weights.factor * np.float32(shrinkage)
    updates[weights.factor] = shrunk
    layers, cut = [*network.layers, network.output], [*parts.layers, parts.output]
    for layer, Wt, part in zip(layers, weights.matrices, cut, strict=True):
        Vt, b = (updates.pop(p) for p in part.params)
        updates |= put_back(layer, Wt, part, Vt, b, shrunk)
    updates |= draws(rng, passed.rng)
    every = steps_until(LEAST_FACTOR, shrinkage)
    return Step(statistics(passed.stages, nll), updates, weights.store, every)
