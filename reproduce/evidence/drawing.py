"""Figures whose points show a text when a reader points at them, in SVG."""

import io
import re
from html import escape

import matplotlib.style
from matplotlib.figure import Figure

from reinforce_dropout.results.figures import STYLE

_POINT = "point"


styled = matplotlib.style.context(STYLE)
"""Decorates functions that draw, for the style of Figure 1."""


def new(figsize, n_columns=1, n_rows=None):
    """Return a figure and its axes: one, an array of them, or an array (n_rows, n_columns)."""
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(n_rows or 1, n_columns, squeeze=n_rows is None)


def point(axes, x, y, text, **style):
    """Draw one point; `text` is shown when a reader points at it."""
    (line,) = axes.plot([x], [y], linestyle="none", clip_on=False, **style)
    titles = axes.figure.__dict__.setdefault("titles", [])
    line.set_gid(f"{_POINT}-{len(titles)}-")
    titles.append(text)


def log_labels(*shown):
    """Label the ticks of logarithmic axes with plain numbers: 10, 20, 30, 50, 70, 100."""
    for axis in shown:
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "2357" else "")
        axis.set_tick_params(which="both", labelsize=7, length=3)


def svg(figure, name):
    """Return a figure as an SVG element for a page. `name` keeps its identifiers apart."""
    image = io.StringIO()
    with matplotlib.style.context([*STYLE, {"svg.fonttype": "none", "svg.hashsalt": name}]):
        figure.savefig(image, format="svg", transparent=True, metadata={"Date": None})
    text = image.getvalue()
    text = text[text.index("<svg") :]
    for i, title in enumerate(getattr(figure, "titles", [])):
        opening = f'<g id="{_POINT}-{i}-">'
        text = text.replace(opening, f'<g class="point"><title>{escape(title)}</title>', 1)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    # Black follows the colour of the page's text, also on a dark page.
    return re.sub(r"#000000|\bblack\b", "currentColor", text)
