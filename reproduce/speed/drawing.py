"""The figures of both benchmarks, which can be read in grey, too."""

import itertools

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from speed import forward, training
from speed.notes import threads
from speed.table import LABELS, Setting

STYLE = (
    "default",  # first: a reader's matplotlibrc must not change a published figure
    {"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left", "legend.frameon": False,
     "axes.axisbelow": True, "grid.color": "0.92", "grid.linewidth": 0.5},
)  # fmt: skip

# Told apart by shape and filling: this package is filled, peers are hollow.
_MARKERS = {
    "numba": {"marker": "o", "color": "black"},
    "c": {"marker": "s", "color": "0.35"},
    "jax": {"marker": "D", "color": "0.55"},
    "eager": {"marker": "^", "color": "#d55e00", "markerfacecolor": "none"},
    "compile": {"marker": "v", "color": "#cc79a7", "markerfacecolor": "none"},
    "scan": {"marker": "s", "color": "#0072b2", "markerfacecolor": "none"},
}

# Shape and shade tell the kinds of a panel apart; dashes tell whether the policy is counted.
_LINES = (
    {"marker": "o", "color": "0.70"},
    {"marker": "D", "color": "black"},
    {"marker": "^", "color": "0.45"},
)
_ROWS = (
    ("blocks of instances", forward.BLOCKS),
    ("single instances", forward.INSTANCES),
    ("a single image", forward.ONE),
)
"""Rows of panels: titles, and the kinds of passes that they show."""
_GIVEN = {"linestyle": "-", "linewidth": 1.2, "markersize": 4}
_COUNTED = {"linestyle": (0, (4, 2)), "linewidth": 0.8, "markersize": 4, "markerfacecolor": "white"}
_BOUND = {"linestyle": ":", "linewidth": 0.8, "color": "black"}
_BREAK_EVEN = {"linestyle": "none", "marker": "*", "markersize": 11, "color": "black"}


def times(results):
    """Draw the median times of training steps and their quartiles.

    A panel is a network and a number of threads. A row of it is a kind of step.
    """
    nets, rows = results.values("n_units"), results.values("n_threads")
    with matplotlib.style.context(STYLE):
        drawing = Figure(figsize=(3.4 * len(nets), 1.1 + 2.2 * len(rows)), layout="constrained")
        grid = drawing.subplots(len(rows), len(nets), squeeze=False, sharex="col", sharey=True)
        for (i, n_threads), (j, n_units) in itertools.product(enumerate(rows), enumerate(nets)):
            shown = results.all(n_threads=n_threads, n_units=n_units)
            if shown:
                _steps(grid[i, j], results, shown)
                grid[i, j].set_title(f"{shown[0].setting.net}, {threads(n_threads)}")
        for axes in grid[-1]:
            axes.set_xlabel("microseconds a step")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=4)
    return drawing


def _steps(axes, results, measurements):
    """Draw a row for each setting, the first on top, and in it the columns in their order."""
    heights = -np.arange(len(measurements))
    bounds = [results.bound(m.setting) for m in measurements]
    axes.barh(heights, bounds, height=0.8, color="0.88", label="bound (dense products)", zorder=0)
    columns = training.columns_of(results)
    steps = dict(zip(columns, np.linspace(0.3, -0.3, len(columns)), strict=True))
    for column in columns:
        present = [
            (h, m) for h, m in zip(heights, measurements, strict=True) if column in m.columns
        ]
        if present:
            low, median, high = np.transpose([m.columns[column].quartiles() for _, m in present])
            axes.errorbar(
                median, [h + steps[column] for h, _ in present], xerr=(median - low, high - median),
                label=LABELS[column], linestyle="none", markersize=5, elinewidth=0.8,
                **_MARKERS[column],
            )  # fmt: skip
    axes.set_xscale("log")
    settings = [m.setting for m in measurements]
    axes.set_yticks(heights, [f"{s.policies}, batches of {s.batch_size}" for s in settings])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", which="both")


def speedups(results):
    """Draw the speed-ups of forward passes with most threads, one column of panels for a network.

    The upper panels are by blocks, those below by instances, the last ones for a single image.
    """
    n_threads = max(results.values("n_threads"))
    mine = results.all(work="forward", n_threads=n_threads)
    nets = sorted({m.setting.n_units for m in mine})
    with matplotlib.style.context(STYLE):
        size = max(2, len(nets)) * 3.4, 10.5
        drawing = Figure(figsize=size, layout="constrained")
        grid = drawing.subplots(len(_ROWS), len(nets), squeeze=False, sharex=True, sharey="row")
        for row, (title, kinds) in zip(grid, _ROWS, strict=True):
            for axes, n_units in zip(row, nets, strict=True):
                _speedups(axes, results, kinds, n_units=n_units, n_threads=n_threads)
                axes.set_title(f"{Setting('forward', n_threads, n_units, 1).net}, {title}")
            row[0].set_ylabel("speed-up over dense")
            row[0].legend(
                handles=_kinds(kinds), loc="upper right", bbox_to_anchor=(1, 0.93), fontsize="small"
            )
        for axes in grid[-1]:
            axes.set_xlabel("active units, %")
        drawing.suptitle(f"Forward pass, {threads(n_threads)}", fontsize="medium")
        ncols = 4 if len(nets) > 2 else 2
        drawing.legend(handles=_meanings(), loc="outside lower center", ncols=ncols)
    return drawing


def _speedups(axes, results, kinds, **wanted):
    """Draw two lines for each kind, the bound, and the rate where blocks begin to cost."""
    axes.axhline(1, color="0.6", linewidth=0.8, zorder=0)
    rates = np.empty(0)
    for kind, style in zip(kinds, _LINES, strict=False):
        for found in results.all(work="forward", **kind, **wanted):
            rates = forward.rates(found)
            for counted, line in ((False, _GIVEN), (True, _COUNTED)):
                axes.plot(100 * rates, forward.speedups(found, counted), **style | line)
            if kind == forward.BLOCKS_OF_32:
                _mark(axes, found)
    if rates.size:
        finely = np.geomspace(rates[0], rates[-1], 50)
        bound = forward.flop_bound(found.setting, finely)
        axes.plot(100 * finely, bound, **_BOUND, zorder=1)
        axes.set_xscale("log")
        axes.set_xticks(100 * rates, [f"{100 * rate:g}" for rate in rates])
    axes.set_xticks([], minor=True)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.grid()


def _mark(axes, found):
    """Mark the break-even rate, and write it in the corner that falling lines leave free."""
    rate = forward.break_even(forward.rates(found), forward.speedups(found, counted=True))
    if rate not in (forward.NEVER, forward.ALWAYS):
        axes.plot([100 * rate], [1], **_BREAK_EVEN, zorder=5)
    axes.text(
        0.97, 0.96, f"break-even: {forward.describe_break_even(rate)}",
        transform=axes.transAxes, ha="right", va="top",
    )  # fmt: skip


def _kinds(kinds):
    each = zip(kinds, _LINES, strict=False)
    return [Line2D([], [], label=forward.describe_kind(kind), **s | _GIVEN) for kind, s in each]


def _meanings():
    dark = {"color": "black"}
    return [
        Line2D([], [], label="policy not counted", **_GIVEN | dark),
        Line2D([], [], label="policy counted", marker="o", **_COUNTED | dark),
        Line2D([], [], label="flop bound", **_BOUND),
        Line2D([], [], label="break-even of blocks of 32, counted", **_BREAK_EVEN),
    ]
