"""The REINFORCE gradient: four forms of one vector, and the true gradient by enumeration."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import compiled, joint_masks
from scipy.optimize import approx_fprime

from reinforce_dropout import baselines, bernoulli, costs, reinforce
from reinforce_dropout.policy import SigmoidBernoulliPolicy

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
    """Training in float32 stays there whatever PyTensor's default is."""
    with pytensor.config.change_flags(floatX=floatX):
        policy = SigmoidBernoulliPolicy(np.random.default_rng(0), 3, 2, "1")
        z = policy.logits(pt.fmatrix())
        grads = form(bernoulli.log_prob(z, pt.fmatrix()), policy.theta, pt.fvector())
        kl = bernoulli.kl(z, Q)
        direct = reinforce.kl_penalty_gradient(kl, policy.theta, 0.1)
        C = reinforce.score_cost(pt.fvector(), [kl], 0.1, 0, "score")
    assert [g.dtype for g in [*grads, *direct, C]] == ["float32"] * 5
    assert [g.ndim for g in grads] == [2, 1]


@pytest.mark.parametrize(
    ("kl_gradient", "i", "expected"),
    [
        ("total", 0, 1 + 0.5 * (20 + 300)),
        ("total", 1, 1 + 0.5 * 300),
        ("total", 2, 1),
        ("score", 0, 1 + 0.5 * (4 + 20 + 300)),
        ("score", 1, 1 + 0.5 * (4 + 20 + 300)),
        ("score", 2, 1 + 0.5 * (4 + 20 + 300)),
    ],
)
def test_score_cost(kl_gradient, i, expected):
    """ "total" counts the divergences of the layers above alone, "score" those of all layers."""
    kls = [pt.constant([value]) for value in (4.0, 20.0, 300.0)]
    C = reinforce.score_cost(pt.constant([1.0]), kls, 0.5, i, kl_gradient)
    assert compiled([], C)() == [expected]


def test_kl_penalty_gradient_is_of_the_mean():
    """Gradient of lambda times the mean of KL_i over the examples."""
    rng = np.random.default_rng(0)
    P = {"Z": rng.normal(size=(3, 2)), "o": rng.normal(size=2)}
    theta, s = [pytensor.shared(v) for v in P.values()], rng.normal(size=(4, 3))
    kl = bernoulli.kl(pt.constant(s) @ theta[0] + theta[1], Q)
    grads = compiled([], reinforce.kl_penalty_gradient(kl, theta, 0.3))()
    exact = reference.gradient(
        lambda P: 0.3 * reference.kl(s @ P["Z"] + P["o"], Q).mean(), P, ["Z", "o"]
    )
    np.testing.assert_allclose(grads[0], exact["Z"], rtol=1e-10)
    np.testing.assert_allclose(grads[1], exact["o"], rtol=1e-10)


