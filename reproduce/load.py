"""Time an epoch of training on a quiet machine, and beside a program that keeps a core busy.

It compares one thread, a thread for each core, and the default, which follows the load of the
machine. It needs a machine that does nothing else, and takes some minutes.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from reinforce_dropout import preset, train

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


def epoch_seconds(name, n_threads, n_epochs):
    """Return the median time of the epochs except the first, which loads the compiled code."""
    experiment = preset(name).replace(n_epochs=n_epochs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.hdf5")
        record = train(experiment, path, n_threads=n_threads, show_progress=False)
    return np.median(record.curves["epoch_seconds"][1:])


@click.command()
@click.option("--preset", "names", multiple=True, default=PRESETS, show_default=True)
@click.option("--epochs", type=click.IntRange(2), default=3, show_default=True)
@click.option("--busy", "n_busy", type=click.IntRange(0), default=1, show_default=True,
              help="Cores to keep busy.")  # fmt: skip
def main(names, epochs, n_busy):
    """Time epochs on a quiet machine, and beside programs that keep cores busy."""
    if not hasattr(os, "sched_setaffinity"):
        raise click.ClickException("a program cannot be held to a core here: use Linux.")
    cores = sorted(os.sched_getaffinity(0))
    if n_busy > len(cores):
        raise click.ClickException(f"there are {len(cores)} cores: give --busy {len(cores)}.")
    click.echo(f"| seconds an epoch | busy cores | 1 thread | {len(cores)} threads | default |")
    click.echo("| --- | --- | --- | --- | --- |")
    for name in names:
        for n in dict.fromkeys((0, n_busy)):
            with busy(cores[len(cores) - n :]):
                times = [epoch_seconds(name, k, epochs) for k in (1, len(cores), None)]
            click.echo(f"| {name} | {n} | " + " | ".join(f"{t:.2f}" for t in times) + " |")


if __name__ == "__main__":
    main()
