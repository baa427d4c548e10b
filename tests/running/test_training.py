import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import numba
import numpy as np
import pytest
from idx import write_dataset

from reinforce_dropout import backends
from reinforce_dropout.errors import (
    BackendError,
    DivergenceError,
    ExperimentError,
    RecordError,
)
from reinforce_dropout.native import adaptive
from reinforce_dropout.results import records
from reinforce_dropout.running import datasets, threads, training
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.running.evaluation import load_evaluation
from reinforce_dropout.running.prediction import load_prediction
from reinforce_dropout.systems import block_policy, plain

QUIET = {"show_progress": False, "n_threads": 1}
RULES = ("sampled", "expected", "thresholded")


@pytest.fixture(scope="module")
def stateful(small_experiment):
    """An experiment in which everything that a checkpoint must hold matters."""
    return small_experiment.replace(name="stateful", shuffle=True, baseline="moving-average")


@pytest.fixture(scope="module")
def uninterrupted(stateful, small_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "whole.hdf5"
    return training.train(stateful, path, data=small_data, **QUIET)


def test_before_every_epoch_something_can_be_done(stateful, uninterrupted, small_data, tmp_path):
    epochs = []
    path = tmp_path / "run.hdf5"
    record = training.train(
        stateful, path, data=small_data, before_epoch=lambda: epochs.append(1), **QUIET
    )
    assert len(epochs) == len(record.curves["train_nll"]) == 4
    assert_same_run(record, uninterrupted)


class _AnotherNumberEveryTime:
    """Instead of `adaptive.Choice`."""

    def __init__(self, most):
        self.n_threads, self.most = most, most
        self.calls = Counter()

    def learn(self, began, ended, work):
        self.calls[self.n_threads] += 1
        self.n_threads = self.n_threads % self.most + 1


_AS_IN_A_SWEEP = {
    "n_threads": 1, "follow_load": True, "before_epoch": lambda: threads.use_in_kernels(2),
}  # fmt: skip


@pytest.mark.parametrize(
    ("execution", "how"),
    [*((execution, {}) for execution in block_policy.TRAINING), ("dense", _AS_IN_A_SWEEP)],
    ids=["dense", "block-sparse", "dense, in a sweep"],
)
def test_changing_the_number_of_threads_at_every_call_changes_no_bit(
    execution, how, small_data, tmp_path, monkeypatch
):
    if numba.config.NUMBA_NUM_THREADS == 1:
        pytest.skip("only one thread")
    experiment = block_policy.Settings(
        name="wide", n_units=(500, 400), batch_size=50, initial_rate=0.5, n_epochs=2,
        instances_per_block=50 if execution == "block-sparse" else 1, baseline="moving-average",
    )  # fmt: skip
    options = {"data": small_data, "execution": execution, "show_progress": False}
    one = training.train(experiment, tmp_path / "one.hdf5", n_threads=1, **options)
    choices = []

    def choice(most):
        choices.append(_AnotherNumberEveryTime(most))
        return choices[-1]

    monkeypatch.setattr(adaptive, "Choice", choice)
    with threads.limited(2):  # the most, whatever BLAS has been told
        changing = training.train(experiment, tmp_path / "changing.hdf5", **options, **how)
    assert_same_run(changing, one)
    step = choices[0].calls
    assert min(step[1], step[2]) >= 4 and len(choices) >= 2  # the evaluation's, too


def test_a_number_of_threads_that_is_given_stays(stateful, small_data, tmp_path, monkeypatch):
    used = []
    run = Epochs.run

    def interrupted(epochs, on_update):
        used.append(numba.get_num_threads())
        if len(used) == 2:
            raise KeyboardInterrupt
        return run(epochs, on_update)

    monkeypatch.setattr(adaptive, "Choice", None)  # whoever asks for a choice fails
    monkeypatch.setattr(Epochs, "run", interrupted)
    path, options = tmp_path / "run.hdf5", {"data": small_data, "show_progress": False}
    most = numba.config.NUMBA_NUM_THREADS
    with pytest.raises(KeyboardInterrupt):
        training.train(stateful, path, n_threads=most, **options)
    training.train(stateful, path, n_threads=1, **options)
    assert used == [most, most, 1, 1, 1]
    assert records.read(path).attributes["n_threads"] == most


def assert_same_run(record, other):
    assert record.attributes["stopped_by"] == other.attributes["stopped_by"]
    assert record.best_attributes == other.best_attributes
    for name, curve in record.curves.items():
        if name != "epoch_seconds":
            np.testing.assert_array_equal(curve, other.curves[name], err_msg=name)
    assert record.best.keys() == other.best.keys()
    for name, value in record.best.items():
        np.testing.assert_array_equal(value, other.best[name], err_msg=name)


def assert_recorded(errors, record, part):
    """The errors by all rules are those that the record has of its best epoch."""
    assert list(errors) == list(RULES)
    for rule, error in errors.items():
        assert error == record.curves[f"{part}_error_{rule}"][record.best_epoch - 1]


def test_record_of_a_run_with_policies(uninterrupted):
    shapes = {name: curve.shape for name, curve in uninterrupted.curves.items()}
    assert shapes == {
        "train_nll": (4,),
        "valid_error": (4,),
        "test_error": (4,),
        **{f"{part}_error_{rule}": (4,) for part in ("valid", "test") for rule in RULES},
        "active_fraction": (4, 2),
        "policy_entropy": (4, 2),
        "epoch_seconds": (4,),
    }
    best = uninterrupted.best_attributes["epoch"] - 1
    assert best == np.argmin(uninterrupted.curves["valid_error"])
    for part in ("valid", "test"):
        error = uninterrupted.best_attributes[f"{part}_error"]
        assert error == uninterrupted.curves[f"{part}_error"][best]
        by_rule = uninterrupted.curves[f"{part}_error_sampled"]
        np.testing.assert_array_equal(uninterrupted.curves[f"{part}_error"], by_rule)
    assert uninterrupted.dimensions == ((8, 8), 4)
    assert uninterrupted.best["Z_2"].shape == (12, 9)
    assert uninterrupted.attributes["status"] == "finished"
    assert uninterrupted.attributes["stopped_by"] == "n_epochs"
    assert uninterrupted.attributes["ended"] >= uninterrupted.attributes["started"]
    assert uninterrupted.checkpoint is None


def test_what_is_evaluated_changes_no_number_of_the_run(small_data, stateful, tmp_path):
    """Only what is evaluated where differs: NaN if it is neither the best yet nor the last."""
    experiment = stateful.replace(
        n_epochs=14, learning_rate=0.05, patience=80, patience_increase=1.2
    )
    options = QUIET | {"data": small_data}
    some = training.train(experiment, tmp_path / "some.hdf5", **options)
    experiment = experiment.replace(evaluate_all=True)
    every = training.train(experiment, tmp_path / "all.hdf5", **options)
    assert some.attributes["stopped_by"] == every.attributes["stopped_by"] == "patience"
    assert some.best_attributes == every.best_attributes
    for name, value in every.best.items():
        np.testing.assert_array_equal(some.best[name], value, err_msg=name)
    valid = every.curves["valid_error"]
    evaluated = valid < np.minimum.accumulate([np.inf, *valid[:-1]])
    assert not evaluated[-1] and 1 < evaluated.sum() < len(valid) - 1
    evaluated[-1] = True
    assert some.curves.keys() == every.curves.keys()
    for name, curve in every.curves.items():
        assert not np.isnan(curve).any()
        if name.startswith(("test", "valid_error_")) and name != "valid_error_sampled":
            curve = np.where(evaluated, curve, np.nan)
        if name != "epoch_seconds":
            np.testing.assert_array_equal(some.curves[name], curve, err_msg=name)


def test_a_curve_may_begin_late_and_have_gaps():
    curves = {}
    for row in ({"a": 1.0}, {"a": 2.0, "b": [3.0, 4.0]}, {"b": [5.0, 6.0], "c": 7.0}):
        curves = training._longer(curves, row)
    n = np.nan
    right = {"a": [1, 2, n], "b": [[n, n], [3, 4], [5, 6]], "c": [n, n, 7]}
    assert curves.keys() == right.keys()
    for name, curve in right.items():
        np.testing.assert_array_equal(curves[name], curve)


def test_it_learns_and_a_network_without_policies_has_plain_curves(small_data, tmp_path):
    experiment = plain.Settings(name="plain", n_units=(12,), n_epochs=8)
    record = training.train(experiment, tmp_path / "run.hdf5", data=small_data, **QUIET)
    assert record.curves["train_nll"][-1] < 0.5 * record.curves["train_nll"][0]
    assert record.curves["valid_error"].shape == record.curves["test_error"].shape == (8,)
    assert record.curves["test_error"][-1] < 0.3  # chance is 0.75
    assert record.curves.keys() == {"train_nll", "valid_error", "test_error", "epoch_seconds"}
    assert set(record.best) == {"W_1", "b_1", "W_out", "b_out"}


def test_same_seed_same_bits_and_another_seed_other_bits(
    stateful, uninterrupted, small_data, tmp_path
):
    again = training.train(stateful, tmp_path / "again.hdf5", data=small_data, **QUIET)
    assert_same_run(again, uninterrupted)
    other = training.train(
        stateful.replace(seed=2), tmp_path / "other.hdf5", data=small_data, **QUIET
    )
    assert not np.array_equal(other.curves["train_nll"], uninterrupted.curves["train_nll"])


@pytest.mark.parametrize("interrupted_at", [1, 17, 13 * 2 + 1])
def test_interrupted_and_resumed_equals_uninterrupted(
    interrupted_at, stateful, uninterrupted, small_data, tmp_path, monkeypatch
):
    path = tmp_path / "run.hdf5"
    updates = iter(range(1, 1000))

    def interrupt(_bar):
        if next(updates) == interrupted_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.ProgressBar, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.train(stateful, path, data=small_data, **QUIET)
    epochs_done = (interrupted_at - 1) // 13
    if epochs_done == 0:
        assert not path.exists()
    else:
        saved = records.read(path)
        assert saved.attributes["status"] == "unfinished"
        assert len(saved.curves["train_nll"]) == epochs_done
    assert_same_run(training.train(stateful, path, data=small_data, **QUIET), uninterrupted)


def in_blocks(experiment, **changes):
    """Return the experiment with one layer, for mini-batches of one block."""
    fields = dataclasses.asdict(experiment) | {"n_units": (12,), "instances_per_block": 20}
    return block_policy.Settings(**fields | changes)


@pytest.mark.parametrize("execution", ["dense", "block-sparse"])
def test_blocks_interrupted_and_resumed(execution, stateful, small_data, tmp_path, monkeypatch):
    """One block a mini-batch, the last shorter; its evaluation is repeated, and with other blocks.

    250 examples for training, 50 for validation.
    """
    options = QUIET | {"execution": execution, "backend": "python"}
    experiment = in_blocks(stateful, n_epochs=2, units_per_block=5)
    whole = training.train(experiment, tmp_path / "whole.hdf5", data=small_data, **options)
    assert whole.best["Z_1"].shape[1] == 3 and whole.best["W_1"].shape[1] == 12
    updates = iter(range(1, 1000))

    def interrupt(_bar):
        if next(updates) == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.ProgressBar, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.train(experiment, tmp_path / "run.hdf5", data=small_data, **options)
    record = training.train(experiment, tmp_path / "run.hdf5", data=small_data, **options)
    assert_same_run(record, whole)
    options["execution"] = "dense" if execution == "block-sparse" else "block-sparse"
    with pytest.raises(RecordError, match="execution differ"):
        training.train(experiment, tmp_path / "run.hdf5", data=small_data, **options)
    valid = datasets.load(small_data).valid
    as_trained = load_evaluation(record)(valid)
    assert_recorded(as_trained.errors, whole, "valid")
    other = load_evaluation(record, instances_per_block=1)(valid)
    assert other.active_fraction["expected"] != as_trained.active_fraction["expected"]
    for wrong in (0, 2.5, "2"):
        with pytest.raises(ExperimentError, match=f"a whole number, 1 or more, not {wrong!r}"):
            load_evaluation(record, instances_per_block=wrong)


def test_killed_at_random_and_resumed_equals_uninterrupted(stateful, small_data, tmp_path):
    """kill -9, five times at random instants while the record is rewritten every epoch."""
    path, experiment = tmp_path / "run.hdf5", stateful.replace(n_epochs=400)
    whole = training.train(experiment, tmp_path / "whole.hdf5", data=small_data, **QUIET)
    script = textwrap.dedent(
        f"""
        from reinforce_dropout import systems
        from reinforce_dropout.running import training
        training.SECONDS_BETWEEN_WRITES = 0
        training.train(systems.from_dict({experiment.as_dict()!r}), {str(path)!r},
                       data={str(small_data)!r}, show_progress=False, n_threads=1)
        """
    )
    random, kills = np.random.default_rng(0), 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", script])
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 5
    assert records.read(path).attributes["status"] == "unfinished"
    assert_same_run(training.train(experiment, path, data=small_data, **QUIET), whole)


def test_finished_run_is_returned_and_left_alone(stateful, uninterrupted, small_data, tmp_path):
    path = tmp_path / "run.hdf5"
    records.write(path, uninterrupted)
    before = path.stat()
    assert_same_run(training.train(stateful, path, data=small_data, **QUIET), uninterrupted)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_another_run_is_refused(stateful, uninterrupted, small_data, tmp_path):
    path = tmp_path / "run.hdf5"
    records.write(path, uninterrupted)
    with pytest.raises(RecordError, match=r"holds another run \(seed, lam differ\)"):
        training.train(stateful.replace(lam=1, seed=3), path, data=small_data, **QUIET)
    other_data = write_dataset(tmp_path / "other", n_train=300, n_test=90, seed=5)
    with pytest.raises(RecordError, match=r"\(data_sha256 differ\)"):
        training.train(stateful, path, data=other_data, **QUIET)
    assert_same_run(records.read(path), uninterrupted)


def test_unfinished_without_checkpoint_is_refused(stateful, uninterrupted, small_data, tmp_path):
    path = tmp_path / "run.hdf5"
    unfinished = uninterrupted.attributes | {"status": "unfinished"}
    records.write(path, dataclasses.replace(uninterrupted, attributes=unfinished))
    with pytest.raises(RecordError, match="has no checkpoint: train into another file"):
        training.train(stateful, path, data=small_data, **QUIET)


def test_second_process_on_a_path_is_refused(stateful, small_data, tmp_path):
    with records.lock(tmp_path / "run.hdf5"), pytest.raises(RecordError, match="another process"):
        training.train(stateful, tmp_path / "run.hdf5", data=small_data, **QUIET)


def test_read_only_record_is_refused(stateful, uninterrupted, small_data, tmp_path):
    path = tmp_path / "run.hdf5"
    records.write(path, uninterrupted)
    os.chmod(path, 0o444)
    with pytest.raises(RecordError, match="read-only"):
        training.train(stateful, path, data=small_data, **QUIET)


def test_full_disk_keeps_the_last_record(stateful, small_data, tmp_path, monkeypatch):
    path, writes, write = tmp_path / "run.hdf5", [], records.write

    def full_from_the_third(path, record):
        writes.append(record)
        if len(writes) > 2:
            raise RecordError("cannot write (No space left on device): make room on its disk")
        write(path, record)

    monkeypatch.setattr(training, "SECONDS_BETWEEN_WRITES", 0)
    monkeypatch.setattr(records, "write", full_from_the_third)
    with pytest.raises(RecordError, match="make room"):
        training.train(stateful, path, data=small_data, **QUIET)
    assert len(records.read(path).curves["train_nll"]) == 2


def test_divergence_names_the_step_and_keeps_the_last_good_state(
    stateful, small_data, tmp_path, monkeypatch
):
    path, run, runs = tmp_path / "run.hdf5", Epochs.run, []

    def damaged(self, on_update):
        if runs:
            arrays, generators = self.state()
            nothing = np.full_like(arrays["W_out"], np.nan)
            self.restore(arrays | {"W_out": nothing}, generators)
        runs.append(self)
        return run(self, on_update)

    monkeypatch.setattr(Epochs, "run", damaged)
    with pytest.raises(DivergenceError, match="mini-batch 1 of epoch 2; .* lower learning_rate"):
        training.train(stateful, path, data=small_data, **QUIET)
    saved = records.read(path)
    assert len(saved.curves["train_nll"]) == 1
    assert all(np.isfinite(value).all() for value in saved.checkpoint.values())


def test_divergence_in_the_first_epoch_names_no_file(stateful, small_data, tmp_path, monkeypatch):
    def diverge(*_):
        raise DivergenceError("the loss is not finite at mini-batch 1")

    path = tmp_path / "run.hdf5"
    monkeypatch.setattr(Epochs, "run", diverge)
    with pytest.raises(DivergenceError, match="of epoch 1; nothing is saved: lower") as caught:
        training.train(stateful, path, data=small_data, **QUIET)
    assert str(path) not in str(caught.value) and not path.exists()


@pytest.fixture
def unfinished(stateful, small_data, tmp_path, monkeypatch):
    """Path of a run that was interrupted in its second epoch."""
    path, updates = tmp_path / "unfinished.hdf5", iter(range(1, 100))

    def interrupt(_bar):
        if next(updates) == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.ProgressBar, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.train(stateful, path, data=small_data, **QUIET)
    return path


def fewer_rows(record):
    record.checkpoint["W_1"] = record.checkpoint["W_1"][:5]


def other_average(record):
    (name,) = record.checkpoint.keys() - record.best.keys() - {"average_2"}
    record.checkpoint[name] = np.zeros(3, "float32")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (fewer_rows, r"W_1 must be float32 \(64, 12\) and is float32 \(5, 12\)"),
        (lambda r: r.checkpoint.pop("o_2"), r"o_2 must be float32 \(9,\) and is missing"),
        (other_average, r"must be float32 \(\) and is float32 \(3,\)"),
        (lambda r: r.checkpoint_state.pop("generators"), "has a checkpoint that is not of its"),
        (lambda r: r.checkpoint_state["generators"].pop("masks"), "has a checkpoint that is not"),
        (lambda r: r.checkpoint_state["patience"].update(other=1), "has a checkpoint that is not"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(
    spoil, message, stateful, unfinished, small_data
):
    record = records.read(unfinished)
    spoil(record)
    records.write(unfinished, record)
    with pytest.raises(RecordError, match=message):
        training.train(stateful, unfinished, data=small_data, **QUIET)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda best: best.update(W_2=best["W_2"][:, :3]),
        lambda best: best.update(b_1=best["b_1"].astype("int32")),
        lambda best: best.update(W_1=np.float32(1)),
        lambda best: best.pop("Z_1"),
        lambda best: best.clear(),
    ],
)
def test_a_best_model_of_another_network_is_refused(spoil, uninterrupted):
    best = dict(uninterrupted.best)
    spoil(best)
    with pytest.raises(RecordError, match="of its experiment: train"):
        load_evaluation(dataclasses.replace(uninterrupted, best=best))


