"""Error against time: which networks no other one beats in both."""

import numpy as np

from evidence import drawing, runs
from reinforce_dropout.results import summary

KINDS = {"batch": "1024 images at once", "single": "one image"}


def networks(records):
    """Return ``{name: runs}`` of the runs whose best models have been timed."""
    timed = [run for run in records if run.attributes["timed"]]
    groups = runs.grouped(timed, runs.preset_of)
    return {f"{base}, {change}" if change else base: g for (base, change), g in groups.items()}


def error(found):
    """Return the mean test error over the seeds in per cent."""
    return float(np.mean(runs.test_errors(found)))


def microseconds(found, kind):
    """Return the median over the seeds of the microseconds an image."""
    return float(np.median([run.attributes["timed"][kind] for run in found]))


def unbeaten(points):
    """Return for each point (n, 2) whether no other is as low in both and lower in one.

    Examples
    --------
    >>> unbeaten([(1, 5), (2, 3), (3, 3), (4, 1)])
    [True, True, False, True]
    """
    points = np.asarray(points, float)
    return [not ((points <= p).all(axis=1) & (points < p).any(axis=1)).any() for p in points]


def table(records):
    """Return a row for each network in Markdown, the quickest first."""
    found = networks(records)
    places = {}
    for kind in KINDS:
        points = [(microseconds(group, kind), error(group)) for group in found.values()]
        places[kind] = dict(zip(found, unbeaten(points), strict=True))
    lines = [
        "| network | units | seeds | test error | active units "
        + "".join(
            f"| microseconds an image, {text} | no other beats it " for text in KINDS.values()
        )
        + "|",
        "| --- " * (5 + 2 * len(KINDS)) + "|",
    ]
    for name, group in sorted(found.items(), key=lambda item: microseconds(item[1], "batch")):
        errors = runs.test_errors(group)
        active = np.mean([100 * summary.active(run) for run in group], axis=0)
        used = ", ".join(f"{share:.1f}" for share in active) + " %"
        times = "".join(
            f"| {microseconds(group, kind):.2f} ({_ways(group, kind)}) "
            f"| {'yes' if places[kind][name] else ''} "
            for kind in KINDS
        )
        lines.append(
            f"| {name} | {'-'.join(map(str, group[0].attributes['experiment']['n_units']))} "
            f"| {len(group)} | {summary.spread(errors, '{:.2f}')} % "
            f"| {used if runs.drops_units(group[0]) else 'all'} {times}|"
        )
    note = (
        "One thread. Times are medians over turns and seeds, policies counted, by the faster "
        "execution that the network has. Errors are means over the seeds. A network that no other "
        "beats is on the frontier: all others take more time or have a higher error."
    )
    return "\n".join(lines) + f"\n\n{note}\n"


def _ways(group, kind):
    return "/".join(sorted({run.attributes["timed"][f"execution_{kind}"] for run in group}))


@drawing.styled
def figure(records):
    """Draw the errors against the times, with the frontier."""
    figure, columns = drawing.new(figsize=(11, 4.6), n_columns=len(KINDS))
    found = networks(records)
    for axes, (kind, text) in zip(columns, KINDS.items(), strict=True):
        points = [(microseconds(group, kind), error(group)) for group in found.values()]
        for (name, group), (x, y) in zip(found.items(), points, strict=True):
            drawing.point(axes, x, y, f"{name}: {x:.2f} us, {y:.2f} %", **_style(group))
            errors = runs.test_errors(group)
            axes.plot([x, x], [min(errors), max(errors)], color="0.6", linewidth=0.8, zorder=0)
        best = sorted(p for p, first in zip(points, unbeaten(points), strict=True) if first)
        axes.step(*zip(*best, strict=True), where="post", color="0.4", linewidth=1, zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="microseconds an image", title=text)
        axes.set_ylabel("test error (%)")
        drawing.log_labels(axes.xaxis, axes.yaxis)
    for system, style in _STYLES.items():
        columns[0].plot([], [], label=system, linestyle="none", **style)
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    return figure


_STYLES = {
    "dense": {"color": "black", "marker": "s", "markersize": 5},
    "dropout": {"color": "0.4", "marker": "D", "markersize": 5},
    "uniform masks": {"color": "0.5", "marker": "x", "markersize": 6},
    "policy for each unit": {"color": "#0072b2", "marker": "o", "markersize": 5},
    "policy for groups of units": {"color": "#d55e00", "marker": "^", "markersize": 6},
    "the same, time as the cost": {"color": "#009e73", "marker": "v", "markersize": 6},
    "policy for blocks": {"color": "#cc79a7", "marker": "P", "markersize": 6.5},
}


def _style(group):
    fields = group[0].attributes["experiment"]
    if fields["system"] == "plain":
        return _STYLES["dense"]
    if fields["system"] == "dropout":
        return _STYLES["dropout"]
    if fields["gate"] == "uniform":
        return _STYLES["uniform masks"]
    if fields.get("instances_per_block", 1) > 1:
        return _STYLES["policy for blocks"]
    if fields.get("units_per_block", 1) == 1:
        return _STYLES["policy for each unit"]
    timed = fields["penalty"] == "compute-time"
    return _STYLES["the same, time as the cost" if timed else "policy for groups of units"]
