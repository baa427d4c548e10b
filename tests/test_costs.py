"""Costs against scipy, and what the stages pay."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
import scipy.special
from reference import compiled

from reinforce_dropout import bernoulli, costs
from reinforce_dropout.blocks.sharing import Sharing, shared
from reinforce_dropout.gates import Gate, Stage

LOGITS = np.random.default_rng(0).normal(size=(5, 4))
LABELS = np.array([3, 0, 2, 2, 1])


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_nll_is_scipys(dtype):
    """Minus scipy's log-softmax at the label, an entry an example; labels of any integer type."""
    logits, y = pt.dmatrix("logits"), pt.vector("y", dtype=dtype)
    nll = compiled([logits, y], costs.nll(logits, y))(LOGITS, LABELS.astype(dtype))
    expected = -scipy.special.log_softmax(LOGITS, axis=1)[np.arange(5), LABELS]
    np.testing.assert_allclose(nll, expected, rtol=1e-12)


def test_nll_gradient():
    """Softmax minus the indicator of the label."""
    logits, y = pt.dmatrix("logits"), pt.lvector("y")
    grad = compiled([logits, y], pytensor.grad(costs.nll(logits, y).sum(), logits))
    expected = scipy.special.softmax(LOGITS, axis=1) - np.eye(4)[LABELS]
    np.testing.assert_allclose(grad(LOGITS, LABELS), expected, rtol=1e-10)


def test_nll_of_large_logits():
    """Nothing overflows in float32, in value or gradient, even where nothing is rewritten."""
    logits, y = pt.fmatrix("logits"), pt.ivector("y")
    nll = costs.nll(logits, y)
    f = compiled([logits, y], [nll, pytensor.grad(nll.sum(), logits)])
    large = np.array([[1000, 0, -1000], [-500, -600, -700], [0, 300, 300]], "float32")
    value, grad = f(large, np.array([0, 1, 2], "int32"))
    np.testing.assert_allclose(value, [0, 100, np.log(2)], rtol=1e-5)
    np.testing.assert_allclose(grad, [[0, 0, 0], [1, -1, 0], [0, 0.5, -0.5]], atol=1e-6)


def test_l2_is_the_sum_of_squares():
    """Of all entries of all matrices, neither halved nor averaged."""
    weights = [pytensor.shared(np.array([[1.0, -2.0]])), pytensor.shared(np.array([[3.0], [0.5]]))]
    assert compiled([], costs.l2(weights))() == 1 + 4 + 9 + 0.25


def test_l2_norms_is_the_sum_of_the_norms_of_the_matrices():
    weights = [pytensor.shared(np.array([[3.0, -4.0]])), pytensor.shared(np.array([[5.0], [12.0]]))]
    assert compiled([], costs.l2_norms(weights))() == 5 + 13


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_mdp_cost_counts_every_layer_once(n_layers):
    """Nll + lambda * (KL_1 + ... + KL_L), example by example."""
    nll, kls = pt.dvector("nll"), [pt.dvector() for _ in range(n_layers)]
    values = np.random.default_rng(n_layers).random((n_layers + 1, 6))
    C = compiled([nll, *kls], costs.mdp_cost(nll, kls, 0.3))(*values)
    np.testing.assert_allclose(C, values[0] + 0.3 * values[1:].sum(axis=0), rtol=1e-12)


def test_mdp_cost_without_divergences_is_the_nll():
    """As for the last layer with `returns.to_go`."""
    nll = pt.dvector("nll")
    np.testing.assert_array_equal(compiled([nll], costs.mdp_cost(nll, [], 0.3))([1, 2]), [1, 2])


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, floatX):
    """For any default dtype of PyTensor."""
    with pytensor.config.change_flags(floatX=floatX):
        logits, kl = pt.matrix(dtype=dtype), pt.vector(dtype=dtype)
        nll = costs.nll(logits, pt.ivector())
        W = pytensor.shared(np.ones((2, 2), dtype))
        outputs = [nll, costs.l2([W, W]), costs.mdp_cost(nll, [kl, kl], 0.1)]
        outputs += [costs.mdp_cost(nll, [kl, 0], 0.1), costs.mdp_cost(nll, [0], 0.1)]
    assert [v.dtype for v in outputs] == [dtype] * len(outputs)


