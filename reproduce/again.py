"""Reproduce one of the sweeps in reproduce/sweeps/, then draw its table and figure.

Records go to runs/NAME/, curves only. Finished runs are skipped, so Ctrl-C loses nothing: the same
command goes on. Table and figure go to runs/figures/.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import click
import common

import figures as drawn
from reinforce_dropout.running import grid
from reinforce_dropout.running.sweep import sweep

SWEEPS = ("ledger", "tradeoff")


def run(name, options, script="again.py", curves_only=True, measure=lambda folder, command: None):
    """Train what is not finished, and draw what is there.

    Parameters
    ----------
    name : str
        A key of `figures.EVIDENCE`.
    options : namespace
        What `options_of_a_sweep` adds to a command.
    script : str
        Whose command the records name.
    curves_only : bool
        See `sweep`.
    measure : callable
        ``measure(folder, command)``: called after the training, before the drawing.

    Raises
    ------
    ReinforceDropoutError
        A sentence for each run that failed.
    KeyboardInterrupt
        After all runs have been saved.
    """
    planned = grid.read(drawn.SWEEPS / f"{name}.toml", None, {})
    folder = common.folder(options, "runs") / name
    command = ["python", f"reproduce/{script}", *sys.argv[1:]]
    outcomes = train(planned, folder, options, command, curves_only)
    measure(folder, command)
    stem = common.folder(options, "runs/figures") / name
    drawn.draw_evidence(drawn.EVIDENCE[name], folder, name, stem)
    print(stem.with_suffix(".md").read_text(), end="")
    common.tell_failures(outcomes)


def train(planned, folder, options, command, curves_only):
    """Train runs, and return how they ended, see `sweep`; an interrupt ends the script.

    With ``--quick`` all are short, even those whose length is a value of the grid.
    """
    if options.quick:
        length = {"n_epochs": common.QUICK_EPOCHS}
        planned = [run._replace(settings=run.settings | length) for run in planned]
    outcomes = sweep(
        planned, folder, jobs=options.jobs, data=options.data, curves_only=curves_only,
        command=command,
    )  # fmt: skip
    common.stop_if_interrupted(outcomes)
    return outcomes


def options_of_a_sweep(function):
    """Add the options of a script that runs a sweep to a click command."""
    for option in (
        click.option("--root", type=click.Path(path_type=Path), default=common.ROOT, hidden=True),
        click.option("--data", default="mnist", hidden=True),
        click.option("--quick", is_flag=True, help=f"{common.QUICK_EPOCHS} epochs a run."),
        click.option("--jobs", type=click.IntRange(1), help="Runs at once.  [default: one a core]"),
    ):
        function = option(function)
    return function


def command(action):
    """Make a command of ``action(options)`` with these options; its help is the script's docstring.

    It reports an error in a sentence; for the exit codes see `common.command`.
    """

    @click.command(help=sys.modules[action.__module__].__doc__)
    @options_of_a_sweep
    def main(**options):
        end(action, options)

    return main


def end(action, options):
    """Do ``action(options)``, report an error in a sentence, and end with the exit code."""
    options = SimpleNamespace(**options, seed=common.RECORDED_SEED)
    sys.exit(common.guard(lambda: action(options), common.INTERRUPTED_RUNS))


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(SWEEPS, False))
@options_of_a_sweep
def main(name, **options):
    """Run a sweep again."""
    end(lambda options: run(name, options), options)


if __name__ == "__main__":
    main()
