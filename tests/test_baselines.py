"""Baselines: their values, and by enumeration of all masks the bias that each docstring states."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled, joint_masks

from reinforce_dropout import baselines, costs, gates, reinforce
from reinforce_dropout.gates import Stage
from reinforce_dropout.network import forward

COSTS = np.array([3.0, 1.0, 2.0, 6.0])
LABELS = np.array([0, 1, 1])


STAGE = Stage(None, "2", None, None, None, None)
"""These baselines use only the name of a stage."""


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (baselines.none, [0, 0, 0, 0]),
        (baselines.batch_mean, [3, 3, 3, 3]),
        (baselines.leave_one_out_mean, [3, 11 / 3, 10 / 3, 2]),
        (baselines.batch_minimum, [1, 1, 1, 1]),
    ],
)
def test_values(baseline, expected):
    """One entry an example; nothing is remembered."""
    C = pt.dvector("C")
    b, updates = baseline(C, STAGE)
    assert updates == {}
    np.testing.assert_allclose(compiled([C], b)(COSTS), expected, rtol=1e-12)


def test_moving_average_is_of_earlier_batches():
    """The baseline is the average before the mini-batch; the next one takes the batch in."""
    C = pt.dvector("C")
    b, updates = baselines.moving_average(0.75)(C, STAGE)
    ((average, _),) = updates.items()
    assert average.name == "average_2" and average.get_value() == 0
    average.set_value(np.asarray(7.0))
    f = compiled([C], b, updates=updates)
    np.testing.assert_array_equal(f(COSTS), [7, 7, 7, 7])
    np.testing.assert_allclose(average.get_value(), 0.75 * 7 + 0.25 * 3)


def test_every_stage_has_a_moving_average_of_its_own():
    """Also if one baseline serves all stages."""
    baseline, C = baselines.moving_average(0.75), pt.dvector("C")
    remembered = [baseline(C, STAGE._replace(name=name))[1] for name in ("1", "2")]
    assert [v.name for updates in remembered for v in updates] == ["average_1", "average_2"]


def test_leave_one_out_of_a_single_example_is_its_own_cost():
    """It then makes no update, as with the batch mean."""
    C = pt.dvector("C")
    assert compiled([C], baselines.leave_one_out_mean(C, STAGE)[0])([5.0]) == [5.0]


def stage_of(n_in=2, k=3, dtype="float64"):
    """Return a stage with a policy, its states and decisions as inputs."""
    Z, o = np.zeros((n_in, k), dtype), np.linspace(-1, 1, k).astype(dtype)
    policy = gates.AffinePolicy(pytensor.shared(Z), pytensor.shared(o))
    s, u = pt.matrix("s", dtype=dtype), pt.matrix("u", dtype=dtype)
    return Stage(gates.Gate(policy), "2", s, policy(s), u, u)


def test_per_unit_is_the_weighted_mean_of_earlier_batches():
    """Weighted by the squared score, a unit at a time; 0 before the first mini-batch."""
    stage, C, rng = stage_of(), pt.dvector("C"), np.random.default_rng(0)
    b, updates = baselines.per_unit(0.75)(C, stage)
    assert [v.name for v in updates] == ["weighted_cost_2", "weight_2"]
    f = compiled([C, stage.s, stage.u], b, updates=updates)
    sigma, weighted, weight = reference.sigm(np.linspace(-1, 1, 3)), 0, 0
    for n in (4, 2, 3):
        costs, u = rng.normal(3, 1, n), rng.integers(0, 2, (n, 3)).astype("float64")
        found = f(costs, rng.normal(size=(n, 2)), u)
        expected = np.zeros((n, 3)) if n == 4 else np.tile(weighted / weight, (n, 1))
        np.testing.assert_allclose(found, expected, rtol=1e-10)
        square = (u - sigma) ** 2
        weighted = 0.75 * weighted + 0.25 * (costs @ square) / n
        weight = 0.75 * weight + 0.25 * square.mean(axis=0)


def test_learned_finds_a_cost_that_is_linear_in_the_state():
    """From other states; the first prediction is 0."""
    stage, C, rng = stage_of(), pt.dvector("C"), np.random.default_rng(0)
    b, updates = baselines.learned(1.0)(C, stage)
    assert [v.name for v in updates] == ["v_2", "v0_2"]
    f = compiled([C, stage.s], b, updates=updates)
    for step in range(400):
        s = rng.normal(size=(5, 2))
        costs = s @ [2.0, -1.0] + 3
        found = f(costs, s)
        if step == 0:
            np.testing.assert_array_equal(found, np.zeros(5))
    np.testing.assert_allclose(found, costs, rtol=1e-3)


def test_learned_takes_one_normalised_step():
    """Least mean squares, over one plus the mean squared length of the states."""
    stage, C, rng = stage_of(), pt.dvector("C"), np.random.default_rng(1)
    _, updates = baselines.learned(0.5)(C, stage)
    v, v0 = updates
    v.set_value(np.array([1.0, 2.0]))
    v0.set_value(np.array(0.5))
    costs, s = rng.normal(size=4), rng.normal(size=(4, 2))
    compiled([C, stage.s], [], updates=updates)(costs, s)
    error = costs - s @ [1.0, 2.0] - 0.5
    rate = 0.5 / (1 + (s**2).sum(axis=1).mean())
    np.testing.assert_allclose(v.get_value(), [1, 2] + rate * error @ s / 4, rtol=1e-10)
    np.testing.assert_allclose(v0.get_value(), 0.5 + rate * error.mean(), rtol=1e-10)


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, floatX):
    """For any default dtype of PyTensor."""
    every = [
        baselines.none,
        baselines.batch_mean,
        baselines.leave_one_out_mean,
        baselines.batch_minimum,
        baselines.moving_average(0.9),
    ]
    with pytensor.config.change_flags(floatX=floatX):
        C = pt.vector(dtype=dtype)
        found = [baseline(C, STAGE) for baseline in every]
    assert [b.dtype for b, _ in found] == [dtype] * 5
    ((average, after),) = found[-1][1].items()
    assert average.dtype == after.dtype == dtype


class Enumeration:
    """All masks of a mini-batch of N examples through a network of one hidden layer.

    Attributes
    ----------
    g : ndarray
        Gradient of the expected mean nll with respect to Z and o, flat.
    """

    def __init__(self, N, n_units):
        self.N, self.widths = N, [n_units]
        self.x, self.y = np.random.default_rng(0).normal(size=(N, 2)), LABELS[:N]
        self.network = reference.double_network((2, n_units, 2), seed=1)
        self.P = reference.values(self.network)
        self.g = self.flat_gradient(self.expected_nll)

    def flat_gradient(self, f):
        """Return the gradient of f(P) with respect to the policy."""
        gradients = reference.gradient(f, self.P, ["Z_1", "o_1"])
        return np.concatenate([g.ravel() for g in gradients.values()])

    def expected_nll(self, P):
        """Return the expected mean nll."""
        return reference.expectation(
            P, self.x, self.widths, lambda zs, masks, logits: reference.nll(logits, self.y)
        )

    def expected_minimum(self, P):
        """Return the expected lowest nll of the mini-batch."""
        total = 0
        for masks in joint_masks(self.N, self.widths):
            zs, logits = reference.forward(P, self.x, masks)
            probability = np.exp(reference.log_pi(zs[0], masks[0]).sum())
            total = total + probability * reference.nll(logits, self.y).real.min()
        return total

    def moments(self, baseline, level=0.0):
        """Return mean and variance of eq. (4) over all masks, flat; `level` is added to the nll."""
        x, y, u = pt.dmatrix("x"), pt.lvector("y"), pt.dmatrix("u")
        passed = forward(self.network, x, rule=reference.given([u]))
        (stage,) = passed.stages
        C = costs.nll(passed.logits, y) + level
        log_pi = stage.gate.family.log_prob(stage.z, stage.u)
        estimate = reinforce.score_function(baseline)(stage, C, None, None)
        step = reinforce.policy_gradient(estimate.of, stage.gate.policy.theta, estimate.c)
        f = compiled([x, y, u], [log_pi, *step])
        mean = square = 0.0
        for (masks,) in joint_masks(self.N, self.widths):
            log_p, *terms = f(self.x, self.y, masks)
            term = np.concatenate([t.ravel() for t in terms])
            mean = mean + np.exp(log_p.sum()) * term
            square = square + np.exp(log_p.sum()) * term**2
        return mean, square - mean**2


@pytest.fixture(scope="module", params=[(2, 3), (3, 2)], ids=["N=2", "N=3"])
def enumeration(request):
    """Return a mini-batch small enough to sum over all its masks."""
    return Enumeration(*request.param)


def constant(C, stage):
    """Return a baseline that stands at 3.7."""
    return pt.zeros_like(C) + 3.7, {}


def moving_average(C, stage):
    """Return the baseline of a moving average that stands at 0.4."""
    b, updates = baselines.moving_average(0.9)(C, stage)
    for average in updates:
        average.set_value(np.asarray(0.4))
    return b, updates


def remembering(made, *values):
    """Return a baseline whose memory holds `values`."""

    def baseline(C, stage):
        b, updates = made(C, stage)
        for variable, value in zip(updates, values, strict=True):
            assert variable.get_value().shape == value.shape
            variable.set_value(value)
        return b, updates

    return baseline


def per_unit(C, stage):
    """Return the baseline of each unit, with other values for each unit."""
    k = stage.gate.policy.theta[-1].get_value().size
    averages = np.arange(1.0, k + 1), np.full(k, 2.0)
    return remembering(baselines.per_unit(0.9), *averages)(C, stage)


learned = remembering(baselines.learned(0.5), np.array([0.3, -0.7]), np.array(0.4))
"""A baseline that depends on the state, of two activations."""


@pytest.mark.parametrize(
    "baseline",
    [baselines.none, constant, baselines.leave_one_out_mean, moving_average, per_unit, learned],
    ids=["none", "constant", "leave-one-out-mean", "moving-average", "per-unit", "learned"],
)
def test_unbiased(enumeration, baseline):
    """The expectation is the gradient of the expected cost."""
    mean, _ = enumeration.moments(baseline)
    np.testing.assert_allclose(mean, enumeration.g, rtol=1e-9, atol=1e-12)


def test_batch_mean_scales_the_gradient(enumeration):
    """The expectation is (N-1)/N times the gradient, and leave-one-out is N/(N-1) times that."""
    N = enumeration.N
    mean, variance = enumeration.moments(baselines.batch_mean)
    np.testing.assert_allclose(mean, (N - 1) / N * enumeration.g, rtol=1e-9, atol=1e-12)
    _, loo_variance = enumeration.moments(baselines.leave_one_out_mean)
    np.testing.assert_allclose(loo_variance, (N / (N - 1)) ** 2 * variance, rtol=1e-9)


def test_batch_minimum_is_biased_as_stated(enumeration):
    """The expectation is g minus (1/N) times the gradient of E[min_n C_n]."""
    mean, _ = enumeration.moments(baselines.batch_minimum)
    bias = enumeration.flat_gradient(enumeration.expected_minimum) / enumeration.N
    assert np.abs(bias).max() > 1e-3
    np.testing.assert_allclose(mean, enumeration.g - bias, rtol=1e-9, atol=1e-12)


def test_variance_is_lower_with_a_baseline(enumeration):
    """This is the purpose of baselines: an unbiased one removes the common level of the costs."""
    _, without = enumeration.moments(baselines.none, level=2.0)
    _, leave_one_out = enumeration.moments(baselines.leave_one_out_mean, level=2.0)
    _, batch_mean = enumeration.moments(baselines.batch_mean, level=2.0)
    assert batch_mean.sum() < leave_one_out.sum() < without.sum() / 2


def test_the_baseline_per_unit_has_the_least_variance():
    """At the exact averages, of all constants for each unit; its gradient in o is per unit."""
    enumeration = Enumeration(1, 3)
    (z,), _ = reference.forward(enumeration.P, enumeration.x, [np.zeros((1, 3))])
    sigma, weighted, weight = reference.sigm(z[0]), 0, 0
    for (u,) in joint_masks(1, [3]):
        _, logits = reference.forward(enumeration.P, enumeration.x, [u])
        probability = np.exp(reference.log_pi(z, u))
        weighted = weighted + probability * reference.nll(logits, enumeration.y) * (u - sigma) ** 2
        weight = weight + probability * (u - sigma) ** 2
    exact = (weighted / weight)[0]

    def variance(b):
        averages = b * weight[0], weight[0]
        _, found = enumeration.moments(remembering(baselines.per_unit(0.9), *averages))
        return found[-3:]

    for k in range(3):
        for change in (-0.1, 0.1):
            other = variance(exact + change * np.eye(3)[k])
            assert other[k] > variance(exact)[k] + 1e-5
    assert np.ptp(exact) > 0.005
