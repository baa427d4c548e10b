"""Better learning rates by random search: every trial, and the choice with fresh seeds."""

import numpy as np

from evidence import drawing, runs
from reinforce_dropout.results import summary
from reinforce_dropout.systems.settings import as_text


def trials(records):
    """Return the runs of the search, the best first: those with the seed that most of them have."""
    seeds = [run.attributes["seed"] for run in records]
    own = max(set(seeds), key=seeds.count)
    return sorted((run for run in records if run.attributes["seed"] == own), key=error)


def choice(trials):
    """Return the trial with the lowest validation error. The test error plays no part."""
    return min(trials, key=error)


def error(run):
    """Return the lowest validation error in per cent."""
    return 100 * float(np.min(run.curves["valid_error"]))


def again(records):
    """Return ``{text of the changes: runs}`` of the runs with fresh seeds, the preset's first."""
    searched = {id(run) for run in trials(records)}
    rest = [run for run in records if id(run) not in searched]
    groups = runs.grouped(rest, runs.preset_of)
    return {change: group for (_, change), group in sorted(groups.items())}


def fields_of(trials):
    """Return the names of the fields in which trials differ from their preset."""
    changes = [runs.changes(run, runs.preset_of(run)) for run in trials]
    return list(dict.fromkeys(field for found in changes for field in found))


def table(records):
    """Return the choice with fresh seeds beside the preset, and a row for each trial."""
    searched = trials(records)
    lines = [
        "| setting | seeds | validation error | test error | active units |",
        "| --- | --- | --- | --- | --- |",
    ]
    for change, group in again(records).items():
        lines.append(
            f"| {change or 'the preset'} "
            f"| {', '.join(str(run.attributes['seed']) for run in group)} "
            f"| {summary.spread([error(run) for run in group], '{:.2f}')} % "
            f"| {summary.spread(runs.test_errors(group), '{:.2f}')} % "
            f"| {summary.spread(runs.active_units(group), '{:.1f}')} % |"
        )
    fields = fields_of(searched)
    lines += [
        "",
        f"All {len(searched)} trials, seed {searched[0].attributes['seed']}, "
        f"{searched[0].attributes['experiment']['n_epochs']} epochs at most. The first one was "
        "chosen, by its validation error alone.",
        "",
        f"| {' | '.join(fields)} | validation error | best epoch | active units |",
        "| --- " * (len(fields) + 3) + "|",
    ]
    for run in searched:
        values = " | ".join(as_text(run.attributes["experiment"][field]) for field in fields)
        (active,) = runs.active_units([run])
        lines.append(f"| {values} | {error(run):.2f} % | {run.best_epoch} | {active:.1f} % |")
    return "\n".join(lines) + "\n"


@drawing.styled
def figure(records):
    """Draw the validation error of the trials against each field, the choice marked."""
    searched = trials(records)
    fields = fields_of(searched)
    figure, (columns,) = drawing.new((4.2 * len(fields), 3.8), len(fields), n_rows=1)
    for axes, field in zip(columns, fields, strict=True):
        for run in searched:
            chosen = run is searched[0]
            style = {"color": "#d55e00", "marker": "*", "markersize": 12} if chosen else {}
            settings = run.attributes["experiment"]
            text = ", ".join(f"{name}={as_text(settings[name])}" for name in fields)
            drawing.point(
                axes, settings[field], error(run), f"{text}: {error(run):.2f} %",
                **({"color": "black", "marker": "o", "markersize": 4} | style),
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel=field, ylabel="validation error (%)")
        axes.xaxis.set_major_formatter("{x:g}")
        drawing.log_labels(axes.yaxis)
    labels = {"color": "#d55e00", "marker": "*", "markersize": 12, "linestyle": "none"}
    columns[0].plot([], [], label="the choice", **labels)
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center")
    return figure
