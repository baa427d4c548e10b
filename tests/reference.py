"""The method once more in plain NumPy, to compare with, and help to run symbolic graphs.

The functions here follow the paper's formulas as printed, including probabilities and products.
They take complex arrays, so `gradient` can differentiate them to the last digit.
"""

from itertools import pairwise, product

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode

from reinforce_dropout.blocks.sharing import Sharing, n_groups, shared
from reinforce_dropout.gates import sigmoid_bernoulli
from reinforce_dropout.network import multilayer_perceptron, sampled

AS_WRITTEN = Mode(linker="py", optimizer=None)
"""Runs a graph node by node: nothing to compile, and no rewrite that could fix the graph."""


def compiled(inputs, outputs, **options):
    """Return a function of the graph as it is written."""
    with pytensor.config.change_flags(cxx=""):  # otherwise the inside of a loop is compiled to C
        return pytensor.function(inputs, outputs, mode=AS_WRITTEN, **options)


def given(masks):
    """Return a rule that takes the decisions from a list, the lowest layer's first."""
    masks = iter(masks)
    return lambda family, z, rng: (next(masks), rng)


def sampled_into(drawn):
    """Return the rule "sampled", which also appends the decisions' expressions to a list."""

    def rule(family, z, rng):
        u, rng = sampled(family, z, rng)
        drawn.append(u)
        return u, rng

    return rule


def flat(statistics):
    """Return the expressions of `algorithm.Step.statistics` in one list."""
    entries = (v if isinstance(v, list) else [v] for v in statistics.values())
    return [v for entry in entries for v in entry]


def gated_network(rng, widths, activation=pt.tanh, initial_rate=0.12, units=1):
    """Return a perceptron with the paper's gates, which decide for groups of units."""
    network = multilayer_perceptron(rng, widths, activation)
    sizes = enumerate(pairwise(widths[:-1]), start=1)
    gates = [
        sigmoid_bernoulli(rng, n_in, n_groups(n, units), str(i), initial_rate)
        for i, (n_in, n) in sizes
    ]
    return network._replace(gates=gates)


def in_blocks(network, sharing):
    """Return a network whose gates share their decisions."""
    return network._replace(
        gates=[
            shared(gate, sharing, layer.b.get_value().size)
            for layer, gate in zip(network.layers, network.gates, strict=True)
        ]
    )


def double_network(widths, seed=0, activation=pt.tanh, sharing=None):
    """Return a network whose parameters are all drawn at random, in float64."""
    rng = np.random.default_rng(seed)
    network = gated_network(rng, widths, activation, units=(sharing or Sharing()).units)

    def doubled(part, *names):
        """Replace shared variables of a layer or a policy."""
        old = {name: getattr(part, name) for name in names}
        return part._replace(
            **{
                k: pytensor.shared(rng.normal(size=v.get_value().shape), v.name)
                for k, v in old.items()
            }
        )

    *layers, output = [doubled(part, "W", "b") for part in [*network.layers, network.output]]
    gates = [gate._replace(policy=doubled(gate.policy, "Z", "o")) for gate in network.gates]
    network = network._replace(layers=layers, gates=gates, output=output)
    return in_blocks(network, sharing) if sharing else network


def thetas(network):
    """Return the parameters of the policies, ``[[Z_1, o_1], ..., [Z_L, o_L]]``."""
    return [gate.policy.theta for gate in network.gates if gate is not None]


def parameters(network):
    """Return the parameters of a network and then of its policies."""
    return network.params + [p for theta in thetas(network) for p in theta]


def values(network):
    """Return the parameters of a network by name, in float64."""
    return {p.name: p.get_value().astype("float64") for p in parameters(network)}


def values_of(system):
    """Return the parameters of a system by name, in float64."""
    return {name: p.get_value().astype("float64") for name, p in system.parameters.items()}


def sigm(z):
    """Participation probabilities."""
    return 1 / (1 + np.exp(-z))


def log_pi(z, u):
    """Equation (1)."""
    sigma = sigm(z)
    return (u * np.log(sigma) + (1 - u) * np.log(1 - sigma)).sum(axis=1)


def kl(z, q):
    """Equation (5)."""
    sigma = sigm(z)
    return (
        sigma * (np.log(sigma) - np.log(q)) + (1 - sigma) * (np.log(1 - sigma) - np.log(1 - q))
    ).sum(axis=1)


def entropy(z):
    """Return the entropy of the masks of each example."""
    sigma = sigm(z)
    return -(sigma * np.log(sigma) + (1 - sigma) * np.log(1 - sigma)).sum(axis=1)


def nll(logits, y):
    """Negative log-likelihood under the softmax."""
    p = np.exp(logits)
    return -np.log(p[np.arange(len(y)), y] / p.sum(axis=1))


def block_mean(v, B):
    """Return the mean of each B entries or rows, the last mean perhaps of fewer."""
    return np.array([v[k : k + B].mean(axis=0) for k in range(0, len(v), B)])


def expand(u, shape, B, G):
    """Return the mask, entry by entry: the decision of the block and the group."""
    return np.array([[u[n // B, k // G] for k in range(shape[1])] for n in range(shape[0])])


def forward(P, x, masks, act=np.tanh, B=1, G=1):
    """Return the policies' logits, a list, and the softmax's; `P` maps names to arrays.

    With B instances a block and G units a group, `masks` holds the decisions.
    """
    s, zs = x, []
    for i, u in enumerate(masks, start=1):
        zs.append(block_mean(s, B) @ P[f"Z_{i}"] + P[f"o_{i}"])
        h = act(s @ P[f"W_{i}"] + P[f"b_{i}"])
        s = h * expand(u, h.shape, B, G)
    return zs, s @ P["W_out"] + P["b_out"]


def all_masks(n):
    """Return all 2^n masks of n units, one a row."""
    return np.array(list(product((0.0, 1.0), repeat=n)))


def joint_masks(n_examples, widths):
    """Yield all masks of a mini-batch: lists with one (n_examples, n_units) array a layer."""
    for bits in all_masks(n_examples * sum(widths)):
        rows = bits.reshape(n_examples, -1)
        yield np.split(rows, np.cumsum(widths)[:-1], axis=1)


def expectation(P, x, widths, value):
    """Mean over the examples of E[value], by summing over the masks of all layers.

    ``value(zs, masks, logits)`` has an entry an example, which depends on its own masks only.
    """
    total = 0
    for bits in all_masks(sum(widths)):
        masks = np.split(np.tile(bits, (len(x), 1)), np.cumsum(widths)[:-1], axis=1)
        zs, logits = forward(P, x, masks)
        probability = np.prod([np.exp(log_pi(*zu)) for zu in zip(zs, masks, strict=True)], axis=0)
        total = total + (probability * value(zs, masks, logits)).mean()
    return total


def gradient(f, P, names):
    """Gradient of ``f(P)`` by complex steps, which lose no digits; `P` maps names to arrays."""
    step = 1e-30
    gradients = {}
    for name in names:
        gradients[name] = np.empty(P[name].shape)
        for k in np.ndindex(P[name].shape):
            moved = P[name].astype(complex)
            moved[k] += 1j * step
            gradients[name][k] = f(P | {name: moved}).imag / step
    return gradients
