"""One run in a process of its own, steered through pipes.

The process reads the job, a line of JSON. Each further line is the number of threads that the
kernels may use. The end of the input means "save and end", so it ends when its starter is killed.
Every second the process writes a line of JSON with its progress, and at last one with the outcome.

Process pools (concurrent.futures, joblib's loky) do not suit. When one worker dies, they end all
others. An interrupt kills their workers before they have saved.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reinforce_dropout.errors import RecordInUseError, ReinforceDropoutError
from reinforce_dropout.running import threads, training
from reinforce_dropout.running.progress import last_known
from reinforce_dropout.systems import preset

COMMAND = (sys.executable, "-m", "reinforce_dropout.running.apart")
SECONDS_BETWEEN_LINES = 1.0


class Outcome(NamedTuple):
    """How a run ended.

    Attributes
    ----------
    how : str
        "finished"; "interrupted", with all ended epochs saved; "busy": another process trains into
        the same file; "failed": `text` is a sentence for the user; "defect": it is a traceback.
    text : str
    """

    how: str
    text: str = ""


def run(
    job: dict,
    tell: Callable[[dict], None],
    n_threads: Callable[[], int],
    stopped: Callable[[], bool],
) -> Outcome:
    """Train in another process, and return how that ended.

    Parameters
    ----------
    job : dict
        ``preset``, ``settings``, and further arguments of `training.train`, all fit for JSON.
    tell : callable
        Called about once a second with a message for `show`.
    n_threads : callable
        Returns the number of threads that the kernels may use now.
    stopped : callable
        Returns whether to save and end.
    """
    if stopped():
        return Outcome("interrupted")
    # In a session of its own, because Ctrl-C goes to all processes of a terminal.
    with subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        outcome, said = None, None
        try:
            _say(process, json.dumps(job))
            for line in process.stdout:
                message = json.loads(line)
                if "how" in message:
                    outcome = Outcome(**message)
                else:
                    tell(message)
                if stopped():
                    _end(process)
                elif (n := n_threads()) != said:
                    _say(process, str(n))
                    said = n
        finally:
            _end(process)
    if outcome:
        return outcome
    if process.returncode < 0:
        return Outcome(
            "failed",
            f"its process was killed ({signal.Signals(-process.returncode).name}), perhaps for "
            "want of memory: type the same command again to go on.",
        )
    return Outcome("defect", f"its process ended with code {process.returncode}.")


def _say(process, text):
    with contextlib.suppress(OSError, ValueError):  # it has ended, or was told to
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()


def _end(process):
    with contextlib.suppress(OSError):
        process.stdin.close()


def show(bar, message, shown):
    """Show a process's message on a `progress.ProgressBar`; `shown` is the message before it."""
    if message["epoch"] and message["epoch"] != shown.get("epoch"):
        bar.epoch(*message["epoch"])
        shown = {}
    bar.update(message["updates"] - shown.get("updates", 0))
    if message["curves"]:
        bar.errors({name: np.array(rows) for name, rows in message["curves"].items()})


class _Reporter:
    """The progress bar of the process: it sends its state every second instead of drawing it."""

    def __init__(self, out):
        self._out, self._done = out, threading.Event()
        self._state = {"epoch": None, "updates": 0, "curves": {}}
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def epoch(self, *numbers):
        self._state = {**self._state, "epoch": numbers, "updates": 0}

    def update(self):
        self._state["updates"] += 1

    def errors(self, curves):
        self._state["curves"] = {k: [last_known(curve).tolist()] for k, curve in curves.items()}

    def close(self):
        pass

    def _tell(self):
        while True:
            self._write(self._state)
            if self._done.wait(SECONDS_BETWEEN_LINES):
                return

    def _write(self, message):
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(self._out, json.dumps(message).encode() + b"\n")

    def end(self, outcome):
        self._done.set()
        self._thread.join()
        self._write(outcome._asdict())


def main():
    """Train the job on standard input; see the top of this file."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = os.dup(1)
    os.dup2(2, 1)  # libraries' output must not get between the lines
    # Unbuffered: no thread may hold a buffer's lock when the process ends.
    lines = io.FileIO(0, closefd=False)
    job = json.loads(lines.readline())
    reporter = _Reporter(out)
    wanted = [1]
    threading.Thread(target=_obey, args=(lines, wanted), daemon=True).start()
    try:
        outcome = _train(job, reporter, wanted)
    except KeyboardInterrupt:
        outcome = Outcome("interrupted")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reporter.end(outcome)


def _obey(lines, wanted):
    """Store the number of threads that is wanted; end the process at the end of the input."""
    while line := lines.readline():
        wanted[0] = int(line)
    os.kill(os.getpid(), signal.SIGTERM)


def _train(job, reporter, wanted):
    try:
        training.train(
            preset(job.pop("preset")).replace(**job.pop("settings")),
            **job,
            bar=reporter,
            before_epoch=lambda: threads.use_in_kernels(wanted[0]),
            follow_load=True,
        )
    except RecordInUseError as error:
        return Outcome("busy", str(error))
    except ReinforceDropoutError as error:
        return Outcome("failed", str(error))
    except Exception:
        return Outcome("defect", traceback.format_exc())
    return Outcome("finished")


if __name__ == "__main__":
    main()
