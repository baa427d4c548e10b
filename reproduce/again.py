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

SWEEPS = ("ledger", "tradeoff", "systems", "policy_search")


def run(name, options):
    """Train what is not finished, and draw what is there.

    Raises
    ------
    ReinforceDropoutError
        A sentence for each run that failed.
    KeyboardInterrupt
        After all runs have been saved.
    """
    settings = {"n_epochs": common.QUICK_EPOCHS} if options.quick else {}
    planned = grid.read(drawn.SWEEPS / f"{name}.toml", None, settings)
    folder = common.folder(options, "runs") / name
    outcomes = sweep(
        planned, folder, jobs=options.jobs, data=options.data, curves_only=True,
        command=["python", "reproduce/again.py", *sys.argv[1:]],
    )  # fmt: skip
    common.stop_if_interrupted(outcomes)
    stem = common.folder(options, "runs/figures") / name
    drawn.draw_evidence(drawn.EVIDENCE[name], folder, name, stem)
    print(stem.with_suffix(".md").read_text(), end="")
    common.tell_failures(outcomes)


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(SWEEPS, False))
@click.option("--jobs", type=click.IntRange(1), help="Runs at once.  [default: one a core]")
@click.option("--quick", is_flag=True, help=f"{common.QUICK_EPOCHS} epochs a run.")
@click.option("--data", default="mnist", hidden=True)
@click.option("--root", type=click.Path(path_type=Path), default=common.ROOT, hidden=True)
def main(name, **options):
    """Run, report an error in a sentence, and end with the exit code."""
    options = SimpleNamespace(**options, seed=common.RECORDED_SEED)
    sys.exit(common.guard(lambda: run(name, options), common.INTERRUPTED_RUNS))


if __name__ == "__main__":
    main()
