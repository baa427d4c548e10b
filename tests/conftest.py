"""Fixtures that several test files share: a small data set and a run on it."""

import signal

import pytensor
import pytest
from idx import write_dataset

from reinforce_dropout.experiment import Experiment

# Shells start background jobs with Ctrl-C ignored, which processes inherit: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """Folder of IDX files, 8x8 pixels, 4 classes; 250 + 50 + 90 examples after the split."""
    return write_dataset(tmp_path_factory.mktemp("idx"), n_train=300, n_test=90)


@pytest.fixture(scope="session")
def small_experiment():
    """Two hidden layers with policies; 250 examples leave a last mini-batch of 10."""
    return Experiment(name="small", n_units=(12, 9), lam=0.001, n_epochs=4, batch_size=20)


@pytest.fixture(scope="module")
def failing_rewrites_raise():
    """A rewrite that fails is only logged by default: the graph stays right, but slow."""
    with pytensor.config.change_flags(on_opt_error="raise"):
        yield
