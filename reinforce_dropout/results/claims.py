"""The paper's statements beside our numbers, in a table from records. Nothing here trains."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import records
from reinforce_dropout.results.records import Record
from reinforce_dropout.systems import PRESETS, from_dict

QUICK_NOTE = "quick run: a few epochs, not the paper's settings"
TOO_SHORT = "too few epochs"


@dataclass(frozen=True)
class Claim:
    """One of the paper's statements, and how to measure it in a record.

    Attributes
    ----------
    preset : str
        The run of the statement.
    what : str
        What is measured, in words.
    paper : str
        The paper's number or words; "-" if it gives none.
    values : callable
        ``values(record) -> tuple of float``, or None if the run is too short. They are apart from
        `text` because several seeds are averaged.
    text : str
        Format of the values, with their unit.
    """

    preset: str
    what: str
    paper: str
    values: Callable[[Record], tuple[float, ...] | None]
    text: str

    def measure(self, record: Record) -> str:
        """Return our number as text, marked when the run has not ended."""
        values = self.values(record)
        number = TOO_SHORT if values is None else self.text.format(*values)
        if record.attributes["status"] == "finished":
            return number
        return f"{number} (unfinished, epoch {record.n_epochs})"

    def spread(self, runs: Sequence[Record]) -> str:
        """Return mean ± standard deviation over several runs (of a sample: n - 1) as text."""
        found = [self.values(record) for record in runs]
        if any(values is None for values in found):
            return TOO_SHORT
        values = np.array(found)
        both = np.stack([values.mean(axis=0), values.std(axis=0, ddof=1)], axis=1)
        return re.sub("{.*?}", r"\g<0> ± \g<0>", self.text).format(*both.flat)


def _test_error(record):
    return (100 * record.best_attributes["test_error"],)


def _test_error_by(rule):
    return lambda record: (100 * record.curves[f"test_error_{rule}"][record.best_epoch - 1],)


def _first_and_best(curve, layer, scale=1):
    """Return a function giving a curve's value in the first and in the best epoch."""

    def values(record):
        column = scale * record.curves[curve][:, layer]
        return column[0], column[record.best_epoch - 1]

    return values


def _errors(preset, paper):
    error = "{:.2f} %"
    return (
        Claim(preset, "test error", paper, _test_error, error),
        Claim(preset, "test error, expected masks", "-", _test_error_by("expected"), error),
        Claim(preset, "test error, thresholded masks", "-", _test_error_by("thresholded"), error),
    )


def _activation(preset, layer, where, paper):
    values = _first_and_best("active_fraction", layer, 100)
    return Claim(preset, f"active units{where}, first to best epoch", paper, values,
                 "{:.1f} to {:.1f} %")  # fmt: skip


def _gain(preset, layer, paper):
    """Return the claim on a layer's gain in the first epochs; the best epoch varies too much."""

    def values(record):
        column = 100 * record.curves["active_fraction"][:, layer]
        return None if len(column) < _FIRST_EPOCHS else (column[_FIRST_EPOCHS - 1] - column[0],)

    what = f"active units of layer {layer + 1}, gain from epoch 1 to {_FIRST_EPOCHS}"
    return Claim(preset, what, paper, values, "{:.1f} points")


def _activation_at(preset, epoch):
    """Return the claim that compares both layers at one epoch, also between settings."""

    def values(record):
        curve = 100 * record.curves["active_fraction"]
        return tuple(curve[epoch - 1]) if len(curve) >= epoch else None

    what = f"active units of layers 1 and 2 at epoch {epoch}"
    return Claim(preset, what, "-", values, "{:.1f} and {:.1f} %")


def _entropy(preset, layer, which, paper):
    values = _first_and_best("policy_entropy", layer)
    return Claim(preset, f"entropy of the {which}, first to best epoch", paper, values,
                 "{:.3f} to {:.3f} nats per unit")  # fmt: skip


def _epochs(preset, paper):
    return Claim(
        preset, "epochs to the best model", paper, lambda record: (record.best_epoch,), "{:.0f}"
    )


_FIRST_EPOCHS = 5
_FASTER = "layer 1 increases much faster than layer 2"