class Network:
    """A network small enough to sum over all masks of all its layers, and of all examples.

    Attributes
    ----------
    gradients : callable
        ``gradients(f)``: of f(P) with respect to all policies, by name.
    """

    def __init__(self, N, widths, seed=0):
        self.widths, self.lam = widths, 0.7
        self.x = np.random.default_rng(seed).normal(size=(N, 3))
        self.y = np.array([1, 0, 2])[:N]
        self.network = reference.double_network((3, *widths, 3), seed)
        self.P = reference.values(self.network)
        self.names = [p.name for theta in self.network.thetas for p in theta]

    def gradients(self, f):
        """Return the gradient of f(P) with respect to all policies, by name."""
        return reference.gradient(f, self.P, self.names)

    def expected_cost(self, P):
        """Return E[C], the mean over the examples."""

        def C(zs, logits):
            return reference.nll(logits, self.y) + self.lam * sum(reference.kl(z, Q) for z in zs)

        return reference.expectation(P, self.x, self.widths, C)

    def expected_divergence(self, i):
        """Return the function P -> lambda * E[KL_i], i counted from 0."""
        return lambda P: reference.expectation(
            P, self.x, self.widths, lambda zs, logits: self.lam * reference.kl(zs[i], Q)
        )

    def expected_estimate(self, kl_gradient, baseline=baselines.none, lam=None):
        """Return the expectation of the gradient that training follows, by name of the policy."""
        lam = self.lam if lam is None else lam
        x, y, U = pt.dmatrix("x"), pt.lvector("y"), [pt.dmatrix() for _ in self.widths]
        forward = self.network.forward(x, mask=reference.given(U))
        nll = costs.nll(forward.logits, y)
        kls = [bernoulli.kl(z, Q) for z in forward.z]
        log_pis = [bernoulli.log_prob(z, u) for z, u in zip(forward.z, U, strict=True)]
        grads = []
        for i, theta in enumerate(self.network.thetas):
            C = reinforce.score_cost(nll, kls, lam, i, kl_gradient)
            step = reinforce.policy_gradient(log_pis[i], theta, C - baseline(C))
            if kl_gradient == "total":
                direct = reinforce.kl_penalty_gradient(kls[i], theta, lam)
                step = [score + d for score, d in zip(step, direct, strict=True)]
            grads += step
        estimate = compiled([x, y, *U], [sum(log_pis), *grads])
        total = dict.fromkeys(self.names, 0.0)
        for masks in joint_masks(len(self.x), self.widths):
            log_pi, *grads = estimate(self.x, self.y, *masks)
            for name, grad in zip(self.names, grads, strict=True):
                total[name] = total[name] + np.exp(log_pi.sum()) * grad
        return total


def assert_equal(gradients, expected):
    """Compare gradients by name."""
    for name, grad in gradients.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-9, atol=1e-11, err_msg=name)


SIZES = pytest.mark.parametrize(("N", "widths"), [(1, (3, 2)), (2, (2, 3)), (3, (3,))], ids=str)


@SIZES
def test_total_is_the_true_gradient(N, widths):
    """Score and direct term together have the gradient of E[C] as expectation, in every layer."""
    network = Network(N, widths)
    assert_equal(network.expected_estimate("total"), network.gradients(network.expected_cost))


@SIZES
def test_score_misses_the_gradient_of_its_own_divergence(N, widths):
    """The literal reading falls short of the true gradient by exactly lambda * grad E[KL_i]."""
    network = Network(N, widths)
    estimate = network.expected_estimate("score")
    exact = network.gradients(network.expected_cost)
    for i in range(len(widths)):
        own = network.gradients(network.expected_divergence(i))
        for name in (f"Z_{i + 1}", f"o_{i + 1}"):
            assert np.abs(own[name]).max() > 1e-3
            np.testing.assert_allclose(
                exact[name] - estimate[name], own[name], rtol=1e-9, atol=1e-11, err_msg=name
            )


def test_score_of_one_hidden_layer_ignores_lambda():
    """Lambda contributes nothing in expectation, with the batch mean as baseline too."""
    network = Network(2, (3,))
    for baseline in (baselines.none, baselines.batch_mean):
        with_lambda = network.expected_estimate("score", baseline, lam=5.0)
        assert_equal(with_lambda, network.expected_estimate("score", baseline, lam=0.0))


def test_total_with_the_batch_mean_scales_the_score_only():
    """At N = 2 the batch mean halves the score term; the direct term keeps its size."""
    network = Network(2, (2, 2))
    estimate = network.expected_estimate("total", baselines.batch_mean)
    exact = network.gradients(network.expected_cost)
    for i in range(2):
        direct = network.gradients(network.expected_divergence(i))
        for name in (f"Z_{i + 1}", f"o_{i + 1}"):
            expected = (exact[name] - direct[name]) / 2 + direct[name]
            np.testing.assert_allclose(estimate[name], expected, rtol=1e-9, atol=1e-11)
