"""One test for every numbered equation of the paper; the modules' own tests go further."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats
from reference import all_masks, compiled, gradient, sigm

from reinforce_dropout import bernoulli, costs, reinforce
from reinforce_dropout.gates import AffinePolicy

RNG = np.random.default_rng(0)
N, N_IN, N_UNITS = 5, 4, 3
S = RNG.normal(size=(N, N_IN))
Z = RNG.normal(size=(N_IN, N_UNITS))
O = RNG.normal(size=N_UNITS)  # noqa: E741 (the paper's o)
U = RNG.integers(0, 2, (N, N_UNITS)).astype("float64")
COSTS = RNG.normal(2, 1, N)


@pytest.fixture
def policy():
    """Return a policy with the parameters above, in float64."""
    return AffinePolicy(pytensor.shared(Z), pytensor.shared(O))


def test_equation_1_probability_of_the_masks(policy):
    """Eq. (1): the log-probability of Bernoulli units with sigma = sigm(s Z + o)."""
    s, u = pt.dmatrices("s", "u")
    log_pi = compiled([s, u], bernoulli.log_prob(policy(s), u))(S, U)
    expected = scipy.stats.bernoulli.logpmf(U, sigm(S @ Z + O)).sum(axis=1)
    np.testing.assert_allclose(log_pi, expected, rtol=1e-12)


def test_equation_2_score_gradient_is_gradient_of_expected_cost(policy):
    """Eq. (2): E[(C - b) grad log pi] = grad E[C], summed over all masks, for any cost of them."""
    masks, s = all_masks(N_UNITS), S[:1]
    cost_of_mask = RNG.normal(size=len(masks))
    u, c = pt.dmatrix("u"), pt.dvector("c")
    log_pi = bernoulli.log_prob(policy(pt.constant(s)), u)
    step = compiled([u, c], reinforce.policy_gradient(log_pi, policy.theta, c))

    def probabilities(P):
        sigma = sigm(s @ P["Z"] + P["o"])
        return np.prod(np.where(masks, sigma, 1 - sigma), axis=1)

    P = {"Z": Z, "o": O}
    exact = gradient(lambda P: probabilities(P) @ cost_of_mask, P, P)
    for baseline in (0.0, 1.7):
        expected = [0.0, 0.0]
        for p, mask, cost in zip(probabilities(P), masks, cost_of_mask, strict=True):
            terms = step(mask[None], [cost - baseline])
            expected = [e + p * term for e, term in zip(expected, terms, strict=True)]
        np.testing.assert_allclose(expected[0], exact["Z"], rtol=1e-10)
        np.testing.assert_allclose(expected[1], exact["o"], rtol=1e-10)


def check_gradient_of_a_mini_batch(form, policy):
    """Compare with (1/N) c^T J, where row n of J is (u - sigma) times s for Z, times 1 for o."""
    s, u, c = pt.dmatrix("s"), pt.dmatrix("u"), pt.dvector("c")
    log_pi = bernoulli.log_prob(policy(s), u)
    grads = compiled([s, u, c], form(log_pi, policy.theta, c))(S, U, COSTS)
    residual = U - sigm(S @ Z + O)
    J_Z = S[:, :, None] * residual[:, None, :]
    np.testing.assert_allclose(grads[0], np.tensordot(COSTS, J_Z, axes=1) / N, rtol=1e-10)
    np.testing.assert_allclose(grads[1], COSTS @ residual / N, rtol=1e-10)


def test_equation_3_jacobian_form(policy):
    """Eq. (3): (1/N) c^T J with the Jacobian J formed."""
    check_gradient_of_a_mini_batch(reinforce.jacobian_policy_gradient, policy)


def test_equation_4_without_the_jacobian(policy):
    """Eq. (4): the same as a left vector-Jacobian product."""
    check_gradient_of_a_mini_batch(reinforce.policy_gradient, policy)


@pytest.mark.parametrize("q", [0.03, 0.5, 0.9])
def test_equation_5_divergence_from_the_target_rate(policy, q):
    """Eq. (5): the sum over all masks of pi log(pi / q), q the mask's probability at rate q."""
    s = pt.dmatrix("s")
    kl = compiled([s], bernoulli.kl(policy(s), q))(S)
    for n, sigma in enumerate(sigm(S @ Z + O)):
        log_pi = scipy.stats.bernoulli.logpmf(all_masks(N_UNITS), sigma).sum(axis=1)
        log_q = scipy.stats.bernoulli.logpmf(all_masks(N_UNITS), q).sum(axis=1)
        np.testing.assert_allclose(kl[n], np.exp(log_pi) @ (log_pi - log_q), rtol=1e-10)


def test_equation_6_cost_of_an_example():
    """Eq. (6): nll + lambda * the sum over layers of KL."""
    nll, kl_1, kl_2 = pt.dvectors("nll", "kl_1", "kl_2")
    C = compiled([nll, kl_1, kl_2], costs.mdp_cost(nll, [kl_1, kl_2], 0.25))
    np.testing.assert_allclose(C([1.0, 2.0], [4.0, 0.0], [8.0, 2.0]), [4.0, 2.5])
