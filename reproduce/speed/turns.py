"""The measurement: in every setting the columns take turns, at one number of threads at a time."""

import contextlib
import itertools
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.results import provenance
from speed.table import LABELS, MACHINE, PEERS, Column, Measurement
from speed.worker import LeftOut, Worker

SECONDS_A_SETTING = 20.0
"""After this time a setting gets no further turn, to limit the time of a full run."""
FEWEST_TURNS = 3
SECONDS_BETWEEN_TURNS = 0.03
"""The threads of a linear algebra library spin for a while after their work."""

OPTIONAL = ("c", "jax", *PEERS)
"""Processes that a machine may be unable to run."""


class Plan(NamedTuple):
    """How one setting is measured.

    Attributes
    ----------
    workers : dict from str to dict
        Processes, keys of `worker.COLUMNS`, and the arguments of their classes besides arrays.
    columns : dict from str to (str, dict)
        For each column its process, and the arguments of a turn.
    inputs : dict from str to ndarray
        Parameters, and ``x`` and ``y``.
    learns : bool
        Whether the first of the statistics is a loss that must fall.
    """

    workers: dict
    columns: dict
    inputs: dict
    learns: bool


class Company:
    """The processes, at one number of threads; each is started when it is first needed.

    `left_out`, a dict, takes the reason why a process is left out.
    """

    def __init__(self, n_threads, left_out):
        self.n_threads, self.left_out = n_threads, left_out
        self.workers, self.stack = {}, contextlib.ExitStack()

    def make(self, workers, inputs):
        """Let processes prepare themselves, all at the same time."""
        for name in workers.keys() - self.workers.keys() - self.left_out.keys():
            self.workers[name] = self.stack.enter_context(Worker(name, self.n_threads))
        present = workers.keys() & self.workers.keys()
        with TemporaryDirectory() as folder:
            path = str(Path(folder) / "inputs.npz")
            np.savez(path, **inputs)
            for name in present:
                self.workers[name].tell("make", path=path, options=workers[name])
            for name in present:
                self.answer(name)

    def turn(self, columns):
        """Let columns take their turn at the same time, and return the answers."""
        present = {c: turn for c, turn in columns.items() if turn[0] in self.workers}
        for name, arguments in present.values():
            self.workers[name].tell("turn", **arguments)
        answers = {c: self.answer(name) for c, (name, _) in present.items()}
        return {c: answer for c, answer in answers.items() if answer}

    def take_turns(self, columns, n_turned):
        """Let columns take a turn one after the other; each time another one is first."""
        names = list(columns)
        k = n_turned % len(names)
        answers = {}
        for column in names[k:] + names[:k]:
            time.sleep(SECONDS_BETWEEN_TURNS)
            answers |= self.turn({column: columns[column]})
        return answers

    def answer(self, name):
        """Return the answer of a process; None if it is left out from now on."""
        try:
            return self.workers[name].answer()
        except LeftOut as reason:
            if name not in OPTIONAL:
                message = f"{name} cannot be measured ({reason}): fix that first."
                raise ReinforceDropoutError(message) from reason
            tqdm.write(f"{LABELS[name]} is left out: {reason}", file=sys.stderr)
            self.left_out[name] = str(reason)
            del self.workers[name]
            return None


def measure(results, settings, plan, n_turns, save):
    """Time the settings that have not been timed yet.

    Parameters
    ----------
    results : table.Results
        Takes the measurements.
    settings : iterable of table.Setting
    plan : callable
        ``plan(setting) -> Plan``
    n_turns : int
        At most; see `SECONDS_A_SETTING`.
    save : callable
        Called after each setting.

    Raises
    ------
    ReinforceDropoutError
        A needed column cannot be measured, or a column does not learn.
    """
    missing = sorted(s for s in settings if not results.all(**vars(s)))
    with tqdm(total=len(missing), unit="setting", disable=None) as bar:
        for n_threads, group in itertools.groupby(missing, key=lambda s: s.n_threads):
            company = Company(n_threads, results.attributes["left_out"])
            with company.stack:
                for setting in group:
                    bar.set_description(f"{setting.net} {setting.policies}, {n_threads} threads")
                    found = measure_setting(setting, plan(setting), company, n_turns)
                    results.measurements.append(found)
                    results.measurements.sort(key=lambda measurement: measurement.setting)
                    results.attributes["ended"] = provenance.now()
                    save()
                    bar.update()


def measure_setting(setting, plan, company, n_turns):
    """Time all columns of a plan, and return the `Measurement`."""
    columns = plan.columns | {name: (name, {}) for name in MACHINE}
    company.make(plan.workers | dict.fromkeys(MACHINE, {}), plan.inputs)
    rounds = [company.turn(columns)]  # which compiles, side by side, and is not timed
    end = time.monotonic() + SECONDS_A_SETTING
    while len(rounds) <= n_turns and (len(rounds) <= FEWEST_TURNS or time.monotonic() < end):
        rounds.append(company.take_turns(columns, len(rounds)))
    present = [c for c in columns if all(c in answers for answers in rounds)]
    found = {c: digest([answers[c] for answers in rounds]) for c in present}
    if plan.learns:
        for column in plan.columns.keys() & found.keys():
            first, last = found[column].first[0], found[column].last[0]
            if not last < first:
                raise ReinforceDropoutError(
                    f"the loss of {column} went from {first:.3g} to {last:.3g} in {setting.net}, "
                    f"{setting.policies}: it does not learn, so do not time it."
                )
    return Measurement(setting, found)


def digest(answers):
    """Make a `Column` of its answers, one for each round; the first round is not timed."""
    return Column(
        microseconds=np.array([answer["microseconds"] for answer in answers[1:]]),
        first=tuple(answers[0]["statistics"]),
        last=tuple(answers[-1]["statistics"]),
        peak_bytes=answers[-1]["peak_bytes"],
        process=answers[-1]["process"],
    )
