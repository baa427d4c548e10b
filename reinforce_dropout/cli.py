"""The command line: results on stdout, progress and errors on stderr.

Exit codes: 0 done; 1 something the user can mend, said in one sentence; 2 wrong usage;
130 interrupted, the run saved.
"""

import shlex
import sys
from pathlib import Path

import click

from reinforce_dropout import __version__
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
@click.version_option(__version__, prog_name="reinforce-dropout")
def main():
    """Train networks with sigmoid-Bernoulli dropout policies (Bacon et al., 2015)."""


record_file = click.argument("file", type=click.Path(path_type=Path))
data_option = click.option(
    "--data",
    metavar="mnist|FOLDER",
    help="The packaged MNIST, or a folder with your own IDX files: train-images-idx3-ubyte, "
    "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each gzipped "
    "(.gz) or not.",
)
backend_option = click.option(
    "--backend",
    metavar="auto|numba|c|jax",
    help="What the symbolic graphs are compiled to.  [default: auto, or that of the run in FILE]",
)


@main.command()
def presets():
    """List the presets: the experiments of section 4 of the paper, and block dropout."""
    from reinforce_dropout.experiment import BLOCK_PRESETS, PRESETS, Experiment

    for name, experiment in (PRESETS | BLOCK_PRESETS).items():
        click.echo(f"{name}: hidden units {'-'.join(map(str, experiment.n_units))}")
        for field, (value, default) in experiment.differences(Experiment()).items():
            if field not in ("name", "n_units"):
                click.echo(f"    {field} = {value} (otherwise {default})")
    click.echo("\nAll fields and their defaults; change them with --set FIELD=VALUE:")
    for field, value in Experiment().as_dict().items():
        click.echo(f"    {field} = {_as_typed(value)}")


def _as_typed(value):
    """Write a field's value the way --set takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings(_context, _option, pairs):
    """Turn FIELD=VALUE texts into a dict."""
    settings = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"{pair!r} is not of the form FIELD=VALUE.")
        settings[field.strip()] = value.strip()
    return settings


@main.command()
@click.argument("preset")
@click.option("--seed", type=int, help="Of all random draws.  [default: the preset's, 1]")
@click.option("--epochs", type=int, help="Train for at most so many epochs.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="FIELD=VALUE",
    callback=_settings,
    help="Change a field of the preset; may be repeated. `presets` lists the fields.",
)
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The record to write.  [default: PRESET-seedN.hdf5]",
)
@backend_option
@click.option(
    "--threads", type=click.IntRange(1), help="Of the products of matrices.  [default: all]"
)
@click.option(
    "--execution",
    type=click.Choice(["dense", "block-sparse"]),
    default="dense",
    show_default=True,
    help="Whether dropped units are multiplied by 0 or never touched, the latter for mini-batches "
    "of one block. With the backend jax all is dense.",
)
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
def train(preset, seed, epochs, settings, data, out, backend, threads, execution, quiet):
    """Train PRESET, keeping its record in an HDF5 file.

    The file is replaced after an epoch, at most every 5 seconds, and when the run ends or is
    interrupted. The same command on a file that holds an unfinished run goes on with it. On the
    same processor, with the same versions, it ends with the numbers of a run that was never
    stopped.
    """
    from reinforce_dropout import experiment, training

    if seed is not None:
        settings["seed"] = seed
    if epochs is not None:
        settings["n_epochs"] = epochs
    chosen = experiment.preset(preset).replace(**settings)
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

    By three rules for what takes the place of the mask: sampled masks, their expectation sigma,
    and sigma thresholded at 1/2; with the active fraction of each hidden layer.
    """
    from reinforce_dropout import datasets, records
    from reinforce_dropout.evaluation import load_evaluation
    from reinforce_dropout.experiment import Experiment
    from reinforce_dropout.network import MASK_RULES

    record = records.read(file)
    experiment = Experiment.from_dict(record.attributes["experiment"])
    evaluate_examples = load_evaluation(record, backend, instances_per_block, execution)
    dataset = datasets.load(data or record.attributes["data"], experiment.validation_fraction)
    rules = list(MASK_RULES) if experiment.policy else ["no policy"]
    results = {
        part: (len(getattr(dataset, part)), evaluate_examples(getattr(dataset, part)))
        for part in ("valid", "test")
    }
    if dataset.sha256 != record.attributes["data_sha256"]:
        click.echo(
            f"Warning: {dataset.name} does not hold the data that the run was trained on, so the "
            "errors are not those that it recorded.",
            err=True,
        )
    click.echo(f"{'':<6}{'examples':>9}  {'rule':<12}{'error':>8}  active of each layer")
    for part, (n, result) in results.items():
        for i, rule in enumerate(rules):
            active = " ".join(f"{a:.2%}" for a in result.active_fraction[i : i + 1].flat)
            line = f"{part:<6}{n:>9}  {rule:<12}{result.errors.flat[i]:>8.2%}  {active}"
            click.echo(line.rstrip())


@main.command()
@record_file
def show(file):
    """Print the settings, provenance, last and best epoch of the run in FILE."""
    from reinforce_dropout import records

    record = records.read(file)
    attributes = dict(record.attributes)
    click.echo("Settings")
    for field, value in attributes.pop("experiment").items():
        click.echo(f"    {field} = {_as_typed(value)}")
    click.echo("Provenance")
    versions = attributes.pop("versions")
    attributes["versions"] = ", ".join(f"{k} {v}" for k, v in versions.items())
    resumed = attributes.pop("resumed", [])
    for name, value in attributes.items():
        click.echo(f"    {name}: {value}")
    for facts in resumed:
        changed = ", ".join(facts.keys() - {"time"})
        click.echo(f"    resumed: {facts['time']}{changed and f', with another {changed}'}")
    for title, epoch in (("Last", record.n_epochs), ("Best", record.best_epoch)):
        click.echo(f"{title} epoch: {epoch}")
        for name, curve in record.curves.items():
            click.echo(f"    {name}: {' '.join(f'{v:.6g}' for v in curve[epoch - 1].flat)}")
    click.echo(_summary(record))


def _summary(record):
    """Say in one sentence how a run ended."""
    best, attributes = record.best_attributes, record.attributes
    ended = {
        "patience": "stopped early",
        "n_epochs": "reached its last epoch",
        "": "is unfinished",
    }[attributes["stopped_by"]]
    return (
        f"{attributes['experiment']['name']} (seed {attributes['seed']}) {ended} after epoch "
        f"{record.n_epochs}; best epoch {record.best_epoch}: "
        f"validation error {best['valid_error']:.2%}, test error {best['test_error']:.2%}."
    )


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
    from reinforce_dropout import report

    by_name = report.read_by_preset(files)
    figure = report.figure1(*report.needed(by_name, "policy-500", "policy-800-800"))
    for path in report.save_figure(figure, out):
        click.echo(path)


@main.command()
@record_files
def table(files):
    """Print the paper's figures beside those of the records FILE..., as Markdown."""
    from reinforce_dropout import claims, report

    click.echo(claims.table({"recorded": report.read_by_preset(files)}), nl=False)
