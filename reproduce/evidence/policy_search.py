"""The policy search that the conclusion asks for: who reaches REINFORCE's best error first."""

import numpy as np

from evidence import drawing, ledger
from reinforce_dropout.results import summary

BASE = "policy-500"


def _valid(run):
    return 100 * run.curves["valid_error"]


def _seconds(run):
    return np.cumsum(run.curves["epoch_seconds"])


def goal(records):
    """Return the lowest validation error that plain REINFORCE reaches, median over its seeds."""
    (plain,) = [found for _, change, found in ledger.rows(records) if not change]
    return float(np.median([_valid(run).min() for run in plain]))


def first_epoch(run, goal):
    """Return the first epoch, from 1, whose validation error is at most the goal; or infinity."""
    reached = np.flatnonzero(_valid(run) <= goal)
    return reached[0] + 1 if len(reached) else np.inf


def _time(run, goal):
    epoch = first_epoch(run, goal)
    return np.inf if np.isinf(epoch) else _seconds(run)[int(epoch) - 1]


def table(records):
    """Return a row for each way of the search in Markdown."""
    aim = goal(records)
    shown = ledger.rows(records)
    own = next(found for _, change, found in shown if not change)
    reference = np.median([first_epoch(run, aim) for run in own])
    lines = [
        "| search | seeds | validation error | test error | active units "
        f"| epochs to {aim:.2f} % validation error (median) | of REINFORCE's | seconds to it "
        "| seconds an epoch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for _, change, found in shown:
        epochs = np.median([first_epoch(run, aim) for run in found])
        seconds = np.median([_time(run, aim) for run in found])
        active = [100 * summary.active(run).mean() for run in found]
        pace = np.median([np.median(run.curves["epoch_seconds"]) for run in found])
        lines.append(
            f"| {change or 'REINFORCE, as the preset'} "
            f"| {', '.join(str(run.attributes['seed']) for run in found)} "
            f"| {summary.spread([_valid(run).min() for run in found], '{:.2f}')} % "
            f"| {summary.spread(_test(found), '{:.2f}')} % "
            f"| {summary.spread(active, '{:.1f}')} % "
            f"| {_number(epochs, '{:.0f}')} | {_number(epochs / reference, '{:.2f}')} "
            f"| {_number(seconds, '{:.0f}')} | {pace:.2f} |"
        )
    longest = max(run.n_epochs for run in records)
    return "\n".join(lines) + (
        f"\n\nAll runs of {BASE}, at most {longest} epochs. Seconds include evaluation, and depend "
        "on what else the machine did.\n"
    )


def _test(found):
    return [100 * run.best_attributes["test_error"] for run in found]


def _number(value, form):
    return form.format(value) if np.isfinite(value) else "not reached"


@drawing.styled
def figure(records):
    """Draw validation error against epochs and seconds, and active units: medians over seeds."""
    figure, (left, middle, right) = drawing.new(figsize=(12, 4.2), n_columns=3)
    for i, (_, change, found) in enumerate(ledger.rows(records)):
        n = min(run.n_epochs for run in found)
        style = {"color": "black" if not change else f"C{i % 10}"}
        style |= {"linewidth": 2 if not change else 1, "linestyle": "-" if i < 10 else "--"}
        error = np.median([np.minimum.accumulate(_valid(run)[:n]) for run in found], axis=0)
        seconds = np.median([_seconds(run)[:n] for run in found], axis=0)
        curves = [100 * run.curves["active_fraction"][:n].mean(axis=1) for run in found]
        epochs = np.arange(1, n + 1)
        left.plot(epochs, error, label=change or "REINFORCE", **style)
        middle.plot(seconds, error, **style)
        right.plot(epochs, np.median(curves, axis=0), **style)
    for axes in (left, middle):
        axes.set(yscale="log", ylabel="lowest validation error so far (%)")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    left.set(xlabel="epoch", title="by epochs")
    middle.set(xlabel="seconds", title="by time")
    right.set(xlabel="epoch", ylabel="active units (%)", title="active units")
    right.set_ylim(0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
