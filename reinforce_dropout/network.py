"""The masked network: layers, each with or without a gate, and one walk over them."""

from itertools import chain, pairwise, repeat
from typing import Any, NamedTuple

from reinforce_dropout.gates import Stage
from reinforce_dropout.initializers import glorot_uniform
from reinforce_dropout.layers import dense


def sampled(family, z, rng):
    """Draw the decisions, as in training.

    Examples
    --------
    >>> from reinforce_dropout import bernoulli
    >>> rng = pytensor.shared(np.random.default_rng(0))
    >>> u, next_rng = sampled(bernoulli, pt.as_tensor([[0.0, 9.0, -9.0]]), rng)
    >>> u.eval()
    array([[0., 1., 0.]])
    """
    return family.sample(z, rng)


def expected(family, z, rng):
    """Use the decisions' expectation; nothing is drawn.

    Examples
    --------
    >>> from reinforce_dropout import bernoulli
    >>> u, _ = expected(bernoulli, pt.as_tensor([[0.0, 2.0]]), None)
    >>> u.eval().round(2)
    array([[0.5 , 0.88]])
    """
    return family.mean(z), rng


def thresholded(family, z, rng):
    """Use the most probable decisions; nothing is drawn.

    Examples
    --------
    >>> from reinforce_dropout import bernoulli
    >>> u, _ = thresholded(bernoulli, pt.as_tensor([[0.0, 2.0]]), None)
    >>> u.eval()
    array([[0., 1.]])
    """
    return family.mode(z), rng


RULES = {"sampled": sampled, "expected": expected, "thresholded": thresholded}
"""How a pass decides, by name: ``rule(family, z, rng) -> (u, next_rng)``."""


def decided(u, above=sampled):
    """Return a rule for one pass: the lowest gate decides `u`, those above by the rule `above`.

    Examples
    --------
    >>> rule = decided(pt.as_tensor([[1.0, 0.0]]))
    >>> u, _ = rule(None, pt.as_tensor([[0.0, 0.0]]), None)
    >>> u.eval()
    array([[1., 0.]])
    """
    rules = chain([lambda family, z, rng: (u, rng)], repeat(above))
    return lambda family, z, rng: next(rules)(family, z, rng)


class Network(NamedTuple):
    """A network of any depth.

    Attributes
    ----------
    layers : list of Layer
        The hidden layers.
    gates : list of Gate or None
        One for each hidden layer; None where all units take part.
    output : Layer
        Gives the logits of the softmax.
    """

    layers: list
    gates: list
    output: Any

    @property
    def params(self):
        """Parameters of the network, ``[W_1, b_1, ..., W_out, b_out]``."""
        return [p for layer in [*self.layers, self.output] for p in layer.params]

    @property
    def weights(self):
        """Weight matrices of the network, ``[W_1, ..., W_out]``."""
        return [W for layer in [*self.layers, self.output] for W in layer.weights]


class Pass(NamedTuple):
    """Expressions of one forward pass.

    Attributes
    ----------
    logits : tensor (m_b, n_classes)
        Of the softmax.
    stages : list of Stage
        One for each gate, the lowest first.
    rng : random generator variable
        The state after all draws.
    """

    logits: Any
    stages: list
    rng: Any


def multilayer_perceptron(rng, widths, activation, initial=glorot_uniform):
    """Return the layers of a multilayer perceptron.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the weights, the lowest layer's first.
    widths : sequence of int
        ``(n_in, n_units_1, ..., n_units_L, n_classes)``
    activation : callable
        Of the hidden layers.
    initial : callable
        ``initial(rng, n_in, n_out)`` gives a layer's weights.

    Returns
    -------
    Network
        Without gates.

    Examples
    --------
    >>> network = multilayer_perceptron(np.random.default_rng(0), (4, 3, 2), pt.tanh)
    >>> [(p.name, p.get_value().shape) for p in network.params]
    [('W_1', (4, 3)), ('b_1', (3,)), ('W_out', (3, 2)), ('b_out', (2,))]
    """
    layers = [
        dense(rng, n_in, n_units, str(i), activation, initial)
        for i, (n_in, n_units) in enumerate(pairwise(widths[:-1]), start=1)
    ]
    return Network(layers, [None] * len(layers), dense(rng, *widths[-2:], "out", initial=initial))


def forward(network, x, rng=None, rule=sampled, start=1):
    """Propagate `x` through the layers: ``s_{i+1} = act(s_i W_i + b_i) * u_i``.

    Parameters
    ----------
    network : Network
    x : tensor (m_b, n_in)
        What the first layer gets, or layer `start`.
    rng : random generator variable, optional
        Needed where `rule` draws.
    rule : callable
        An entry of `RULES`, or another function of the same signature.
    start : int
        Number of the first layer to compute; the layers below were computed before.

    Returns
    -------
    Pass

    Examples
    --------
    >>> from reinforce_dropout.gates import sigmoid_bernoulli
    >>> rng = np.random.default_rng(0)
    >>> network = multilayer_perceptron(rng, (4, 3, 2), pt.tanh)
    >>> network = network._replace(gates=[sigmoid_bernoulli(rng, 4, 3, "1")])
    >>> passed = forward(network, pt.ones((5, 4)), pytensor.shared(rng))
    >>> passed.logits.eval().shape, passed.stages[0].u.eval().shape
    ((5, 2), (5, 3))
    """
    s, stages = x, []
    layers = list(zip(network.layers, network.gates, strict=True))
    for i, (layer, gate) in enumerate(layers[start - 1 :], start):
        h = layer(s)
        if gate is not None:
            z = gate.policy(s)
            u, rng = rule(gate.family, z, rng)
            U = gate.expand(u, s)
            stages.append(Stage(gate, str(i), s, z, u, U))
            h = gate.act(h, U)
        s = h
    return Pass(network.output(s), stages, rng)
