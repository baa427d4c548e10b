"""A compiled learner: its state is all that steps change, and it goes back to any state."""

import numpy as np
import pytensor
import pytest
from reference import AS_WRITTEN

from reinforce_dropout import systems
from reinforce_dropout.algorithm import Step
from reinforce_dropout.errors import RecordError
from reinforce_dropout.network import Pass
from reinforce_dropout.running import datasets
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems import block_policy, passes, plain
from reinforce_dropout.systems.learner import compile_learner, put
from reinforce_dropout.systems.system import System


@pytest.fixture(autouse=True)
def nothing_compiled():
    """Otherwise PyTensor compiles parts of some Ops even here."""
    with pytensor.config.change_flags(cxx=""):
        yield


@pytest.fixture(scope="module")
def dataset(small_data):
    return datasets.load(small_data)


def learner_of(experiment, dataset, execution="dense"):
    """Return a compiled learner for the data."""
    sizes = dataset.image_shape, dataset.n_classes
    system = systems.build_for_training(experiment, *sizes, execution)
    return compile_learner(system, experiment, AS_WRITTEN)


def counting(settle_every):
    """Return a learner whose only parameter counts steps, and the counts at which it settled."""
    count, settled = pytensor.shared(np.float32(0), name="count"), []

    def step(x, y, rng):
        statistics = {"total": x.sum(), "each": [y.sum(), count], "nothing": []}
        return Step(
            statistics, {count: count + 1}, lambda: settled.append(count.get_value()), settle_every
        )

    def predict(x, rng):
        return Pass(x * count, [], rng)

    system = System({"count": count}, step, {"times": predict, "again": predict})
    return compile_learner(system, plain.Settings(), AS_WRITTEN), settled


X, Y = np.ones((2, 3), "float32"), np.array([5, 6], "int32")


def test_statistics_are_named():
    """A list gives a row an epoch, an empty one no curve."""
    learner, _ = counting(100)
    learner.step(X, Y)
    curves = learner.curves(learner.step(X, Y))
    assert curves.keys() == {"total", "each"} and curves["total"] == 6
    np.testing.assert_array_equal(curves["each"], [11, 1])


def test_settles_in_time_and_before_anything_is_read():
    """It settles every so many steps since the last time, and only if steps were made."""
    learner, settled = counting(3)
    for _ in range(7):
        learner.step(X, Y)
    assert settled == [3, 6]
    arrays, generators = learner.state()
    assert settled == [3, 6, 7] and arrays == {"count": 7}
    assert learner.parameters() == arrays and settled == [3, 6, 7]
    for _ in range(2):
        learner.step(X, Y)
    np.testing.assert_array_equal(learner.predict(X)["again"], 9 * X)
    assert settled == [3, 6, 7, 9]
    for _ in range(3):
        learner.step(X, Y)
    assert settled == [3, 6, 7, 9, 12]
    learner.step(X, Y)
    learner.restore(arrays, generators)
    assert learner.parameters() == {"count": 7}
    for _ in range(3):
        learner.step(X, Y)
    assert settled[-1] == 10


def test_copies_are_returned(dataset, small_experiment):
    """The returned arrays do not change later."""
    learner = learner_of(small_experiment, dataset)
    parameters, (state, generators) = learner.parameters(), learner.state()
    before = {k: v.copy() for k, v in parameters.items()}, {k: v.copy() for k, v in state.items()}
    learner.step(dataset.train.images[:20], dataset.train.labels[:20])
    for found, old in zip((parameters, state), before, strict=True):
        assert found.keys() == old.keys()
        for name, value in found.items():
            np.testing.assert_array_equal(value, old[name])
            assert type(value) is np.ndarray
    after, generators_after = learner.state()
    assert generators_after != generators
    assert all((after[name] != state[name]).any() for name in state)


def test_the_state_is_what_the_updates_change(dataset, small_experiment):
    """A moving average is in it; the parameters are those of the model alone."""
    learner = learner_of(small_experiment.replace(baseline="moving-average"), dataset)
    model = {f"{p}_{i}" for p in "WbZo" for i in (1, 2)} | {"W_out", "b_out"}
    assert learner.parameters().keys() == model
    assert learner.state()[0].keys() == model | {"average_1", "average_2"}
    uniform = learner_of(small_experiment.replace(gate="uniform"), dataset)
    assert uniform.state()[0].keys() == {"W_1", "b_1", "W_2", "b_2", "W_out", "b_out"}


