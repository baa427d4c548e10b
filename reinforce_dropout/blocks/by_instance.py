"""A forward pass with masks for every instance, which skips the units that an instance drops.

Blocks let instances share what they read. Here nobody shares, and yet nothing is read in vain: a
group is a line of the cache for each input, and an instance reads the lines of its own groups. For
single units it reads two lines at a time, if they hold one of its own units.
"""

from typing import Any, NamedTuple

import pytensor
import pytensor.tensor as pt

from reinforce_dropout.blocks.forward import first_product
from reinforce_dropout.blocks.list_product import ListProduct
from reinforce_dropout.blocks.lists import MOST_UNITS, GroupProduct, ListNonZeros, panel_lanes
from reinforce_dropout.blocks.panels import in_panels
from reinforce_dropout.blocks.sharing import expand
from reinforce_dropout.blocks.unit_product import UnitProduct
from reinforce_dropout.gates import Stage, UniformPolicy
from reinforce_dropout.network import Network, Pass, sampled


class ListedNetwork(NamedTuple):
    """A network laid out for inference by single instances, see `listed`.

    Attributes
    ----------
    network : Network
        Its gates decide for single states, `Sharing` not yet applied.
    sharing : Sharing
        Of one instance, and of single units or of units that fill whole panels.
    product : Op
        Of the hidden layers: `UnitProduct` or `GroupProduct`.
    W : list of shared (n_panels, n_in, lanes)
        Of the hidden layers, then of the output.
    Z : list of shared (n_panels, n_in, lanes), or None
        Of each policy's first product, see `forward.first_product`; None if it never looks.
    """

    network: Network
    sharing: Any
    product: Any
    W: list
    Z: list


def suits(network, sharing):
    """Whether `forward` can run a network.

    Instances decide for single units, or for groups that fill panels. Policies begin with products,
    or never look at the state. Each unit of a layer has a number, see `lists`.
    """
    lanes = panel_lanes(network.output.W.dtype)
    known = all(first_product(g.policy) or _never_looks(g.policy) for g in network.gates)
    whole = sharing.units == 1 or sharing.units % lanes == 0
    numbered = all(len(W.get_value(borrow=True)) <= MOST_UNITS for W in network.weights)
    return sharing.instances == 1 and whole and known and numbered


def _never_looks(policy):
    """Whether a policy, or the one it bounds, has the same logits for every state."""
    return isinstance(getattr(policy, "policy", policy), UniformPolicy)


def listed(network, sharing):
    """Copy the weights of a network that `suits` into a `ListedNetwork`.

    Later changes of the network's weights and of the policies' matrices have no effect on it.
    """
    product = UnitProduct() if sharing.units == 1 else GroupProduct(sharing.units)
    policies = [first_product(gate.policy) for gate in network.gates]
    W, Z = map(_panels, network.weights), [first and _panels(first.matrix) for first in policies]
    return ListedNetwork(network, sharing, product, list(W), Z)


def _panels(W):
    """Return a copy of a shared matrix in panels, each as wide as a line of the cache."""
    value = W.get_value(borrow=True)
    return pytensor.shared(in_panels(value, panel_lanes(value.dtype)), name=W.name, borrow=True)


def forward(listed, x, rng=None, rule=sampled):
    """Propagate `x` through the units that take part; for the parameters see `blocks.forward`.

    Returns
    -------
    Pass
        The state of a stage is `x`, or the values of a list, see `lists`.
    """
    network, sharing = listed.network, listed.sharing
    below, stages = ListNonZeros()(x), []
    layers = zip(network.layers, network.gates, listed.W[:-1], listed.Z, strict=True)
    for i, (layer, gate, W, Z) in enumerate(layers, start=1):
        z = _logits(gate.policy, Z, below)
        u, rng = rule(gate.family, z, rng)
        U = expand(u, x, layer.b.get_value(borrow=True).size, sharing)
        stages.append(Stage(gate, str(i), below[0] if stages else x, z, u, U))
        values, *numbers = listed.product(*below, W, layer.b, pt.neq(u, 0))
        below = [layer.activation(values), *numbers]
    return Pass(ListProduct()(*below, listed.W[-1], network.output.b), stages, rng)


def _logits(policy, Z, below):
    """Logits (m_b, n_groups) of a policy for the lists of the layer below."""
    first = first_product(policy)
    if first is None:  # it never looks, so the list only says how many instances there are
        return policy(below[0])
    return first.then(ListProduct()(*below, Z, first.biases))