def test_a_continuation_under_other_facts_is_recorded_and_told(
    stateful, unfinished, small_data, monkeypatch, caplog
):
    began = records.read(unfinished).attributes
    collect = training.provenance.collect
    other = {"git_commit": "0" * 40, "command": "another command"}
    monkeypatch.setattr(training.provenance, "collect", lambda command: collect(command) | other)
    record = training.train(stateful, unfinished, data=small_data, **QUIET)
    assert record.attributes["git_commit"] == began["git_commit"]
    (resumed,) = records.read(unfinished).attributes["resumed"]
    assert resumed.items() >= other.items() and began["started"] <= resumed["time"]
    assert resumed.keys() == {"time", *other}
    (told,) = (r.getMessage() for r in caplog.records)
    assert "although git_commit differ" in told


def test_a_continuation_under_the_same_facts_is_recorded_without_a_word(
    stateful, unfinished, small_data, caplog
):
    record = training.train(stateful, unfinished, data=small_data, **QUIET)
    (resumed,) = record.attributes["resumed"]
    assert resumed.keys() == {"time"} and not caplog.records


def test_sizes_that_do_not_suit_the_data_are_refused(small_experiment, small_data, tmp_path):
    path = tmp_path / "run.hdf5"
    with pytest.raises(ExperimentError, match="batch_size is 251 .* set it to 250 or less"):
        training.train(small_experiment.replace(batch_size=251), path, data=small_data, **QUIET)
    with pytest.raises(ExperimentError, match="set patience to 52"):
        training.train(small_experiment.replace(patience=25), path, data=small_data, **QUIET)
    assert not path.exists()


