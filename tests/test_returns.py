"""The cost that weighs a score: the true gradient, and what each reading lacks, by enumeration."""

from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled, joint_masks

from reinforce_dropout import baselines, bernoulli, costs, reinforce
from reinforce_dropout.algorithm import reinforce_updates
from reinforce_dropout.costs import Paid
from reinforce_dropout.network import forward
from reinforce_dropout.returns import literal, plus_direct, to_go

Q = 0.2
PENALTY = costs.kl_to_rate(Q)
KLS = [Paid(for_policy=pt.constant([value])) for value in (4.0, 20.0, 300.0)]


@pytest.mark.parametrize(
    ("returns", "i", "expected"),
    [
        (to_go, 0, 1 + 0.5 * (20 + 300)),
        (to_go, 1, 1 + 0.5 * 300),
        (to_go, 2, 1),
        (literal, 0, 1 + 0.5 * (4 + 20 + 300)),
        (literal, 1, 1 + 0.5 * (4 + 20 + 300)),
        (literal, 2, 1 + 0.5 * (4 + 20 + 300)),
    ],
)
def test_divergences_that_weigh_a_score(returns, i, expected):
    """`to_go` counts those of the stages above only, `literal` those of all stages."""
    C, _ = returns(pt.constant([1.0]), KLS, 0.5, i)
    assert compiled([], C)() == [expected]


@pytest.mark.parametrize(
    ("returns", "i", "expected"),
    [
        (to_go, 0, 1 + 0.5 * (3 + 5 + 7 + 20 + 300)),
        (to_go, 1, 1 + 0.5 * (5 + 7 + 300)),
        (to_go, 2, 1 + 0.5 * 7),
        (literal, 2, 1 + 0.5 * (3 + 5 + 7 + 4 + 20 + 300)),
    ],
)
def test_what_is_paid_for_decisions_weighs_a_score(returns, i, expected):
    """`to_go` counts that of the stage itself and of those above: the decision changes both."""
    times = (3.0, 5.0, 7.0)
    paid = [
        p._replace(for_decision=pt.constant([time])) for p, time in zip(KLS, times, strict=True)
    ]
    C, _ = returns(pt.constant([1.0]), paid, 0.5, i)
    assert compiled([], C)() == [expected]


def test_direct_term_is_the_mean_of_what_the_own_policy_pays():
    """Its gradient is that of lambda times the mean over the examples of KL_i, and is added."""
    rng = np.random.default_rng(0)
    P = {"Z": rng.normal(size=(3, 2)), "o": rng.normal(size=2)}
    theta, s = [pytensor.shared(v) for v in P.values()], rng.normal(size=(4, 3))
    kl = bernoulli.kl(pt.constant(s) @ theta[0] + theta[1], Q)
    paid = [Paid(), Paid(for_decision=pt.constant(9.0), for_policy=kl), Paid()]
    _, direct = to_go(pt.constant(np.ones(4)), paid, 0.3, 1)
    score = [pt.ones_like(p) for p in theta]
    grads = compiled([], plus_direct(score, direct, theta))()
    exact = reference.gradient(
        lambda P: 0.3 * reference.kl(s @ P["Z"] + P["o"], Q).mean(), P, ["Z", "o"]
    )
    np.testing.assert_allclose(grads[0], 1 + exact["Z"], rtol=1e-10)
    np.testing.assert_allclose(grads[1], 1 + exact["o"], rtol=1e-10)


def test_without_a_direct_term_the_score_is_left_alone():
    """The literal reading has no direct term, and a policy that pays nothing gets no gradient."""
    theta = [pytensor.shared(np.ones(2))]
    score = [pt.constant([1.0, 2.0])]
    _, direct = literal(pt.constant([1.0]), KLS, 0.5, 0)
    assert direct is None and plus_direct(score, direct, theta) == score
    _, direct = to_go(pt.constant([1.0]), [Paid(for_decision=pt.constant([3.0]))], 0.5, 0)
    np.testing.assert_array_equal(compiled([], plus_direct(score, direct, theta))(), [[1.0, 2.0]])


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("returns", [to_go, literal])
def test_dtype_is_kept(returns, floatX):
    """Training in float32 stays in float32 for any default of PyTensor."""
    with pytensor.config.change_flags(floatX=floatX):
        o, z = pytensor.shared(np.zeros(2, "float32")), pt.fmatrix()
        paid = [Paid(z.sum(axis=1), bernoulli.kl(z + o, Q)) for _ in range(2)]
        C, direct = returns(pt.fvector(), paid, 0.1, 0)
        (grad,) = plus_direct([pt.fvector()], direct, [o])
    assert C.dtype == grad.dtype == "float32" and (C.ndim, grad.ndim) == (1, 1)


