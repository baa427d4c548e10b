"""Reproduce the comparison of training speed: this package, PyTorch and JAX, in one run.

Times a training step on MNIST, with policies and without (plain), of this package's backends, of
PyTorch (eager, and torch.compile) and of JAX (one jitted lax.scan), all doing the same work in
turns, and compares them with what the machine could do at best. What is not installed is left out;
pip install 'reinforce-dropout[bench]' installs it.

Writes figures/training_speed.md, .png and .pdf, and reproduce/results/training_speed.hdf5. A run
with fewer nets, mini-batches or threads than the full one, which takes a quarter of an hour, writes
to folders named quick.
"""

import argparse
import itertools
import sys
from pathlib import Path

import common
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from run_all import n_cores
from speed import results as files
from speed.measure import INITIAL_RATE, measure
from speed.results import LABELS

from reinforce_dropout import datasets
from reinforce_dropout.errors import ReinforceDropoutError

NETS = ((500,), (800, 800), (4096, 4096))
BATCH_SIZES = (20, 128)
THREADS = (1, 2)
TURNS = 31

QUICK_NETS = NETS[:2]
QUICK_TURNS = 3

TARGET_THREADS, TARGET_BATCH_SIZE = 2, 20
TARGETS = (
    ("best peer", 0.8, ((500,), (800, 800)), (False, True)),
    ("PyTorch eager", 0.25, ((500,), (800, 800)), (True,)),
    ("bound", 2.5, ((800, 800),), (False, True)),
)
"""What the time of this package's own choice of backend is divided by, the ratio that is aimed at,
and in which networks, with policies or without."""

STYLE = (
    "default",  # first: a reader's matplotlibrc must not change a published figure
    {"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "legend.frameon": False,
     "savefig.dpi": 200, "pdf.fonttype": 42},
)  # fmt: skip

# Told apart by shape and filling, for print in grey: this package is filled, peers are hollow.
_MARKERS = {
    "numba": {"marker": "o", "color": "black"},
    "c": {"marker": "s", "color": "0.35"},
    "jax": {"marker": "D", "color": "0.55"},
    "eager": {"marker": "^", "color": "#d55e00", "markerfacecolor": "none"},
    "compile": {"marker": "v", "color": "#cc79a7", "markerfacecolor": "none"},
    "scan": {"marker": "s", "color": "#0072b2", "markerfacecolor": "none"},
}


def parse(arguments=None):
    """Return the options; ``quick`` says whether this is not the full run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"the small nets only, {QUICK_TURNS} turns"
    )
    parser.add_argument("--redraw", action="store_true", help="from the file, without timing")
    parser.add_argument(
        "--nets", nargs="+", type=widths, metavar="WIDTHS",
        help="widths of hidden layers, as in 500 800-800 4096-4096 (the default)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-sizes", nargs="+", type=positive_number, default=BATCH_SIZES, metavar="N",
        help="examples in a mini-batch (default 20 128)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", nargs="+", type=positive_number, default=THREADS, metavar="N",
        help="of the linear algebra (default 1 2)",
    )  # fmt: skip
    parser.add_argument(
        "--turns", type=positive_number, metavar="N",
        help=f"at most, fewer where steps take long (default {TURNS})",
    )  # fmt: skip
    parser.add_argument("--root", type=Path, default=common.ROOT, help=argparse.SUPPRESS)
    parser.set_defaults(seed=common.RECORDED_SEED)
    options = parser.parse_args(arguments)
    options.nets = tuple(options.nets or (QUICK_NETS if options.quick else NETS))
    options.turns = options.turns or (QUICK_TURNS if options.quick else TURNS)
    options.quick = (
        options.quick
        or not {*NETS} <= {*options.nets}
        or not {*BATCH_SIZES} <= {*options.batch_sizes}
        or not {*THREADS} <= {*options.threads}
    )
    return options


def widths(text):
    """Read the widths of hidden layers."""
    return tuple(positive_number(part) for part in text.split("-"))


def positive_number(text):
    """Read a whole number greater than 0."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def refuse_too_many_threads(threads):
    """Refuse numbers of threads that would have to share cores.

    Raises
    ------
    ReinforceDropoutError
    """
    if max(threads) > (there := n_cores()):
        raise ReinforceDropoutError(
            f"{max(threads)} threads would share {there} cores: give --threads {there}, or fewer."
        )


