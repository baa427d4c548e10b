"""Training: run epochs until early stopping, and keep the record of the run."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reinforce_dropout import backends, systems
from reinforce_dropout.errors import DivergenceError, ExperimentError, RecordError
from reinforce_dropout.results import provenance, records
from reinforce_dropout.results.records import Record
from reinforce_dropout.running import datasets, interrupts, threads
from reinforce_dropout.running.early_stopping import Patience
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.running.evaluation import decisive_rule, error_rates
from reinforce_dropout.running.progress import ProgressBar
from reinforce_dropout.systems import Experiment
from reinforce_dropout.systems.learner import make_learner

SECONDS_BETWEEN_WRITES = 5.0


def train(
    experiment: Experiment,
    path: str | os.PathLike,
    *,
    data: str | os.PathLike | tuple = "mnist",
    backend: str = "auto",
    execution: str = "dense",
    n_threads: int | None = None,
    command: Sequence[str] = (),
    show_progress: bool = True,
    bar: Any = None,
    before_epoch: Callable[[], None] = lambda: None,
    follow_load: bool | None = None,
) -> Record:
    """Train until early stopping or the last epoch, and keep the record at `path`.

    If `path` holds an unfinished run of the same experiment, it is resumed. With the same code on
    the same processor, its numbers are those of a run that was never stopped. Otherwise a warning
    says what differs, and the record keeps it. A finished run is returned as it is.

    Parameters
    ----------
    experiment : Experiment
    path : path
        Record file to write.
    data : str, path or tuple of arrays
        A name such as "mnist", a file or folder, or arrays ``(X, y)``, see `datasets.load`. The
        experiment's settings say how it is split.
    backend : str
        See `backends.resolve`.
    execution : {"dense", "block-sparse"}
        Block-sparse training touches only the units in use. Every mini-batch must be one block, or
        every instance must have masks over groups of 16 units. The updates are the same except for
        rounding. The backend jax always trains densely.
    n_threads : int, optional
        Threads of the linear algebra, by default as many as the machine offers. Under numba fewer
        are used while that is faster, see `native.adaptive`. A resumed run keeps the number it
        began with, because the rounding of sums depends on it. Under numba rounding does not
        depend on it, and a resumed run takes the number that is given.
    command : sequence of str
        What the user typed, for the record.
    show_progress : bool
    bar : optional
        Has the methods of `progress.ProgressBar`; used instead of a bar on stderr.
    before_epoch : callable
        Called before every epoch. It must change no number, such as `threads.use_in_kernels`.
    follow_load : bool, optional
        Whether kernels may use fewer threads than `n_threads` while that is faster; by default if
        `n_threads` is None.

    Returns
    -------
    records.Record

    Raises
    ------
    ReinforceDropoutError
        One sentence says what is wrong and how to fix it: see `errors`.
    KeyboardInterrupt
        On Ctrl-C or SIGTERM, after the last whole epoch has been saved.

    Examples
    --------
    >>> from reinforce_dropout import preset, train
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.random((60, 4)), np.arange(60) % 2
    >>> experiment = preset("policy-500").replace(n_units=(5,), n_epochs=2)
    >>> quick = {"backend": "python", "show_progress": False}
    >>> record = train(experiment, "run.hdf5", data=(X, y), **quick)
    >>> record.curves["active_fraction"].shape
    (2, 1)
    """
    backend = backends.resolve(backend)
    execution = backends.execution(backend, execution)
    records.refuse_unwritable(path)
    with records.lock(path):
        dataset = datasets.load_for(experiment, data)
        check_fit(experiment, dataset)
        system = systems.build_for_training(
            experiment, dataset.image_shape, dataset.n_classes, execution
        )
        with threads.limited(n_threads):
            facts = provenance.collect(command or [sys.executable])
        record = _begin_or_continue(path, experiment, dataset, backend, execution, facts)
        if record.attributes["status"] == "finished":
            return record
        if not record.checkpoint:
            system.prepare(records.read)
        began_with = record.attributes["n_threads"]
        # Under Numba no bit depends on the number of threads, so a resumed run may have another.
        with threads.limited(n_threads if n_threads and backend == "numba" else began_with):
            adaptive = n_threads is None if follow_load is None else follow_load
            mode = backends.mode(backend, adaptive=adaptive)
            learner = make_learner(system, experiment, mode)
            bar = bar or ProgressBar(experiment.name, backend, show_progress)
            try:
                with interrupts.deferred() as pending:
                    return _run(
                        experiment, learner, dataset, record, path, bar, pending, before_epoch
                    )
            finally:
                bar.close()


def check_fit(experiment, dataset):
    """Refuse an experiment whose mini-batches or patience do not suit the size of the data."""
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
    """Return the record at `path` if it is of this run, or a new one."""
    attributes = {
        "experiment": experiment.as_dict(),
        "seed": experiment.seed,
        "status": "unfinished",
        "stopped_by": "",
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "dimensions": {
            "image_shape": dataset.image_shape,
            "n_classes": dataset.n_classes,
            "class_names": dataset.class_names,
        },
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
    differing = list(experiment.differences(systems.from_dict(found["experiment"])))
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


def _run(experiment, learner, dataset, record, path, bar, pending, before_epoch):
    """Run epochs until the patience or the number of epochs ends, writing `record` to `path`."""
    epochs = Epochs(learner, dataset.train, experiment)
    patience = Patience(
        experiment.patience, experiment.patience_increase, experiment.improvement_threshold
    )
    if record.checkpoint:
        try:
            state = record.checkpoint_state
            patience = Patience(**state["patience"])
            epochs.restore(record.checkpoint, state["generators"])
            epochs.n_done = state["epoch"]
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
        while goes_on(experiment, epochs, patience):
            before_epoch()
            began = time.monotonic()
            allowed = _uncounted(experiment) + (patience.patience + 1) // epochs.n_batches
            planned = min(experiment.n_epochs, allowed)
            bar.epoch(epochs.n_done + 1, planned, epochs.n_batches)
            row = epochs.run(on_update)
            errors, improved = _errors(experiment, dataset, epochs, patience)
            row |= errors | {"epoch_seconds": time.monotonic() - began}
            record = _after_epoch(record, epochs, patience, row, improved)
            bar.errors(record.curves)
            if time.monotonic() - written_at >= SECONDS_BETWEEN_WRITES:
                records.write(path, record)
                written, written_at = record, time.monotonic()
    except DivergenceError as error:
        n = epochs.n_done
        kept = f"{path} keeps the state after epoch {n}" if n else "nothing is saved"
        raise DivergenceError(
            f"{error} of epoch {n + 1}; {kept}: lower {_rates(experiment)} "
            "and train into another file."
        ) from None
    finally:
        if record is not written:
            records.write(path, record)
    stopped_by = "n_epochs" if epochs.n_done == experiment.n_epochs else "patience"
    ends = {"status": "finished", "stopped_by": stopped_by, "ended": provenance.now()}
    record = dataclasses.replace(
        record, attributes=record.attributes | ends, checkpoint=None, checkpoint_state=None
    )
    records.write(path, record)
    return record


def goes_on(experiment, epochs, patience):
    """Whether one more epoch is to be run."""
    n = epochs.n_done + 1
    n_updates = (n - _uncounted(experiment)) * epochs.n_batches
    return n <= experiment.n_epochs and patience.allows(n_updates)


def _uncounted(experiment):
    """Return the number of epochs before early stopping begins to count."""
    return experiment.first_counted_epoch - 1


def _rates(experiment):
    """Name the learning rates of an experiment."""
    names = (field.name for field in dataclasses.fields(experiment))
    return " or ".join(name for name in names if name.endswith("learning_rate"))


def _errors(experiment, dataset, epochs, patience):
    """Return the errors after an epoch by the name of their curves, and whether it is the best.

    Early stopping needs one rule and the validation set. All rules and the test set take several
    times as long. So they are evaluated only for a new best model and at the end.
    """
    learner = epochs.learner
    decisive = decisive_rule(experiment, learner.rules)
    others = [rule for rule in learner.rules if rule != decisive]
    rates = {"valid": error_rates(learner, dataset.valid, [decisive]), "test": {}}
    n_updates = (epochs.n_done - _uncounted(experiment)) * epochs.n_batches
    improved = n_updates > 0 and patience.improved(rates["valid"][decisive], n_updates)
    if experiment.evaluate_all or improved or not goes_on(experiment, epochs, patience):
        rates["valid"] |= error_rates(learner, dataset.valid, others)
        rates["test"] = error_rates(learner, dataset.test, [decisive])
        rates["test"] |= error_rates(learner, dataset.test, others)
    row = {f"{part}_error": found.get(decisive, np.nan) for part, found in rates.items()}
    if others:
        for part, found in rates.items():
            row |= {f"{part}_error_{rule}": error for rule, error in found.items()}
    return row, improved


def _longer(curves, row):
    """Return the curves with one more epoch; NaN where an epoch has no such entry."""
    n_epochs = max(map(len, curves.values()), default=0)
    longer = {}
    for name in curves | row:
        shape = np.shape(row[name]) if name in row else curves[name].shape[1:]
        nothing = np.full(shape, np.nan)
        before = curves.get(name, np.broadcast_to(nothing, (n_epochs, *shape)))
        longer[name] = np.concatenate([before, [row.get(name, nothing)]])
    return longer


def _after_epoch(record, epochs, patience, row, improved):
    """Return a new record with one more epoch. So an interrupt never sees a half-updated one."""
    epoch, curves = epochs.n_done, _longer(record.curves, row)
    best, best_attributes = record.best, record.best_attributes
    if improved:
        best = epochs.learner.parameters()
        best_attributes = {"epoch": epoch} | {k: row[k] for k in ("valid_error", "test_error")}
    arrays, generators = epochs.state()
    state = {
        "epoch": epoch,
        "patience": dataclasses.asdict(patience),
        "generators": generators,
    }
    # A copy by way of JSON, because the generators go on changing their own dictionaries.
    state = json.loads(json.dumps(state))
    return Record(record.attributes, curves, best, best_attributes, arrays, state)
