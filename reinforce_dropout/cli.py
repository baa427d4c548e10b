"""The command line: results on stdout, progress and errors on stderr.

Exit codes: 0 done; 1 an error that the user can fix, in one sentence; 2 wrong usage;
130 interrupted, with the run saved.
"""

import shlex
import sys
from pathlib import Path

import click

from reinforce_dropout.errors import ReinforceDropoutError

INTERRUPTED = 130


class _Group(click.Group):
    """A group whose commands end with one sentence on a user's mistake."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except ReinforceDropoutError as error:
            raise click.ClickException(str(error)) from error
        except MemoryError as error:
            reason = f" ({error})" if str(error) else ""
            raise click.ClickException(
                f"there is not enough memory{reason}: lower n_units or batch_size, or free some."
            ) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="reinforce-dropout", prog_name="reinforce-dropout")
def main():
    """Train networks with sigmoid-Bernoulli dropout policies (Bacon et al., 2015)."""


record_file = click.argument("file", type=click.Path(path_type=Path))
data_option = click.option(
    "--data",
    metavar="mnist|mnist-inverted|FILE|FOLDER",
    help="The packaged MNIST, the same with half of the images inverted, or your own data: an .npz "
    "file, a .csv file with a column `label`, a folder with a folder of PNG files for each class, "
    "or a folder with four IDX files as MNIST's, gzipped (.gz) or not.",
)
backend_option = click.option(
    "--backend",
    metavar="auto|numba|c|jax|python",
    help="What the symbolic graphs are compiled to.  [default: auto, or that of the run in FILE]",
)


@main.command()
def presets():
    """List the presets of each system, and the fields that --set changes."""
    import dataclasses

    from reinforce_dropout.systems import SYSTEMS
    from reinforce_dropout.systems.settings import as_text

    for name, module in SYSTEMS.items():
        defaults = module.Settings()
        click.echo(f"System {name}. {module.Settings.__doc__.splitlines()[0]}")
        for preset in module.PRESETS:
            changes = preset.differences(defaults)
            del changes["name"]
            chosen = [f"{field}={as_text(value)}" for field, (value, _) in changes.items()]
            click.echo(f"    preset {preset.name}: {' '.join(chosen) or 'the defaults'}")
        click.echo("    fields and their defaults, changed with --set FIELD=VALUE:")
        for field in dataclasses.fields(defaults):
            if field.name != "name":
                click.echo(f"        {field.name} = {as_text(field.default)}")
                text = field.metadata["text"]
                click.echo(click.wrap_text(text, 96, " " * 12, " " * 12))
        click.echo()


def _settings(_context, _option, pairs):
    """Turn FIELD=VALUE texts into a dict."""
    settings = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not of the form FIELD=VALUE.")
        settings[field.strip()] = value.strip()
    return settings


epochs_option = click.option("--epochs", type=int, help="Train for at most so many epochs.")
settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    callback=_settings,
    help="Change a field of the preset; may be repeated. `presets` lists the fields.",
)
execution_option = click.option(
    "--execution",
    type=click.Choice(["dense", "block-sparse"]),
    default="dense",
    show_default=True,
    help="Whether dropped units are multiplied by 0 or never touched, the latter for mini-batches "
    "of one block, or groups of 16 units for every instance. With the backend jax all is dense.",
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress bar.")


@main.command()
@click.argument("preset")
@click.option("--seed", type=int, help="Of all random draws.  [default: the preset's, 1]")
@epochs_option
@settings_option
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The record to write.  [default: PRESET-seedN.hdf5]",
)
@backend_option
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Of the products of matrices.  [default: as many as are fastest at the moment]",
)
@execution_option
@quiet_option
def train(preset, seed, epochs, settings, data, out, backend, threads, execution, quiet):
    """Train PRESET, keeping its record in an HDF5 file.

    The file is replaced after an epoch, at most every 5 seconds, and when the run ends or is
    interrupted. The same command on a file that holds an unfinished run goes on with it. On the
    same processor, with the same versions, it ends with the numbers of a run that was never
    stopped.
    """
    from reinforce_dropout.running import training
    from reinforce_dropout.systems import preset as preset_called

    if seed is not None:
        settings["seed"] = seed
    if epochs is not None:
        settings["n_epochs"] = epochs
    chosen = preset_called(preset).replace(**settings)
    out = out or Path(f"{preset}-seed{chosen.seed}.hdf5")
    command = ["reinforce-dropout", *sys.argv[1:]]
    try:
        record = training.train(
            chosen,
            out,
            data=data or "mnist",
            backend=backend or "auto",
            execution=execution,
            n_threads=threads,
            command=command,
            show_progress=not quiet,
        )
    except KeyboardInterrupt:
        saved = (
            f"the run is saved in {out}; to go on, type: {shlex.join(command)}"
            if out.exists()
            else "no epoch had ended, so nothing is saved"
        )
        click.echo(f"Interrupted: {saved}", err=True)
        sys.exit(INTERRUPTED)
    click.echo(f"{out}: {_summary(record)}")


@main.command()
@click.argument("what", metavar="PRESET|FILE.toml")
@click.option(
    "--grid",
    multiple=True,
    metavar="FIELD=V1,V2,...",
    help="Train with each of these values; may be repeated, for all combinations. Put semicolons "
    "between values that hold commas, and quote them: --grid 'n_units=500;800,800'.",
)
@click.option("--seeds", metavar="1-5|1,3,7", help="Of all random draws.  [default: 1]")
@click.option(
    "--folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Of the records, one for each run.",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Runs at once on this machine.  [default: all cores]"
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Train on the workers of this Dask scheduler, as in tcp://host:8786. Start them with as "
    "many threads as they have cores: each run takes one. They need no common disk.",
)
@click.option(
    "--curves-only",
    is_flag=True,
    help="Keep no parameters in finished records: about a hundredth of the space.",
)
@epochs_option
@settings_option
@data_option
@backend_option
@execution_option
@quiet_option
def sweep(
    what, grid, seeds, folder, jobs, scheduler, curves_only, epochs, settings, data, backend,
    execution, quiet,
):  # fmt: skip
    """Train PRESET with every combination of grid values and seeds, each into a file of its own.

    FILE.toml lists several presets instead, in tables [[runs]] with a preset and, if wanted,
    seeds, set and grid. Finished runs are skipped, and unfinished ones are resumed. So the same
    command goes on after Ctrl-C. A run that fails does not stop the others.
    """
    from reinforce_dropout.running import grid as grids
    from reinforce_dropout.running.sweep import sweep as train_all

    if jobs and scheduler:
        raise click.UsageError("--jobs is for this machine: leave it out with --scheduler.")
    if epochs is not None:
        settings["n_epochs"] = epochs
    chosen = grids.parse_seeds(seeds) if seeds is not None else None
    if what.endswith(".toml"):
        if grid:
            raise click.UsageError("--grid is for a preset: write the grid into the TOML file.")
        runs = grids.read(Path(what), chosen, settings)
    else:
        runs = grids.expand(what, grids.parse_grid(grid), chosen or [1], settings)
    outcomes = train_all(
        runs, folder, jobs=jobs, scheduler=scheduler, data=data or "mnist",
        backend=backend or "auto", execution=execution, curves_only=curves_only,
        command=["reinforce-dropout", *sys.argv[1:]], show_progress=not quiet,
    )  # fmt: skip
    sys.exit(_report(outcomes, folder))


def _report(outcomes, folder):
    """Tell how the runs of a sweep ended, and return the exit code."""
    by_how = {}
    for name, outcome in outcomes.items():
        by_how.setdefault(outcome.how, []).append(name)
        if outcome.text:
            click.echo(f"{name}: {outcome.text}", err=True)
    counts = ", ".join(f"{len(names)} {how}" for how, names in by_how.items())
    click.echo(f"{folder}: {len(outcomes)} runs: {counts}.")
    if "interrupted" in by_how:
        click.echo("Interrupted: type the same command again to go on.", err=True)
        return INTERRUPTED
    return int(not by_how.keys() <= {"finished", "busy"})


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "csv"]),
    default="markdown",
    show_default=True,
    help="markdown: a row for each setting, mean and standard deviation of its seeds; csv: a row "
    "for each run, errors and active units as fractions.",
)
def summarize(folder, form):
    """Print a table of the runs in FOLDER: settings that differ, seeds, errors, active units."""
    from reinforce_dropout.results import summary

    runs, troubles = summary.read(folder)
    click.echo(summary.TABLES[form](runs), nl=False)
    if troubles:
        raise ReinforceDropoutError("\n".join(troubles))


@main.command()
@record_file
@data_option
@backend_option
@click.option(
    "--instances-per-block",
    type=click.IntRange(1),
    help="Instances that share a mask.  [default: as trained]",
)
@click.option(
    "--execution",
    type=click.Choice(["dense", "block-sparse"]),
    default="dense",
    show_default=True,
    help="Whether dropped units are multiplied by 0 or skipped. The expected rule drops none and "
    "is dense in any case, and so is everything with the backend jax.",
)
def evaluate(file, data, backend, instances_per_block, execution):
    """Print the error rates of the best model in FILE.

    A network with masks is evaluated by three rules: sampled masks, their expectation sigma, and
    sigma thresholded at 1/2. The active fraction of each gated layer is printed, too.
    """
    from reinforce_dropout import systems
    from reinforce_dropout.results import records
    from reinforce_dropout.running import datasets
    from reinforce_dropout.running.evaluation import load_evaluation

    record = records.read(file)
    experiment = systems.from_dict(record.attributes["experiment"])
    evaluate_examples = load_evaluation(record, backend, instances_per_block, execution)
    dataset = datasets.load_for(experiment, data or record.attributes["data"])
    parts = {name: getattr(dataset, name) for name in ("valid", "test")}
    results = {name: evaluate_examples(examples) for name, examples in parts.items()}
    if dataset.sha256 != record.attributes["data_sha256"]:
        click.echo(
            f"Warning: {dataset.name} does not hold the data that the run was trained on, so the "
            "errors are not those that it recorded.",
            err=True,
        )
    click.echo(f"{'':<6}{'examples':>9}  {'rule':<12}{'error':>8}  active of each layer")
    for part, result in results.items():
        for rule, error in result.errors.items():
            active = " ".join(f"{a:.2%}" for a in result.active_fraction[rule])
            line = f"{part:<6}{len(parts[part]):>9}  {rule:<12}{error:>8.2%}  {active}"
            click.echo(line.rstrip())


@main.command()
@record_file
def show(file):
    """Print the settings, provenance, last and best epoch of the run in FILE."""
    from reinforce_dropout.results import records
    from reinforce_dropout.systems.settings import as_text

    record = records.read(file)
    attributes = dict(record.attributes)
    click.echo("Settings")
    for field, value in attributes.pop("experiment").items():
        click.echo(f"    {field} = {as_text(value)}")
    click.echo("Provenance")
    versions = attributes.pop("versions")
    attributes["versions"] = ", ".join(f"{k} {v}" for k, v in versions.items())
    resumed = attributes.pop("resumed", [])
    for name, value in attributes.items():
        click.echo(f"    {name}: {value}")
    for facts in resumed:
        changed = ", ".join(facts.keys() - {"time"})
        click.echo(f"    resumed: {facts['time']}{changed and f', with another {changed}'}")
    epochs = {"Last": record.n_epochs}
    if record.best_attributes:
        epochs["Best"] = record.best_epoch
    for title, epoch in epochs.items():
        click.echo(f"{title} epoch: {epoch}")
        for name, curve in record.curves.items():
            known = [v for v in curve[epoch - 1].flat if v == v]
            if known:  # what was not evaluated after this epoch is NaN
                click.echo(f"    {name}: {' '.join(f'{v:.6g}' for v in known)}")
    click.echo(_summary(record))


def _summary(record):
    """Say in one sentence how a run ended."""
    best, attributes = record.best_attributes, record.attributes
    ended = {
        "patience": "stopped early",
        "n_epochs": "reached its last epoch",
        "": "is unfinished",
    }[attributes["stopped_by"]]
    run = f"{attributes['experiment']['name']} (seed {attributes['seed']})"
    if not best:
        return f"{run} {ended} after epoch {record.n_epochs}; no epoch counts for its best yet."
    return (
        f"{run} {ended} after epoch {record.n_epochs}; best epoch {record.best_epoch}: "
        f"validation error {best['valid_error']:.2%}, test error {best['test_error']:.2%}."
    )


@main.command()
@record_file
@click.option(
    "--masks",
    is_flag=True,
    help="Draw how much each unit takes part in the test examples of each class, instead of the "
    "curves.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Name of the picture; .png and .pdf are added.  [default: FILE-curves or FILE-masks]",
)
@data_option
@backend_option
def plot(file, masks, out, data, backend):
    """Draw the curves of the run in FILE, or its masks."""
    from reinforce_dropout.results import figures, plots, records

    record = records.read(file)
    if masks:
        figure = plots.masks(*_participation(record, data, backend))
    else:
        figure = plots.curves(record)
    out = out or file.with_name(f"{file.stem}-{'masks' if masks else 'curves'}")
    for path in figures.save_figure(figure, out):
        click.echo(path)


def _participation(record, data, backend):
    """Return the arguments of `plots.masks`."""
    from reinforce_dropout import systems
    from reinforce_dropout.running import datasets, participation

    experiment = systems.from_dict(record.attributes["experiment"])
    test = datasets.load_for(experiment, data or record.attributes["data"]).test
    title = f"{experiment.name}, seed {experiment.seed}, epoch {record.best_epoch}: test examples"
    return participation.by_class(record, test, backend), record.class_names, title


record_files = click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)


@main.command()
@record_files
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("figure1"),
    show_default=True,
    help="Name of the figure; .png and .pdf are added.",
)
def figure1(files, out):
    """Draw Figure 1 from the records FILE... of policy-500 and policy-800-800."""
    from reinforce_dropout.results import claims, figures

    by_name = claims.read_by_preset(files)
    figure = figures.figure1(*claims.needed(by_name, "policy-500", "policy-800-800"))
    for path in figures.save_figure(figure, out):
        click.echo(path)


@main.command()
@record_files
def table(files):
    """Print the paper's figures beside those of the records FILE..., as Markdown."""
    from reinforce_dropout.results import claims

    click.echo(claims.table({"recorded": claims.read_by_preset(files)}), nl=False)
