"""What the scripts of this folder share: options, paths, and the report of errors."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import click

from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.results import claims, figures, files
from reinforce_dropout.results.claims import PAPER

ROOT = Path(os.path.relpath(Path(__file__).resolve().parent.parent))
"""The repository, relative to the current folder: no output names a machine's own folders."""

QUICK_EPOCHS = 3
RECORDED_SEED = 1
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended."""

INTERRUPTED_RUNS = (
    "Interrupted: every epoch that had ended is saved; type the same command again to go on from "
    "there."
)


def command(action):
    """Make a command of ``action(options)``; its help is the docstring of the script.

    Its options are ``quick`` and ``seed``, and for the tests ``data`` and ``root``. It reports an
    error in a sentence. Exit codes: 0 done, 1 an error that the user can fix, 130 interrupted.
    """

    @click.command(help=sys.modules[action.__module__].__doc__)
    @click.option(
        "--quick",
        is_flag=True,
        help=f"Train for {QUICK_EPOCHS} epochs only, to see that all works. Files go to folders "
        "named quick.",
    )
    @click.option(
        "--seed",
        type=click.IntRange(0),
        default=RECORDED_SEED,
        show_default=True,
        help="Of what is drawn. Files with another seed go to folders named after it.",
    )
    @click.option("--data", default="mnist", hidden=True)
    @click.option("--root", type=click.Path(path_type=Path), default=ROOT, hidden=True)
    def main(**options):
        sys.exit(guard(lambda: action(SimpleNamespace(**options)), INTERRUPTED_RUNS))

    return main


def guard(action, interrupted):
    """Do `action()`, report an error or the text `interrupted`, and return the exit code."""
    # SIGTERM (kill, a shutdown, a batch system) does what Ctrl-C does: it saves a run, and ends
    # processes that were started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        action()
    except ReinforceDropoutError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    return 0


def stop_if_interrupted(outcomes):
    """Raise KeyboardInterrupt if a run of a sweep was interrupted; all have been saved."""
    if any(outcome.how == "interrupted" for outcome in outcomes.values()):
        raise KeyboardInterrupt


def tell_failures(outcomes):
    """Raise ReinforceDropoutError with a sentence for each run of a sweep that failed, if any."""
    if troubles := [f"{name}: {o.text}" for name, o in outcomes.items() if o.how != "finished"]:
        raise ReinforceDropoutError("\n".join(troubles))


def folder(options, kind):
    """Return the folder for the files of a run, `kind` being "runs" or "runs/figures".

    Quick runs and runs of other seeds have subfolders. ``figures`` is for recorded runs only.
    """
    apart = ["quick"] * options.quick
    if options.seed != RECORDED_SEED:
        apart.append(f"seed-{options.seed}")
    return options.root / kind / "-".join(apart)


def results_folder(options):
    """Return the folder of the recorded runs, which is part of the repository."""
    return options.root / "reproduce" / "results"


def results_path(options, name):
    """Return the recorded run of a preset."""
    return results_folder(options) / f"{name}.hdf5"


def read_results(options):
    """Return the recorded runs that are there, for each seed, by preset."""
    seeds = {RECORDED_SEED: [results_path(options, name) for name in PAPER]}
    for path in results_folder(options).glob("seed-*"):
        seeds[int(path.name.removeprefix("seed-"))] = path.glob("*.hdf5")
    return {
        seed: claims.read_by_preset(path for path in sorted(paths) if path.exists())
        for seed, paths in sorted(seeds.items())
    }


def recorded_columns(seeds):
    """Return the columns of `claims.table` for the result of `read_results`."""
    columns = {"recorded": seeds[RECORDED_SEED]}
    if len(seeds) > 1:
        heading = f"mean ± standard deviation of seeds {', '.join(map(str, seeds))}"
        columns[heading] = {
            name: [runs[name] for runs in seeds.values()]
            for name in PAPER
            if all(name in runs for runs in seeds.values())
        }
    return columns


def write_report(options, runs, table, folder):
    """Write figure and table into `folder`, and print the table.

    The figure is left out unless `runs` has both networks with policies.
    """
    written = [folder / "table.md"]
    files.write_whole(written[0], table.encode())
    if runs.keys() >= {"policy-500", "policy-800-800"}:
        figure = figures.figure1(runs["policy-500"], runs["policy-800-800"], options.quick)
        written += figures.save_figure(figure, folder / "figure1")
    print(table, end="")
    print(f"Written: {', '.join(map(str, written))}", file=sys.stderr)
