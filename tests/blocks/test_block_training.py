"""Training that touches only the units in use gives the updates of the dense training step."""

import sys

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode
from reference import AS_WRITTEN, flat, values_of

from reinforce_dropout import native, systems
from reinforce_dropout.blocks.step_weights import steps_until
from reinforce_dropout.blocks.submatrix import PutSubmatrix, Submatrix
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.running import datasets, threads
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems import block_policy
from reinforce_dropout.systems.learner import compile_learner

pytestmark = pytest.mark.usefixtures("failing_rewrites_raise")

MODES = {"numba": native.mode, "python": lambda: get_mode("FAST_COMPILE")}
N_IN, N_CLASSES, BATCH = 30, 4, 10


def one_block(**fields):
    return block_policy.Settings(
        name="test", batch_size=BATCH, instances_per_block=BATCH, baseline="moving-average",
        learning_rate=0.1, policy_learning_rate=0.3, l2=0.05, lam=0.01, q=0.3, initial_rate=0.4,
    ).replace(**{"n_units": (12, 9)} | fields)  # fmt: skip


def batches(n):
    rng = np.random.default_rng(3)
    for k in range(n):
        size = BATCH if k < n - 1 else 7  # the last mini-batch of an epoch is shorter
        x = rng.random((size, N_IN), dtype="float32") * (rng.random(N_IN) < 0.6)
        yield x.astype("float32"), rng.integers(0, N_CLASSES, size).astype("int32")


def system_of(execution, experiment):
    return systems.build_for_training(experiment, (N_IN,), N_CLASSES, execution)


def compiled(system, mode, **rule):
    """Return the step and a function of it."""
    rng = pytensor.shared(np.random.default_rng(1), name="mask_rng")
    x, y = pt.fmatrix("x"), pt.ivector("y")
    step = system.step(x, y, rng, **rule)
    statistics, updates = pt.stack(flat(step.statistics)), list(step.updates.items())
    return step, pytensor.function([x, y], statistics, updates=updates, mode=mode)


def factor(step):
    """Return the common factor of the weights."""
    (variable,) = (v for v in step.updates if v.name == "factor")
    return variable.get_value()


def assert_same_values(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=3e-6, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"units_per_block": 4, "block_state": "max", "kl_gradient": "score"},
        {"gate": "uniform"},
        {"policy_rank": 3, "units_per_block": 4},
    ],
    ids=["units", "groups", "uniform", "low rank"],
)
def test_steps_and_shrinking_are_those_of_the_dense_step(fields, mode):
    experiment = one_block(**fields)
    dense, sparse = (system_of(execution, experiment) for execution in ("dense", "block-sparse"))
    dense_step, dense_function = compiled(dense, AS_WRITTEN)
    step, sparse_function = compiled(sparse, MODES[mode]())
    assert list(step.statistics) == list(dense_step.statistics)
    for x, y in batches(6):
        np.testing.assert_allclose(sparse_function(x, y), dense_function(x, y), rtol=2e-4)
    assert factor(step) == pytest.approx((1 - 2 * 0.1 * 0.05) ** 6, rel=1e-6)
    step.settle()
    assert factor(step) == 1
    assert_same_values(values_of(sparse), values_of(dense))


def trained_with_settling(experiment, batches, settles):
    """Return the values after training; `settles` numbers the steps after which to settle."""
    system = system_of("block-sparse", experiment)
    step, function = compiled(system, AS_WRITTEN)
    for k, (x, y) in enumerate(batches):
        function(x, y)
        for _ in range(settles.count(k)):
            step.settle()
    step.settle()
    return values_of(system)


@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_settling_in_between_changes_nothing_but_the_rounding(l2):
    """Settling is allowed at any time, and twice."""
    kinds = (), (0, 2, 2)
    assert_same_values(*(trained_with_settling(one_block(l2=l2), batches(5), s) for s in kinds))


@pytest.mark.parametrize("shrinkage", [0.9999, 0.99, 0.5, 0.28, 1e-4])
def test_the_factor_is_multiplied_in_before_it_gets_too_small(shrinkage):
    """Never later than at the given size, but at least one step."""
    n = steps_until(1e-3, shrinkage)
    assert n == 1 or shrinkage**n >= 1e-3 * (1 - 1e-9)
    assert shrinkage ** (n + 1) < 1e-3


def test_without_a_penalty_nothing_has_to_be_multiplied_in():
    assert steps_until(1e-3, 1) == sys.maxsize
    system = system_of("block-sparse", one_block(l2=0.0))
    step = system.step(pt.fmatrix(), pt.ivector(), pytensor.shared(np.random.default_rng(1)))
    assert step.settle_every == sys.maxsize


def test_strong_weight_decay_stays_finite_over_an_epoch(small_data):
    """Its factors, 0.28 at each of 125 steps, leave the range of float32."""
    experiment = one_block(n_units=(12,), l2=3.6, batch_size=2, instances_per_block=2)
    assert 2 * 0.1 * 3.6 * 125 > 87 and 0.28**125 < np.finfo("float32").smallest_subnormal
    dataset, results = datasets.load(small_data), []
    for execution in ("dense", "block-sparse"):
        system = systems.build_for_training(
            experiment, dataset.image_shape, dataset.n_classes, execution
        )
        learner = compile_learner(system, experiment, AS_WRITTEN)
        epochs = Epochs(learner, dataset.train, experiment)
        assert epochs.n_batches == 125
        epochs.run()
        results.append(learner.parameters())
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kept", [0, 1])
def test_all_units_or_none_take_part(kept):
    def rule(family, z, rng):
        return pt.full_like(z, kept), rng

    results = []
    for execution, mode in (("dense", AS_WRITTEN), ("block-sparse", native.mode())):
        system = system_of(execution, one_block(gate="uniform"))
        step, function = compiled(system, mode, rule=rule)
        for x, y in batches(2):
            function(x, y)
        step.settle()
        results.append(values_of(system))
    assert_same_values(*results)


def test_weights_of_dropped_units_are_not_read():
    """NaN in unused weights stays there."""
    drawn = iter([np.arange(12) % 3 == 0, np.arange(9) % 2 == 0])

    def rule(family, z, rng):
        return pt.constant(next(drawn).astype("float32")[None]), rng

    system = system_of("block-sparse", one_block(gate="uniform"))
    weights = [system.parameters[name] for name in ("W_1", "W_2", "W_out")]
    W_1, W_2, W_out = (W.get_value() for W in weights)
    W_1[:, np.arange(12) % 3 > 0] = W_2[np.arange(12) % 3 > 0] = np.nan
    W_2[:, np.arange(9) % 2 > 0] = W_out[np.arange(9) % 2 > 0] = np.nan
    for W, value in zip(weights, (W_1, W_2, W_out), strict=True):
        W.set_value(value)
    step, function = compiled(system, native.mode(), rule=rule)
    for x, y in batches(2):
        assert np.isfinite(function(x, y)).all()
    step.settle()
    for W, value in zip(weights, (W_1, W_2, W_out), strict=True):
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
    _, function = compiled(system_of("block-sparse", one_block()), native.mode())
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
        ({"l2": 7.0}, "block-sparse", "lower learning_rate or l2"),
    ],
)
def test_executions_that_do_not_suit_are_refused(fields, execution, word):
    """In the last two, 2 lr l2 is 1 and 1.4: that would set weights to 0, or reverse their sign."""
    with pytest.raises(ExperimentError, match=word):
        system_of(execution, one_block(**fields))