def table(results):
    """Set the columns' times, their ratios, and the targets in Markdown.

    Parameters
    ----------
    results : results.Results

    Returns
    -------
    str
    """
    attributes = results.attributes
    notes = [
        f"- {LABELS[column]} is left out: {reason}."
        for column, reason in attributes["left_out"].items()
    ]
    notes += [
        f"- Initial parameters with {INITIAL_RATE:.0%} active units; {_describe_activity(results)}",
        *(_describe_machine(results, n) for n in results.threads()),
        f"- Middle half of the turns: within {_spread(results):.0%} of the median in nine of ten "
        "cells.",
        f"- {describe_origin(attributes)}",
    ]
    parts = [
        "Microseconds a training step (medians of the turns), and ratios of this package's "
        f"default, {LABELS[attributes['auto']]} (medians of the ratios in each round of turns):",
        markdown(_times(results)),
        "The bound is the time of the step's dense products at the machine's peak of arithmetic, "
        "or of its weights (read, read, written) at the bandwidth of main memory, whichever is "
        "longer. Skipping zeros, or weights that stay in the caches, can beat it.",
        "\n".join(notes),
        "Most memory of a process over all settings, MB:",
        markdown(_memory(results)),
    ]
    if targets := describe_targets(results):
        parts += [
            f"Targets ({TARGET_THREADS} threads, mini-batches of {TARGET_BATCH_SIZE}; in brackets "
            "the middle half of the rounds):"
        ]
        parts += ["\n".join(targets)]
    return "\n\n".join(parts) + "\n"


def describe_origin(attributes):
    """Say from `provenance.collect` and ``started`` where results come from."""
    versions = ", ".join(f"{name} {version}" for name, version in attributes["versions"].items())
    return (
        f"{attributes['host_cpu']}; {versions}; commit {attributes['git_commit'] or 'none'}; "
        f"{attributes['started']}; `{attributes['command']}`."
    )


def describe_targets(results):
    """Return a line for each target whose setting was measured, met or not."""
    lines = []
    for measurement in results.measurements:
        setting = measurement.setting
        if (setting.n_threads, setting.batch_size) != (TARGET_THREADS, TARGET_BATCH_SIZE):
            continue
        for to, target, nets, policy in TARGETS:
            if setting.n_units not in nets or setting.policy not in policy:
                continue
            if (ratios := results.ratios(measurement, to)) is None:
                continue
            low, found, high = np.percentile(ratios, (25, 50, 75))
            lines.append(
                f"- {setting.net}, {setting.policies}: this package / {to} = {found:.2f} "
                f"({low:.2f} to {high:.2f}), target {target}: "
                f"{'met' if found <= target else 'not met'}"
            )
    return lines


def markdown(rows):
    """Set rows of text, the first of them the header, as a table in Markdown."""
    header, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rest])


def _times(results):
    ratios = ("best peer", "PyTorch eager", "bound")
    columns = results.columns()
    rows = [
        ["threads", "network", "mini-batch", "step", *(LABELS[c] for c in columns), "bound"]
        + [f"ours / {to}" for to in ratios]
    ]
    for measurement in results.measurements:
        setting, turns = measurement.setting, measurement.turns
        found = [results.ratios(measurement, to) for to in ratios]
        rows.append(
            [str(setting.n_threads), setting.net, str(setting.batch_size), setting.policies]
            + [f"{turns[c].median():.0f}" if c in turns else "-" for c in columns]
            + [f"{results.bound(setting):.0f}"]
            + ["-" if values is None else f"{np.median(values):.2f}" for values in found]
        )
    return rows


def _memory(results):
    columns = results.columns()
    rows = [["threads", *(LABELS[c] for c in columns)]]
    for n_threads in results.threads():
        peaks = [
            max(
                (
                    m.turns[c].peak_bytes
                    for m in results.measurements
                    if m.setting.n_threads == n_threads and c in m.turns
                ),
                default=0,
            )
            for c in columns
        ]
        rows.append([str(n_threads), *(f"{n / 1e6:.0f}" if n else "-" for n in peaks)])
    return rows