def kl_and_time(stages, i):
    """Pay the divergence, and for each unit that takes part its layer's number squared."""
    price = (i + 1) ** 2
    return PENALTY(stages, i)._replace(for_decision=price * stages[i].u.sum(axis=1))


def kl_reference(zs, masks, i):
    """Return what `costs.kl_to_rate` makes layer i pay, counted from 0."""
    return reference.kl(zs[i], Q)


def kl_and_time_reference(zs, masks, i):
    """Return what `kl_and_time` makes layer i pay, counted from 0."""
    return kl_reference(zs, masks, i) + (i + 1) ** 2 * masks[i].sum(axis=1)


class Enumeration:
    """A network small enough to sum over all masks of all its layers, and of all examples."""

    def __init__(self, N, widths, seed=0):
        self.widths, self.lam = widths, 0.7
        self.x = np.random.default_rng(seed).normal(size=(N, 3))
        self.y = np.array([1, 0, 2])[:N]
        self.network = reference.double_network((3, *widths, 3), seed)
        self.P = reference.values(self.network)
        self.names = [p.name for theta in reference.thetas(self.network) for p in theta]

    def gradients(self, f):
        """Return the gradient of f(P) with respect to all policies, by name."""
        return reference.gradient(f, self.P, self.names)

    def expectation(self, P, value):
        """Return the mean over the examples of E[value(zs, masks, logits)]."""
        return reference.expectation(P, self.x, self.widths, value)

    def expected_cost(self, pays=kl_reference):
        """Return the function P -> E[C], the mean over the examples."""

        def C(zs, masks, logits):
            paid = sum(pays(zs, masks, i) for i in range(len(zs)))
            return reference.nll(logits, self.y) + self.lam * paid

        return partial(self.expectation, value=C)

    def expected_divergence(self, i):
        """Return the function P -> lambda * E[KL_i], i counted from 0."""
        return partial(
            self.expectation, value=lambda zs, masks, logits: self.lam * reference.kl(zs[i], Q)
        )

    def expected_estimate(self, returns, baseline=baselines.none, lam=None, cost=PENALTY):
        """Return the expectation of the gradient that training follows, by name of the policy."""
        x, y, U = pt.dmatrix("x"), pt.lvector("y"), [pt.dmatrix() for _ in self.widths]
        passed = forward(self.network, x, rule=reference.given(U))
        followed = reinforce_updates(
            passed.stages,
            costs.nll(passed.logits, y),
            cost=cost,
            lam=self.lam if lam is None else lam,
            returns=returns,
            baseline=baseline,
            estimate=reinforce.policy_gradient,
            descend=lambda theta, grads: dict(zip(theta, grads, strict=True)),
        )
        assert [p.name for p in followed] == self.names
        log_pi = sum(bernoulli.log_prob(stage.z, stage.u) for stage in passed.stages)
        estimate = compiled([x, y, *U], [log_pi, *followed.values()])
        total = dict.fromkeys(self.names, 0.0)
        for masks in joint_masks(len(self.x), self.widths):
            log_p, *grads = estimate(self.x, self.y, *masks)
            for name, grad in zip(self.names, grads, strict=True):
                total[name] = total[name] + np.exp(log_p.sum()) * grad
        return total


def assert_equal(gradients, expected):
    """Compare gradients by name."""
    for name, grad in gradients.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-9, atol=1e-11, err_msg=name)


