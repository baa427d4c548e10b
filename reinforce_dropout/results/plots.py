"""Pictures of any run: its curves, and which units take part for which class."""

from itertools import cycle

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reinforce_dropout.results.figures import STYLE
from reinforce_dropout.results.records import Record

# Told apart by dashes as well as by colour, for print in grey.
_LINES = (
    {"color": "#0072b2", "linestyle": "-", "linewidth": 1.2},
    {"color": "#e69f00", "linestyle": (0, (4, 1.5)), "linewidth": 1.4},
    {"color": "black", "linestyle": (0, (1, 1)), "linewidth": 1.4},
    {"color": "#009e73", "linestyle": (0, (5, 1.5, 1, 1.5)), "linewidth": 1.4},
)
_ERRORS = {"valid_error": "validation", "test_error": "test"}
_UNITS = {
    "active_fraction": ("units that take part", "active units (%)", 100),
    "policy_entropy": ("entropy of the policies", "entropy (nats per unit)", 1),
}
"""Title, unit and scale of a curve. Others are drawn under their own name."""
_NOT_DRAWN = ("train_nll", "epoch_seconds", *_ERRORS)
_CLASS_INCHES = 0.22
_MOST_NAMES = 36
"""Of classes, beside a panel. If there are more, some of them have no name."""


def curves(record: Record) -> Figure:
    """Draw all curves of a run against its epochs.

    The training loss is in nats an example. Errors are in per cent, by the rule that decides. Each
    other curve of the system has a panel. A dotted line marks the epoch of the lowest validation
    error.

    Parameters
    ----------
    record : Record
        Of one epoch or more; curves alone suffice.

    Returns
    -------
    matplotlib.figure.Figure
    """
    others = [
        name
        for name, curve in record.curves.items()
        if name not in _NOT_DRAWN and "_error_" not in name and curve.size
    ]
    with matplotlib.style.context(STYLE):
        n_rows = -(-(2 + len(others)) // 2)
        figure = Figure(figsize=(8, 2.8 * n_rows), layout="constrained")
        panels = list(figure.subplots(n_rows, 2).flat)
        loss, errors, *rest = panels
        nll = {"training": record.curves["train_nll"]}
        _panel(loss, "training loss", "nll (nats per example)", nll)
        rates = {word: 100 * record.curves[name] for name, word in _ERRORS.items()}
        _panel(errors, "errors", "error (%)", rates)
        for axes, name in zip(rest, others, strict=False):
            title, unit, scale = _UNITS.get(name, (name, name, 1))
            _panel(axes, title, unit, _by_layer(scale * record.curves[name]))
        for axes in panels[2 + len(others) :]:
            axes.remove()
        for axes in panels[: 2 + len(others)]:
            axes.axvline(record.best_epoch, color="0.4", linestyle=":", linewidth=1)
        experiment = record.attributes["experiment"]
        figure.suptitle(
            f"{experiment['name']}, seed {record.attributes['seed']}"
            f" (dotted: lowest validation error, epoch {record.best_epoch})"
        )
    return figure


def _by_layer(curve):
    """Return the columns of a curve (epochs, L), or the curve (epochs,) itself, by their label."""
    if curve.ndim == 1:
        return {"": curve}
    return {f"layer {i}": column for i, column in enumerate(curve.T, start=1)}


def _panel(axes, title, unit, lines):
    for (label, values), style in zip(lines.items(), cycle(_LINES)):
        few = "o" if len(values) == 1 else None  # a line of one epoch is invisible
        axes.plot(range(1, len(values) + 1), values, label=label, marker=few, **style)
    axes.set(title=title, xlabel="epoch", ylabel=unit)
    axes.set_ylim(0, 1.05 * max(1e-9, max(values.max() for values in lines.values())))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if len(lines) > 1:
        axes.legend()


def masks(participation: list, class_names: tuple = (), title: str = "") -> Figure:
    """Draw which units take part for which class.

    Parameters
    ----------
    participation : list of ndarray (n_classes, n_units)
        For each gated layer, how much each unit takes part in the examples of each class: a
        fraction. See `running.participation`.
    class_names : tuple of str
        By default the classes are numbered.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each layer: rows are classes, columns are units. Units are ordered by the class
        in which they take part most.

    Examples
    --------
    >>> figure = masks([np.array([[0.1, 0.9], [0.8, 0.2]])], ("cat", "dog"))
    >>> figure.axes[0].get_ylabel()
    'class'
    """
    n_classes = len(participation[0])
    names = class_names or tuple(map(str, range(n_classes)))
    named = slice(None, None, -(-n_classes // _MOST_NAMES))
    with matplotlib.style.context(STYLE):
        height = 1 + _CLASS_INCHES * min(n_classes, _MOST_NAMES)
        figure = Figure(figsize=(8, 0.4 + height * len(participation)), layout="constrained")
        panels = figure.subplots(len(participation), 1, squeeze=False)[:, 0]
        for i, (axes, fractions) in enumerate(zip(panels, participation, strict=True), start=1):
            image = axes.imshow(
                100 * fractions[:, order(fractions)],
                cmap="gray_r",  # dark is much, also in print
                vmin=0,
                vmax=100,
                aspect="auto",
                interpolation="nearest",
            )
            axes.set(
                title=f"layer {i}: {fractions.mean():.1%} of the units take part",
                xlabel="unit, in the order of the class in which it takes part most",
                ylabel="class",
            )
            axes.set_yticks(range(n_classes)[named], names[named])
            axes.spines[["top", "right"]].set_visible(True)
        figure.colorbar(image, ax=list(panels), label="mean participation (%)")
        figure.suptitle(title)
    return figure


def order(fractions: np.ndarray) -> np.ndarray:
    """Return the order of the units of a layer, (n_units,): by class, and there the most first.

    A unit belongs to the class in which it takes part most.

    Examples
    --------
    >>> order(np.array([[0.1, 0.9], [0.8, 0.2]]))
    array([1, 0])
    """
    return np.lexsort([-fractions.max(axis=0), fractions.argmax(axis=0)])
