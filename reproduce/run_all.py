"""Reproduce section 4: train the paper's three networks side by side, then figure and table.

As many networks train at once as there are processor cores, which those that are still to be
finished share; how many one has changes no bit of its results. Ctrl-C saves them all; the same
command goes on from there, and trains nothing that is finished. Figure and table go to
runs/figures/.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import common
from tqdm import tqdm

from reinforce_dropout import claims, threads
from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.experiment import preset

MOST_THREADS = 4
"""Of one run: what more would bring to mini-batches of 20 has not been measured."""

LONGEST_FIRST = ("policy-800-800", "policy-500", "baseline-500")


def run_all(options):
    """Train all presets, then write and print what came of them.

    Raises
    ------
    ReinforceDropoutError
        Some could not be trained: a sentence for each. The others have been reported.
    KeyboardInterrupt
        After all runs have been saved.
    """
    runs, failures = train_all(options, min(n_cores(), len(LONGEST_FIRST)))
    columns = common.recorded_columns(common.read_results(options)) | {"this run": runs}
    figures = common.folder(options, "runs/figures")
    common.write_report(options, runs, claims.table(columns, options.quick), figures)
    if failures:
        raise ReinforceDropoutError("\n".join(failures))


def n_cores():
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def train_all(options, n_workers):
    """Train all presets in `n_workers` processes.

    Returns
    -------
    runs : dict from str to records.Record
    failures : list of str
        A sentence for each preset that could not be trained.
    """
    # Spawned, as PyTensor's and BLAS's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    rows, stop = context.SimpleQueue(), context.Event()
    for row in range(n_workers):
        rows.put(row)
    unfinished = context.Value("i", len(LONGEST_FIRST))
    setup = (context.RLock(), rows, stop, unfinished)
    with ProcessPoolExecutor(n_workers, context, _begin_worker, setup) as pool:
        try:
            with _interrupt_blocked():
                futures = {name: pool.submit(_train, options, name) for name in LONGEST_FIRST}
            wait(futures.values())
        except KeyboardInterrupt:
            # A second Ctrl-C must not cut the saving short.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            stop.set()
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
    return _sort(futures)


@contextlib.contextmanager
def _interrupt_blocked():
    """Keep Ctrl-C waiting here, and for good in the processes that start meanwhile.

    The terminal sends it to all processes at once, also to workers that are idle or still starting,
    whose death would end the others unsaved. So they never see it, and `train_all` tells them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _begin_worker(lock, rows, stop, unfinished):
    """Set up a worker: its row of the terminal, and what all workers share."""
    global _row, _stop, _unfinished
    _row, _stop, _unfinished = rows.get(), stop, unfinished
    tqdm.set_lock(lock)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _train(options, name):
    """Train a preset in a worker; the first SIGTERM interrupts it, the run saved."""
    try:
        # Before the look at `_stop`: a SIGTERM in between must not be lost.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if _stop.is_set():
            raise KeyboardInterrupt
        return common.train(options, preset(name), _row, before_epoch=_use_free_cores)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with _unfinished.get_lock():
            _unfinished.value -= 1


def _use_free_cores():
    """Share the cores among the runs that are still to be finished."""
    share = max(1, n_cores() // _unfinished.value)
    threads.use_in_kernels(min(MOST_THREADS, share))


def _sort(futures):
    """Tell the runs that ended well from those that failed."""
    runs, failures = {}, []
    for name, future in futures.items():
        try:
            runs[name] = future.result()
        except ReinforceDropoutError as error:
            failures.append(f"{name}: {error}")
        except BrokenProcessPool:
            failures.append(
                f"{name}: its process was killed, perhaps for want of memory; "
                "type the same command again to go on."
            )
    return runs, failures


if __name__ == "__main__":
    sys.exit(common.main(__doc__, run_all, with_seed=True))
