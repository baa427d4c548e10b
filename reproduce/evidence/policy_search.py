"""The policy search that the conclusion asks for: who reaches REINFORCE's best error first."""

import numpy as np

from evidence import drawing, ledger, runs
from reinforce_dropout.results import summary

HALF = 0.5
"""A search succeeds that needs at most this share of REINFORCE's epochs."""


def searches(records):
    """Return ``{preset: {change: runs}}``: for each preset REINFORCE's own runs first, as ""."""
    found = {}
    for base, change, group in ledger.rows(records):
        found.setdefault(base, {})[change] = group
    return found


def _valid(run):
    return 100 * run.curves["valid_error"]


def goal(found):
    """Return the lowest validation error that plain REINFORCE reaches, median over its seeds.

    Parameters
    ----------
    found : dict from str to list of Record
        Of one preset, see `searches`.
    """
    return float(np.median([_valid(run).min() for run in found[""]]))


def first_epoch(run, goal):
    """Return the first epoch, from 1, whose validation error is at most the goal; or infinity."""
    reached = np.flatnonzero(_valid(run) <= goal)
    return reached[0] + 1 if len(reached) else np.inf


def median_epoch(group, goal):
    """Return the median over seeds of `first_epoch`, infinity if half of them never reach it."""
    return float(np.median([first_epoch(run, goal) for run in group]))


def step_ratio(group, plain):
    """Return the time of a training step over that of plain REINFORCE, nan if not timed."""
    own, reference = (one[0].attributes["timed"] for one in (group, plain))
    return own["step"] / reference["step"] if own and reference else np.nan


def table(records):
    """Return a row for each way of the search in Markdown, and who reaches the target."""
    lines = [
        "| network | search | seeds | validation error | test error | active units "
        "| epochs to REINFORCE's best | of REINFORCE's | step, of REINFORCE's "
        "| time to it, of REINFORCE's |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    notes = []
    for base, found in searches(records).items():
        aim, plain = goal(found), found[""]
        reference = median_epoch(plain, aim)
        quick = []
        for change, group in found.items():
            epochs = median_epoch(group, aim)
            ratio, step = epochs / reference, step_ratio(group, plain)
            quick += [change] * (bool(change) and ratio <= HALF)
            active = runs.active_units(group)
            lines.append(
                f"| {base} | {change or 'REINFORCE, as the preset'} "
                f"| {', '.join(str(run.attributes['seed']) for run in group)} "
                f"| {summary.spread([_valid(run).min() for run in group], '{:.2f}')} % "
                f"| {summary.spread(runs.test_errors(group), '{:.2f}')} % "
                f"| {summary.spread(active, '{:.1f}')} % "
                f"| {_number(epochs, '{:.0f}')} | {_number(ratio)} "
                f"| {'-' if np.isnan(step) else f'{step:.2f}'} | {_time(ratio * step)} |"
            )
        longest = max(run.n_epochs for group in found.values() for run in group)
        names = "; ".join(quick) or "none"
        notes.append(
            f"{base}: at most {longest} epochs; REINFORCE's best validation error is {aim:.2f} % "
            f"(median over seeds). At most half of its epochs need: {names}."
        )
    notes.append(
        "Epochs are medians over seeds. The time of a step is measured on one thread, all searches "
        "in turns. In the figure a run that ended early keeps its last value."
    )
    return "\n".join(lines) + "\n\n" + "\n\n".join(notes) + "\n"


def _number(value, form="{:.2f}"):
    return form.format(value) if np.isfinite(value) else "not reached"


def _time(value):
    return "-" if np.isnan(value) else _number(value)


@drawing.styled
def figure(records):
    """Draw validation error against epochs and time, and active units: medians over seeds."""
    found = searches(records)
    figure, rows = drawing.new(figsize=(12, 1.2 + 3.4 * len(found)), n_columns=3, n_rows=len(found))
    changes = list(dict.fromkeys(change for groups in found.values() for change in groups))
    styles = {change: _style(i) for i, change in enumerate(changes)}
    for (base, groups), axes in zip(found.items(), rows, strict=True):
        _draw(base, groups, axes, styles)
    handles = [
        rows[0][0].plot([], [], label=change or "REINFORCE, as the preset", **style)[0]
        for change, style in styles.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw(base, groups, panels, styles):
    left, middle, right = panels
    for change, group in groups.items():
        style = styles[change]
        error = _median([np.minimum.accumulate(_valid(run)) for run in group])
        active = _median([100 * run.curves["active_fraction"].mean(axis=1) for run in group])
        epochs = np.arange(1, len(error) + 1)
        left.plot(epochs, error, **style)
        middle.plot(epochs * step_ratio(group, groups[""]), error, **style)
        right.plot(epochs, active, **style)
    for axes in (left, middle):
        axes.axhline(goal(groups), color="0.7", linewidth=0.8, zorder=0)
        axes.set(yscale="log", ylabel="lowest validation error so far (%)")
        drawing.log_labels(axes.yaxis)
    left.set(xlabel="epoch", title=f"{base}, by epochs")
    middle.set(xlabel="time (epochs of REINFORCE)", title="by time")
    right.set(xlabel="epoch", ylabel="active units (%)", title="active units")
    right.set_ylim(0)

    if all(np.isnan(step_ratio(group, groups[""])) for group in groups.values()):
        middle.clear()
        middle.text(0.5, 0.5, "not timed yet", ha="center", transform=middle.transAxes)
        middle.set_axis_off()


def _median(curves):
    """Return the median over the runs; one that ended early keeps its last value."""
    n = max(map(len, curves))
    return np.median([np.pad(curve, (0, n - len(curve)), mode="edge") for curve in curves], axis=0)


def _style(i):
    """Return the style of line i: REINFORCE is black; others differ by colour and by dashes."""
    if i == 0:
        return {"color": "black", "linewidth": 2}
    dashes = ("-", (0, (4, 2)), (0, (1, 1)))
    return {"color": f"C{i % 10}", "linewidth": 1, "linestyle": dashes[i % len(dashes)]}
