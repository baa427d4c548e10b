"""The method once more in plain NumPy, to compare with, and help to run symbolic graphs.

The functions here follow the paper's formulas as they stand, probabilities and products included,
and take complex arrays, so that `gradient` can differentiate them to the last digit.
"""

from itertools import product

import numpy as np
import pytensor
from pytensor.compile.mode import Mode

from reinforce_dropout.network import MaskedNetwork

AS_WRITTEN = Mode(linker="py", optimizer=None)
"""Runs a graph node by node: nothing to compile, and no rewrite that could mend the graph."""


def compiled(inputs, outputs, **options):
    """Return a function of the graph as it is written."""
    with pytensor.config.change_flags(cxx=""):  # else the inside of a loop is compiled to C
        return pytensor.function(inputs, outputs, mode=AS_WRITTEN, **options)


def given(masks):
    """Return a mask rule that takes the masks from a list, the lowest layer's first."""
    masks = iter(masks)
    return lambda z, rng: (next(masks), rng)


def double_network(widths, seed=0, **options):
    """Return a network whose parameters are all drawn at random, in float64."""
    rng = np.random.default_rng(seed)
    network = MaskedNetwork(rng, widths, **options)

    def doubled(variables):
        return [pytensor.shared(rng.normal(size=v.get_value().shape), v.name) for v in variables]

    for layer in [*network.layers, network.output]:
        layer.W, layer.b = layer.params[:] = doubled(layer.params)
    for policy in network.policies:
        policy.Z, policy.o = policy.theta[:] = doubled(policy.theta)
    return network


def values(network):
    """Return the parameters of a network by name, in float64."""
    return {p.name: p.get_value().astype("float64") for p in network.all_parameters}


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
    """Return the mask, entry by entry: that of the instance's block and the unit's group."""
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

    ``value(zs, logits)`` gives an entry an example, which depends on the example's own masks only.
    """
    total = 0
    for bits in all_masks(sum(widths)):
        masks = np.split(np.tile(bits, (len(x), 1)), np.cumsum(widths)[:-1], axis=1)
        zs, logits = forward(P, x, masks)
        probability = np.prod([np.exp(log_pi(*zu)) for zu in zip(zs, masks, strict=True)], axis=0)
        total = total + (probability * value(zs, logits)).mean()
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
