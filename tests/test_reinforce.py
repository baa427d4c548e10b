"""The REINFORCE gradient: four forms of one vector."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import compiled
from scipy.optimize import approx_fprime

from reinforce_dropout import bernoulli, gates, reinforce

FORMS = [
    reinforce.policy_gradient,
    reinforce.jacobian_policy_gradient,
    reinforce.pushforward_policy_gradient,
    reinforce.surrogate_policy_gradient,
]
Q = 0.2


@pytest.fixture(scope="module")
def all_forms():
    """Return ``f(Z, o, s, u, c)``: the gradients (Z, o) in each form, for weights c + KL.

    The weights depend on the policy, as the cost of eq. (6) does; no form may differentiate them.
    """
    Z, o = pytensor.shared(np.zeros((1, 1))), pytensor.shared(np.zeros(1))
    s, u, c = pt.dmatrix("s"), pt.dmatrix("u"), pt.dvector("c")
    z = s @ Z + o
    weights = c + bernoulli.kl(z, Q)
    log_pi = bernoulli.log_prob(z, u)
    step = compiled([s, u, c], [g for form in FORMS for g in form(log_pi, [Z, o], weights)])

    def gradients(Z_value, o_value, *inputs):
        Z.set_value(Z_value)
        o.set_value(o_value)
        grads = step(*inputs)
        return list(zip(grads[::2], grads[1::2], strict=True))

    return gradients


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_four_forms_agree(all_forms, N, n_in, n_units, seed):
    """For mini-batches and layers of any size, also against NumPy and finite differences."""
    rng = np.random.default_rng(seed)
    Z, o, s = rng.normal(size=(n_in, n_units)), rng.normal(size=n_units), rng.normal(size=(N, n_in))
    u, c = rng.integers(0, 2, (N, n_units)).astype("float64"), rng.normal(size=N)
    z = s @ Z + o
    weights = c + reference.kl(z, Q)
    residual = weights[:, None] * (u - reference.sigm(z)) / N

    def mean_weighted_score(theta):
        z = s @ theta[n_units:].reshape(Z.shape) + theta[:n_units]
        return (weights * reference.log_pi(z, u)).mean()

    differences = approx_fprime(np.concatenate([o, Z.ravel()]), mean_weighted_score)
    for grad_Z, grad_o in all_forms(Z, o, s, u, c):
        np.testing.assert_allclose(grad_Z, s.T @ residual, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(grad_o, residual.sum(axis=0), rtol=1e-9, atol=1e-12)
        flat = np.concatenate([grad_o, grad_Z.ravel()])
        np.testing.assert_allclose(flat, differences, rtol=1e-4, atol=1e-4)


def test_the_gradient_is_a_mean_over_examples(all_forms):
    """The same mini-batch twice over has the same gradient: the 1/N of eq. (3)."""
    rng = np.random.default_rng(0)
    Z, o = rng.normal(size=(3, 2)), rng.normal(size=2)
    s, u, c = rng.normal(size=(4, 3)), np.ones((4, 2)), rng.normal(size=4)
    once = all_forms(Z, o, s, u, c)
    twice = all_forms(Z, o, np.tile(s, (2, 1)), np.tile(u, (2, 1)), np.tile(c, 2))
    for (Z_1, o_1), (Z_2, o_2) in zip(once, twice, strict=True):
        np.testing.assert_allclose(Z_1, Z_2, rtol=1e-10)
        np.testing.assert_allclose(o_1, o_2, rtol=1e-10)


def test_a_costly_mask_becomes_less_probable(all_forms):
    """A step down the gradient lowers the probability of masks that cost more than the baseline."""
    Z, o, s, u = np.zeros((2, 3)), np.zeros(3), np.ones((1, 2)), np.array([[1.0, 0.0, 1.0]])
    for _, grad_o in all_forms(Z, o, s, u, np.array([10.0])):
        np.testing.assert_array_equal(np.sign(-grad_o), [-1, 1, -1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("floatX", ["float32", "float64"])
def test_dtype_is_kept(form, floatX):
    """Training in float32 stays in float32 for any default of PyTensor."""
    with pytensor.config.change_flags(floatX=floatX):
        policy = gates.sigmoid_bernoulli(np.random.default_rng(0), 3, 2, "1").policy
        log_pi = bernoulli.log_prob(policy(pt.fmatrix()), pt.fmatrix())
        grads = form(log_pi, policy.theta, pt.fvector())
    assert [g.dtype for g in grads] == ["float32"] * 2
    assert [g.ndim for g in grads] == [2, 1]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("c", [pt.dscalar(), pt.dmatrix()], ids=["mean", "column"])
def test_a_cost_of_another_rank_is_refused(form, c):
    """It would broadcast in silence; the sentence says what to give."""
    policy = gates.sigmoid_bernoulli(np.random.default_rng(0), 3, 2, "1").policy
    log_pi = bernoulli.log_prob(policy(pt.fmatrix()), pt.fmatrix())
    with pytest.raises(ValueError, match="c must have as many dimensions"):
        form(log_pi, policy.theta, c)
