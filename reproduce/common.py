"""What the scripts of this folder share: options, paths, and how errors are told."""

import argparse
import os
import signal
import sys
from pathlib import Path

from reinforce_dropout import claims, report, training
from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.experiment import PRESETS, preset

ROOT = Path(os.path.relpath(Path(__file__).resolve().parent.parent))
"""The repository, seen from where the user is: no output names a machine's own folders."""

QUICK_EPOCHS = 3
RECORDED_SEED = 1
N_THREADS = 1
"""Of the linear algebra, alone as side by side, as the rounding of BLAS's sums depends on it.

Our own kernels may be given more, see `run_all`."""

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended."""


def main(doc, action, with_seed=False):
    """Read the options, do `action`, and tell what went wrong in a sentence.

    Parameters
    ----------
    doc : str
        The script's docstring: what ``--help`` says.
    action : callable
        ``action(options)``.
    with_seed : bool
        Whether there is an option for it.

    Returns
    -------
    int
        Exit code: 0 done, 1 something the user can mend, 130 interrupted.
    """
    return guard(
        lambda: action(parse(doc, with_seed)),
        "Interrupted: every epoch that had ended is saved; type the same command again to go on "
        "from there.",
    )


def guard(action, interrupted):
    """Do `action()`, tell what went wrong in a sentence, and return the exit code as `main` does.

    Parameters
    ----------
    action : callable
    interrupted : str
        What to say after Ctrl-C.
    """
    # Being told to end (kill, a shutdown, a batch system) does what Ctrl-C does: it saves a run,
    # and ends processes that were started.
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


def parse(doc, with_seed=False):
    """Return the options: ``quick``, ``seed``, and for the tests ``data`` and ``root``."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"train for {QUICK_EPOCHS} epochs only, to see that all works; files go to folders "
        "named quick",
    )
    if with_seed:
        parser.add_argument(
            "--seed",
            type=int,
            help=f"of what is drawn, other than the {RECORDED_SEED} of the recorded runs; files go "
            "to folders named after it",
        )
    parser.set_defaults(seed=RECORDED_SEED)
    parser.add_argument("--data", default="mnist", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return parser.parse_args()


def folder(options, kind):
    """Return the folder for files of a kind, apart from those of the full run that is recorded.

    Parameters
    ----------
    options : argparse.Namespace
    kind : str
        "runs" or "runs/figures". The folder ``figures`` is for what is drawn from recorded runs.
    """
    apart = ["quick"] * options.quick
    if options.seed != RECORDED_SEED:
        apart.append(f"seed-{options.seed}")
    return options.root / kind / "-".join(apart)


def run_path(options, name):
    """Return the record that a preset is trained into."""
    return folder(options, "runs") / f"{name}.hdf5"


def results_folder(options):
    """Return the folder of what has been recorded, which is part of the repository."""
    return options.root / "reproduce" / "results"


def results_path(options, name):
    """Return the recorded run of a preset."""
    return results_folder(options) / f"{name}.hdf5"


def read_results(options):
    """Return those of the recorded runs that are there, by preset, for each seed."""
    seeds = {RECORDED_SEED: [results_path(options, name) for name in PRESETS]}
    for path in results_folder(options).glob("seed-*"):
        seeds[int(path.name.removeprefix("seed-"))] = path.glob("*.hdf5")
    return {
        seed: report.read_by_preset(path for path in sorted(paths) if path.exists())
        for seed, paths in sorted(seeds.items())
    }


def recorded_columns(seeds):
    """Return the columns of a table that show the recorded runs, see `claims.table`.

    Parameters
    ----------
    seeds : dict from int to dict from str to Record
        As `read_results` returns them.
    """
    columns = {"recorded": seeds[RECORDED_SEED]}
    if len(seeds) > 1:
        heading = f"mean ± standard deviation of seeds {', '.join(map(str, seeds))}"
        columns[heading] = {
            name: [runs[name] for runs in seeds.values()]
            for name in PRESETS
            if all(name in runs for runs in seeds.values())
        }
    return columns


def train(options, experiment, row=0, execution="dense", before_epoch=lambda: None):
    """Train an experiment, go on with its run, or return it if it is finished.

    Parameters
    ----------
    options : argparse.Namespace
    experiment : Experiment
    row : int
        Line of the terminal for the progress bar.
    execution, before_epoch
        See `training.train`.

    Returns
    -------
    records.Record

    Raises
    ------
    ReinforceDropoutError, KeyboardInterrupt
        See `training.train`.
    """
    experiment = experiment.replace(seed=options.seed)
    if options.quick:
        experiment = experiment.replace(n_epochs=QUICK_EPOCHS)
    path = run_path(options, experiment.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReinforceDropoutError(
            f"cannot make the folder {path.parent} ({error.strerror}): "
            "work in a copy of the repository that you may write to."
        ) from error
    script = f"reproduce/{Path(sys.argv[0]).name}"
    return training.train(
        experiment,
        path,
        data=options.data,
        execution=execution,
        n_threads=N_THREADS,
        command=["python", script, *sys.argv[1:]],
        row=row,
        before_epoch=before_epoch,
    )


def main_of_preset(doc, name):
    """Train one preset and print what the paper says of it beside our numbers; see `main`."""

    def action(options):
        this_run = {name: train(options, preset(name))}
        columns = recorded_columns(read_results(options)) | {"this run": this_run}
        print(claims.table(columns, options.quick, (name,)), end="")

    return main(doc, action, with_seed=True)


def benchmark(options, name, measure, redraw):
    """Measure unless told only to redraw, then write table and figure, and print the table.

    Parameters
    ----------
    options : argparse.Namespace
        With ``quick`` and ``redraw``.
    name : str
        Of the file of results.
    measure : callable
        ``measure(path)`` leaves the results at `path`.
    redraw : callable
        ``redraw(path, folder)`` writes table and figure into `folder`, and returns the table.
    """
    path = (run_path if options.quick else results_path)(options, name)
    if not options.redraw:
        measure(path)
    figures = folder(options, "runs/figures") if options.quick else options.root / "figures"
    print(redraw(path, figures), end="")


def write_drawn(figures, name, table, figure):
    """Write a table in Markdown and a figure under one name, and return the table."""
    report.write_whole(figures / f"{name}.md", table.encode())
    report.save_figure(figure, figures / name)
    return table


def write_report(options, runs, table, figures):
    """Write figure and table, and print the table.

    Parameters
    ----------
    options : argparse.Namespace
    runs : dict from str to records.Record
        What the figure shows; it is left out unless both networks with policies are there.
    table : str
    figures : Path
        The folder to write into.
    """
    written = [figures / "table.md"]
    report.write_whole(written[0], table.encode())
    if runs.keys() >= {"policy-500", "policy-800-800"}:
        figure = report.figure1(runs["policy-500"], runs["policy-800-800"], options.quick)
        written += report.save_figure(figure, figures / "figure1")
    print(table, end="")
    print(f"Written: {', '.join(map(str, written))}", file=sys.stderr)
