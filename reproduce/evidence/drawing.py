"""Figures whose points show a text when a reader points at them, in SVG."""

import io
import re
from html import escape

import matplotlib.style
from matplotlib.figure import Figure

from reinforce_dropout.results.figures import STYLE

_POINT = "point"


def new(**options):
    """Return a figure and its only axes, or an array of axes with ``n_rows`` or ``n_columns``."""
    shape = options.pop("n_rows", 1), options.pop("n_columns", 1)
    with matplotlib.style.context(STYLE):
        figure = Figure(layout="constrained", **options)
        return figure, figure.subplots(*shape)


def point(axes, x, y, text, **style):
    """Draw one point; `text` is shown when a reader points at it."""
    (line,) = axes.plot([x], [y], linestyle="none", clip_on=False, **style)
    titles = axes.figure.__dict__.setdefault("titles", [])
    line.set_gid(f"{_POINT}-{len(titles)}-")
    titles.append(text)


def svg(figure, name):
    """Return a figure as an SVG element for a page. `name` keeps its identifiers apart."""
    image = io.StringIO()
    with matplotlib.style.context(STYLE):
        matplotlib.rcParams["svg.fonttype"] = "none"
        matplotlib.rcParams["svg.hashsalt"] = name
        figure.savefig(image, format="svg", transparent=True, metadata={"Date": None})
    text = image.getvalue()
    text = text[text.index("<svg") :]
    for i, title in enumerate(getattr(figure, "titles", [])):
        opening = f'<g id="{_POINT}-{i}-">'
        text = text.replace(opening, f'<g class="point"><title>{escape(title)}</title>', 1)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    # Black follows the colour of the page's text, also on a dark page.
    return re.sub(r"#000000|\bblack\b", "currentColor", text)
