"""Training with masks for every instance that skips gives the updates of the dense step."""

import numpy as np
import pytensor.tensor as pt
import pytest
from pytensor.graph.traversal import ancestors
from reference import AS_WRITTEN, values_of
from test_block_training import (
    N_CLASSES,
    N_IN,
    assert_same_values,
    compiled,
    factor,
    one_block,
    system_of,
    trained_with_settling,
)

from reinforce_dropout import native, systems
from reinforce_dropout.blocks.list_updates import GroupUpdate, UnitUpdate
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.running import datasets
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems.learner import compile_learner

pytestmark = pytest.mark.usefixtures("failing_rewrites_raise")


def by_instance(**fields):
    """Return an experiment with groups of 16 units; the last group of the first layer has 8."""
    fields = {"instances_per_block": 1, "units_per_block": 16, "n_units": (40, 32)} | fields
    return one_block(**{"baseline": "batch-mean"} | fields)


def batches(n, size=10):
    """Yield mini-batches with zero pixels; the first image of each has no other."""
    rng = np.random.default_rng(3)
    for k in range(n):
        m_b = size if k < n - 1 else max(1, size - 3)  # the last one of an epoch is shorter
        x = rng.random((m_b, N_IN)) * (rng.random((m_b, N_IN)) < 0.4)
        x[: m_b > 1] = 0
        yield x.astype("float32"), rng.integers(0, N_CLASSES, m_b).astype("int32")


def both(experiment, mode=AS_WRITTEN, **rule):
    """Return each execution's system, step and function; only the one that skips has `mode`."""
    made = []
    for execution, its_mode in (("dense", AS_WRITTEN), ("block-sparse", mode)):
        system = system_of(execution, experiment)
        made.append((system, *compiled(system, its_mode, **rule)))
    return made


