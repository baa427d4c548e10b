"""A forward pass in which a dropped unit costs nothing: its weights are never read."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout.alignment import aligned
from reinforce_dropout.blocks.packed import BlockLogits, PackedProduct, PackInUse, Unpack
from reinforce_dropout.blocks.panels import in_panels
from reinforce_dropout.blocks.sharing import BLOCK_STATES, Sharing, expand, expand_units
from reinforce_dropout.gates import AffinePolicy, BoundedPolicy, LowRankPolicy, Stage, unchanged
from reinforce_dropout.network import Network, Pass, sampled


def transposed(network):
    """Return transposed copies of the weight matrices: each unit's weights are neighbours.

    A list of shared variables (n_units, n_in), of the hidden layers and then of the output.
    """
    return [
        pytensor.shared(aligned(W.get_value(borrow=True).T), name=f"{W.name}t", borrow=True)
        for W in network.weights
    ]


class BlockSparseNetwork(NamedTuple):
    """A network laid out for inference by blocks, see `block_sparse`.

    Attributes
    ----------
    network : Network
        Its gates decide for single states, `Sharing` not yet applied.
    sharing : Sharing
    Wt : list of shared (n_units, n_in)
        Of the hidden layers, then of the output.
    Z : list of shared (n_panels, n_in, width), or None
        Of the policies with a `first_product`, its matrix, see `panels.in_panels`; else None.
    """

    network: Network
    sharing: Sharing
    Wt: list
    Z: list


def block_sparse(network, sharing):
    """Copy the weights of a network, each layer with a gate, into a `BlockSparseNetwork`.

    Later changes of the network's weights and of Z have no effect on it.
    """
    Z = [_panels(gate.policy) for gate in network.gates]
    return BlockSparseNetwork(network, sharing, transposed(network), Z)


class FirstProduct(NamedTuple):
    """What a policy does first: ``s matrix + biases``. Its logits are ``then`` of that."""

    matrix: Any
    biases: Any
    then: Callable


def _of_affine(policy):
    return FirstProduct(policy.Z, policy.o, unchanged)


def _of_low_rank(policy):
    none = np.zeros(policy.A.get_value(borrow=True).shape[1], policy.A.dtype)
    return FirstProduct(policy.A, none, lambda sA: sA @ policy.B + policy.o)


def _of_bounded(policy):
    first = first_product(policy.policy)
    return first and first._replace(then=lambda z: policy.bound(first.then(z)))


_FIRST_PRODUCT = {
    AffinePolicy: _of_affine,
    BoundedPolicy: _of_bounded,
    LowRankPolicy: _of_low_rank,
}


def first_product(policy):
    """Return the `FirstProduct` of a policy, or None if it does not begin with a product."""
    return _FIRST_PRODUCT.get(type(policy), lambda policy: None)(policy)


def _panels(policy):
    """Return the matrix of the policy's first product in panels, if it has one, else None."""
    first = first_product(policy)
    if first is None:
        return None
    matrix = first.matrix
    return pytensor.shared(in_panels(matrix.get_value(borrow=True)), name=matrix.name, borrow=True)


def forward(sparse, x, rng=None, rule=sampled):
    """Propagate `x` block by block through the units that take part.

    It computes the function of `network.forward` with shared gates, with the same draws.

    Parameters
    ----------
    sparse : BlockSparseNetwork
    x : tensor (m_b, n_in)
    rng : random generator variable, optional
    rule : callable
        As for `network.forward`, but its decisions must be zeros and ones.

    Returns
    -------
    Pass
        The state of the first stage is `x`. The others are packed activations, see `packed`.
    """
    network, sharing = sparse.network, sparse.sharing
    size, stages = sharing.instances, []
    packed, active = PackInUse(size)(x)
    layers = zip(network.layers, network.gates, sparse.Wt[:-1], sparse.Z, strict=True)
    for i, (layer, gate, Wt, Z) in enumerate(layers, start=1):
        z = _logits(gate.policy, Z, packed, active, x, sharing)
        u, rng = rule(gate.family, z, rng)
        n_units = layer.b.get_value(borrow=True).size
        stages.append(
            Stage(gate, str(i), packed if stages else x, z, u, expand(u, x, n_units, sharing))
        )
        above = pt.neq(expand_units(u, n_units, sharing.units), 0)
        packed = layer.activation(PackedProduct(size)(packed, active, Wt, layer.b, above))
        active = above
    everything = pt.ones((active.shape[0], sparse.Wt[-1].shape[0]), dtype="bool")
    logits = PackedProduct(size)(packed, active, sparse.Wt[-1], network.output.b, everything)
    return Pass(Unpack(size)(logits, everything, x.shape[0]), stages, rng)


def _logits(policy, Z, packed, active, x, sharing):
    """Logits of a policy for the state of each block."""
    if Z is not None and sharing.state == "mean":
        first = first_product(policy)
        logits = BlockLogits(sharing.instances)(packed, active, x.shape[0], Z, first.biases)
        return first.then(logits)
    s = Unpack(sharing.instances)(packed, active, x.shape[0])
    return policy(BLOCK_STATES[sharing.state](s, sharing.instances))
