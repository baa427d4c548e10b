"""Training that touches only the units in use gives the updates of the dense training step."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode

from reinforce_dropout import algorithm, block_training, datasets, native, network, threads
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.experiment import Experiment
from reinforce_dropout.submatrix import PutSubmatrix, Submatrix
from reinforce_dropout.trainer import Trainer
from reinforce_dropout.training import check_execution

pytestmark = pytest.mark.usefixtures("failing_rewrites_raise")

MODES = {"numba": native.mode, "python": lambda: get_mode("FAST_COMPILE")}
N_IN, N_CLASSES, BATCH = 30, 4, 10


def one_block(**fields):
    return Experiment(
        name="test", batch_size=BATCH, instances_per_block=BATCH, baseline="moving-average",
        learning_rate=0.1, policy_learning_rate=0.3, l2=0.05, lam=0.01, q=0.3, initial_rate=0.4,
    ).replace(**{"n_units": (12, 9)} | fields)  # fmt: skip


def batches(n):
    rng = np.random.default_rng(3)
    for k in range(n):
        size = BATCH if k < n - 1 else 7  # the last mini-batch of an epoch is shorter
        x = rng.random((size, N_IN), dtype="float32") * (rng.random(N_IN) < 0.6)
        yield x.astype("float32"), rng.integers(0, N_CLASSES, size).astype("int32")


def compiled(build, experiment, mode, mask=None):
    net = network.build(experiment, N_IN, N_CLASSES)
    rng = pytensor.shared(np.random.default_rng(1), name="mask_rng")
    x, y = pt.fmatrix("x"), pt.ivector("y")
    step = build.training_step(net, x, y, experiment, rng, **({"mask": mask} if mask else {}))
    return net, step, pytensor.function([x, y], step.statistics, updates=step.updates, mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fields",
    [{}, {"units_per_block": 4, "block_state": "max", "kl_gradient": "score"}, {"uniform": True}],
    ids=["units", "groups", "uniform"],
)
def test_steps_and_shrinking_are_those_of_the_dense_step(fields, mode):
    experiment = one_block(**fields)
    dense, _, dense_function = compiled(algorithm, experiment, "NUMBA")
    sparse, step, sparse_function = compiled(block_training, experiment, MODES[mode]())
    for x, y in batches(6):
        np.testing.assert_allclose(sparse_function(x, y), dense_function(x, y), rtol=2e-4)
    assert step.weights.factor.get_value() == pytest.approx((1 - 2 * 0.1 * 0.05) ** 6, rel=1e-6)
    step.weights.store()
    assert step.weights.factor.get_value() == 1
    for name, value in dense.values().items():
        np.testing.assert_allclose(sparse.values()[name], value, rtol=1e-4, atol=3e-6, err_msg=name)


def test_strong_weight_decay_stays_finite_over_an_epoch(small_data):
    """Its factors alone, 0.4 at each of 125 steps, leave the range of float32."""
    experiment = one_block(n_units=(12,), l2=3.0, batch_size=2, instances_per_block=2)
    assert 0.4**125 < np.finfo("float32").smallest_subnormal
    values = []
    for execution in ("dense", "block-sparse"):
        check_execution(experiment, execution)
        trainer = Trainer(experiment, datasets.load(small_data), native.mode(), execution)
        trainer.run_epoch()
        values.append(trainer.state())
    for name, value in values[0].items():
        np.testing.assert_allclose(values[1][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kept", [0, 1])
def test_all_units_or_none_take_part(kept):
    experiment = one_block(uniform=True)

    def mask(z, rng):
        return pt.full_like(z, kept), rng

    results = []
    for build in (algorithm, block_training):
        net, step, function = compiled(build, experiment, native.mode(), mask)
        for x, y in batches(2):
            function(x, y)
        if step.weights is not None:
            step.weights.store()
        results.append(net.values())
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-4, atol=3e-6, err_msg=name)


def test_weights_of_dropped_units_are_not_read():
    """What is NaN in them stays in them."""
    experiment = one_block(uniform=True)
    drawn = iter([np.arange(12) % 3 == 0, np.arange(9) % 2 == 0])

    def mask(z, rng):
        return pt.constant(next(drawn).astype("float32")[None]), rng

    net, step, function = compiled(block_training, experiment, native.mode(), mask)
    W_1, W_2, W_out = (W.get_value() for W in net.weights)
    W_1[:, np.arange(12) % 3 > 0] = W_2[np.arange(12) % 3 > 0] = np.nan
    W_2[:, np.arange(9) % 2 > 0] = W_out[np.arange(9) % 2 > 0] = np.nan
    for W, value in zip(net.weights, (W_1, W_2, W_out), strict=True):
        W.set_value(value)
    step.weights.load()
    for x, y in batches(2):
        assert np.isfinite(function(x, y)).all()
    step.weights.store()
    for W, value in zip(net.weights, (W_1, W_2, W_out), strict=True):
        np.testing.assert_array_equal(np.isnan(W.get_value()), np.isnan(value))


@pytest.mark.parametrize("mode", MODES)
def test_parts_of_matrices_are_read_and_written(mode):
    W, V = pt.fmatrices("W", "V")
    rows, columns = pt.lvectors("rows", "columns")
    half = np.float32(0.5)
    outputs = [Submatrix()(W, rows, columns, half), PutSubmatrix()(W, rows, columns, V, half)]
    function = pytensor.function([W, V, rows, columns], outputs, mode=MODES[mode]())
    w = np.arange(35, dtype="float32").reshape(5, 7)
    for r, c in (([1, 4], [0, 2, 6]), ([], [3]), ([2], [])):
        r, c = np.array(r, "int64"), np.array(c, "int64")
        v = -np.ones((len(r), len(c)), "float32")
        part, put = function(w, v, r, c)
        np.testing.assert_array_equal(part, half * w[np.ix_(r, c)])
        expected = w.copy()
        expected[np.ix_(r, c)] = half * v
        np.testing.assert_array_equal(put, expected)
    np.testing.assert_array_equal(w, np.arange(35).reshape(5, 7))


def test_threads_share_the_rows_of_large_parts():
    w = np.random.default_rng(0).random((301, 400), "float32")
    W, rows, columns = pt.fmatrix("W"), np.arange(0, 301, 2), np.arange(1, 400, 3)
    part = Submatrix()(W, rows, columns, np.float32(1))
    put = PutSubmatrix()(W, rows, columns, -part, np.float32(2))
    function = pytensor.function([W], [part, put], mode=native.mode())
    place = np.ix_(rows, columns)
    expected = w.copy()
    expected[place] *= -2
    for n_threads in (1, 2, 3):
        with threads.limited(n_threads):
            found = function(w)
        np.testing.assert_array_equal(found[0], w[place])
        np.testing.assert_array_equal(found[1], expected)


def test_matrices_are_updated_in_place():
    """A copy of a whole matrix would cost more than the step."""
    *_, function = compiled(block_training, one_block(), native.mode())
    puts = [n for n in function.maker.fgraph.toposort() if isinstance(n.op, PutSubmatrix)]
    of_weights = [n for n in puts if n.inputs[0] in function.maker.fgraph.inputs]
    assert len(of_weights) == 3 and all(n.op.inplace for n in of_weights)


@pytest.mark.parametrize(
    ("fields", "execution", "word"),
    [
        ({"instances_per_block": 5}, "block-sparse", "instances_per_block"),
        ({"instances_per_block": 1}, "block-sparse", "instances_per_block"),
        ({}, "sparse", "block-sparse"),
        ({"l2": 5.0}, "block-sparse", "lower learning_rate or l2"),
    ],
)
def test_executions_that_do_not_suit_are_refused(fields, execution, word):
    with pytest.raises(ExperimentError, match=word):
        check_execution(one_block(**fields), execution)
