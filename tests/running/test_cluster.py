"""Sweeps on a Dask cluster: two worker processes of this machine, with folders of their own."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner

from reinforce_dropout.cli import main
from reinforce_dropout.errors import SweepError
from reinforce_dropout.results import records
from reinforce_dropout.running import apart, cluster, grid, sweep, training

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def two_workers():
    """A cluster of two worker processes that are not started again when they die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    ) as running:
        for nanny in running.workers.values():
            nanny.auto_restart = False
        yield running


def runs(seeds, **settings):
    return grid.expand("policy-500", seeds=seeds, settings={"n_units": (12,), **settings})


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("_DISTRIBUTION", "nothing-like-it", r"the worker tcp://\S+ lacks nothing-like-it"),
        (
            "_VERSION",
            "9.9",
            r"the worker tcp://\S+ has reinforce-dropout \S+ and the caller 9.9",
        ),
    ],
)
def test_workers_that_are_not_fit_are_named(two_workers, tmp_path, monkeypatch, name, value, what):
    monkeypatch.setattr(cluster, name, value)
    with pytest.raises(SweepError, match=what):
        sweep.sweep(runs([1]), tmp_path, scheduler=two_workers.scheduler_address)
    assert not list(tmp_path.glob("*.hdf5"))


def test_a_worker_of_another_version_that_comes_later_is_named(two_workers, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "refuse_unfit", lambda client: None)
    monkeypatch.setattr(cluster, "_VERSION", "9.9")
    outcomes = sweep.sweep(runs([1]), tmp_path, scheduler=two_workers.scheduler_address)
    (outcome,) = outcomes.values()
    assert outcome.how == "failed" and "and the caller 9.9" in outcome.text


def test_a_scheduler_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SECONDS_TO_ANSWER", 1)
    command = ["sweep", "policy-500", "--folder", str(tmp_path), "--scheduler", "tcp://127.0.0.1:9"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1 and result.stdout == ""
    assert "no Dask scheduler answers at tcp://127.0.0.1:9 within 1 s" in result.stderr


def test_without_dask(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(SweepError, match="pip install"):
        sweep.sweep(runs([1]), tmp_path, scheduler="tcp://127.0.0.1:9")


def test_a_run_that_fails_and_one_in_use_stop_nothing(two_workers, tmp_path, small_data):
    failing, in_use, good = runs([1, 2, 3], n_epochs=2)
    foreign = runs([1], n_epochs=2, q=0.3)[0].experiment()
    path = tmp_path / f"{failing.name}.hdf5"
    training.train(foreign, path, data=small_data, n_threads=1, show_progress=False)
    before = path.read_bytes()
    with records.lock(tmp_path / f"{in_use.name}.hdf5"):
        outcomes = sweep.sweep(
            [failing, in_use, good], tmp_path, data=small_data, show_progress=False,
            scheduler=two_workers.scheduler_address,
        )  # fmt: skip
    assert [outcomes[run.name].how for run in (failing, in_use, good)] == [
        "failed", "busy", "finished",
    ]  # fmt: skip
    assert f"{path} holds another run (q differ" in outcomes[failing.name].text
    assert path.read_bytes() == before
    assert records.read(tmp_path / f"{good.name}.hdf5").n_epochs == 2


def test_ctrl_c_saves_what_workers_train(two_workers, tmp_path, small_data, monkeypatch):
    (run,) = runs([1], n_epochs=10_000_000, patience=10**9)
    monkeypatch.setattr(apart, "show", lambda bar, message, shown: told.append(message))
    told = []
    killer = threading.Thread(target=lambda: _interrupt_when(lambda: told and told[-1]["curves"]))
    killer.start()
    outcomes = sweep.sweep(
        [run], tmp_path, data=small_data, scheduler=two_workers.scheduler_address,
        show_progress=False,
    )  # fmt: skip
    killer.join()
    assert outcomes[run.name].how == "interrupted"
    record = records.read(tmp_path / f"{run.name}.hdf5")
    assert record.attributes["status"] == "unfinished"
    assert record.checkpoint_state["epoch"] == record.n_epochs > 0


def _train_for(n_epochs, run, path, data):
    """Train a run in this process, and interrupt it after so many epochs."""
    left = iter(range(n_epochs))

    def before_epoch():
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(
            run.experiment(), path, data=data, n_threads=1, show_progress=False,
            before_epoch=before_epoch,
        )  # fmt: skip
    return records.read(path)


def _interrupt_when(condition):
    deadline = time.monotonic() + 200
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


def test_the_run_of_a_worker_that_dies_goes_on_elsewhere(
    two_workers, tmp_path, small_data, monkeypatch
):
    """The last of this file, as it leaves a single worker.

    The run has no end of its own, so that it is never faster than the kill.
    """
    (run,) = runs([1], n_epochs=10_000_000, patience=10**9)
    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_COPIES", 0.1)
    told = []
    monkeypatch.setattr(apart, "show", lambda bar, message, shown: told.append(message))
    path = tmp_path / "sweep" / f"{run.name}.hdf5"
    killed = {}

    def kill():
        with distributed.Client(two_workers.scheduler_address, set_as_default=False) as client:
            while not path.exists():
                time.sleep(0.05)
            (worker,) = [address for address, keys in client.processing().items() if keys]
            killed["after"] = records.read(path).n_epochs
            killed["told"] = len(told)
            os.kill(client.run(os.getpid, workers=[worker])[worker], signal.SIGKILL)
        _interrupt_when(lambda: any(m["curves"] for m in told[killed["told"] + 2 :]))

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = sweep.sweep(
        [run], path.parent, data=small_data, scheduler=two_workers.scheduler_address,
        show_progress=False,
    )  # fmt: skip
    killer.join()
    assert outcomes[run.name].how == "interrupted"
    began = [message["epoch"][0] for message in told[killed["told"] + 2 :] if message["epoch"]]
    found = records.read(path)
    assert 0 < killed["after"] < min(began) <= found.n_epochs
    own = _train_for(found.n_epochs, run, tmp_path / "own.hdf5", small_data)
    for group in ("curves", "best", "checkpoint"):
        ours, theirs = getattr(own, group), getattr(found, group)
        for name in ours.keys() - {"epoch_seconds"}:
            np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
