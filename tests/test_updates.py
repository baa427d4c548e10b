"""Updates: plain steps, steps with a memory, and the limit on the weights."""

from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import compiled

from reinforce_dropout.updates import adam, max_norm, momentum, rmsprop, sgd


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


# ---- with a memory: each against a transcription in NumPy ----


def numpy_momentum(grads, rate, mu):
    """Yield the steps of the update of Hinton et al. (2012)."""
    v = 0
    for g in grads:
        v = mu * v - (1 - mu) * rate * g
        yield v


def numpy_rmsprop(grads, rate, decay=0.9, epsilon=1e-6):
    """Yield the steps of RMSprop."""
    r = 0
    for g in grads:
        r = decay * r + (1 - decay) * g**2
        yield -rate * g / np.sqrt(r + epsilon)


def numpy_adam(grads, rate, mu, decay=0.999, epsilon=1e-8):
    """Yield the steps of Adam as it is printed, with 1 - beta^t."""
    m = r = 0
    for t, g in enumerate(grads, start=1):
        m, r = mu * m + (1 - mu) * g, decay * r + (1 - decay) * g**2
        yield -rate * (m / (1 - mu**t)) / (np.sqrt(r / (1 - decay**t)) + epsilon)


OPTIMIZERS = {
    "momentum": (partial(momentum, mu=0.9), partial(numpy_momentum, mu=0.9), ["velocity"]),
    "rmsprop": (rmsprop, numpy_rmsprop, ["square"]),
    "adam": (
        partial(adam, mu=0.8),
        partial(numpy_adam, mu=0.8),
        ["mean", "mean_weight", "square", "square_weight"],
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_with_a_memory_are_numpys(name):
    """Twenty steps of two parameters, each with its own memory."""
    optimizer, in_numpy, remembered = OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    shapes = {"W": (3, 2), "b": (2,)}
    params = [pytensor.shared(rng.normal(size=shape), n) for n, shape in shapes.items()]
    before = [p.get_value() for p in params]
    inputs = [pt.dmatrix(), pt.dvector()]
    updates = optimizer(params, inputs, 0.05)
    assert {v.name for v in updates} == {"W", "b"} | {f"{r}_{n}" for r in remembered for n in "Wb"}
    step = compiled(inputs, [], updates=updates)
    grads = [[rng.normal(size=shape) for _ in range(20)] for shape in shapes.values()]
    for pair in zip(*grads, strict=True):
        step(*pair)
    for p, start, own in zip(params, before, grads, strict=True):
        np.testing.assert_allclose(p.get_value(), start + sum(in_numpy(own, 0.05)), rtol=1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_with_a_memory_minimise_a_quadratic(name):
    """The direction is down, also in a narrow valley."""
    p = pytensor.shared(np.array([4.0, -3.0]), "p")
    loss = (p**2 * np.array([10.0, 0.1])).sum()
    rate = {"momentum": 0.09, "rmsprop": 0.01, "adam": 0.05}[name]
    step = compiled([], [], updates=OPTIMIZERS[name][0]([p], [pytensor.grad(loss, p)], rate))
    for _ in range(1000):
        step()
    np.testing.assert_allclose(p.get_value(), 0, atol=0.02)


@pytest.mark.parametrize("optimizer", [momentum, adam])
def test_the_momentum_may_change(optimizer):
    """Adam's mean stays an average: of equal gradients it is the gradient, for any momenta."""
    p, mu = pytensor.shared(np.array([1.0]), "p"), pt.dscalar()
    step = compiled([mu], [], updates=optimizer([p], [pt.ones_like(p)], 0.1, mu))
    expected, v = 1.0, 0.0
    for value in (0.0, 0.5, 0.9, 0.2):
        step(value)
        v = -0.1 if optimizer is adam else value * v - (1 - value) * 0.1
        expected += v
        np.testing.assert_allclose(p.get_value(), [expected], rtol=1e-6)


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_dtype_of_memories_is_kept(name, dtype, floatX):
    """For any default of PyTensor, with a rate of either type."""
    with pytensor.config.change_flags(floatX=floatX):
        W = pytensor.shared(np.ones((2, 2), dtype), "W")
        for rate in (0.01, np.float64(0.01), pt.fscalar(), pt.dscalar()):
            updates = OPTIMIZERS[name][0]([W], [pt.matrix(dtype=dtype)], rate)
            updates = max_norm(updates, [W], 1.0)
            assert {v.dtype for v in [*updates, *updates.values()]} == {dtype}


# ---- the limit on the weights ----


def test_max_norm_scales_long_columns_only():
    """A column is the incoming weights of a unit. Others stay as they are, to the last bit."""
    W = pytensor.shared(np.zeros((2, 4), "float32"), "W")
    b = pytensor.shared(np.zeros(4, "float32"), "b")
    after = np.array([[3, 0.3, 0, 9], [4, 0.4, 0, 0]], "float32")
    updates = max_norm({W: pt.constant(after), b: pt.constant(after[0])}, [W], 9.0)
    assert list(updates) == [W, b]
    compiled([], [], updates=updates)()
    found = W.get_value()
    np.testing.assert_allclose((found**2).sum(axis=0), [9, 0.25, 0, 9], rtol=1e-6)
    np.testing.assert_allclose(found[:, 0], [1.8, 2.4], rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1:3], after[:, 1:3])
    np.testing.assert_array_equal(b.get_value(), after[0])


def test_max_norm_of_a_matrix_that_does_not_change_is_an_error():
    W, V = (pytensor.shared(np.ones((2, 2)), name) for name in "WV")
    with pytest.raises(KeyError):
        max_norm({W: W + 1}, [V], 1.0)
