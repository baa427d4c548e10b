"""Gates: the paper's policy and ordinary dropout's."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.special
from reference import compiled

from reinforce_dropout import bernoulli, gates, initializers
from reinforce_dropout.initializers import logit_of_rate
from reinforce_dropout.reinforce import policy_gradient

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


def test_a_policy_of_low_rank():
    """``z = (s A) B + o``; A is drawn before B, both by Glorot, and nothing else is drawn."""
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    policy = gates.low_rank(2)(rng, 3, 7, "p", initial_rate=0.3).policy
    expected = [initializers.glorot_uniform(other, *shape) for shape in ((3, 2), (2, 7))]
    assert rng.random() == other.random()
    assert [p.name for p in policy.theta] == ["A_p", "B_p", "o_p"]
    A, B, o = (p.get_value() for p in policy.theta)
    for value, right in zip((A, B, o), (*expected, logit_of_rate(0.3, 7)), strict=True):
        np.testing.assert_array_equal(value, right)
    s = pt.fmatrix("s")
    z = compiled([s], policy(s))(X)
    assert z.dtype == "float32"
    np.testing.assert_allclose(z, X @ (A @ B) + o, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_policy_of_low_rank():
    """Eq. (4) by hand: the rows of ``(u - sigma) c / N`` reach A through B, and B through s A."""
    gate = gates.low_rank(2)(np.random.default_rng(0), 3, 4, "p")
    A, B, o = (p.get_value() for p in gate.policy.theta)
    rng = np.random.default_rng(1)
    u, c = (rng.random((5, 4)) < 0.4).astype("float32"), rng.normal(size=5).astype("float32")
    s = pt.constant(X)
    log_pi = gate.family.log_prob(gate.policy(s), pt.constant(u))
    found = compiled([], policy_gradient(log_pi, gate.policy.theta, pt.constant(c)))()
    G = (u - scipy.special.expit(X @ A @ B + o)) * c[:, None] / 5
    for value, right in zip(found, (X.T @ G @ B.T, (X @ A).T @ G, G.sum(axis=0)), strict=True):
        np.testing.assert_allclose(value, right, rtol=1e-4, atol=1e-6)


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


def test_a_bounded_policy_keeps_the_least_rate():
    """``sigma = r + (1 - r) sigm(z')``; all units start at the initial rate."""
    made = gates.bounded(gates.sigmoid_bernoulli, 0.1)
    gate = made(np.random.default_rng(0), 3, 2, "p", initial_rate=0.3)
    assert gate.policy.theta == gate.policy.policy.theta
    s = pt.fmatrix("s")
    z, inner = compiled([s], [gate.policy(s), gate.policy.policy(s)])(X)
    assert z.dtype == "float32"
    expected = 0.1 + 0.9 * scipy.special.expit(inner)
    np.testing.assert_allclose(scipy.special.expit(z), expected, rtol=1e-5)
    at_zero = compiled([s], gate.policy(s))(np.zeros((1, 3), "float32"))
    np.testing.assert_allclose(scipy.special.expit(at_zero), 0.3, rtol=1e-5)


def test_a_bounded_policy_of_extreme_logits():
    """The rate is the least one or 1, and the gradient is finite."""
    o = pytensor.shared(np.array([-500.0, 500.0], "float32"))
    policy = gates.BoundedPolicy(gates.UniformPolicy(o), 0.1)
    z = policy(pt.constant(X[:1]))
    value, grad = compiled([], [z, pytensor.grad(z.sum(), o)])()
    np.testing.assert_allclose(scipy.special.expit(value), [[0.1, 1]], rtol=1e-5)
    assert np.isfinite(grad).all()


def test_without_a_least_rate_nothing_is_wrapped():
    assert gates.bounded(gates.sigmoid_bernoulli, 0) is gates.sigmoid_bernoulli