@pytest.mark.parametrize("execution", ["dense", "block-sparse"])
def test_goes_on_from_a_state_with_the_same_bits(execution, dataset):
    """Also if the weights settle in the middle of an epoch, and in another process.

    A weight that is not used shrinks by the factor 0.8, which falls below 0.001 after 30 steps. An
    epoch has 13.
    """
    experiment = block_policy.Settings(
        n_units=(12, 9), instances_per_block=20, units_per_block=3, l2=10.0, shuffle=True,
        baseline="moving-average", learning_rate=0.01,
    )  # fmt: skip
    learner = learner_of(experiment, dataset, execution)
    epochs = Epochs(learner, dataset.train, experiment)
    epochs.run()
    middle = epochs.state()
    for _ in range(3):
        curves = epochs.run()
    other = learner_of(experiment, dataset, execution)
    again = Epochs(other, dataset.train, experiment)
    again.restore(*middle)
    for _ in range(3):
        curves_again = again.run()
    for found, right in ((curves_again, curves), (again.state()[0], epochs.state()[0])):
        assert found.keys() == right.keys()
        for name, value in right.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert again.state()[1] == epochs.state()[1]
    predicted, right = (a.predict(dataset.test.images) for a in (other, learner))
    for rule, logits in right.items():
        np.testing.assert_array_equal(predicted[rule], logits)


@pytest.mark.parametrize("execution", ["dense", "block-sparse"])
def test_predicts_by_what_it_has_learned(execution, dataset):
    """Right after a step, also if the step has its own copies of the weights."""
    experiment = block_policy.Settings(n_units=(12,), instances_per_block=20, baseline="none")
    learner = learner_of(experiment, dataset, execution)
    images = dataset.test.images
    before = learner.predict(images)["expected"]
    learner.step(dataset.train.images[:20], dataset.train.labels[:20])
    after = learner.predict(images)["expected"]
    assert abs(after - before).max() > 0.01
    fresh = learner_of(experiment, dataset)
    fresh.restore(*learner.state())
    np.testing.assert_array_equal(fresh.predict(images)["expected"], after)


def test_what_a_rule_gives_does_not_depend_on_the_others(dataset, monkeypatch):
    """Over several batches, whose draws follow each other."""
    monkeypatch.setattr(passes, "BATCH_SIZE", 40)
    experiment = block_policy.Settings(n_units=(12, 9), instances_per_block=20, baseline="none")
    learner = learner_of(experiment, dataset)
    images = dataset.test.images
    every = learner.predict(images)
    assert tuple(every) == learner.rules == ("sampled", "expected", "thresholded")
    for rules in (["sampled"], ["thresholded", "expected"], ["sampled"]):
        some = learner.predict(images, rules)
        assert list(some) == rules
        for rule, logits in some.items():
            np.testing.assert_array_equal(logits, every[rule])
    for rule in ("expected", "thresholded"):
        assert not np.array_equal(every["sampled"], every[rule])


def variables():
    """Return two shared variables by name."""
    values = {"a": np.zeros((2, 3), "float32"), "b": np.zeros(4, "float32")}
    return {name: pytensor.shared(value, name=name) for name, value in values.items()}


@pytest.mark.parametrize(
    ("b", "words"),
    [
        (None, r"b must be float32 \(4,\) and is missing, so the record is not of its experiment"),
        (np.ones(3, "float32"), r"b must be float32 \(4,\) and is float32 \(3,\)"),
        (np.ones(4), r"b must be float32 \(4,\) and is float64 \(4,\)"),
        (np.ones((1, 4), "float32"), r"b must be float32 \(4,\) and is float32 \(1, 4\)"),
    ],
)
def test_all_arrays_are_put_or_none(b, words):
    arrays = {"a": np.ones((2, 3), "float32")} | ({} if b is None else {"b": b})
    shared = variables()
    with pytest.raises(RecordError, match=words):
        put(shared, arrays)
    assert not shared["a"].get_value().any()
    put(shared, arrays | {"b": np.ones(4, "float32"), "c": np.ones(1)})
    assert shared["a"].get_value().all() and shared["b"].get_value().all()


def test_arrays_that_were_put_are_not_shared():
    """The record keeps what it holds."""
    shared, arrays = variables(), {"a": np.ones((2, 3), "float32"), "b": np.ones(4, "float32")}
    put(shared, arrays)
    function = pytensor.function([], [], updates={v: v * 2 for v in shared.values()})
    function()
    assert shared["b"].get_value()[0] == 2
    assert arrays["a"].all() and (arrays["b"] == 1).all()
