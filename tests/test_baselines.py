"""Baselines: their values, and by enumeration of all masks the bias that each docstring states."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled, joint_masks

from reinforce_dropout import baselines, bernoulli, costs, reinforce

COSTS = np.array([3.0, 1.0, 2.0, 6.0])
LABELS = np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", [0, 0, 0, 0]),
        ("batch-mean", [3, 3, 3, 3]),
        ("leave-one-out-mean", [3, 11 / 3, 10 / 3, 2]),
        ("batch-minimum", [1, 1, 1, 1]),
    ],
)
def test_values(name, expected):
    """One entry an example."""
    c = pt.dvector("c")
    b = compiled([c], baselines.BATCH_BASELINES[name](c))(COSTS)
    np.testing.assert_allclose(b, expected, rtol=1e-12)


def test_moving_average_is_of_earlier_batches():
    """The baseline is the average before the mini-batch; the next one takes the batch in."""
    c, average = pt.dvector("c"), pt.dscalar("average")
    f = compiled([c, average], baselines.moving_average(c, average, 0.75))
    b, next_average = f(COSTS, 7.0)
    np.testing.assert_array_equal(b, [7, 7, 7, 7])
    np.testing.assert_allclose(next_average, 0.75 * 7 + 0.25 * 3)


def test_leave_one_out_of_a_single_example_is_its_own_cost():
    """So that it makes no update, as with the batch mean."""
    c = pt.dvector("c")
    assert compiled([c], baselines.leave_one_out_mean(c))([5.0]) == [5.0]


def test_names():
    """An experiment may choose each of these."""
    assert baselines.BASELINES == (*baselines.BATCH_BASELINES, "moving-average")


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, floatX):
    """Whatever PyTensor's default is."""
    with pytensor.config.change_flags(floatX=floatX):
        c, average = pt.vector(dtype=dtype), pt.scalar(dtype=dtype)
        outputs = [f(c) for f in baselines.BATCH_BASELINES.values()]
        outputs += baselines.moving_average(c, average, 0.9)
    assert [v.dtype for v in outputs] == [dtype] * len(outputs)


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
            P, self.x, self.widths, lambda zs, logits: reference.nll(logits, self.y)
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
        forward = self.network.forward(x, mask=reference.given([u]))
        c = costs.nll(forward.logits, y) + level
        log_pi = bernoulli.log_prob(forward.z[0], u)
        step = reinforce.policy_gradient(log_pi, self.network.thetas[0], c - baseline(c))
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


def moving_average(c):
    """Return the baseline of a moving average that stands at 0.4."""
    return baselines.moving_average(c, pt.constant(0.4), 0.9)[0]


@pytest.mark.parametrize(
    "baseline",
    [
        baselines.none,
        lambda c: pt.zeros_like(c) + 3.7,
        baselines.leave_one_out_mean,
        moving_average,
    ],
    ids=["none", "constant", "leave-one-out-mean", "moving-average"],
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
    """The expectation is g less (1/N) times the gradient of E[min_n c_n]."""
    mean, _ = enumeration.moments(baselines.batch_minimum)
    bias = enumeration.flat_gradient(enumeration.expected_minimum) / enumeration.N
    assert np.abs(bias).max() > 1e-3
    np.testing.assert_allclose(mean, enumeration.g - bias, rtol=1e-9, atol=1e-12)


def test_variance_is_lower_with_a_baseline(enumeration):
    """Which is what baselines are for: an unbiased one takes the costs' common level away."""
    _, without = enumeration.moments(baselines.none, level=2.0)
    _, leave_one_out = enumeration.moments(baselines.leave_one_out_mean, level=2.0)
    _, batch_mean = enumeration.moments(baselines.batch_mean, level=2.0)
    assert batch_mean.sum() < leave_one_out.sum() < without.sum() / 2
