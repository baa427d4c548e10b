"""Fixtures that several test files share: a small data set and a run on it."""

import os
import signal

import pytensor
import pytest
from idx import write_dataset

from reinforce_dropout.systems import policy

# Shells start background jobs with Ctrl-C ignored, which processes inherit: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What PyTensor's C code computes is tested, not how fast: a compiler that does not optimise takes
# half the time. Processes that tests start inherit the setting and share the compiled modules.
if not pytensor.config.gcc__cxxflags:
    pytensor.config.gcc__cxxflags = "-O0"
    _FLAGS = [os.environ.get("PYTENSOR_FLAGS"), "gcc__cxxflags=-O0"]
    os.environ["PYTENSOR_FLAGS"] = ",".join(filter(None, _FLAGS))


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """Folder of IDX files, 8x8 pixels, 4 classes; 250 + 50 + 90 examples after the split."""
    return write_dataset(tmp_path_factory.mktemp("idx"), n_train=300, n_test=90)


@pytest.fixture(scope="session")
def small_experiment():
    """Two hidden layers with policies; 250 examples leave a last mini-batch of 10."""
    return policy.Settings(name="small", n_units=(12, 9), lam=0.001, n_epochs=4, batch_size=20)


@pytest.fixture(scope="module")
def failing_rewrites_raise():
    """A rewrite that fails is only logged by default: the graph stays right, but slow."""
    with pytensor.config.change_flags(on_opt_error="raise"):
        yield
