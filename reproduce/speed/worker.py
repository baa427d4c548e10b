"""A process for each column: the commands of the measuring process, and the answers.

The number of threads is fixed when a process starts, because JAX cannot change it later. Between
its turns a process waits. So the columns do not disturb each other, nor their peak memory. Commands
and answers are lines of JSON; arrays pass in a file.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

COLUMNS = {
    "numba": "ours.Numba",
    "c": "ours.C",
    "jax": "ours.Jax",
    "eager": "pytorch.Eager",
    "compile": "pytorch.Compiled",
    "scan": "jax_scan.Scan",
    "dense": "ours.Dense",
    "blas": "blas.Dense",
    "blocks": "ours.Forward",
    "block steps": "ours.BlockSteps",
    "instance steps": "ours.InstanceSteps",
    "product": "machine.Product",
    "copy": "machine.Copy",
}
"""Module and class of each process."""

SECONDS_OF_A_LONG_TURN = 0.3
"""A turn of this length or more is not repeated with warm caches."""

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NPROC",  # XLA, where processes cannot be pinned
)
_OLDER_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Some machines set these. They hold OpenBLAS to the kernel of an older processor."""


class LeftOut(Exception):
    """A column cannot take part; the message says why."""


def environment(n_threads):
    """Return the environment of a process: so many threads, and the processor's own kernels."""
    mine = {name: value for name, value in os.environ.items() if name not in _OLDER_KERNELS}
    paths = [str(Path(__file__).parents[1]), mine.get("PYTHONPATH", "")]
    return (
        mine
        | {name: str(n_threads) for name in _THREAD_VARIABLES}
        | {"PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    )


class Worker:
    """The measuring process's end of a process for `column`, a key of `COLUMNS`."""

    def __init__(self, column, n_threads):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "speed.worker", column, str(n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(n_threads),
        )

    def tell(self, what, **arguments):
        """Send a command: "make" or "turn", and the arguments of `make` or `take_turn`."""
        with contextlib.suppress(BrokenPipeError):  # `answer` tells that the process has ended
            print(json.dumps([what, arguments]), file=self.process.stdin, flush=True)

    def answer(self):
        """Return the answer to the oldest command that has none.

        Raises
        ------
        LeftOut
            The library is not installed, or it failed.
        """
        line = self.process.stdout.readline()
        if not line:
            raise LeftOut(f"its process ended with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "left_out" in answer:
            raise LeftOut(answer["left_out"])
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """End the process."""
        self.process.kill()
        self.process.communicate()


def pin(n_threads):
    """Let this process use so many cores, where the system can: JAX starts as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])


def main(column, n_threads):
    """Answer commands until the measuring process closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the measuring process handles Ctrl-C
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of libraries is no answer
    pin(n_threads)
    made = None
    for line in sys.stdin:
        what, arguments = json.loads(line)
        try:
            if what == "make":
                made = None  # its memory first
                made, answer = make(column, **arguments), {}
            else:
                answer = take_turn(made, **arguments)
        except ModuleNotFoundError as error:
            answer = {"left_out": f"{error.name} is not installed"}
        except Exception as error:
            reason, *_ = str(error).splitlines() or [type(error).__name__]
            answer = {"left_out": reason.rstrip(".")}
        print(json.dumps(answer), file=answers, flush=True)


def make(column, path, options):
    """Make the column from the arrays in a file; its first turn compiles."""
    module, name = COLUMNS[column].split(".")
    kind = getattr(importlib.import_module(f"speed.{module}"), name)
    with np.load(path) as file:
        arrays = dict(file)
    batches = {name: arrays.pop(name) for name in ("x", "y") if name in arrays}
    return kind(arrays, **batches, **options)


def take_turn(made, **arguments):
    """Take one turn. A short one is repeated, because others' data filled the caches before.

    Arguments, if any, are those of the column's method ``set``, which is not timed. Returns the
    facts of a `table.Column`. Its ``statistics`` are means over the mini-batches.
    """
    from speed.machine import describe_process

    if arguments:
        made.set(**arguments)
    seconds, statistics = timed(made.turn)
    if seconds < SECONDS_OF_A_LONG_TURN:
        seconds, statistics = timed(made.turn)
    return {
        "microseconds": 1e6 * seconds / len(statistics),
        "statistics": statistics.mean(axis=0, dtype="float64").tolist(),
        "peak_bytes": peak_bytes(),
        "process": describe_process(),
    }


def timed(function):
    """Return the seconds of a call, and its result.

    Python's collection of garbage takes tens of milliseconds here, and would come in the same
    column in each round.
    """
    gc.disable()
    try:
        start = time.perf_counter()
        returned = function()
        return time.perf_counter() - start, returned
    finally:
        gc.enable()


def peak_bytes():
    """Return the most memory that this process has had."""
    # On Linux getrusage also counts the parent's memory when it started this process.
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
