"""The masked network: a multilayer perceptron whose hidden layers are gated by policies."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout import bernoulli, blocks
from reinforce_dropout.alignment import aligned
from reinforce_dropout.errors import RecordError
from reinforce_dropout.layers import AffineLayer, DenseLayer
from reinforce_dropout.policy import SigmoidBernoulliPolicy


def expected(z, rng):
    """Put ``sigma`` in the place of the mask: its expectation, nothing is drawn."""
    return pt.sigmoid(z), rng


def thresholded(z, rng):
    """Let the units with ``sigma > 1/2`` take part: the most probable mask, nothing is drawn."""
    return (z > 0).astype(z.dtype), rng


MASK_RULES = {"sampled": bernoulli.sample, "expected": expected, "thresholded": thresholded}


class ForwardPass(NamedTuple):
    """Expressions of one pass, the lists with one entry a hidden layer (i = 1..L).

    Attributes
    ----------
    S : list of tensor (m_b, n_in)
        Activations below each hidden layer; ``S[0]`` is the input.
    z : list of tensor (n_blocks, n_groups)
        Logits of the policies; empty for a network without policies.
    u : list of tensor (n_blocks, n_groups)
        Decisions of the policies; empty for a network without policies.
    U : list of tensor (m_b, n_units)
        Masks: the decisions for every instance and unit. Of policies that decide for each of them,
        (n_blocks, n_groups) is (m_b, n_units), and `U` holds the same variables as `u`.
    logits : tensor (m_b, n_classes)
        Of the softmax.
    rng : random generator variable
        The state after all draws.
    """

    S: list
    z: list
    u: list
    U: list
    logits: object
    rng: object


def build(experiment, n_in, n_classes):
    """Return the network of an experiment with its initial parameters.

    Parameters
    ----------
    experiment : Experiment
    n_in, n_classes : int
        Width of input and output, which follow from the data.

    Returns
    -------
    MaskedNetwork
    """
    return MaskedNetwork(
        np.random.default_rng(experiment.seeds().init),
        (n_in, *experiment.n_units, n_classes),
        experiment.activation,
        experiment.initial_rate if experiment.policy else None,
        instances_per_block=experiment.instances_per_block,
        units_per_block=experiment.units_per_block,
        block_state=experiment.block_state,
        uniform=experiment.uniform,
    )


def set_arrays(variables, values):
    """Set shared variables from arrays, by name: all of them or none.

    Parameters
    ----------
    variables : list of shared tensor
    values : dict from str to ndarray

    Raises
    ------
    RecordError
        An array is missing, or is not of its variable's shape and dtype. Compiled kernels trust
        the shapes.
    """
    for variable in variables:
        own, value = variable.get_value(borrow=True), values.get(variable.name)
        if value is None or (value.shape, value.dtype) != (own.shape, own.dtype):
            found = "missing" if value is None else f"{value.dtype} {value.shape}"
            raise RecordError(
                f"{variable.name} must be {own.dtype} {own.shape} and is {found}, so the record "
                "is not of its experiment: train the experiment into another file."
            )
    for variable in variables:
        variable.set_value(aligned(values[variable.name]), borrow=True)


class MaskedNetwork:
    """A multilayer perceptron of any depth and width, with one policy a hidden layer or none.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the initial parameters: first the network's, then the policies', so that a network
        without policies starts from the same weights.
    widths : sequence of int
        ``(n_in, n_units_1, ..., n_units_L, n_classes)``
    activation : str
        Of the hidden layers, a key of `layers.ACTIVATIONS`.
    initial_rate : float or None
        Fraction of the units that the policies let take part at first; None: no policies.
    instances_per_block, units_per_block : int
        Instances and units that share a decision; see `blocks`.
    block_state : str
        What the policies see of a block, an entry of `blocks.BLOCK_STATES`.
    uniform : bool
        Whether the policies begin blind, with ``Z = 0``; see `Experiment`.

    Attributes
    ----------
    n_units : tuple of int
        Widths of the hidden layers.
    instances_per_block, units_per_block, block_state
        As above.
    layers : list of DenseLayer
    policies : list of SigmoidBernoulliPolicy
        One a hidden layer, or empty.
    output : AffineLayer
    """

    def __init__(
        self, rng, widths, activation="tanh", initial_rate=0.12, *,
        instances_per_block=1, units_per_block=1, block_state="mean", uniform=False,
    ):  # fmt: skip
        self.instances_per_block, self.units_per_block = instances_per_block, units_per_block
        self.block_state = block_state
        self.n_units = tuple(widths[1:-1])
        hidden = list(enumerate(pairwise(widths[:-1]), start=1))
        self.layers = [DenseLayer(rng, n_in, n, i, activation) for i, (n_in, n) in hidden]
        self.output = AffineLayer(rng, *widths[-2:], "out")
        self.policies = (
            []
            if initial_rate is None
            else [
                SigmoidBernoulliPolicy(
                    rng, n_in, blocks.n_groups(n, units_per_block), i, initial_rate, uniform
                )
                for i, (n_in, n) in hidden
            ]
        )

    @property
    def params(self):
        """Parameters of the network, ``[W_1, b_1, ..., W_out, b_out]``."""
        return [p for layer in [*self.layers, self.output] for p in layer.params]

    @property
    def weights(self):
        """Weight matrices of the network, ``[W_1, ..., W_out]``."""
        return [layer.W for layer in [*self.layers, self.output]]

    @property
    def thetas(self):
        """Parameters of the policies, ``[[Z_1, o_1], ..., [Z_L, o_L]]``."""
        return [policy.theta for policy in self.policies]

    @property
    def all_parameters(self):
        """Parameters of the network and then of the policies; their names are unique."""
        return self.params + [p for theta in self.thetas for p in theta]

    def values(self):
        """Copy the values of all parameters, by name."""
        return {p.name: np.array(p.get_value(borrow=True)) for p in self.all_parameters}

    def set_values(self, values):
        """Set all parameters from arrays, by name; `RecordError` as for `set_arrays`."""
        set_arrays(self.all_parameters, values)

    def forward(self, x, rng=None, mask=bernoulli.sample):
        """Propagate `x` through the layers: ``s_{i+1} = act(s_i W_i + b_i) * u_i``.

        The mask of a layer repeats its policy's decisions over blocks and groups.

        Parameters
        ----------
        x : tensor (m_b, n_in)
        rng : random generator variable, optional
            Needed when `mask` draws.
        mask : callable
            ``mask(z, rng) -> (u, next_rng)``, an entry of `MASK_RULES`.

        Returns
        -------
        ForwardPass
        """
        S, Z, decisions, U = [], [], [], []
        s = x
        for i, (layer, n_units) in enumerate(zip(self.layers, self.n_units, strict=True)):
            S.append(s)
            h = layer(s)
            if self.policies:
                z = self.policies[i].logits(
                    blocks.block_state(s, self.instances_per_block, self.block_state)
                )
                u, rng = mask(z, rng)
                Z.append(z)
                decisions.append(u)
                U.append(
                    blocks.expand(
                        u, x, n_units,
                        self.instances_per_block, self.units_per_block,
                    )
                )  # fmt: skip
                h = h * U[-1]
            s = h
        return ForwardPass(S, Z, decisions, U, self.output(s), rng)
