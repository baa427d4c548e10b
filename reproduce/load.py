"""Time an epoch of training on a quiet machine, and beside a program that keeps a core busy.

It compares one thread, a thread for each core, and the default, which follows the load of the
machine. The three take turns, an epoch each. An epoch is the training steps and one evaluation of
the validation set. The machine must do nothing else.
"""

import contextlib
import os
import subprocess
import sys
import time

import click
import numpy as np

from reinforce_dropout import backends, preset, systems
from reinforce_dropout.running import datasets, threads
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems.learner import make_learner

PRESETS = ("policy-500", "policy-800-800")


@contextlib.contextmanager
def busy(cores):
    """Keep cores busy while the context lasts, each with its own program."""
    programs = []
    try:
        for core in cores:
            programs.append(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            os.sched_setaffinity(programs[-1].pid, {core})
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def epoch_of(name, adaptive):
    """Return a function that trains for an epoch with so many threads at most, and evaluates."""
    experiment = preset(name)
    data = datasets.load("mnist", experiment.validation_fraction)
    system = systems.build_for_training(experiment, data.image_shape, data.n_classes)
    learner = make_learner(system, experiment, backends.mode("numba", adaptive=adaptive))
    epochs = Epochs(learner, data.train, experiment)

    def epoch(n_threads):
        with threads.limited(n_threads):
            began = time.perf_counter()
            epochs.run()
            learner.predict(data.valid.images, [experiment.evaluation_rule])
            return time.perf_counter() - began

    epoch(1)  # loads the compiled code
    return epoch


def row(name, n_busy, turns, cores):
    """Return a row of the table: times of all three, and the default beside the better other."""
    fixed, adaptive = epoch_of(name, False), epoch_of(name, True)
    choices = [lambda: fixed(1), lambda: fixed(len(cores)), lambda: adaptive(len(cores))]
    with busy(cores[len(cores) - n_busy :]):
        times = np.array([[choice() for choice in choices] for _ in range(turns)])
    one, every, default = np.median(times, axis=0)
    ratio = default / min(one, every)
    return f"| {name} | {n_busy} | {one:.2f} | {every:.2f} | {default:.2f} | {ratio:.2f} |"


@click.command()
@click.option("--preset", "names", multiple=True, default=PRESETS, show_default=True)
@click.option("--turns", type=click.IntRange(1), default=7, show_default=True)
@click.option("--busy", "n_busy", type=click.IntRange(0), default=1, show_default=True,
              help="Cores to keep busy.")  # fmt: skip
def main(names, turns, n_busy):
    """Time epochs on a quiet machine, and beside programs that keep cores busy."""
    if not hasattr(os, "sched_setaffinity"):
        raise click.ClickException("a program cannot be held to a core here: use Linux.")
    cores = sorted(os.sched_getaffinity(0))
    if n_busy > len(cores):
        raise click.ClickException(f"there are {len(cores)} cores: give --busy {len(cores)}.")
    click.echo(
        f"| seconds an epoch | busy cores | 1 thread | {len(cores)} threads | default | "
        "default beside the better |"
    )
    click.echo("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        for n in dict.fromkeys((0, n_busy)):
            click.echo(row(name, n, turns, cores))


if __name__ == "__main__":
    main()
