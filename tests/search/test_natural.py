"""The natural gradient against the Fisher matrix, formed by enumeration, and SciPy's solver."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
import scipy.linalg
from reference import compiled

from reinforce_dropout import gates, reinforce
from reinforce_dropout.algorithm import to_theta
from reinforce_dropout.blocks.sharing import BlockPolicy, Sharing
from reinforce_dropout.gates import AffinePolicy, BoundedPolicy, Gate, LowRankPolicy, Stage
from reinforce_dropout.reinforce import Estimate
from reinforce_dropout.search import natural

N, N_IN, K = 4, 3, 2
RNG = np.random.default_rng(0)
S, Z, O = RNG.normal(size=(N, N_IN)), RNG.normal(size=(N_IN, K)), RNG.normal(size=K)  # noqa: E741
C = RNG.normal(size=(N, K))
DAMPING = 0.03


def affine(Z=Z, o=O):
    """Return a policy in float64."""
    return AffinePolicy(pytensor.shared(Z, "Z"), pytensor.shared(o, "o"))


def bounded():
    """Return a policy whose logits are not linear in its parameters."""
    return BoundedPolicy(affine(), 0.1)


def low_rank():
    """Return a policy whose units share a matrix, which has rank 1."""
    A, B = RNG.normal(size=(N_IN, 1)), RNG.normal(size=(1, K))
    return LowRankPolicy(*(pytensor.shared(p, name) for p, name in ((A, "A"), (B, "B"), (O, "o"))))


def stage_of(policy, s=S):
    """Return the stage of a policy in given states."""
    s = pt.constant(s)
    return Stage(Gate(policy), "1", s, policy(s), None, None)


def flat(grads):
    """Return gradients in one vector."""
    return np.concatenate([g.ravel() for g in grads])


def jacobian(stage):
    """Return the Jacobian of the logits, (N, K, size of theta), by PyTensor's own means."""
    J = pytensor.gradient.jacobian(stage.z.ravel(), stage.gate.policy.theta)
    return np.concatenate([j.reshape((len(j) // K, K, -1)) for j in compiled([], J)()], axis=2)


def fisher(stage):
    """Return F: the mean over the states of E[grad log pi grad log pi^T], summed over all masks."""
    (z,), J, F = compiled([], [stage.z])(), jacobian(stage), 0
    for u in reference.all_masks(K):
        probability = np.exp(reference.log_pi(z, u))
        score = np.einsum("nk,nkt->nt", u - reference.sigm(z), J)
        F = F + np.einsum("n,nt,nr->tr", probability, score, score) / N
    return F


def in_blocks():
    """Return a policy that sees the means of two states."""
    return BlockPolicy(affine(), Sharing(2))


@pytest.mark.parametrize("policy", [affine, bounded, low_rank, in_blocks])
def test_a_policy_knows_what_the_two_operators_compute(policy):
    """J J^T A, with J as PyTensor forms it."""
    stage = stage_of(policy())
    n = stage.z.shape.eval()[0]
    A, J = RNG.normal(size=(n, K)), jacobian(stage)
    A_ = pt.constant(A)
    found = compiled([], [natural.kernel(stage)(A_), natural.pushed_and_pulled(stage, A_)])()
    expected = np.einsum("nkt,mlt,ml->nk", J, J, A)
    for value in found:
        np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_a_policy_without_a_kernel():
    """Its products are those of the two operators."""

    class Scale(NamedTuple):
        """Logits exp(a) s Z."""

        a: Any

        @property
        def theta(self):
            return [self.a]

        def __call__(self, s):
            return pt.exp(self.a) * (s @ pt.constant(Z))

    policy = Scale(pytensor.shared(np.array(0.3)))
    (found,) = natural_step(policy, 1)
    F = fisher(stage_of(policy))
    (g,) = gradient(policy)
    np.testing.assert_allclose(found, g / (F[0, 0] + DAMPING), rtol=1e-9)


@pytest.mark.parametrize("policy", [affine, bounded])
def test_product_is_that_of_the_fisher_matrix(policy):
    """``J^T (D K A / N + d A) = (F + d I) J^T A``, F formed by enumeration."""
    stage, A = stage_of(policy()), RNG.normal(size=(N, K))
    KA = natural.kernel(stage)(pt.constant(A))
    product = compiled([], natural.damped_fisher(stage, KA, pt.constant(A), DAMPING))()
    J, F = jacobian(stage), fisher(stage)
    back = partial(np.einsum, "nk,nkt->t")
    assert F.shape == ((N_IN + 1) * K,) * 2 and np.abs(F).max() > 0.01
    np.testing.assert_allclose(
        back(product, J), F @ back(A, J) + DAMPING * back(A, J), rtol=1e-9, atol=1e-12
    )


def solve(M, b, n_steps):
    """Solve by conjugate gradients, with the ordinary inner product."""
    system = partial(lambda M, Kx, x: M @ x, pt.constant(M))
    return compiled([], natural.conjugate_gradients(system, lambda x: x, pt.constant(b), n_steps))()


def test_conjugate_gradients_solve():
    """As many steps as unknowns give SciPy's solution; fewer steps come nearer step by step."""
    A = RNG.normal(size=(6, 6))
    M, b = A @ A.T + 0.5 * np.eye(6), RNG.normal(size=6)
    exact = scipy.linalg.solve(M, b, assume_a="pos")
    np.testing.assert_allclose(solve(M, b, 6), exact, rtol=1e-7)
    errors = [(solve(M, b, n) - exact) @ M @ (solve(M, b, n) - exact) for n in range(1, 7)]
    assert (np.diff(errors) < 0).all() and errors[0] > 1e-3


def test_conjugate_gradients_stay_at_the_solution():
    """More steps than needed do not divide by 0; neither does a system without a right side."""
    M = np.diag([2.0, 2.0, 2.0])
    np.testing.assert_allclose(solve(M, np.array([2.0, 4.0, 6.0]), 5), [1, 2, 3], rtol=1e-12)
    np.testing.assert_array_equal(solve(M, np.zeros(3), 5), np.zeros(3))


def natural_step(policy, n_steps, damping=DAMPING, direct=None, s=S):
    """Return the natural gradient of an estimate with respect to theta."""
    stage = stage_of(policy, s)
    estimate = Estimate(stage.z, pt.constant(C), {}, None)
    grads = natural.natural_gradient(
        stage, estimate, direct and direct(stage), reinforce.policy_gradient, damping, n_steps
    )
    return compiled([], grads)()


def gradient(policy, direct=None):
    """Return the ordinary gradient with respect to theta."""
    stage = stage_of(policy)
    estimate = Estimate(stage.z, pt.constant(C), {}, None)
    grads = to_theta(stage, estimate, direct and direct(stage), reinforce.policy_gradient)
    return compiled([], grads)()


def divergence(stage):
    """Return a direct term."""
    return 0.3 * stage.gate.family.kl(stage.z, 0.2).mean()


@pytest.mark.parametrize("policy", [affine, bounded])
@pytest.mark.parametrize("direct", [None, divergence])
def test_natural_gradient_is_the_solution(policy, direct):
    """Of (F + d I) x = g, with SciPy; g has the direct term."""
    F = fisher(stage_of(policy()))
    expected = scipy.linalg.solve(F + DAMPING * np.eye(len(F)), flat(gradient(policy(), direct)))
    found = natural_step(policy(), 12, direct=direct)
    assert [g.shape for g in found] == [(N_IN, K), (K,)]
    np.testing.assert_allclose(flat(found), expected, rtol=1e-6)


def test_iterates_are_those_in_the_space_of_theta():
    """Three steps of textbook conjugate gradients with F + d I, from 0."""
    F, r = fisher(stage_of(affine())), flat(gradient(affine()))
    M, x, p = F + DAMPING * np.eye(len(F)), 0, r
    for _ in range(3):
        alpha = r @ r / (p @ M @ p)
        x, rest = x + alpha * p, r - alpha * M @ p
        p, r = rest + rest @ rest / (r @ r) * p, rest
    np.testing.assert_allclose(flat(natural_step(affine(), 3)), x, rtol=1e-9)
    assert np.abs(x - flat(natural_step(affine(), 12))).max() > 1e-4


def test_without_curvature_the_step_is_the_gradient_over_the_damping():
    """With a damping far above F."""
    found = flat(natural_step(affine(), 2, damping=1e6))
    np.testing.assert_allclose(found, flat(gradient(affine())) / 1e6, rtol=1e-5)


def test_the_step_does_not_depend_on_the_coordinates():
    """Parameters changed linearly give the same change of the logits; a gradient step does not.

    The states are multiplied by M instead of Z: ``s Z = (s M^-1) (M Z)``.
    """
    M = RNG.normal(size=(N_IN, N_IN)) + 2 * np.eye(N_IN)
    other, s = affine(M @ Z), S @ np.linalg.inv(M)
    changes = [
        states @ g_Z + g_o
        for states, (g_Z, g_o) in (
            (S, natural_step(affine(), 12, damping=1e-9)),
            (s, natural_step(other, 12, damping=1e-9, s=s)),
        )
    ]
    assert N >= N_IN + 1  # otherwise F would be singular
    np.testing.assert_allclose(changes[0], changes[1], rtol=1e-4)
    F, G = fisher(stage_of(affine())), fisher(stage_of(other, s))
    assert np.abs(F - G).max() > 0.01


def test_any_estimate_and_product():
    """The score of log pi, in all four ways to the product, equals its form in the logits."""
    stage = stage_of(affine())
    u = pt.constant(RNG.integers(0, 2, (N, K)).astype("float64"))
    c = pt.constant(RNG.normal(size=N))
    of = stage.gate.family.log_prob(stage.z, u)
    residual = c[:, None] * (u - pt.sigmoid(stage.z))
    found = [
        natural.natural_gradient(stage, estimate, None, product, DAMPING, 4)
        for estimate, product in [
            (Estimate(stage.z, residual, {}, None), reinforce.policy_gradient),
            (Estimate(of, c, {}, None), reinforce.policy_gradient),
            (Estimate(of, c, {}, None), reinforce.jacobian_policy_gradient),
            (Estimate(of, c, {}, None), reinforce.pushforward_policy_gradient),
            (Estimate(of, c, {}, None), reinforce.surrogate_policy_gradient),
        ]
    ]
    expected, *others = (flat(compiled([], grads)()) for grads in found)
    for other in others:
        np.testing.assert_allclose(other, expected, rtol=1e-9)


def test_units_that_are_sure_do_not_blow_up():
    """In float32, with a variance of the decisions that is 0."""
    gate = gates.sigmoid_bernoulli(np.random.default_rng(0), N_IN, K, "1")
    gate.policy.o.set_value(np.array([200, -200], "float32"))
    s = pt.constant(S.astype("float32"))
    stage = Stage(gate, "1", s, gate.policy(s), None, None)
    estimate = Estimate(stage.z, pt.constant(C.astype("float32")), {}, None)
    grads = natural.natural_gradient(stage, estimate, None, reinforce.policy_gradient, DAMPING, 10)
    for grad in compiled([], grads)():
        assert grad.dtype == "float32" and np.isfinite(grad).all()
