"""Recorded runs of a folder, grouped by their settings."""

import json

from reinforce_dropout import preset, systems
from reinforce_dropout.results import files, provenance, records, summary
from reinforce_dropout.running import grid
from reinforce_dropout.systems.settings import as_text

_NO_CHOICE = ("name", "system", "seed", "n_epochs", "patience", "cnn")
"""Fields by which runs are not told apart. ``cnn`` is a path with the seed, see `dasnet`."""


MEASURED = {"timed": "times", "paired": "paired"}
"""Attributes of a record that come from files beside it, and the files' names without .json.

Such a file has the command and the versions, and a dict of values by name under its own name.
"""


ONLY_RULE = "all units"
"""The rule of systems without gates."""


def read(folder):
    """Return the finished records of a folder, in the order of their names, see `by_name`."""
    return list(by_name(folder).values())


def by_name(folder):
    """Return ``{name of the file: record}`` of the finished records of a folder.

    The attributes `MEASURED` of a record are None where nothing of it has been measured.
    """
    measured = {attribute: _measured(folder, name) for attribute, name in MEASURED.items()}
    found = {}
    for path in sorted(folder.glob("*.hdf5")):
        run = records.read(path)
        if run.attributes["status"] == "finished":
            run.attributes |= {key: values.get(path.stem) for key, values in measured.items()}
            found[path.stem] = run
    return found


def _measured(folder, name):
    path = folder / f"{name}.json"
    return json.loads(path.read_text())[name] if path.exists() else {}


def preset_of(run):
    """Return the name of a run's preset."""
    return run.attributes["experiment"]["name"]


def test_errors(group):
    """Return the test error of each run's best model in per cent."""
    return [100 * run.best_attributes["test_error"] for run in group]


def active_units(group):
    """Return the active units of each run at its best epoch, mean over the layers, in per cent."""
    return [100 * summary.active(run).mean() for run in group]


def drops_units(run):
    """Tell whether units are left out at test time. The expected rule keeps them all."""
    gated = len(summary.active(run)) > 0
    return gated and run.attributes["experiment"].get("evaluation_rule") != "expected"


def write_measured(folder, name, command, values, **facts):
    """Write a file of `MEASURED`, with values by the name of the run, and further facts."""
    facts = provenance.collect(command) | facts | {name: values}
    files.write_whole(folder / f"{name}.json", json.dumps(facts, indent=1).encode())


def not_run(folder, sweep):
    """Return a sentence that lists the runs of a sweep's TOML file that a folder lacks, or ""."""
    missing = {}
    for run in grid.read(sweep, None, {}):
        if not (folder / f"{run.name}.hdf5").exists():
            name, _, seed = run.name.rpartition("-seed")
            missing.setdefault(name, []).append(seed)
    listed = [f"{name} (seed {', '.join(seeds)})" for name, seeds in missing.items()]
    return f"\nNot run yet: {'; '.join(listed)}.\n" if listed else ""


def experiment(run):
    """Return the experiment of a record."""
    return systems.from_dict(run.attributes["experiment"])


def changes(run, base):
    """Return ``{field: value}`` where a run differs from a preset, except seed and length.

    A field that the preset's system lacks counts as chosen if it has not its default.
    """
    own, defaults = experiment(run).as_dict(), type(experiment(run))().as_dict()
    theirs = defaults | preset(base).as_dict()
    return {k: v for k, v in own.items() if k not in _NO_CHOICE and v != theirs[k]}


def grouped(runs, base_of):
    """Return ``{(base, text of the changes): runs}``; ``base_of(run)`` names a preset."""
    groups = {}
    for run in runs:
        base = base_of(run)
        text = ", ".join(f"{k}={as_text(v)}" for k, v in changes(run, base).items())
        groups.setdefault((base, text), []).append(run)
    return groups


def describe(run):
    """Return a line about a run for a reader who points at it."""
    fields = run.attributes["experiment"]
    best = run.best_attributes
    return (
        f"{fields['name']}, seed {run.attributes['seed']}: test error "
        f"{100 * best['test_error']:.2f} %, best epoch {run.best_epoch} of {run.n_epochs}"
    )
