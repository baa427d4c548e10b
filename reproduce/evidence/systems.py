"""The systems that the paper names, beside each other: errors, units in use, multiplications."""

import re
from itertools import pairwise
from textwrap import wrap

import numpy as np

from evidence import drawing, runs
from reinforce_dropout.results import summary

REPORTED = {
    "baseline-500": "1.7 %",
    "policy-500": "2 %",
    "plain-sgd-800-800": "1.6 % (not checked)",
    "dropout-800-800": "about 1.3 % (not checked)",
    "dropout-input-800-800": "1.10 %",
    "standout-1000-1000": "0.80 %, pre-trained",
    "straight-through-2000": "1.39 %",
    "noisy-rectifier-2000": "1.87 %",
    "stochastic-binary-2000": "1.89 %",
    "sts-2000": "1.96 %",
    "rectifier-2000": "1.60 %",
    "condnet-256": "2.3 %",
    "plain-256": "1.9 %",
    "plain-32": "2.8 %",
}
"""Test errors as the systems' own papers give them."""

_HOLLOW = {"color": "C0", "markersize": 5, "fillstyle": "none"}

SIDE, N_CLASSES = 28, 10
N_PIXELS = SIDE**2


def _layers(fields):
    return list(pairwise([N_PIXELS, *fields["n_units"], N_CLASSES]))


def _dense(fields, active):
    return sum(a * b for a, b in _layers(fields)), 0


