"""The measurement: the columns take turns in every setting, for one number of threads at a time."""

import contextlib
import importlib.metadata
import itertools
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from reinforce_dropout import backends, network, provenance
from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.experiment import Experiment
from speed.results import LABELS, MACHINE, Measurement, Results, Setting, Turns
from speed.worker import LeftOut, Worker

SECONDS_A_SETTING = 20.0
"""After this time a setting gets no further turn, so that a full run ends in time."""
FEWEST_TURNS = 3
SECONDS_BETWEEN_TURNS = 0.03
"""The threads of a linear algebra library go on spinning for a while when their work is done."""

FLOPS_A_TURN = 1e10
STEPS_A_TURN = (2, 50)
"""At least and at most. Few, so that all columns have their turn in one mood of the machine."""

INITIAL_RATE = 0.3
"""Of active units: what the paper's networks come to. This package skips masked units, and would
look better than it is at the 12 % with which training begins."""


class Company:
    """The processes of all columns, at one number of threads.

    Parameters
    ----------
    n_threads : int
    left_out : dict from str to str
        Takes the reason why a column is left out, by column.
    """

    def __init__(self, n_threads, left_out):
        self.left_out = left_out
        with contextlib.ExitStack() as stack:
            self.workers = {
                column: stack.enter_context(Worker(column, n_threads))
                for column in (*LABELS, *MACHINE)
            }
            self.stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """End the processes."""
        self.stack.close()

    def ask(self, columns=None, **command):
        """Give a command to columns, by default to all, which obey at the same time.

        Returns
        -------
        dict from str to dict
            Answers by column; who fails has none, and is left out from now on.

        Raises
        ------
        ReinforceDropoutError
            Without the column that failed, there would be nothing to compare.
        """
        columns = list(self.workers if columns is None else columns)
        for column in columns:
            self.workers[column].tell(**command)
        answers = {}
        for column in columns:
            try:
                answers[column] = self.workers[column].answer()
            except LeftOut as reason:
                self._leave_out(column, str(reason))
        return answers

    def take_turns(self, n_turned):
        """Let all take a turn, one after the other, each time another one first."""
        columns = list(self.workers)
        k = n_turned % len(columns)
        answers = {}
        for column in columns[k:] + columns[:k]:
            time.sleep(SECONDS_BETWEEN_TURNS)
            answers |= self.ask([column])
        return answers

    def _leave_out(self, column, reason):
        if column in (*MACHINE, backends.resolve("auto")):
            raise ReinforceDropoutError(f"{column} cannot be measured ({reason}): mend that first.")
        if column not in self.left_out:
            tqdm.write(f"{LABELS[column]} is left out: {reason}", file=sys.stderr)
        self.left_out[column] = reason
        del self.workers[column]


def measure(data, nets, batch_sizes, threads, n_turns, command):
    """Time all columns in all settings.

    Parameters
    ----------
    data : datasets.Dataset
    nets : sequence of tuple of int
        Widths of the hidden layers.
    batch_sizes, threads : sequence of int
    n_turns : int
        At most; see `SECONDS_A_SETTING`.
    command : sequence of str
        For the record.

    Returns
    -------
    Results

    Raises
    ------
    ReinforceDropoutError
        This package cannot be measured, or a column does not learn.
    """
    started = provenance.now()
    kinds = list(itertools.product(nets, batch_sizes, (False, True)))
    measurements, left_out = [], {}
    n_rounds = len(threads) * len(kinds) * (1 + n_turns)
    with tqdm(total=n_rounds, unit="round", disable=None) as bar:
        for n_threads in threads:
            with Company(n_threads, left_out) as company:
                for kind in kinds:
                    setting = Setting(n_threads, *kind)
                    measurements.append(measure_setting(setting, company, data, n_turns, bar))
    facts = provenance.collect(command)
    facts["versions"] |= _versions("torch", "jax", "jaxlib")
    times = {"started": started, "ended": provenance.now()}
    auto = backends.resolve("auto")
    return Results(facts | times | {"auto": auto, "left_out": left_out}, measurements)


def measure_setting(setting, company, data, n_turns, bar):
    """Time all columns of a company in one setting, and return the `Measurement`."""
    bar.set_description(f"{setting.net} {setting.policies}, {setting.n_threads} threads")
    n_steps = int(np.clip(FLOPS_A_TURN / setting.flops(), *STEPS_A_TURN))
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "inputs.npz")
        np.savez(path, **inputs(setting, data, n_steps))
        company.ask(path=path, learning_rate=learning_rate(setting))
    rounds = [company.ask()]  # which compiles, side by side, and is not timed
    end = time.monotonic() + SECONDS_A_SETTING
    while len(rounds) <= n_turns and (len(rounds) <= FEWEST_TURNS or time.monotonic() < end):
        rounds.append(company.take_turns(len(rounds)))
        bar.update()
    bar.update(2 + n_turns - len(rounds))
    turns = {
        column: digest([answers[column] for answers in rounds], len(setting.n_units))
        for column in company.workers
    }
    for column in LABELS.keys() & turns.keys():
        first, last = turns[column].nll
        if not last < first:
            raise ReinforceDropoutError(
                f"the loss of {LABELS[column]} went from {first:.3g} to {last:.3g} in "
                f"{setting.net}, {setting.policies}: it does not learn, so do not time it."
            )
    return Measurement(setting, turns)


def inputs(setting, data, n_steps):
    """Return what every column starts from, by name: mini-batches and initial parameters."""
    experiment = Experiment(
        n_units=setting.n_units, policy=setting.policy, initial_rate=INITIAL_RATE
    )
    parameters = network.build(experiment, data.n_in, data.n_classes).values()
    shape = n_steps, setting.batch_size
    x, y = (a[: np.prod(shape)] for a in (data.train.images, data.train.labels))
    return parameters | {"x": x.reshape(*shape, -1), "y": y.reshape(shape)}


def learning_rate(setting):
    """Return the paper's rate, less where the loss sums more than the paper's 20 examples."""
    return 0.01 * min(1, 20 / setting.batch_size)


def digest(answers, n_layers):
    """Return the `Turns` of one column from its answers to each round, the first one untimed."""
    statistics = [np.array(answer["statistics"] or [np.nan]) for answer in answers]
    rates = statistics[-1][1 : 1 + n_layers]
    return Turns(
        microseconds=np.array([answer["microseconds"] for answer in answers[1:]]),
        nll=(float(statistics[0][0]), float(statistics[-1][0])),
        active_fraction=float(rates.mean()) if len(rates) else 1.0,
        peak_bytes=answers[-1]["peak_bytes"],
    )


def _versions(*distributions):
    found = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
