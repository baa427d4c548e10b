"""Error against time: which networks no other one beats in both."""

from typing import NamedTuple

import numpy as np

from evidence import drawing, runs
from reinforce_dropout.results import summary

KINDS = {"batch": "1024 images at once", "single": "one image"}
MASKS = {"sampled": "drawn", "thresholded": "most probable"}
"""What the table calls the rules that leave out units."""


class Network(NamedTuple):
    """Runs of one network that differ in the seed, and the rule by which it decides."""

    name: str
    rule: str
    group: list

    def errors(self):
        """Return the test error of each run's best model in per cent."""
        return [100 * _test_errors(run, self.rule)[run.best_epoch - 1] for run in self.group]

    def error(self):
        """Return the mean of the `errors`."""
        return float(np.mean(self.errors()))

    def microseconds(self, kind):
        """Return the median over the seeds of the microseconds an image."""
        return float(np.median([run.attributes["timed"][self.rule][kind] for run in self.group]))

    def executions(self, kind):
        """Return the names of the executions that are faster than others."""
        timed = [run.attributes["timed"][self.rule] for run in self.group]
        return "/".join(sorted({times[f"execution_{kind}"] for times in timed}))

    def point(self, kind):
        """Return the place in the figure: time and error."""
        return self.microseconds(kind), self.error()


def _test_errors(run, rule):
    return run.curves["test_error" if rule == runs.ONLY_RULE else f"test_error_{rule}"]


def networks(records):
    """Return a `Network` for each rule of all runs whose best models have been timed."""
    timed = [run for run in records if run.attributes["timed"]]
    return [
        Network(f"{base}, {change}" if change else base, rule, group)
        for (base, change), group in runs.grouped(timed, runs.preset_of).items()
        for rule in group[0].attributes["timed"]
    ]


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
    """Return a row for each network and rule in Markdown, the quickest first."""
    found = networks(records)
    first = {kind: unbeaten([network.point(kind) for network in found]) for kind in KINDS}
    lines = [
        "| network | units | seeds | masks | test error | active units in training "
        + "".join(
            f"| microseconds an image, {text} | no other beats it " for text in KINDS.values()
        )
        + "|",
        "| --- " * (6 + 2 * len(KINDS)) + "|",
    ]
    for i in sorted(range(len(found)), key=lambda i: found[i].microseconds("batch")):
        network, group = found[i], found[i].group
        active = np.mean([100 * summary.active(run) for run in group], axis=0)
        used = ", ".join(f"{share:.1f}" for share in active) + " %"
        fields = group[0].attributes["experiment"]
        widths = [fields[name] for name in ("n_units", "second_units") if name in fields]
        units = " and ".join("-".join(map(str, own)) for own in widths)
        times = "".join(
            f"| {network.microseconds(kind):.2f} ({network.executions(kind)}) "
            f"| {'yes' if first[kind][i] else ''} "
            for kind in KINDS
        )
        lines.append(
            f"| {network.name} | {units} | {len(group)} | {MASKS.get(network.rule, '')} "
            f"| {summary.spread(network.errors(), '{:.2f}')} % "
            f"| {used if runs.drops_units(group[0]) else 'all'} {times}|"
        )
    note = (
        "One thread. Times are medians over turns and seeds, policies counted, by the fastest "
        "execution that the network has. Folded: the rates of dropout are factors of the weights. "
        "Errors are means over the seeds. A network that no other beats is on the frontier: all "
        "others take more time or have a higher error. Each learned policy over units stands here "
        "twice: with masks that are drawn, which chose the best model on validation data, and with "
        "its most probable masks, which use fewer units than training. With a second look the "
        "active units are the fraction of images for which the large network takes part."
    )
    return "\n".join(lines) + f"\n\n{note}\n"


@drawing.styled
def figure(records):
    """Draw the errors against the times, with the frontier."""
    figure, columns = drawing.new(figsize=(11, 4.6), n_columns=len(KINDS))
    found = networks(records)
    for axes, (kind, text) in zip(columns, KINDS.items(), strict=True):
        points = [network.point(kind) for network in found]
        for network, (x, y) in zip(found, points, strict=True):
            masks = f", {MASKS[network.rule]} masks" if network.rule in MASKS else ""
            label = f"{network.name}{masks}: {x:.2f} us, {y:.2f} %"
            drawing.point(axes, x, y, label, **_style(network))
            errors = network.errors()
            axes.plot([x, x], [min(errors), max(errors)], color="0.6", linewidth=0.8, zorder=0)
        best = sorted(p for p, first in zip(points, unbeaten(points), strict=True) if first)
        axes.step(*zip(*best, strict=True), where="post", color="0.4", linewidth=1, zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="microseconds an image", title=text)
        axes.set_ylabel("test error (%)")
        drawing.log_labels(axes.xaxis, axes.yaxis)
    for system, style in _STYLES.items():
        columns[0].plot([], [], label=system, linestyle="none", **style)
    hollow = _STYLES["policy for each unit"] | {"fillstyle": "none"}
    columns[0].plot([], [], label="hollow: most probable masks", linestyle="none", **hollow)
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


_STYLES = {
    "dense": {"color": "black", "marker": "s", "markersize": 5},
    "dropout": {"color": "0.4", "marker": "D", "markersize": 5},
    "uniform masks": {"color": "0.5", "marker": "x", "markersize": 6},
    "policy for each unit": {"color": "#0072b2", "marker": "o", "markersize": 5},
    "policy for groups of units": {"color": "#d55e00", "marker": "^", "markersize": 6},
    "the same, time as the cost": {"color": "#009e73", "marker": "v", "markersize": 6},
    "policy for blocks": {"color": "#cc79a7", "marker": "P", "markersize": 6.5},
    "policy for a second look": {"color": "#e69f00", "marker": "*", "markersize": 9},
}


def _style(network):
    style = _style_of(network.group[0].attributes["experiment"])
    return style | {"fillstyle": "none"} if network.rule == "thresholded" else style


def _style_of(fields):
    if fields["system"] == "plain":
        return _STYLES["dense"]
    if fields["system"] == "dropout":
        return _STYLES["dropout"]
    if fields["system"] == "second-look":
        return _STYLES["policy for a second look"]
    if fields["gate"] == "uniform":
        return _STYLES["uniform masks"]
    if fields.get("instances_per_block", 1) > 1:
        return _STYLES["policy for blocks"]
    if fields.get("units_per_block", 1) == 1:
        return _STYLES["policy for each unit"]
    timed = fields["penalty"] == "compute-time"
    return _STYLES["the same, time as the cost" if timed else "policy for groups of units"]
