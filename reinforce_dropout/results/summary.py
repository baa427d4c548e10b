"""A table of the runs in a folder, from their records."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import records
from reinforce_dropout.results.records import Record
from reinforce_dropout.systems.settings import as_text

_ALWAYS_APART = ("system", "name", "seed")
"""Fields with columns of their own, and the system, which follows from the preset."""


def read(folder: Path) -> tuple[dict[str, Record], list[str]]:
    """Return the records in a folder by file name, and a sentence for each unreadable one.

    Runs without an epoch that counts are left out. If nothing is found, it raises RecordError.
    """
    found, troubles = {}, []
    for path in sorted(Path(folder).glob("*.hdf5")):
        try:
            record = records.read(path)
        except RecordError as error:
            troubles.append(str(error))
            continue
        if record.best_attributes:
            found[path.name] = record
    if not found and not troubles:
        raise RecordError(f"there are no records in {folder}: name the folder of a sweep.")
    return found, troubles


def _differing(runs):
    """Return the fields in which the experiments differ, except system, name and seed."""
    experiments = [run.attributes["experiment"] for run in runs]
    fields = dict.fromkeys(field for e in experiments for field in e)
    return [
        field
        for field in fields
        if field not in _ALWAYS_APART and len({as_text(e.get(field, "")) for e in experiments}) > 1
    ]


def _settings(run, fields):
    """Return the name of the run's preset, and some fields of its experiment, as text."""
    experiment = run.attributes["experiment"]
    return (experiment["name"], *(as_text(experiment.get(field, "")) for field in fields))


def active(run):
    """Return the active fraction of each gated layer (L,) at the best epoch; L may be 0."""
    curve = run.curves.get("active_fraction")
    return np.empty(0) if curve is None else curve[run.best_epoch - 1]


def markdown(runs: dict[str, Record]) -> str:
    """Return a Markdown table with one row for all seeds of a setting: mean ± standard deviation.

    Finished and unfinished runs have separate rows.
    """
    fields = _differing(runs.values())
    groups = {}
    for run in runs.values():
        finished = run.attributes["status"] == "finished"
        groups.setdefault((_settings(run, fields), finished), []).append(run)
    rows = [
        ["preset", *fields, "seeds", "best epoch", "validation error", "test error"]
        + ["active units of each layer"]
    ]
    rows.append(["---"] * len(rows[0]))
    for (settings, finished), group in groups.items():
        seeds = sorted(run.attributes["seed"] for run in group)
        layers = np.array([active(run) for run in group]).T
        rows.append(
            [*settings, ", ".join(map(str, seeds)) + ("" if finished else " (unfinished)")]
            + [spread([run.best_epoch for run in group], "{:.0f}")]
            + [
                spread([100 * run.best_attributes[name] for run in group], "{:.2f}") + " %"
                for name in ("valid_error", "test_error")
            ]
            + [", ".join(f"{spread(100 * layer, '{:.1f}')} %" for layer in layers) or "all"]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def spread(values: Sequence[float], form):
    """Write one value, or mean ± standard deviation (of a sample: n - 1) of several."""
    if len(values) == 1:
        return form.format(values[0])
    return f"{form} ± {form}".format(np.mean(values), np.std(values, ddof=1))


def comma_separated(runs: dict[str, Record]) -> str:
    """Return CSV with one row for each run; errors and active units are fractions."""
    fields = _differing(runs.values())
    n_layers = max((len(active(run)) for run in runs.values()), default=0)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        ["file", "preset", *fields, "seed", "status", "epochs", "best_epoch", "valid_error"]
        + ["test_error", *(f"active_fraction_{i + 1}" for i in range(n_layers))]
    )
    for name, run in runs.items():
        best, fractions = run.best_attributes, active(run)
        table.writerow(
            [name, *_settings(run, fields), run.attributes["seed"], run.attributes["status"]]
            + [run.n_epochs, run.best_epoch, best["valid_error"], best["test_error"]]
            + [f"{a:.6g}" for a in fractions]
            + [""] * (n_layers - len(fractions))
        )
    return out.getvalue()


TABLES = {"markdown": markdown, "csv": comma_separated}
"""Tables by the name of their format."""
