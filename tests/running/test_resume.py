"""Every system goes on from what a killed run leaves behind, to the last bit."""

import shutil

import pytensor
import pytest
from reference import AS_WRITTEN
from test_training import QUIET, assert_same_run

from reinforce_dropout import backends, systems
from reinforce_dropout.results import records
from reinforce_dropout.running import training
from reinforce_dropout.systems import PRESETS

SMALL = {"n_units": (12,), "n_epochs": 4, "batch_size": 25, "shuffle": True, "patience": 1000}
RUNS = {
    "plain": ("baseline-500", {"optimizer": "rmsprop"}),
    "policy": ("policy-500", {"optimizer": "adam", "policy_optimizer": "momentum"}),
    "standout": ("standout-1000-1000", {"optimizer": "momentum", "schedule_epochs": 4}),
    "dropout": ("dropout-input-800-800", {"schedule_epochs": 4}),
    "stochastic binary": ("stochastic-binary-2000", {"gater_units": 6}),
    "rectifier": ("noisy-rectifier-2000", {"gater_units": 6}),
    "second look": (
        "second-look-80-32",
        {"second_units": (9,), "schedule_epochs": 4, "policy_from_epoch": 2},
    ),
    "condnet": ("condnet-256", {"units_per_group": 3, "baseline": "moving-average"}),
}
REMEMBERED = {
    "plain": {"square_W_1"},
    "policy": {"mean_W_1", "square_weight_b_out", "velocity_Z_1"},
    "standout": {"velocity_W_1"},
    "dropout": {"velocity_W_1", "velocity_b_out"},
    "stochastic binary": {"weighted_cost_1", "weight_1", "threshold"},
    "rectifier": {"lam", "threshold"},
    "second look": {"velocity_W_1", "velocity_second_W_1"},
    "condnet": {"average_1"},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_as_if_it_had_not_been(name, small_data, tmp_path, monkeypatch):
    """A copy of the record, taken in the middle, is all that `kill -9` leaves."""
    monkeypatch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_WRITES", -1)
    preset, fields = RUNS[name]
    experiment = PRESETS[preset].replace(**SMALL | fields)
    path, left = tmp_path / "run.hdf5", tmp_path / "killed.hdf5"
    epochs = []

    def copy_before_epoch_3():
        epochs.append(1)
        if len(epochs) == 3:
            shutil.copy(path, left)

    with pytensor.config.change_flags(cxx=""):
        options = {"data": small_data, **QUIET}
        whole = training.train(experiment, path, before_epoch=copy_before_epoch_3, **options)
        killed = records.read(left)
        assert (killed.attributes["status"], len(killed.curves["train_nll"])) == ("unfinished", 2)
        assert REMEMBERED[name] <= killed.checkpoint.keys()
        assert_same_run(training.train(experiment, left, **options), whole)
    assert len(whole.curves["train_nll"]) == 4


def test_every_system_is_resumed_here_or_elsewhere():
    """Blocks are there, with both executions. Three systems have such a test of their own."""
    tested = {PRESETS[preset].system for preset, _ in RUNS.values()}
    assert tested | {"block_policy", "dsnn", "cnn", "dasnet"} == systems.SYSTEMS.keys()
