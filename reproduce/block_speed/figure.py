"""The figure of the speed-ups."""

import itertools

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from training_speed import STYLE

from block_speed.results import ALWAYS, NEVER, describe_break_even, flop_bound

TARGET_BLOCK = 32
"""The paper's block size, to which the targets apply; its break-even rate is marked."""

# Told apart by shape and shade, for print in grey.
_LINES = (
    {"marker": "o", "color": "0.70"},
    {"marker": "s", "color": "0.50"},
    {"marker": "D", "color": "black"},
    {"marker": "^", "color": "0.30"},
)
_GIVEN = {"linestyle": "-", "linewidth": 1.2, "markersize": 4}
_COUNTED = {"linestyle": (0, (4, 2)), "linewidth": 0.8, "markersize": 4, "markerfacecolor": "white"}
_BOUND = {"linestyle": ":", "linewidth": 0.8, "color": "black"}
_BREAK_EVEN = {"linestyle": "none", "marker": "*", "markersize": 11, "color": "black"}


def figure(results):
    """Draw the speed-ups with most threads: a column of panels a network.

    Above by blocks, below for a single image.

    Parameters
    ----------
    results : results.Results

    Returns
    -------
    matplotlib.figure.Figure
    """
    nets, n_threads = results.nets(), results.threads()[-1]
    mine = [f for f in results.forward if f.setting.n_threads == n_threads]
    blocks = sorted({f.setting.instances_per_block for f in mine if f.setting.n_images > 1})
    styles = dict(zip(blocks, itertools.cycle(_LINES)))
    with matplotlib.style.context(STYLE):
        drawing = Figure(figsize=(max(2, len(nets)) * 3.4, 6.4), layout="constrained")
        grid = drawing.subplots(
            2, len(nets), squeeze=False, sharex=True, sharey="row", height_ratios=(5, 3)
        )
        for column, n_units in zip(grid.T, nets, strict=True):
            own = [f for f in mine if f.setting.n_units == n_units]
            by_blocks = [f for f in own if f.setting.n_images > 1]
            single = [f for f in own if f.setting.n_images == 1]
            _panel(column[0], by_blocks, styles)
            _panel(column[1], single, {1: _LINES[0] | {"color": "black", "marker": "v"}})
            column[0].set_title(by_blocks[0].setting.net)
            column[1].set_title("a single image")
            column[1].set_xlabel("active units, %")
        for axes in grid[:, 0]:
            axes.set_ylabel("speed-up over dense")
        drawing.suptitle(
            f"Forward pass, {n_threads} thread{'s' * (n_threads > 1)}", fontsize="medium"
        )
        ncols = 4 if len(nets) > 2 else 2
        drawing.legend(handles=_handles(styles), loc="outside lower center", ncols=ncols)
    return drawing


def _panel(axes, found, styles):
    """Draw two lines for each block size, the bound, and where blocks begin to cost."""
    rates = found[0].rates
    finely = np.geomspace(rates[0], rates[-1], 50)
    axes.axhline(1, color="0.6", linewidth=0.8, zorder=0)
    axes.plot(100 * finely, flop_bound(found[0].setting.n_units, finely), **_BOUND, zorder=1)
    for f in found:
        style = styles[f.setting.instances_per_block]
        for policy, line in ((False, _GIVEN), (True, _COUNTED)):
            axes.plot(100 * f.rates, f.speedups(policy), **style | line)
        if f.setting.instances_per_block == TARGET_BLOCK:
            _mark(axes, f.break_even(policy=True))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(100 * rates, [f"{100 * rate:g}" for rate in rates])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.grid(color="0.92", linewidth=0.5)
    axes.set_axisbelow(True)


def _mark(axes, rate):
    """Mark the break-even rate, and say it in the corner that falling lines leave free."""
    if rate not in (NEVER, ALWAYS):
        axes.plot([100 * rate], [1], **_BREAK_EVEN, zorder=5)
    axes.text(
        0.97, 0.96, f"break-even: {describe_break_even(rate)}",
        transform=axes.transAxes, ha="right", va="top",
    )  # fmt: skip


def _handles(styles):
    dark = {"color": "black"}
    handles = [
        Line2D([], [], label=f"blocks of {block}", **style | _GIVEN)
        for block, style in styles.items()
    ]
    handles += [
        Line2D([], [], label="policy not counted", **_GIVEN | dark),
        Line2D([], [], label="policy counted", marker="o", **_COUNTED | dark),
        Line2D([], [], label="flop bound", **_BOUND),
    ]
    if TARGET_BLOCK in styles:
        label = f"break-even of blocks of {TARGET_BLOCK}, counted"
        handles.append(Line2D([], [], label=label, **_BREAK_EVEN))
    return handles
