"""The ledger of open readings: one choice at a time, all else as the paper's preset."""

import numpy as np

from evidence import drawing, runs, spread
from reinforce_dropout.results import summary

PRESETS = {(500,): "policy-500", (800, 800): "policy-800-800"}


def _base(run):
    return PRESETS[tuple(run.attributes["experiment"]["n_units"])]


def rows(records):
    """Return ``[(preset, change, runs)]``: for each preset its own runs first, with change ""."""
    groups = runs.grouped(records, _base)
    order = {name: i for i, name in enumerate(PRESETS.values())}
    return [
        (base, change, groups[base, change])
        for base, change in sorted(groups, key=lambda key: (order[key[0]], key[1]))
    ]


def table(records):
    """Return the ledger in Markdown."""
    lines = [
        "| preset | one choice | seeds | test error | difference (95 % interval) "
        "| validation error | active units | best epoch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    own = {base: found for base, change, found in rows(records) if not change}
    for base, change, found in rows(records):
        difference = "-"
        if change and len(found) > 1 and len(own.get(base, ())) > 1:
            value, low, high = spread.of_difference(
                runs.test_errors(found), runs.test_errors(own[base])
            )
            difference = f"{value:+.2f} ({low:+.2f} to {high:+.2f})"
        layers = 100 * np.array([summary.active(run) for run in found]).T
        active = ", ".join(summary.spread(layer, "{:.1f}") for layer in layers)
        valid = [100 * run.best_attributes["valid_error"] for run in found]
        lines.append(
            f"| {base} | {change or 'as the preset'} "
            f"| {', '.join(str(run.attributes['seed']) for run in found)} "
            f"| {summary.spread(runs.test_errors(found), '{:.2f}')} % | {difference} "
            f"| {summary.spread(valid, '{:.2f}')} % | {active} % "
            f"| {summary.spread([run.best_epoch for run in found], '{:.0f}')} |"
        )
    n_epochs = {base: max(run.n_epochs for run in found) for base, _, found in rows(records)}
    limits = ", ".join(f"{base} for at most {n} epochs" for base, n in n_epochs.items())
    return "\n".join(lines) + f"\n\nTrained: {limits}.\n"


@drawing.styled
def figure(records):
    """Draw a row for each choice: a dot for each run, and the range of the runs."""
    shown = rows(records)
    figure, axes = drawing.new(figsize=(8, 0.9 + 0.3 * len(shown)))
    for y, (base, change, found) in enumerate(shown):
        errors = runs.test_errors(found)
        style = {"color": "black" if not change else "#0072b2"}
        axes.plot([min(errors), max(errors)], [y, y], linewidth=1.2, **style)
        for run, error in zip(found, errors, strict=True):
            drawing.point(axes, error, y, f"{change or base}: {runs.describe(run)}",
                          marker="D" if not change else "o", markersize=5, **style)  # fmt: skip
        if not change:
            axes.axhline(y - 0.5, color="0.8", linewidth=0.8)
            last = y + sum(other == base for other, _, _ in shown) - 1
            axes.plot([np.mean(errors)] * 2, [y - 0.4, last + 0.4], color="0.6", linewidth=0.8,
                      linestyle=(0, (4, 2)))  # fmt: skip
    labels = [f"{base}: {change or 'as the preset'}" for base, change, _ in shown]
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(len(shown) - 0.5, -0.6)
    axes.set(
        xlabel="test error (%); a dot for each seed, dashed: mean of the preset",
        title="One open reading at a time",
    )
    return figure
