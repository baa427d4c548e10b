"""Updates of gradient descent."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import compiled

from reinforce_dropout.updates import sgd


def test_sgd_steps_down_each_gradient():
    """``p - learning_rate * g``, each parameter with its own gradient, in the order given."""
    p, q = pytensor.shared(np.array([1.0, 2.0])), pytensor.shared(np.array([[5.0]]))
    updates = sgd([p, q], [3 * p, pt.ones_like(q)], 0.5)
    assert list(updates) == [p, q]
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


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, floatX):
    """For any default of PyTensor, with a rate of either type."""
    with pytensor.config.change_flags(floatX=floatX):
        W = pytensor.shared(np.ones((2, 2), dtype))
        for rate in (0.01, np.float64(0.01), pt.fscalar(), pt.dscalar()):
            assert sgd([W], [pt.matrix(dtype=dtype)], rate)[W].dtype == dtype


def test_a_symbolic_rate_changes_without_a_new_compilation():
    """Given as an input, or as a shared variable that the same step makes smaller."""
    p, rate = pytensor.shared(np.array([1.0])), pt.dscalar("rate")
    step = compiled([rate], [], updates=sgd([p], [2 * p], rate))
    step(0.25)
    np.testing.assert_allclose(p.get_value(), [0.5])
    step(0.5)
    np.testing.assert_allclose(p.get_value(), [0.0])

    p, rate = pytensor.shared(np.array([0.0])), pytensor.shared(1.0)
    step = compiled([], [], updates=sgd([p], [-pt.ones_like(p)], rate) | {rate: rate / 2})
    for expected in (1.0, 1.5, 1.75):
        step()
        np.testing.assert_allclose(p.get_value(), [expected])