def _describe_machine(results, n_threads):
    flops, n_bytes = results.peaks(n_threads)
    return (
        f"- Peaks with {n_threads} thread{'s' * (n_threads > 1)}: {flops / 1e9:.0f} GFLOP/s in a "
        f"large float32 product, {n_bytes / 1e9:.0f} GB/s in a large copy (read and written)."
    )


def _describe_activity(results):
    rates = [
        m.turns[c].active_fraction
        for m in results.measurements
        for c in results.columns()
        if m.setting.policy and c in m.turns
    ]
    if not rates:
        return "no network had policies."
    return f"in the last turns {min(rates):.0%} to {max(rates):.0%} were active."


def _spread(results):
    """Return the distance of the quartiles from the median that nine of ten columns stay below."""
    spreads = []
    for measurement in results.measurements:
        for column in LABELS.keys() & measurement.turns.keys():
            low, median, high = measurement.turns[column].quartiles()
            spreads.append(max(high - median, median - low) / median)
    return np.percentile(spreads, 90)


def figure(results):
    """Draw the median times and their quartiles: a panel a network and number of threads.

    Parameters
    ----------
    results : results.Results

    Returns
    -------
    matplotlib.figure.Figure
    """
    nets = list(dict.fromkeys(m.setting.n_units for m in results.measurements))
    threads = results.threads()
    with matplotlib.style.context(STYLE):
        drawing = Figure(figsize=(3.4 * len(nets), 1.1 + 2.2 * len(threads)), layout="constrained")
        grid = drawing.subplots(len(threads), len(nets), squeeze=False, sharex="col", sharey=True)
        for (row, n_threads), (column, n_units) in itertools.product(
            enumerate(threads), enumerate(nets)
        ):
            axes = grid[row, column]
            shown = [
                m
                for m in results.measurements
                if (m.setting.n_threads, m.setting.n_units) == (n_threads, n_units)
            ]
            _panel(axes, results, shown)
            axes.set_title(f"{shown[0].setting.net}, {n_threads} thread{'s' * (n_threads > 1)}")
            if row == len(threads) - 1:
                axes.set_xlabel("microseconds a step")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=4)
    return drawing


def _panel(axes, results, measurements):
    """Draw a row for each setting, the first on top, and in it the columns in their order."""
    heights = -np.arange(len(measurements))
    bounds = [results.bound(m.setting) for m in measurements]
    axes.barh(heights, bounds, height=0.8, color="0.88", label="bound (dense products)", zorder=0)
    columns = results.columns()
    steps = dict(zip(columns, np.linspace(0.3, -0.3, len(columns)), strict=True))
    for column in columns:
        turns = {
            height + steps[column]: m.turns[column]
            for height, m in zip(heights, measurements, strict=True)
            if column in m.turns
        }
        if turns:
            low, median, high = np.transpose([t.quartiles() for t in turns.values()])
            axes.errorbar(
                median, list(turns), xerr=(median - low, high - median), label=LABELS[column],
                linestyle="none", markersize=5, elinewidth=0.8, **_MARKERS[column],
            )  # fmt: skip
    axes.set_xscale("log")
    labels = [f"{m.setting.policies}, batches of {m.setting.batch_size}" for m in measurements]
    axes.set_yticks(heights, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_axisbelow(True)
    axes.grid(axis="x", which="both", color="0.92", linewidth=0.5)


def redraw(path, folder):
    """Write table and figure of the results at `path` into `folder`; nothing is timed.

    Returns
    -------
    str
        The table.

    Raises
    ------
    ReinforceDropoutError
        There are no results at `path`, or `folder` cannot be written in.
    """
    results = files.read(path)
    return common.write_drawn(folder, "training_speed", table(results), figure(results))


def measure_into(path, options):
    """Time what the options name, and write it to `path`."""
    refuse_too_many_threads(options.threads)
    command = ["python", "reproduce/training_speed.py", *sys.argv[1:]]
    settings = options.nets, options.batch_sizes, options.threads, options.turns
    files.write(path, measure(datasets.load(), *settings, command))


def run(options):
    """Measure unless told not to, then write table and figure, and print the table."""
    common.benchmark(options, "training_speed", lambda path: measure_into(path, options), redraw)


def main():
    """Run, and tell what went wrong in a sentence; return the exit code."""
    return common.guard(lambda: run(parse()), "Interrupted: nothing is written.")


if __name__ == "__main__":
    sys.exit(main())