def test_patience_ends_the_run(small_data, tmp_path):
    experiment = plain.Settings(n_units=(6,), learning_rate=0, patience=39, n_epochs=50)
    record = training.train(experiment, tmp_path / "run.hdf5", data=small_data, **QUIET)
    assert record.attributes["stopped_by"] == "patience"
    assert len(record.curves["train_nll"]) == 3  # 39 updates: the fourth epoch would end at 52
    assert record.best_attributes["epoch"] == 1


def test_evaluation_repeats_the_recorded_errors(stateful, uninterrupted, small_data):
    dataset, evaluate = datasets.load(small_data), load_evaluation(uninterrupted)
    for part in ("valid", "test"):
        assert_recorded(evaluate(getattr(dataset, part)).errors, uninterrupted, part)


def test_evaluation_takes_the_backend_of_the_run(uninterrupted, monkeypatch):
    taken, mode = [], backends.mode
    monkeypatch.setattr(backends, "mode", lambda name, **_: taken.append(name) or mode("numba"))
    run = dataclasses.replace(uninterrupted, attributes=uninterrupted.attributes | {"backend": "c"})
    monkeypatch.setattr(backends.c, "check", lambda: None)
    load_evaluation(run)
    load_prediction(run)
    assert taken == ["c", "c"]


def test_a_backend_that_does_not_work_here_is_replaced_with_a_warning(
    uninterrupted, small_data, monkeypatch, caplog
):
    def missing():
        raise BackendError("there is no compiler: install one.")

    run = dataclasses.replace(uninterrupted, attributes=uninterrupted.attributes | {"backend": "c"})
    monkeypatch.setattr(backends.c, "check", missing)
    evaluate = load_evaluation(run)
    (told,) = (r.getMessage() for r in caplog.records)
    assert told.startswith("Another backend is taken than") and "install one" in told
    assert_recorded(evaluate(datasets.load(small_data).test).errors, uninterrupted, "test")


def test_jax_trains_blocks_densely_and_says_so(stateful, small_data, tmp_path, caplog):
    pytest.importorskip("jax")
    experiment = in_blocks(stateful, n_epochs=1)
    options = QUIET | {"backend": "jax", "execution": "block-sparse"}
    record = training.train(experiment, tmp_path / "run.hdf5", data=small_data, **options)
    assert record.attributes["execution"] == "dense"
    (told,) = (r.getMessage() for r in caplog.records)
    assert told == "The backend jax has no block-sparse execution: the dense one is taken instead."