def _gated(units_per_decision):
    """Return the count of layers whose policies look at their input; dropped units are skipped."""

    def count(fields, active):
        used = [1, *active, 1]
        network = sum(
            a * u * b * v for (a, b), (u, v) in zip(_layers(fields), pairwise(used), strict=True)
        )
        policies = sum(
            a * u * -(-b // units_per_decision(fields))
            for (a, b), u in zip(_layers(fields)[:-1], used, strict=False)
        )
        return network, policies

    return count


def _stochastic(fields, active):
    (n_units,), gater = fields["n_units"], fields["gater_units"]
    return active[0] * n_units * (N_PIXELS + N_CLASSES), gater * (N_PIXELS + n_units)


def _routed(fields, active):
    """Count the paths that a prediction takes; a policy of level i looks at the state below."""
    network, _ = _dense(fields, active)
    looks = fields["routing"] == "gibbs" and fields["n_mappings"] > 1
    policies = looks * sum(a * fields["n_mappings"] for a, _ in _layers(fields)[:-1])
    return _n_paths(fields) * network, policies


def _n_paths(fields):
    return fields["n_paths"] if fields["evaluation_rule"] == "averaged" else 1


def _convolutions(fields):
    """Return the multiplications of each convolution, and the pixels that are left of the last."""
    side, below, counts = SIDE, 1, []
    for maps in fields["n_units"]:
        side -= fields["kernel_size"] - 1
        counts.append(side**2 * fields["kernel_size"] ** 2 * below * maps)
        side, below = side // 2, maps
    return counts, side**2 * below


def _convolved(fields, active):
    counts, left = _convolutions(fields)
    return sum(counts) + left * N_CLASSES, 0


def _steered(fields, active):
    """Count convolutions once. A pass sums the maps below by their gates, and weighs its own."""
    counts, left = _convolutions(fields)
    patch, gates = fields["kernel_size"] ** 2, sum(fields["n_units"])
    a_pass = counts[-1] // patch + left + left * N_CLASSES
    policy = gates * (gates + N_CLASSES)
    return sum(counts) + fields["n_passes"] * a_pass, (fields["n_passes"] - 1) * policy


COUNTS = {
    "plain": _dense,
    "dropout": _dense,
    "standout": _dense,
    "policy": _gated(lambda fields: 1),
    "block_policy": _gated(lambda fields: fields["units_per_block"]),
    "condnet": _gated(lambda fields: fields["units_per_group"]),
    "stochastic_neurons": _stochastic,
    "dsnn": _routed,
    "cnn": _convolved,
    "dasnet": _steered,
}
"""``count(fields, active) -> (network, policies)``: multiplications an image at test time."""


def multiplications(run):
    """Return the multiplications of an image, by the network and by its policies, in thousands."""
    fields = run.attributes["experiment"]
    count = COUNTS.get(fields["system"])
    if count is None:
        return None
    return tuple(n / 1000 for n in count(fields, _active(run)))


def _active(run):
    """Return the fraction of the units in use in each layer at the best epoch.

    It is that of training passes: of gates by the threshold that decides at test time, if the
    system has one, else of drawn ones.
    """
    thresholded = run.curves.get("active_thresholded")
    active = summary.active(run) if thresholded is None else thresholded[run.best_epoch - 1]
    return active if len(active) else np.ones(len(run.attributes["experiment"]["n_units"]))


def by_preset(records):
    """Return ``{preset, changes and data: runs}`` in the order of the presets' names.

    If runs with the same changes have different lengths, these are named, too.
    """
    groups = {}
    for (base, change), group in runs.grouped(records, runs.preset_of).items():
        several = len({_length(run) for run in group}) > 1
        for run in sorted(group, key=lambda run: run.attributes["seed"]):
            data = run.attributes["data"]
            length = f"n_epochs={_length(run)}" if several else ""
            parts = [base, change, length, "" if data == "mnist" else data]
            groups.setdefault(", ".join(filter(None, parts)), []).append(run)
    return dict(sorted(groups.items()))


def _length(run):
    """Return the epochs that a run may take."""
    return run.attributes["experiment"]["n_epochs"]


def _reported(run):
    """Return the error that the system's own paper gives; all of them are for MNIST."""
    return REPORTED.get(runs.preset_of(run), "-") if run.attributes["data"] == "mnist" else "-"


def table(records):
    """Return a row for each system in Markdown."""
    lines = [
        "| system | reported | test error | seeds | units in use | multiplications: network "
        "+ policies (thousands) | best epoch | seconds an epoch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in by_preset(records).items():
        errors = runs.test_errors(found)
        counts = [multiplications(run) for run in found]
        lines.append(
            f"| {name} | {_reported(found[0])} "
            f"| {summary.spread(errors, '{:.2f}')} % "
            f"| {', '.join(str(run.attributes['seed']) for run in found)} "
            f"| {_used(found)} "
            f"| {_write(counts)} "
            f"| {summary.spread([run.best_epoch for run in found], '{:.0f}')} "
            f"| {np.median([np.median(run.curves['epoch_seconds']) for run in found]):.1f} |"
        )
    note = (
        "Units in use are those of the training passes in the best epoch, with the gates that "
        "decide at test time. Dropout and standout use all units then. Multiplications are those "
        "that an image needs at test time if dropped units are skipped. Seconds an epoch depend "
        "on what else the machine did."
    )
    return "\n".join(lines) + f"\n\n{note}\n{_paired(records)}"


def _paired(records):
    """Return a sentence for each run that was compared with a frozen network on the same images."""
    return "".join(
        f"\n{runs.preset_of(run)}, seed {run.attributes['seed']}, beside its frozen network: "
        f"{pair['only']} of the test images are wrong only with the policy, {pair['only_other']} "
        f"only without it (McNemar's exact test: p = {pair['p']:.2g}).\n"
        for run in records
        if (pair := run.attributes.get("paired"))
    )


def _used(found):
    """Return the share of the units that are in use at test time, by layer."""
    fields = found[0].attributes["experiment"]
    if fields.get("n_mappings", 1) > 1:
        drawn = f"{_n_paths(fields)} draws" if _n_paths(fields) > 1 else "1"
        return f"{drawn} of {fields['n_mappings'] ** len(fields['n_units'])} paths"
    if not runs.drops_units(found[0]):
        return "all"
    layers = 100 * np.array([_active(run) for run in found]).T
    return ", ".join(summary.spread(layer, "{:.1f}") for layer in layers) + " %"


def _write(counts):
    if None in counts:
        return "-"
    network, policies = np.mean(counts, axis=0)
    return f"{network:.0f} + {policies:.0f}"


@drawing.styled
def figure(records):
    """Draw a row for each system: a point for the test error of each run, and the multiplications.

    A line stands for the reported error, a square for the network with its policies.
    """
    groups = by_preset(records)
    figure, (errors, work) = drawing.new((8.5, 1.5 + 0.24 * len(groups)), n_columns=2)
    for row, found in enumerate(groups.values()):
        if reported := re.search(r"[0-9.]+", _reported(found[0])):
            errors.plot(float(reported[0]), row, "|", color="black", markersize=11)
        for run in found:
            error = 100 * run.best_attributes["test_error"]
            drawing.point(errors, error, row, runs.describe(run), marker="o", **_HOLLOW)
        counts = [multiplications(run) for run in found]
        if None not in counts:
            work.plot(np.sum(counts) / len(counts), row, "s", **_HOLLOW)
    errors.set(xlabel="test error (%); a line is the reported one")
    work.set(xlabel="thousand multiplications an image")
    for axes in (errors, work):
        axes.set(xscale="log", ylim=(len(groups) - 0.5, -0.5))
        axes.set_yticks(range(len(groups)), [])
        axes.grid(axis="y", linewidth=0.4, alpha=0.4)
        drawing.log_labels(axes.xaxis)
    names = ["\n".join(wrap(name, 44)) for name in groups]
    errors.set_yticklabels(names, fontsize=6.5, linespacing=1)
    figure.suptitle("The systems that the paper names")
    return figure
