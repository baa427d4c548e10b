"""Layers of the network."""

import numpy as np
import pytensor.tensor as pt
import pytest
import reference
import scipy.special
from reference import compiled

from reinforce_dropout.layers import ACTIVATIONS, dense, relu
from reinforce_dropout.network import forward

X = np.random.default_rng(0).normal(size=(5, 4))


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("tanh", np.tanh),
        ("sigmoid", scipy.special.expit),
        ("relu", lambda a: np.where(a > 0, a, 0)),
    ],
)
def test_activations(name, act):
    """Of the hidden layers; the output has none."""
    network = reference.double_network((4, 3, 2), activation=ACTIVATIONS[name])
    x, u = pt.dmatrix("x"), pt.dmatrix("u")
    passed = forward(network, x, rule=reference.given([u]))
    logits = compiled([x, u], passed.logits)(X, np.ones((5, 3)))
    _, expected = reference.forward(reference.values(network), X, [np.ones((5, 3))], act)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_all_activations_are_tested():
    """The test above names each."""
    assert set(ACTIVATIONS) == {"tanh", "sigmoid", "relu"}


def test_layers_start_with_zero_biases():
    """Weights by Glorot, biases zero."""
    rng = np.random.default_rng(0)
    for layer in (dense(rng, 3, 2, "a"), dense(rng, 3, 2, "d", relu)):
        np.testing.assert_array_equal(layer.b.get_value(), np.zeros(2, "float32"))
        assert 0 < np.abs(layer.W.get_value()).max() <= np.sqrt(6 / 5)


def test_parameters_of_a_layer():
    """Names, order and type; the penalty counts the weights alone."""
    layer = dense(np.random.default_rng(0), 3, 2, "a")
    assert layer.params == [layer.W, layer.b] and layer.weights == [layer.W]
    assert [p.name for p in layer.params] == ["W_a", "b_a"]
    assert [p.get_value().shape for p in layer.params] == [(3, 2), (2,)]
    assert {p.get_value().dtype for p in layer.params} == {np.dtype("float32")}