SIZES = pytest.mark.parametrize(("N", "widths"), [(1, (3, 2)), (2, (2, 3)), (3, (3,))], ids=str)
PAYS = pytest.mark.parametrize(
    ("cost", "pays"),
    [(PENALTY, kl_reference), (kl_and_time, kl_and_time_reference)],
    ids=["divergence", "divergence and units in use"],
)


@SIZES
@PAYS
def test_to_go_is_the_true_gradient(N, widths, cost, pays):
    """Score and direct term together have the gradient of E[C] as expectation, in every layer.

    Also if a stage pays for its decision: every unit that takes part costs time.
    """
    enumeration = Enumeration(N, widths)
    exact = enumeration.gradients(enumeration.expected_cost(pays))
    assert_equal(enumeration.expected_estimate(to_go, cost=cost), exact)


def test_what_is_paid_for_decisions_changes_the_gradient():
    """The two costs of the test above differ, in the last layer too."""
    enumeration = Enumeration(1, (3, 2))
    without, with_time = (
        enumeration.gradients(enumeration.expected_cost(pays))
        for pays in (kl_reference, kl_and_time_reference)
    )
    for name in enumeration.names:
        assert np.abs(with_time[name] - without[name]).max() > 1e-2


@SIZES
@PAYS
def test_literal_misses_the_gradient_of_its_own_divergence(N, widths, cost, pays):
    """It lacks exactly lambda * grad E[KL_i] of the true gradient."""
    enumeration = Enumeration(N, widths)
    estimate = enumeration.expected_estimate(literal, cost=cost)
    exact = enumeration.gradients(enumeration.expected_cost(pays))
    for i in range(len(widths)):
        own = enumeration.gradients(enumeration.expected_divergence(i))
        for name in (f"Z_{i + 1}", f"o_{i + 1}"):
            assert np.abs(own[name]).max() > 1e-3
            np.testing.assert_allclose(
                exact[name] - estimate[name], own[name], rtol=1e-9, atol=1e-11, err_msg=name
            )


def test_to_go_is_the_true_gradient_with_a_penalty_on_mean_rates():
    """Their divergence belongs to all examples of a mini-batch, and depends on all their masks."""
    enumeration = Enumeration(2, (2, 2))

    def divergence(z):
        rate = reference.sigm(z).mean(axis=0)
        return (rate * np.log(rate / Q) + (1 - rate) * np.log((1 - rate) / (1 - Q))).sum()

    def expected_cost(P):
        total = 0
        for masks in joint_masks(2, [2, 2]):
            zs, logits = reference.forward(P, enumeration.x, masks)
            log_p = sum(reference.log_pi(z, u).sum() for z, u in zip(zs, masks, strict=True))
            cost = reference.nll(logits, enumeration.y).mean()
            total = total + np.exp(log_p) * (cost + 0.7 * sum(map(divergence, zs)))
        return total

    estimate = enumeration.expected_estimate(to_go, cost=costs.kl_of_mean(Q))
    assert_equal(estimate, enumeration.gradients(expected_cost))


def test_literal_of_one_hidden_layer_ignores_lambda():
    """Lambda contributes nothing in expectation, with the batch mean as baseline too."""
    enumeration = Enumeration(2, (3,))
    for baseline in (baselines.none, baselines.batch_mean):
        with_lambda = enumeration.expected_estimate(literal, baseline, lam=5.0)
        assert_equal(with_lambda, enumeration.expected_estimate(literal, baseline, lam=0.0))


def test_to_go_with_the_batch_mean_scales_the_score_only():
    """At N = 2 the batch mean halves the score term; the direct term keeps its size."""
    enumeration = Enumeration(2, (2, 2))
    estimate = enumeration.expected_estimate(to_go, baselines.batch_mean)
    exact = enumeration.gradients(enumeration.expected_cost())
    for i in range(2):
        direct = enumeration.gradients(enumeration.expected_divergence(i))
        for name in (f"Z_{i + 1}", f"o_{i + 1}"):
            expected = (exact[name] - direct[name]) / 2 + direct[name]
            np.testing.assert_allclose(estimate[name], expected, rtol=1e-9, atol=1e-11)
