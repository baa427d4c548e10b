"""An epoch passes once through all examples. A number that is not finite ends it."""

import numpy as np
import pytest

from reinforce_dropout.backends import one_by_one
from reinforce_dropout.errors import DivergenceError
from reinforce_dropout.running import datasets
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems.learner import Learner


@pytest.fixture(scope="module")
def dataset(small_data):
    return datasets.load(small_data)


def learner_of(step, arrays=None):
    """Return a learner that only takes steps."""
    return Learner(
        step=step,
        steps=one_by_one(step),
        curves=lambda statistics: {"first": statistics[0], "others": statistics[1:]},
        rules=(),
        predict=None,
        parameters=None,
        state=lambda: (arrays or {}, {"masks": 1}),
        restore=lambda arrays, generators: None,
    )


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_example_is_trained_on_once_an_epoch(shuffle, small_experiment, dataset):
    seen = []

    def step(x, y):
        seen.append((x, y))
        return np.zeros(5, "float32")

    Epochs(learner_of(step), dataset.train, small_experiment.replace(shuffle=shuffle)).run()
    assert [len(y) for _, y in seen] == [20] * 12 + [10]
    images, labels = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    in_order = np.array_equal(images, dataset.train.images)
    assert in_order is not shuffle
    rows = np.lexsort(images.T), np.lexsort(dataset.train.images.T)
    np.testing.assert_array_equal(images[rows[0]], dataset.train.images[rows[1]])
    np.testing.assert_array_equal(labels[rows[0]], dataset.train.labels[rows[1]])


def test_mean_over_an_epoch_weighs_every_example_alike(small_experiment, dataset):
    learner = learner_of(lambda x, y: np.full(5, len(y), "float32"))
    epochs = Epochs(learner, dataset.train, small_experiment)
    assert epochs.n_batches == 13
    found = epochs.run()
    assert found.keys() == {"first", "others"} and found["others"].shape == (4,)
    for value in found.values():
        np.testing.assert_allclose(value, (12 * 20 * 20 + 10 * 10) / 250)
        assert value.dtype == "float64"


def test_something_can_be_done_after_every_mini_batch(small_experiment, dataset):
    done = []
    learner = learner_of(lambda x, y: np.zeros(2))
    Epochs(learner, dataset.train, small_experiment).run(lambda: done.append(1))
    assert len(done) == 13


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_divergence_of_a_statistic_is_noticed_at_once(value, small_experiment, dataset):
    steps = iter(range(1, 14))

    def step(x, y):
        return np.array([0, 0, value if next(steps) >= 3 else 0])

    epochs = Epochs(learner_of(step), dataset.train, small_experiment)
    with pytest.raises(DivergenceError, match="the loss is not finite at mini-batch 3$"):
        epochs.run()
    assert next(steps) == 4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_divergence_after_the_last_mini_batch_is_noticed(value, small_experiment, dataset):
    learner = learner_of(lambda x, y: np.zeros(5), {"o_1": np.array([0, value])})
    epochs = Epochs(learner, dataset.train, small_experiment)
    with pytest.raises(DivergenceError, match="a parameter is not finite after mini-batch 13$"):
        epochs.run()


def test_the_order_is_part_of_the_state(small_experiment, dataset):
    """An epoch after `restore` takes the examples in the order of the first time."""
    firsts = []

    def step(x, y):
        firsts.append(x[0])
        return np.zeros(1)

    epochs = Epochs(learner_of(step), dataset.train, small_experiment.replace(shuffle=True))
    arrays, generators = epochs.state()
    assert generators.keys() == {"masks", "order"}
    for _ in range(2):
        epochs.run()
    epochs.restore(arrays, generators)
    epochs.run()
    np.testing.assert_array_equal(firsts[26:], firsts[:13])
    assert not np.array_equal(firsts[13:26], firsts[:13])