def test_a_policy_pays_its_own_divergence():
    """Eq. (5) of the stage asked for; it depends on the policy alone, not on the decision."""
    zs = [pt.dmatrix("z_1"), pt.dmatrix("z_2")]
    stages = [Stage(Gate(None), str(i), None, z, None, None) for i, z in enumerate(zs, start=1)]
    cost, rng = costs.kl_to_rate(0.2), np.random.default_rng(0)
    for i, z in enumerate(zs):
        paid, value = cost(stages, i), rng.normal(size=(3, 4))
        assert paid.for_decision == 0
        kl = compiled([z], paid.for_policy)(value)
        np.testing.assert_allclose(kl, reference.kl(value, 0.2), rtol=1e-10)


def stage_of(z, U, gate=None):
    """Return a stage whose policy and decisions are inputs."""
    return Stage(gate or Gate(None), "1", None, z, U, U)


def test_active_units_are_counted():
    """Every unit that takes part costs 1; nothing is paid for the policy."""
    U = pt.dmatrix("U")
    paid = costs.active_units([stage_of(None, U)], 0)
    masks = np.array([[1.0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(compiled([U], paid.for_decision)(masks), [2, 0])
    assert paid.for_policy == 0


def test_active_units_of_a_block_are_those_of_one_example():
    """With groups of two units and blocks of two instances."""
    sharing, u = Sharing(2, 2), pt.dmatrix("u")
    gate = shared(Gate(None), sharing, 3)
    s = np.zeros((3, 5))
    paid = costs.active_units([stage_of(None, gate.expand(u, pt.constant(s)), gate)], 0)
    groups = np.array([[1.0, 0], [1, 1]])
    np.testing.assert_array_equal(compiled([u], paid.for_decision)(groups), [2, 3])


def mean_divergence(sigma, q):
    """Return the sum over the units of the divergence of their mean rate from q."""
    rate = sigma.mean(axis=0)
    return (rate * np.log(rate / q) + (1 - rate) * np.log((1 - rate) / (1 - q))).sum()


def test_divergence_of_the_mean_rate():
    """An example pays N times what it adds; the gradient of the mean is that of the divergence."""
    z, value = pt.dmatrix("z"), np.random.default_rng(0).normal(size=(4, 3))
    paid = costs.kl_of_mean(0.2)([stage_of(z, None)], 0)
    assert paid.for_decision == 0
    f = compiled([z], [paid.for_policy, pytensor.grad(paid.for_policy.mean(), z)])
    found, grad = f(value)
    for n in range(4):
        others = np.delete(value, n, axis=0)
        share = 4 * (
            mean_divergence(reference.sigm(value), 0.2)
            - mean_divergence(reference.sigm(others), 0.2)
        )
        np.testing.assert_allclose(found[n], share, rtol=1e-9)
    exact = reference.gradient(
        lambda P: mean_divergence(reference.sigm(P["z"]), 0.2), {"z": value}, ["z"]
    )
    np.testing.assert_allclose(grad, exact["z"], rtol=1e-9)


def test_divergence_of_the_mean_rate_of_one_example():
    """It has no others, and all values are finite, also if a unit is sure."""
    z = pt.dmatrix("z")
    paid = costs.kl_of_mean(0.2)([stage_of(z, None)], 0).for_policy
    f = compiled([z], [paid, pytensor.grad(paid.mean(), z)])
    for value in f(np.array([[0.3, -900.0, 900.0]])):
        assert np.isfinite(value).all()


def test_a_divergence_is_that_of_the_stages_family():
    """The family may be another one than the Bernoulli's."""

    class Family:
        """Decisions of a kind of their own."""

        @staticmethod
        def kl(z, q):
            """Return something that is no divergence of Bernoulli units."""
            return q * z.sum(axis=1)

    z = pt.dmatrix("z")
    stages = [Stage(Gate(None, family), "1", None, z, None, None) for family in (bernoulli, Family)]
    paid = compiled([z], costs.kl_to_rate(0.5)(stages, 1).for_policy)(np.ones((2, 3)))
    np.testing.assert_array_equal(paid, [1.5, 1.5])


def test_nothing_is_paid_by_default():
    """Neither for the decision nor for the policy."""
    assert costs.Paid() == (0, 0)


def test_reference_agrees_with_scipy():
    """The NumPy functions that other tests compare with are right themselves."""
    expected = -scipy.special.log_softmax(LOGITS, axis=1)[np.arange(5), LABELS]
    np.testing.assert_allclose(reference.nll(LOGITS, LABELS), expected, rtol=1e-12)
