"""The trade-off of eq. (6): active units against errors, for many lambda."""

import numpy as np

from evidence import drawing, runs
from reinforce_dropout.results import summary

_COLORS = {0.05: "#009e73", 0.1: "#0072b2", 0.2: "#d55e00"}
_MARKERS = {"total": "o", "score": "^"}
_FILL = {"total": "full", "score": "none"}
WIDTH = 500
"""Units of the networks with masks. A dense network of n units counts as n of them."""


def kind(run):
    """Return what the figure calls a run: a reading and a rate, "dense" or "uniform"."""
    fields = run.attributes["experiment"]
    if fields["system"] == "plain":
        return "dense"
    return "uniform" if fields["gate"] == "uniform" else (fields["kl_gradient"], fields["q"])


def active(run):
    """Return the share of 500 units that an image uses, in per cent, at the best epoch."""
    if kind(run) == "dense":
        return 100 * run.attributes["experiment"]["n_units"][0] / WIDTH
    return 100 * float(np.mean(summary.active(run)))


def error(run, part="test"):
    """Return the error of the best model in per cent; uniform masks by their expectation."""
    if kind(run) == "uniform":
        return 100 * run.curves[f"{part}_error_expected"][run.best_epoch - 1]
    return 100 * run.best_attributes[f"{part}_error"]


def _setting(run):
    fields = run.attributes["experiment"]
    if kind(run) == "dense":
        return f"{fields['n_units'][0]} units"
    if kind(run) == "uniform":
        return f"rate {fields['initial_rate']:g}"
    return f"lambda {fields['lam']:g}"


def _by_kind(records):
    groups = {}
    for run in records:
        groups.setdefault(kind(run), []).append(run)
    return {
        name: sorted(found, key=lambda run: run.attributes["experiment"].get("lam", active(run)))
        for name, found in sorted(groups.items(), key=str)
    }


def _name(name):
    if isinstance(name, str):
        return {"dense": "dense network", "uniform": "uniform masks, expected at test"}[name]
    return f"policy, {name[0]}, q = {name[1]:g}"


def table(records):
    """Return all points in Markdown."""
    lines = [
        "| network | setting | active units | validation error | test error | best epoch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in _by_kind(records).items():
        for run in found:
            lines.append(
                f"| {_name(name)} | {_setting(run)} | {active(run):.1f} % "
                f"| {error(run, 'valid'):.2f} % | {error(run):.2f} % "
                f"| {run.best_epoch} of {run.n_epochs} |"
            )
    seeds = sorted({run.attributes["seed"] for run in records})
    note = (
        f"Seed {', '.join(map(str, seeds))}. Active units are a share of {WIDTH}. Policies are "
        "tested with sampled masks. Uniform masks are tested with their expectation, which uses "
        "all units."
    )
    return "\n".join(lines) + f"\n\n{note}\n"


@drawing.styled
def figure(records):
    """Draw the errors against the active units, a point for each run."""
    figure, axes = drawing.new(figsize=(7.5, 4.8))
    for name, found in _by_kind(records).items():
        style = _style(name)
        axes.plot([], [], label=_name(name), linestyle="none", **style)
        axes.plot(
            [active(run) for run in found], [error(run) for run in found],
            color=style["color"], linewidth=0.8, linestyle="-" if "total" in name else ":",
        )  # fmt: skip
        for run in found:
            text = f"{_name(name)}, {_setting(run)}: {runs.describe(run)}"
            drawing.point(axes, active(run), error(run), text, **style)
    axes.set(xscale="log", yscale="log", xlabel=f"active units (% of {WIDTH})",
             ylabel="test error (%)", title="The trade-off between units and errors")  # fmt: skip
    drawing.log_labels(axes.xaxis, axes.yaxis)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _style(name):
    if name == "dense":
        return {"color": "black", "marker": "s", "markersize": 5}
    if name == "uniform":
        return {"color": "0.5", "marker": "x", "markersize": 6}
    reading, q = name
    return {
        "color": _COLORS.get(q, "#cc79a7"), "marker": _MARKERS[reading], "markersize": 5,
        "fillstyle": _FILL[reading],
    }  # fmt: skip