CLAIMS = (
    Claim("baseline-500", "test error", "1.7 %", _test_error, "{:.2f} %"),
    _epochs("baseline-500", "-"),
    *_errors("policy-500", "2 %"),
    _activation(
        "policy-500", 0, "", "10-15 % before training, about 30 % at the lowest test error"
    ),
    _entropy("policy-500", 0, "policy", "-"),
    _epochs("policy-500", "more than without policies"),
    *_errors("policy-800-800", "-"),
    _gain("policy-800-800", 0, _FASTER),
    _gain("policy-800-800", 1, _FASTER),
    _activation("policy-800-800", 0, " of layer 1", "-"),
    _activation("policy-800-800", 1, " of layer 2", "-"),
    _activation_at("policy-800-800", 50),
    _activation_at("policy-800-800", 100),
    _entropy("policy-800-800", 0, "first policy", "decreases"),
    _entropy("policy-800-800", 1, "second policy", "-"),
    _epochs("policy-800-800", "-"),
)
"""What section 4 says of the presets, in its order."""

PAPER = tuple(dict.fromkeys(claim.preset for claim in CLAIMS))
"""The presets of section 4."""

_LEGEND = (
    "The best epoch is that of the lowest validation error, and test errors are those of its "
    "model, by the run's evaluation rule where the claim names none (sampled masks in the paper's "
    "presets). Active units and entropies are means over an epoch's training."
)


def read_by_preset(paths: Iterable[str | os.PathLike]) -> dict[str, Record]:
    """Read records by the name of their preset: one for each, and of the paper's presets only."""
    found = {}
    for path in paths:
        record = records.read(path)
        name = record.attributes["experiment"]["name"]
        if name not in PAPER:
            raise RecordError(
                f"{path} holds the experiment {name!r}, which the paper says nothing of: "
                f"name records of {', '.join(PAPER)}."
            )
        if name in found:
            raise RecordError(f"{path} is the second record of {name}: name one only.")
        found[name] = record
    return found


def needed(by_name: dict[str, Record], *presets: str) -> list[Record]:
    """Return the records of some presets; refuse to go without one."""
    for preset in presets:
        if preset not in by_name:
            raise RecordError(f"there is no record of {preset}: train it and name its file.")
    return [by_name[preset] for preset in presets]


def table(
    columns: dict[str, dict[str, Record | Sequence[Record]]],
    quick: bool = False,
    presets: tuple[str, ...] = PAPER,
) -> str:
    """Return the paper's statements beside columns of our numbers, in Markdown.

    Below the table are the seed, the length and every deviation from the preset of each run.

    Parameters
    ----------
    columns : dict from str to dict from str to Record or sequence of Record
        Runs by the name of their preset, for each heading. Several runs of a preset give mean ±
        standard deviation. A missing preset shows "not run".
    quick : bool
        Whether to mark the table as that of quick runs.
    presets : tuple of str
        Show their statements only.
    """
    shown = [claim for claim in CLAIMS if claim.preset in presets]
    notes = [
        f"- {column}, {preset}: {_describe(runs[preset], preset)}."
        for column, runs in columns.items()
        for preset in presets
        if isinstance(runs.get(preset), Record)
    ]
    parts = [f"**This is a {QUICK_NOTE}.**"] if quick else []
    parts += [rows(columns, shown), _LEGEND]
    parts += ["\n".join(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def stated(columns: dict[str, dict[str, Record | Sequence[Record]]]) -> str:
    """Return the rows of the table that have a number or words of the paper, in Markdown."""
    return rows(columns, [claim for claim in CLAIMS if claim.paper != "-"]) + "\n"


def rows(columns, shown: Iterable[Claim]) -> str:
    """Return a table with a row for each claim; `columns` as for `table`."""
    lines = [["claim", "paper", *columns], ["---"] * (2 + len(columns))]
    lines += [
        [f"{claim.preset}: {claim.what}", claim.paper]
        + [_cell(claim, runs.get(claim.preset)) for runs in columns.values()]
        for claim in shown
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(claim, found):
    if found is None:
        return "not run"
    return claim.measure(found) if isinstance(found, Record) else claim.spread(found)


def _describe(record, preset):
    """Return seed, length and deviations of a run in words."""
    attributes = record.attributes
    ends = {"patience": ", ended by early stopping", "n_epochs": ", ended by n_epochs", "": ""}
    text = f"seed {attributes['seed']}, {record.n_epochs} epochs{ends[attributes['stopped_by']]}"
    if attributes["status"] != "finished":
        text += ", unfinished"
    differences = from_dict(attributes["experiment"]).differences(PRESETS[preset])
    deviations = [
        f"{field} {ours} instead of {papers}"
        for field, (ours, papers) in differences.items()
        if field != "seed"  # named already, and no deviation
    ]
    if attributes["data"] != "mnist":
        deviations.append(f"data {Path(attributes['data']).name} instead of mnist")
    return "; ".join([text, *deviations])
