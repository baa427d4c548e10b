"""Training: runs epochs until early stopping, and keeps the record of the run."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np

from reinforce_dropout import backends, datasets, interrupts, provenance, records, threads
from reinforce_dropout.block_sparse import EXECUTIONS, warn_that_jax_is_dense
from reinforce_dropout.early_stopping import Patience
from reinforce_dropout.errors import DivergenceError, ExperimentError, RecordError
from reinforce_dropout.evaluation import error_by_rule
from reinforce_dropout.experiment import Experiment
from reinforce_dropout.progress import ProgressBar
from reinforce_dropout.records import Record
from reinforce_dropout.trainer import Trainer

SECONDS_BETWEEN_WRITES = 5.0


def train(
    experiment, path, *, data="mnist", backend="auto", execution="dense", n_threads=None,
    command=(), show_progress=True, row=0, before_epoch=lambda: None,
):  # fmt: skip
    """Train until early stopping or the last epoch, keeping the record at `path`.

    A path that holds an unfinished run of the same experiment is resumed. With the same code on the
    same processor it ends with the very numbers of a run that was never stopped; else a warning
    says what differs, and the record keeps it. A finished run is returned as it is.

    Parameters
    ----------
    experiment : Experiment
    path : path
        Record file to write.
    data : str or path
        "mnist", or a folder of IDX files, see `datasets.load`.
    backend : str
        See `backends.resolve`.
    execution : {"dense", "block-sparse"}
        Block-sparse training touches only the units in use, where every mini-batch is one block:
        the same updates but for rounding. The backend jax, which has no code for it, stays dense.
    n_threads : int, optional
        Threads of the linear algebra; by default as many as the machine offers. A resumed run
        keeps the number it began with, as the rounding of sums depends on it.
    command : sequence of str
        What the user typed, for the record.
    show_progress : bool
    row : int
        See `progress.ProgressBar`.
    before_epoch : callable
        Called before every epoch, for what changes no number: see `threads.use_in_kernels`.

    Returns
    -------
    records.Record

    Raises
    ------
    ReinforceDropoutError
        One sentence on what is wrong and how to mend it: see `errors`.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after the last whole epoch has been saved.
    """
    backend = backends.resolve(backend)
    check_execution(experiment, execution)
    if (backend, execution) == ("jax", "block-sparse"):
        warn_that_jax_is_dense()
        execution = "dense"
    records.refuse_unwritable(path)
    with records.lock(path):
        dataset = datasets.load(data, experiment.validation_fraction)
        check_fit(experiment, dataset)
        with threads.limited(n_threads):
            facts = provenance.collect(command or [sys.executable])
        record = _begin_or_continue(path, experiment, dataset, backend, execution, facts)
        if record.attributes["status"] == "finished":
            return record
        with threads.limited(record.attributes["n_threads"]):
            trainer = Trainer(experiment, dataset, backends.mode(backend), execution)
            bar = ProgressBar(experiment, backend, show_progress, row)
            try:
                with interrupts.deferred() as pending:
                    return _run(trainer, dataset, record, path, bar, pending, before_epoch)
            finally:
                bar.close()


def check_execution(experiment, execution):
    """Refuse an execution that does not suit the experiment.

    Raises
    ------
    ExperimentError
    """
    if execution not in EXECUTIONS:
        raise ExperimentError(
            f"there is no execution {execution!r}; there are {' and '.join(EXECUTIONS)}."
        )
    if execution == "block-sparse" and 2 * experiment.learning_rate * experiment.l2 >= 1:
        raise ExperimentError(
            "block-sparse training divides the weights by what 2 learning_rate l2 leaves of them, "
            "which must be less than 1: lower learning_rate or l2, or leave the execution dense."
        )
    size = experiment.batch_size
    if execution == "block-sparse" and not (experiment.instances_per_block == size > 1):
        raise ExperimentError(
            "block-sparse training needs mini-batches of one block: set instances_per_block to "
            f"batch_size ({size}), or leave the execution dense."
        )


def check_fit(experiment, dataset):
    """Refuse an experiment whose mini-batches or patience do not suit the size of the data.

    Raises
    ------
    ExperimentError
    """
    n = len(dataset.train)
    if experiment.batch_size > n:
        raise ExperimentError(
            f"batch_size is {experiment.batch_size} but there are {n} training examples: "
            f"set it to {n} or less."
        )
    n_batches = -(-n // experiment.batch_size)
    if experiment.patience < 2 * n_batches and experiment.n_epochs > 1:
        raise ExperimentError(
            f"a patience of {experiment.patience} updates ends before two epochs of {n_batches} "
            f"mini-batches: set patience to {4 * n_batches} (four epochs, as for MNIST)."
        )


def _begin_or_continue(path, experiment, dataset, backend, execution, facts):
    """Return the record at `path` when it is of this very run, or a new one."""
    attributes = {
        "experiment": experiment.as_dict(),
        "seed": experiment.seed,
        "status": "unfinished",
        "stopped_by": "",
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "backend": backend,
        "execution": execution,
        **facts,
        "started": provenance.now(),
        "ended": "",
    }
    if not Path(path).exists():
        return Record(attributes, {}, {}, {}, {}, {})
    record = records.read(path)
    found = {"execution": "dense"} | record.attributes  # older records do not say
    differing = list(experiment.differences(Experiment.from_dict(found["experiment"])))
    own = ("data_sha256", "backend", "execution")
    differing += [name for name in own if found[name] != attributes[name]]
    if differing:
        raise RecordError(
            f"{path} holds another run ({', '.join(differing)} differ): "
            "give the settings it was made with, or name another file."
        )
    if record.checkpoint is None and found["status"] != "finished":
        raise RecordError(f"{path} is unfinished but has no checkpoint: train into another file.")
    if found["status"] == "finished":
        return record
    resumed = provenance.resume(record.attributes, facts)
    return dataclasses.replace(record, attributes=record.attributes | resumed)


def _run(trainer, dataset, record, path, bar, pending, before_epoch):
    """Run epochs until the patience or the number of epochs ends, writing `record` to `path`."""
    experiment = trainer.experiment
    patience = Patience(
        experiment.patience, experiment.patience_increase, experiment.improvement_threshold
    )
    epoch = 0
    if record.checkpoint:
        try:
            epoch = record.checkpoint_state["epoch"]
            patience = Patience(**record.checkpoint_state["patience"])
            trainer.restore(record.checkpoint, record.checkpoint_state["generators"])
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(
                f"{path} has a checkpoint that is not of its experiment: train into another file."
            ) from error
        bar.errors(record.curves)
    written, written_at = record, time.monotonic()

    def on_update():
        bar.update()
        pending.check()

    try:
        while epoch < experiment.n_epochs and patience.allows((epoch + 1) * trainer.n_batches):
            before_epoch()
            began = time.monotonic()
            bar.epoch(epoch + 1, epoch * trainer.n_batches, *_plan(trainer, patience))
            statistics = trainer.run_epoch(on_update)
            epoch += 1
            valid, test = trainer.evaluate(dataset.valid), trainer.evaluate(dataset.test)
            row = _curve_row(statistics, valid, test, time.monotonic() - began)
            record = _after_epoch(record, trainer, patience, epoch, row)
            bar.errors(record.curves)
            if time.monotonic() - written_at >= SECONDS_BETWEEN_WRITES:
                records.write(path, record)
                written, written_at = record, time.monotonic()
    except DivergenceError as error:
        kept = f"{path} keeps the state after epoch {epoch}" if epoch else "nothing is saved"
        raise DivergenceError(
            f"{error} {epoch + 1}; {kept}: "
            f"lower learning_rate{' or policy_learning_rate' if experiment.policy else ''} "
            "and train into another file."
        ) from None
    finally:
        if record is not written:
            records.write(path, record)
    stopped_by = "n_epochs" if epoch == experiment.n_epochs else "patience"
    ends = {"status": "finished", "stopped_by": stopped_by, "ended": provenance.now()}
    record = dataclasses.replace(
        record, attributes=record.attributes | ends, checkpoint=None, checkpoint_state=None
    )
    records.write(path, record)
    return record


def _plan(trainer, patience):
    """Return the updates that will be done as things stand, and those of one epoch."""
    n_batches = trainer.n_batches
    epochs = min(trainer.experiment.n_epochs, (patience.patience + 1) // n_batches)
    return epochs * n_batches, n_batches


def _curve_row(statistics, valid, test, seconds):
    """Return an epoch's entry of every curve, by name."""
    row = {
        "train_nll": statistics[0],
        "valid_error": valid.errors,
        "test_error": test.errors,
        "epoch_seconds": seconds,
    }
    if len(statistics) > 1:
        row["active_fraction"], row["policy_entropy"] = np.split(statistics[1:], 2)
    return row


def _after_epoch(record, trainer, patience, epoch, row):
    """Return the record with one more epoch: a new object: an interrupt finds a whole one."""
    curves = {
        name: np.concatenate([record.curves.get(name, np.empty((0, *np.shape(v)))), [v]])
        for name, v in row.items()
    }
    best, best_attributes = record.best, record.best_attributes
    valid_error, test_error = (
        float(error_by_rule(row[f"{name}_error"], trainer.experiment)) for name in ("valid", "test")
    )
    if patience.improved(valid_error, epoch * trainer.n_batches):
        best = trainer.network.values()
        best_attributes = {"epoch": epoch, "valid_error": valid_error, "test_error": test_error}
    state = {
        "epoch": epoch,
        "patience": dataclasses.asdict(patience),
        "generators": trainer.generator_states(),
    }
    # Through JSON, so that the state is a copy: the generators' own dictionaries live on.
    state = json.loads(json.dumps(state))
    return Record(record.attributes, curves, best, best_attributes, trainer.state(), state)
