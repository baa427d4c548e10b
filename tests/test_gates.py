"""Gates: the paper's policy and ordinary dropout's."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.special
from reference import compiled

from reinforce_dropout import bernoulli, gates
from reinforce_dropout.initializers import logit_of_rate

X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


def test_the_papers_gate():
    """Logits s Z + o, masks Bernoulli, and a dropped unit is 0."""
    gate = gates.sigmoid_bernoulli(np.random.default_rng(0), 3, 2, "p", initial_rate=0.3)
    Z, o = gate.policy.theta
    assert (gate.policy.Z, gate.policy.o) == (Z, o) and (Z.name, o.name) == ("Z_p", "o_p")
    assert gate.family is bernoulli
    np.testing.assert_array_equal(o.get_value(), logit_of_rate(0.3, 2))
    s = pt.fmatrix("s")
    z = compiled([s], gate.policy(s))(X)
    assert z.dtype == "float32"
    np.testing.assert_allclose(z, X @ Z.get_value() + o.get_value(), rtol=1e-5, atol=1e-6)


def test_initial_weights_of_a_policy_are_glorots():
    """The masks are one draw of a matrix from the generator, and nothing else is drawn."""
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    gate = gates.sigmoid_bernoulli(rng, 3, 2, "p")
    limit = np.sqrt(6 / 5)
    expected = other.uniform(-limit, limit, (3, 2)).astype("float32")
    np.testing.assert_array_equal(gate.policy.Z.get_value(), expected)
    assert rng.random() == other.random()


def test_a_uniform_gate_neither_looks_nor_learns_nor_draws():
    """Every unit has the rate in every state; one row of logits an example."""
    rng = np.random.default_rng(5)
    gate = gates.uniform(rng, 3, 4, "p", initial_rate=0.3)
    assert rng.bit_generator.state == np.random.default_rng(5).bit_generator.state
    assert list(gate.policy.theta) == []
    s = pt.fmatrix("s")
    z = compiled([s], gate.policy(s))(X)
    assert z.shape == (5, 4) and z.dtype == "float32"
    np.testing.assert_allclose(scipy.special.expit(z), 0.3, rtol=1e-5)
    with pytest.raises(pytensor.gradient.DisconnectedInputError):
        pytensor.grad(gate.policy(s).sum(), s, disconnected_inputs="raise")


def test_without_sharing_decisions_are_masks_and_costs_are_the_examples():
    """The mask is the decision, and the cost of an example is that of its decision."""
    gate = gates.sigmoid_bernoulli(np.random.default_rng(0), 3, 2, "p")
    u, s, v = pt.fmatrix("u"), pt.fmatrix("s"), pt.fvector("v")
    assert gate.expand(u, s) is u and gate.pool(v) is v


def test_multiply():
    """``h * U``, unit by unit."""
    h, U = pt.fmatrices("h", "U")
    masks = np.tile([1, 0, 1], (5, 1)).astype("float32")
    np.testing.assert_array_equal(compiled([h, U], gates.multiply(h, U))(X, masks), X * masks)
