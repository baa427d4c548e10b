"""The native limit on columns: the kernel and its Op against NumPy, and the rewrites."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode
from pytensor.tensor.elemwise import DimShuffle

from reinforce_dropout import native, systems
from reinforce_dropout.native.kernels.columns import limit_columns
from reinforce_dropout.native.ops.columns import LimitColumns
from reinforce_dropout.native.ops.products import RankUpdates
from reinforce_dropout.running import threads
from reinforce_dropout.systems import dropout
from reinforce_dropout.updates import max_norm, momentum, sgd

pytestmark = pytest.mark.usefixtures("failing_rewrites_raise")

SHAPES = [(1, 1), (3, 33), (70, 129), (600, 700)]
KERNELS = [pytest.param(shape, "float32", marks=pytest.mark.cpu) for shape in SHAPES]
KERNELS += [((70, 129), "float64")]


def matrices(shape, dtype="float32"):
    """Return weights some of whose columns are longer than 1, and a step."""
    rng = np.random.default_rng(0)
    W = rng.normal(size=shape) * np.linspace(0, 2, shape[1]) / np.sqrt(shape[0])
    return W.astype(dtype), (0.1 / np.sqrt(shape[0]) * rng.normal(size=shape)).astype(dtype)


def numpy_limited(V, limit):
    """Return V with its columns limited."""
    return V * np.sqrt(limit / np.maximum(limit, (V**2).sum(axis=0)))


@pytest.mark.parametrize(("shape", "dtype"), KERNELS)
def test_the_kernel_equals_numpy(shape, dtype):
    """With a step and without; short columns keep every bit."""
    W, step = matrices(shape, dtype)
    limit = W.dtype.type(1)
    for one in (step, np.empty((0, 0), dtype)):
        V = W + one if one.size else W
        found = W.copy()
        limit_columns(found, one, limit)
        np.testing.assert_allclose(found, numpy_limited(V, 1), rtol=1e-5, atol=1e-6)
        short = (V.astype("float64") ** 2).sum(axis=0) < 0.999
        np.testing.assert_array_equal(found[:, short], V[:, short])
        assert shape[1] == 1 or (short.any() and not short.all())


def test_no_bit_depends_on_the_number_of_threads():
    W, step = matrices((600, 700))
    found = []
    for n in (1, 2):
        with threads.limited(n):
            found.append(W.copy())
            limit_columns(found[-1], step, np.float32(1))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_not_hidden(value):
    """It stays in its column, or makes it NaN, so that divergence is noticed."""
    W, step = matrices((20, 10))
    W[3, 4] = value
    limit_columns(W, step, np.float32(1))
    assert not np.isfinite(W[3, 4]) and np.isfinite(np.delete(W, 4, axis=1)).all()


def test_a_step_of_another_shape_is_refused():
    W, step = matrices((20, 10))
    with pytest.raises(ValueError, match="a step has the wrong shape"):
        limit_columns(W, step[:, :5].copy(), np.float32(1))


@pytest.mark.parametrize(("op_mode", "order"), [("FAST_COMPILE", "C"), ("native", "F")])
def test_python_and_numba_agree_on_the_op_and_change_no_input(op_mode, order):
    W_, step_ = (np.asarray(a, order=order) for a in matrices((70, 129)))
    W, step, limit = *pt.fmatrices("W", "step"), pt.constant(1, dtype="float32")
    outputs = [LimitColumns()(W, limit), LimitColumns()(W, limit, step)]
    mode = native.mode() if op_mode == "native" else get_mode(op_mode)
    before = W_.copy()
    found = pytensor.function([W, step], outputs, mode=mode)(W_, step_)
    for result, V in zip(found, (W_, W_ + step_), strict=True):
        np.testing.assert_allclose(result, numpy_limited(V, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(W_, before)


def matrix_ops(function):
    """Return the Ops that make a matrix, views left out."""
    nodes = function.maker.fgraph.toposort()
    made = [n for n in nodes if not isinstance(n.op, DimShuffle)]
    kinds = [getattr(n.outputs[-1].type, "broadcastable", ()) for n in made]
    return [n.op for n, kind in zip(made, kinds, strict=True) if kind == (False, False)]


@pytest.mark.parametrize(
    ("optimizer", "symbolic", "limit"), [("sgd", False, 2), ("momentum", True, 1)]
)
def test_a_limited_step_is_two_passes_over_the_weights(optimizer, symbolic, limit):
    """The product goes into the velocity or the weights, and the rest is one pass; all in place."""
    W_, _ = matrices((70, 129))
    rng = np.random.default_rng(1)
    s_, g_ = (rng.normal(size=(20, n)).astype("float32") for n in W_.shape)
    W = pytensor.shared(W_.copy(), "W")
    rate = pytensor.shared(np.float32(0.1)) if symbolic else 0.1
    mu = pytensor.shared(np.float32(0.9)) if symbolic else 0.9
    s, g = pt.fmatrices("s", "g")
    step = {"sgd": sgd, "momentum": lambda *a: momentum(*a, mu)}[optimizer]
    updates = max_norm(step([W], [pt.dot(s.T, g)], rate), [W], limit)
    function = pytensor.function([s, g], updates=list(updates.items()), mode=native.mode())
    scaled, *others = matrix_ops(function)
    assert "Elemwise" in type(scaled).__name__  # it scales g; its Op differs between versions
    assert others == [RankUpdates(1, inplace=True), LimitColumns(inplace=True)]
    function(s_, g_)
    V = W_ - (0.1 if optimizer == "sgd" else 0.1 * 0.1) * (s_.T @ g_)
    np.testing.assert_allclose(W.get_value(), numpy_limited(V, limit), rtol=1e-4, atol=1e-5)


def test_similar_expressions_stay_as_they_are():
    """Another matrix's squares, another limit above than below, rows instead of columns."""
    W, V = pt.fmatrices("W", "V")
    one, two = np.float32(1), np.float32(2)

    def limited(V, W, above, below, axis=0):
        squares = (V**2).sum(axis=axis, keepdims=True)
        return W * pt.sqrt(above / pt.maximum(squares, below))

    outputs = [limited(V, W, one, one), limited(W, W, one, two), limited(W, W, one, one, axis=1)]
    function = pytensor.function([W, V], outputs, mode=native.mode())
    assert not any(isinstance(n.op, LimitColumns) for n in function.maker.fgraph.toposort())
    W_, V_ = matrices((5, 5))
    by_row = numpy_limited(W_.T, 1).T
    other = W_ * np.sqrt(1 / np.maximum(1, (V_**2).sum(axis=0)))
    higher = W_ * np.sqrt(1 / np.maximum(2, (W_**2).sum(axis=0)))
    for found, expected in zip(function(W_, V_), (other, higher, by_row), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_step_of_dropout_has_no_dense_pass_but_these():
    """One RankUpdates and one LimitColumns for each hidden layer."""
    e = dropout.Settings(n_units=(40, 35), optimizer="momentum", schedule_epochs=6)
    system = systems.build_for_training(e, (50,), 10)
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(0))
    updates = list(system.step(x, y, rng).updates.items())
    function = pytensor.function([x, y], updates=updates, mode=native.mode())
    ops = matrix_ops(function)
    assert sum(op == LimitColumns(inplace=True) for op in ops) == 2
    assert sum(isinstance(op, RankUpdates) and op.inplace for op in ops) == 3
