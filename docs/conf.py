"""Settings of the book that `make docs` builds.

The source folder is the whole repository. So the pages link to each other here as on a code host.
"""

import shutil
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)

project = "reinforce-dropout"
author = "the authors of reinforce-dropout"
root_doc = "docs/index"
include_patterns = ["docs/**", "figures/*.md", "reproduce/README.md"]
exclude_patterns = [".*", "build", "dist", "runs", "reinforce_dropout", "tests"]
extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_execution_timeout = 120  # seconds for a cell; a whole chapter takes less than 20

default_role = "py:obj"  # docstrings mark names with single backticks
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "no-value": True}
numpydoc_show_class_members = False  # the sections Attributes list them

html_title = project
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_extra_path = ["_extra"]  # the page that leads to docs/index.html
html_math_renderer = "mathml"
html_show_copyright = False

TITLES = {
    "block_dropout": "Block dropout: accuracy",
    "block_speedup": "Block dropout: speed",
    "claims": "The paper's claims, one by one",
    "kl_gradient": "Two readings of the divergence's gradient",
    "ledger": "The open questions, one choice at a time",
    "seeds": "All seeds side by side",
    "systems": "The systems that the paper names",
    "table": "The paper's numbers and ours",
    "training_speed": "Time of a training step",
}
"""Titles of the pages in figures/. `make figures` writes tables without a heading."""


def add_title(app, docname, source):
    """Put a heading above the tables in figures/."""
    folder, _, name = docname.partition("/")
    if folder == "figures":
        source[0] = f"# {TITLES.get(name, name.replace('_', ' ').capitalize())}\n\n{source[0]}"


def skip_fields(app, what, name, member, skip, options):
    """Leave out the fields of named tuples: the sections Attributes describe them."""
    return skip or (getattr(member, "__doc__", None) or "").startswith("Alias for field number")


def as_mathml(node, as_block):
    """Return a formula as MathML, which browsers show without scripts or fonts of their own."""
    try:
        formula = latex2mathml.tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning("%s in %s", error, node.astext(), location=node)
        return ""
    # A little space after a function's name: log z, not logz.
    return formula.replace("<mo>&ApplyFunction;", '<mo rspace="0.17em">&ApplyFunction;')


def visit_math(self, node):
    """Write a formula in a line."""
    self.body.append(as_mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(self, node):
    """Write a formula of its own. It scrolls on a narrow screen, and can be reached by keyboard."""
    self.body.append(f'<div class="formula" tabindex="0">{as_mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def copy_play(app, exception):
    """Put the page to play with beside docs/index.html, which leads to it."""
    shutil.copytree(
        Path(app.confdir) / "play", Path(app.outdir) / "docs" / "play", dirs_exist_ok=True
    )


def setup(app):
    """Connect the functions above."""
    app.connect("source-read", add_title)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("build-finished", copy_play)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
