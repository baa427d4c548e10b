"""Costs against scipy, and the updates of gradient descent."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
import scipy.special
from reference import compiled

from reinforce_dropout import costs
from reinforce_dropout.updates import sgd

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
    """Softmax less the indicator of the label."""
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


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_mdp_cost_counts_every_layer_once(n_layers):
    """Nll + lambda * (KL_1 + ... + KL_L), example by example."""
    nll, kls = pt.dvector("nll"), [pt.dvector() for _ in range(n_layers)]
    values = np.random.default_rng(n_layers).random((n_layers + 1, 6))
    C = compiled([nll, *kls], costs.mdp_cost(nll, kls, 0.3))(*values)
    np.testing.assert_allclose(C, values[0] + 0.3 * values[1:].sum(axis=0), rtol=1e-12)


def test_mdp_cost_without_divergences_is_the_nll():
    """As for the last layer with ``kl_gradient="total"``."""
    nll = pt.dvector("nll")
    np.testing.assert_array_equal(compiled([nll], costs.mdp_cost(nll, [], 0.3))([1, 2]), [1, 2])


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, floatX):
    """Whatever PyTensor's default is."""
    with pytensor.config.change_flags(floatX=floatX):
        logits, kl = pt.matrix(dtype=dtype), pt.vector(dtype=dtype)
        nll = costs.nll(logits, pt.ivector())
        W = pytensor.shared(np.ones((2, 2), dtype))
        [(_, updated)] = sgd([W], [pt.matrix(dtype=dtype)], 0.01)
        outputs = [nll, costs.l2([W, W]), costs.mdp_cost(nll, [kl, kl], 0.1), updated]
    assert [v.dtype for v in outputs] == [dtype] * len(outputs)


def test_sgd_steps_down_each_gradient():
    """``p - learning_rate * g``, each parameter with its own gradient, in the order given."""
    p, q = pytensor.shared(np.array([1.0, 2.0])), pytensor.shared(np.array([[5.0]]))
    updates = sgd([p, q], [3 * p, pt.ones_like(q)], 0.5)
    assert [variable for variable, _ in updates] == [p, q]
    np.testing.assert_array_equal(p.get_value(), [1, 2])  # returned, not applied
    compiled([], [], updates=updates)()
    np.testing.assert_allclose(p.get_value(), [-0.5, -1.0])
    np.testing.assert_allclose(q.get_value(), [[4.5]])


def test_sgd_minimises_a_quadratic():
    """The direction is down."""
    p = pytensor.shared(np.array([4.0, -3.0]))
    step = compiled([], [], updates=sgd([p], [pytensor.grad((p**2).sum(), p)], 0.1))
    for _ in range(100):
        step()
    np.testing.assert_allclose(p.get_value(), 0, atol=1e-8)


def test_sgd_wants_a_gradient_for_each_parameter():
    """A lost gradient is an error of the caller, not a parameter that never learns."""
    p = pytensor.shared(np.ones(2))
    with pytest.raises(ValueError):
        sgd([p, p], [p], 0.1)


def test_reference_agrees_with_scipy():
    """The NumPy functions that other tests compare with are right themselves."""
    expected = -scipy.special.log_softmax(LOGITS, axis=1)[np.arange(5), LABELS]
    np.testing.assert_allclose(reference.nll(LOGITS, LABELS), expected, rtol=1e-12)