FIELDS = {
    "groups of 16": {},
    "of 32, three layers": {
        "units_per_block": 32, "n_units": (70, 33, 16), "kl_gradient": "score",
        "baseline": "moving-average",
    },
    "one group": {"n_units": (16,), "activation": "sigmoid", "loss_reduction": "mean"},
    "less than a group": {"n_units": (5, 7), "activation": "relu"},
    "one instance": {"batch_size": 1, "baseline": "moving-average"},
    "low rank": {"policy_rank": 3},
    "a least rate": {"min_rate": 0.1, "initial_rate": 0.4},
    "other parts": {"baseline": "per-unit", "penalty": "compute-time", "n_units": (20,)},
    "no penalties": {"l2": 0.0, "lam": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_steps_and_shrinking_are_those_of_the_dense_step(name):
    experiment = by_instance(**FIELDS[name])
    (dense, dense_step, dense_function), (sparse, step, function) = both(experiment)
    assert list(step.statistics) == list(dense_step.statistics)
    before = values_of(sparse)
    for x, y in batches(6, experiment.batch_size):
        np.testing.assert_allclose(function(x, y), dense_function(x, y), rtol=2e-4, atol=1e-7)
    assert factor(step) == pytest.approx((1 - 2 * 0.1 * experiment.l2) ** 6, rel=1e-6)
    step.settle()
    assert factor(step) == 1
    assert_same_values(values_of(sparse), values_of(dense))
    for key, value in before.items():
        assert np.abs(values_of(sparse)[key] - value).max() > 1e-4, key


def test_steps_in_native_mode_are_those_of_the_dense_step():
    experiment = by_instance(n_units=(40,))
    (dense, _, dense_function), (sparse, step, function) = both(experiment, native.mode())
    for x, y in batches(4):
        np.testing.assert_allclose(function(x, y), dense_function(x, y), rtol=2e-4)
    step.settle()
    assert_same_values(values_of(sparse), values_of(dense))


def test_only_parts_of_arrays_are_written_in_native_mode():
    """Whole copies, or products with whole matrices, would cost more than the step."""
    system = system_of("block-sparse", by_instance())
    _, function = compiled(system, native.mode())
    nodes = function.maker.fgraph.toposort()
    updates = [n for n in nodes if isinstance(n.op, GroupUpdate | UnitUpdate)]
    # Of three matrices and their biases, and of the policies' two.
    assert len(updates) == 8 and all(n.op.inplace for n in updates)
    assert not [n for n in nodes if type(n.op).__name__ in ("Products", "RankUpdates", "Dot")]


@pytest.mark.parametrize("kept", [0, 1])
def test_all_units_or_none_take_part(kept):
    def rule(family, z, rng):
        return pt.full_like(z, kept), rng

    (dense, _, dense_function), (sparse, step, function) = both(by_instance(), rule=rule)
    for x, y in batches(2):
        np.testing.assert_allclose(function(x, y), dense_function(x, y), rtol=2e-4)
    step.settle()
    assert_same_values(values_of(sparse), values_of(dense))


@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_settling_in_between_changes_nothing_but_the_rounding(l2):
    kinds = (), (0, 2, 2)
    assert_same_values(*(trained_with_settling(by_instance(l2=l2), batches(5), s) for s in kinds))


def test_strong_weight_decay_stays_finite_over_an_epoch(small_data):
    """The common factor would leave the range of float32; it is multiplied in before."""
    experiment = by_instance(n_units=(20,), l2=3.6, batch_size=2)
    dataset, results = datasets.load(small_data), []
    for execution in ("dense", "block-sparse"):
        shape, n_classes = dataset.image_shape, dataset.n_classes
        system = systems.build_for_training(experiment, shape, n_classes, execution)
        learner = compile_learner(system, experiment, AS_WRITTEN)
        Epochs(learner, dataset.train, experiment).run()
        results.append(learner.parameters())
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_resumed_run_equals_one_that_was_never_stopped():
    """To the last bit, from a checkpoint after two steps."""
    experiment = by_instance(baseline="moving-average")
    learners = [
        compile_learner(system_of("block-sparse", experiment), experiment, AS_WRITTEN)
        for _ in range(2)
    ]
    whole, resumed = learners
    for k, (x, y) in enumerate(batches(4)):
        if k == 2:
            resumed.restore(*whole.state())
        whole.step(x, y)
        if k >= 2:
            resumed.step(x, y)
    (arrays, generators), (others, other_generators) = whole.state(), resumed.state()
    assert generators == other_generators and arrays.keys() == others.keys()
    assert {"W_1", "W_1_panels", "Z_1", "Z_1_panels", "average_1", "factor"} <= arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(others[name], value, err_msg=name)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"units_per_block": 8}, "units_per_block a multiple of 16"),
        ({"instances_per_block": 2}, "units_per_block a multiple of 16"),
        ({"gate": "uniform"}, "set gate=sigmoid-bernoulli"),
        ({"gate": "uniform", "min_rate": 0.1}, "set gate=sigmoid-bernoulli"),
        ({"policy_optimizer": "adam"}, "set policy_optimizer=sgd"),
        ({"natural_gradient": True}, "natural_gradient=false"),
        ({"optimizer": "momentum"}, "set optimizer=sgd"),
        ({"estimator": "arm"}, "set estimator=reinforce"),
        ({"baseline": "learned"}, "baseline that is not learned"),
        ({"policy_every": 2}, "knows no maturation"),
        ({"l2_of": "norms"}, "set l2_of=squares"),
        ({"l2": 5.0}, "lower learning_rate or l2"),
    ],
)
def test_what_does_not_suit_is_refused(fields, word):
    with pytest.raises(ExperimentError, match=word):
        system_of("block-sparse", by_instance(**fields))


def test_which_step_a_mini_batch_takes():
    """One block of a mini-batch keeps its own way, also over groups of 16 units."""
    for instances, listed in ((10, False), (1, True)):
        system = system_of("block-sparse", by_instance(
            instances_per_block=instances, baseline="moving-average"))  # fmt: skip
        step, _ = compiled(system, AS_WRITTEN)
        ops = {type(v.owner.op) for v in ancestors(step.updates.values()) if v.owner}
        assert (GroupUpdate in ops) == listed
