"""Figure 1, drawn from records. Nothing here trains."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import files
from reinforce_dropout.results.claims import QUICK_NOTE
from reinforce_dropout.results.records import Record

# Matplotlib's own defaults come first: a user's matplotlibrc must not change a published figure.
STYLE = (
    "default",
    {
        "font.size": 9,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "legend.handlelength": 3,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "savefig.dpi": 200,
        "pdf.fonttype": 42,  # text that can be searched and copied
    },
)
# Told apart by dashes, width and points as well as by colour, for print in grey.
_ONLY_LAYER = {
    "color": "black", "linestyle": (0, (5, 1.5, 1, 1.5)), "linewidth": 1.3, "marker": "^",
}  # fmt: skip
_FIRST_LAYER = {"color": "#0072b2", "linestyle": "-", "linewidth": 2.0, "marker": "o"}
_SECOND_LAYER = {
    "color": "#d55e00", "linestyle": (0, (4, 1.5)), "linewidth": 1.3, "marker": "s",
}  # fmt: skip
_BEST = {"marker": "D", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.3}
_FEW_EPOCHS = 20
"""Up to this many epochs, each one is a point, because a line of one epoch is invisible."""

# No dates and no program in the files: equal records give equal bytes.
_METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None}}


def figure1(
    policy_500: Record | Sequence[Record],
    policy_800_800: Record | Sequence[Record],
    quick: bool = False,
) -> Figure:
    """Draw the paper's Figure 1.

    (a) and (b) show the mean activation of each hidden layer over each epoch's training, in per
    cent of its units. (c) shows the mean entropy of each policy in nats a unit. The paper mentions
    only the first policy of the 800-800 network; the others are thinner. A diamond marks the epoch
    of the lowest validation error.

    Several runs give the median and, shaded, the range of those that still train. The lines end
    where fewer than half do. There is a diamond for each run that has its best epoch before. The
    legend names the later ones.

    Parameters
    ----------
    policy_500, policy_800_800 : Record or sequence of Record
        Runs with one and with two hidden layers that have policies, one epoch or more.
    quick : bool
        Whether to write `QUICK_NOTE` above the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    RecordError
        A record lacks the policies to be drawn.
    """
    ones, twos = _as_list(policy_500), _as_list(policy_800_800)
    for runs, n_layers in ((ones, 1), (twos, 2)):
        for run in runs:
            _refuse_other_layers(run, n_layers)
    one, two = _name(ones[0]), _name(twos[0])
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(10, 3.7), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)  # inches
        a, b, c = figure.subplots(1, 3)
        _plot(a, ones, "active_fraction", 0, "hidden layer", _ONLY_LAYER)
        _plot(b, twos, "active_fraction", 0, "layer 1", _FIRST_LAYER)
        _plot(b, twos, "active_fraction", 1, "layer 2", _SECOND_LAYER)
        _plot(c, twos, "policy_entropy", 0, f"first policy of {two}", _FIRST_LAYER)
        _plot(c, twos, "policy_entropy", 1, f"second policy of {two}", _SECOND_LAYER)
        _plot(c, ones, "policy_entropy", 0, f"policy of {one}", _ONLY_LAYER)
        for axes, letter, name, runs in ((a, "a", one, ones), (b, "b", two, twos)):
            title = f"({letter}) mean activation, {name} network"
            _finish(axes, title, "active units (%)", _best_note(runs))
        _finish(c, "(c) entropy of the policies", "entropy (nats per unit)")
        top = max(a.get_ylim()[1], b.get_ylim()[1])  # one scale, to compare the two networks
        a.set_ylim(0, top)
        b.set_ylim(0, top)
        if quick:
            figure.suptitle(QUICK_NOTE, weight="bold", backgroundcolor="0.9")
    return figure


def _as_list(runs):
    return [runs] if isinstance(runs, Record) else list(runs)


def _refuse_other_layers(record, n_layers):
    curve = record.curves.get("active_fraction")
    found = 0 if curve is None else curve.shape[1]
    if found != n_layers:
        raise RecordError(
            f"the record of {record.attributes['experiment']['name']} has {found} policies where "
            f"the figure shows {n_layers}: give the record of another run."
        )


def _name(record):
    """Return the widths as the paper writes them: 800-800."""
    return "-".join(str(n) for n in record.attributes["experiment"]["n_units"])


def _n_drawn(runs):
    """Return the number of epochs that half of the runs or more have."""
    lengths = sorted(run.n_epochs for run in runs)
    return lengths[len(lengths) // 2]


def _best_note(runs):
    """Return which best epochs are meant, and those beyond the lines."""
    if len(runs) == 1:
        return f" (epoch {runs[0].best_epoch})"
    later = [str(run.best_epoch) for run in runs if run.best_epoch > _n_drawn(runs)]
    return f" of {len(runs)} seeds" + (f" (also at {', '.join(later)})" if later else "")


def _plot(axes, runs, curve, layer, label, style):
    """Draw one column of a curve against the epochs, and a diamond at the best one of each run."""
    scale = 100 if curve == "active_fraction" else 1
    columns = [run.curves[curve][:, layer] * scale for run in runs]
    n_epochs = _n_drawn(runs)
    at_epoch = [[c[i] for c in columns if i < len(c)] for i in range(n_epochs)]
    epochs = range(1, n_epochs + 1)
    size = 3.5 if n_epochs <= _FEW_EPOCHS else 0
    middle = [np.median(values) for values in at_epoch]
    axes.plot(epochs, middle, label=label, markersize=size, clip_on=False, **style)
    if len(runs) > 1:
        low, high = zip(*((min(values), max(values)) for values in at_epoch), strict=True)
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.25, linewidth=0)
    for run, values in zip(runs, columns, strict=True):
        if (best := run.best_epoch) <= n_epochs:
            value, edge = values[best - 1], style["color"]
            axes.plot([best], [value], markeredgecolor=edge, clip_on=False, **_BEST)


def _finish(axes, title, unit, best_note=""):
    """Label the axes, start both at zero, and put the legend below them."""
    axes.set(title=title, xlabel="epoch", ylabel=unit)
    axes.set_xlim(0, 1.03 * max(max(line.get_xdata()) for line in axes.lines))
    axes.set_ylim(0, 1.08 * max(max(line.get_ydata()) for line in axes.lines))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    label = f"lowest validation error{best_note}"
    axes.plot([], [], color="0.3", linestyle="none", label=label, **_BEST)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), borderaxespad=0)


def save_figure(figure: Figure, path_stem: str | os.PathLike) -> list[Path]:
    """Write a figure as ``.png`` and ``.pdf``, and return the two paths.

    Equal figures give equal bytes. See `files.write_whole`.
    """
    paths = []
    for kind, metadata in _METADATA.items():
        image = io.BytesIO()
        with matplotlib.style.context(STYLE):
            figure.savefig(image, format=kind, metadata=metadata)
        paths.append(Path(f"{os.fspath(path_stem)}.{kind}"))
        files.write_whole(paths[-1], image.getvalue())
    return paths
