"""Many runs, each to a record of its own in one folder: on this machine or on a Dask cluster."""

import contextlib
import functools
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
from tqdm import tqdm

from reinforce_dropout import backends
from reinforce_dropout.errors import RecordError, RecordInUseError, SweepError
from reinforce_dropout.results import records
from reinforce_dropout.running import apart, cluster, datasets
from reinforce_dropout.running.apart import Outcome
from reinforce_dropout.running.grid import Run, work
from reinforce_dropout.running.progress import NON_TERMINAL_INTERVAL, ProgressBar

N_THREADS = 1
"""Of BLAS in each run, because the rounding of its sums depends on the number.

Our own kernels may have more threads, because no bit depends on their number."""

MOST_THREADS = 4
"""Of one run's kernels. More threads have not been measured with mini-batches of 20."""


def sweep(
    runs: Sequence[Run], folder: str | os.PathLike, *, jobs=None, scheduler=None, data="mnist",
    backend="auto", execution="dense", curves_only=False, command=(), show_progress=True,
) -> dict[str, Outcome]:  # fmt: skip
    """Train all runs that are not finished yet, and keep their records in a folder.

    Unfinished runs are resumed. A run that fails does not stop the others. Ctrl-C and SIGTERM let
    all runs save their state.

    Parameters
    ----------
    runs : sequence of grid.Run
    folder : path
        Made if needed. The record of a run is ``NAME.hdf5`` in it.
    jobs : int, optional
        Runs at once on this machine, by default one for each processor core.
    scheduler : str, optional
        Address of a Dask scheduler. Its workers train instead of this machine.
    data, backend, execution, command
        See `training.train`. A run's own `grid.Run.options` come first.
    curves_only : bool
        Whether to keep finished records without parameters, see `records.Record.curves_only`.
    show_progress : bool

    Returns
    -------
    dict from str to apart.Outcome
        By the name of the run.

    Raises
    ------
    ReinforceDropoutError
        The folder cannot be written, data or backend are missing, or see `cluster.workers`.
    """
    folder = make_folder(folder)
    backend = backends.resolve(backend)
    common = {"data": os.fspath(data), "backend": backend, "execution": execution}
    finished = _Finished(common)
    outcomes, waiting = {}, {}
    for run in sorted(runs, key=work, reverse=True):  # long runs first, so none is left at the end
        path = folder / f"{run.name}.hdf5"
        if finished.is_at(path, run):
            outcomes[run.name] = Outcome("finished")
            continue
        waiting[run.name] = {
            "preset": run.preset, "settings": run.settings, "path": str(path), **common,
            **run.options, "n_threads": N_THREADS, "command": list(command),
        }  # fmt: skip
    messages = queue.SimpleQueue()  # may be filled in a signal's handler

    def tell(*message):
        messages.put(message)

    if scheduler is None:
        place = _processes(waiting, jobs or joblib.cpu_count(), tell)
    else:
        place = cluster.workers(scheduler, waiting, tell)
    with (
        _signals(tell),
        place as stop,
        contextlib.closing(_Lines(runs, len(outcomes), backend, show_progress)) as lines,
    ):
        while len(outcomes) < len(runs):
            name, message = messages.get()
            if name is None:
                lines.say("Interrupted: every run saves what it has ...")
                stop()
            elif isinstance(message, Outcome):
                outcomes[name] = message
                lines.end(name, message)
            else:
                lines.show(name, message)
    if curves_only:
        for run in runs:
            if outcomes[run.name].how == "finished":
                _shrink(folder / f"{run.name}.hdf5")
    return {run.name: outcomes[run.name] for run in runs}


def make_folder(folder):
    """Return a folder to write in as a path, made if needed."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(
            f"cannot make the folder {folder} ({error.strerror}): choose another."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SweepError(f"the folder {folder} cannot be written in: choose another.")
    return folder


class _Finished:
    """Tells which runs need no process: there is a finished record of the same settings."""

    def __init__(self, common):
        self._common = common
        self._digest = functools.cache(lambda data: datasets.load(data).sha256)

    def is_at(self, path, run):
        """Whether `path` holds the finished run. `training.train` decides about doubtful ones."""
        if not path.exists():
            return False
        try:
            attributes = records.read(path).attributes
        except RecordError:
            return False
        options = self._common | run.options
        wanted = {
            "backend": options["backend"],
            "execution": options["execution"],
            "experiment": run.experiment().as_dict(),
            "data_sha256": self._digest(options["data"]),
            "status": "finished",
        }
        return wanted.items() <= attributes.items()


def _shrink(path):
    record = records.read(path)
    if record.best:
        # Another process that holds it, such as a sweep, has just found it finished, too.
        with contextlib.suppress(RecordInUseError), records.lock(path):
            records.write(path, record.curves_only())


@contextlib.contextmanager
def _signals(tell):
    """Turn SIGINT and SIGTERM into calls ``tell(None, None)`` instead of ending."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, lambda *_: tell(None, None))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _processes(jobs, n_at_once, tell):
    """Start jobs on this machine, `n_at_once` at a time; see `cluster.workers`."""
    stop = threading.Event()
    left = set(jobs)
    cores = joblib.cpu_count()

    def n_threads():
        return min(MOST_THREADS, max(1, cores // max(1, min(n_at_once, len(left)))))

    def train(name):
        try:
            outcome = apart.run(
                jobs[name], lambda message: tell(name, message), n_threads, stop.is_set
            )
        except Exception as error:
            outcome = Outcome("failed", f"its process could not be run ({error}).")
        left.discard(name)
        tell(name, outcome)

    with ThreadPoolExecutor(n_at_once) as pool:
        try:
            for name in list(jobs):
                pool.submit(train, name)
            yield stop.set
        finally:
            stop.set()


class _Lines:
    """The lines on the terminal: one for the sweep, and one for each run that is under way."""

    def __init__(self, runs, n_finished, backend, shown):
        self._backend, self._shown = backend, shown
        self._bars, self._last, self._free = {}, {}, list(range(len(runs), 0, -1))
        self._whole = tqdm(
            desc="sweep", total=len(runs), initial=n_finished, unit="run", file=sys.stderr,
            disable=not shown, dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else NON_TERMINAL_INTERVAL,
        )  # fmt: skip

    def show(self, name, message):
        """Show how far a run is."""
        if name not in self._bars:
            row = self._free.pop()
            bar = ProgressBar(name, self._backend, self._shown, row, stays=False)
            self._bars[name] = bar, row
        bar, _ = self._bars[name]
        apart.show(bar, message, self._last.get(name, {}))
        self._last[name] = message

    def end(self, name, outcome):
        """Say how a run has ended, and free its line."""
        if name in self._bars:
            bar, row = self._bars.pop(name)
            bar.close()
            self._free = sorted([*self._free, row], reverse=True)
        self._whole.update(outcome.how == "finished")
        text = f" {outcome.text}" if outcome.text else ""
        self.say(f"{name}: {outcome.how}.{text}")

    def say(self, text):
        """Write a line that stays."""
        if self._shown:
            self._whole.write(text, file=sys.stderr)

    def close(self):
        """Remove all lines except that of the sweep."""
        for bar, _ in self._bars.values():
            bar.close()
        self._whole.close()
