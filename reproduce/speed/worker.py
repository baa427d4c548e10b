"""A process for each column: what it is told by the measuring process, and what it answers.

The number of threads is fixed at the start of a process, as JAX allows no later moment. Between
the turns a process waits, so that the columns disturb neither each other nor their peak memory.
Commands and answers are lines of JSON; arrays pass in a file.
"""

import contextlib
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
    "numba": ("speed.ours", "Numba"),
    "c": ("speed.ours", "C"),
    "jax": ("speed.ours", "Jax"),
    "eager": ("speed.pytorch", "Eager"),
    "compile": ("speed.pytorch", "Compiled"),
    "scan": ("speed.jax_scan", "Scan"),
    "product": ("speed.machine", "Product"),
    "copy": ("speed.machine", "Copy"),
}
"""Module and class of each column."""

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NPROC",  # XLA, where processes cannot be pinned
)


class LeftOut(Exception):
    """A column cannot take part; the message is a word on why."""


class Worker:
    """The measuring process's end.

    Parameters
    ----------
    column : str
        A key of `COLUMNS`.
    n_threads : int
    """

    def __init__(self, column, n_threads):
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "speed.worker", column, str(n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {name: str(n_threads) for name in _THREAD_VARIABLES}
            | {"PYTHONWARNINGS": "ignore"}
            | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def tell(self, **command):
        """Send a command, the arguments of `prepare` or none for a turn."""
        with contextlib.suppress(BrokenPipeError):  # `answer` tells that the process has ended
            print(json.dumps(command), file=self.process.stdin, flush=True)

    def answer(self):
        """Wait for the answer to the oldest command that has none.

        Returns
        -------
        dict

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


def main(column, n_threads):
    """Answer commands until the measuring process closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the measuring process's affair
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])
    made = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command:
                made = None  # its memory first
                made = prepare(column, **command)
                answer = {}
            else:
                answer = take_turn(made)
        except ModuleNotFoundError as error:
            answer = {"left_out": f"{error.name} is not installed"}
        except Exception as error:
            reason, *_ = str(error).splitlines() or [type(error).__name__]
            answer = {"left_out": reason.rstrip(".")}
        print(json.dumps(answer), file=answers, flush=True)


def prepare(column, path, learning_rate):
    """Make the column from the arrays in a file; its first turn compiles."""
    module, name = COLUMNS[column]
    kind = getattr(importlib.import_module(module), name)
    with np.load(path) as file:
        arrays = dict(file)
    x, y = arrays.pop("x"), arrays.pop("y")
    return kind(arrays, x, y, learning_rate)


def take_turn(made):
    """Make one turn, after one that is not timed, as the others' data fill the caches.

    Returns
    -------
    dict
        ``microseconds`` a step; ``statistics``, their means over the steps; ``peak_bytes``, the
        most memory that the process has had.
    """
    made.turn()
    start = time.perf_counter()
    statistics = made.turn()
    seconds = time.perf_counter() - start
    return {
        "microseconds": 1e6 * seconds / len(statistics),
        "statistics": statistics.mean(axis=0, dtype="float64").tolist(),
        "peak_bytes": peak_bytes(),
    }


def peak_bytes():
    """Return the most memory that this process has had."""
    # On Linux getrusage counts what the parent had when it started this process, too.
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(fields["VmHWM"].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
