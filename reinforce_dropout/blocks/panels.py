"""Weights laid out in panels of neighbouring columns, each of them contiguous in memory.

A product with a span of the columns reads a short piece of every row of the weights. In a panel
these pieces follow one another. So the processor fetches them ahead. They also do not displace each
other in the caches, as pieces do that lie a power of two apart.
"""

import numpy as np

from reinforce_dropout.alignment import LINE_BYTES, aligned

_WIDEST, _NARROWEST = 8 * LINE_BYTES, 4 * LINE_BYTES


def panel_width(n_columns, itemsize):
    """Return the number of columns in a panel.

    It is a multiple of cache lines, the widest of those that fill an even number of panels best.
    An even number suits two threads.
    """
    widths = range(_WIDEST // itemsize, _NARROWEST // itemsize - 1, -LINE_BYTES // itemsize)
    return min(widths, key=lambda width: -(-n_columns // (2 * width)) * 2 * width)


def in_panels(Z, width=None):
    """Copy Z (n_in, n_units) into panels (n_panels, n_in, width), by default of `panel_width`.

    Panel p holds the columns from ``p * width`` on. The last panel is padded with zeros.
    """
    n_in, n_units = Z.shape
    width = width or panel_width(n_units, Z.itemsize)
    n_panels = max(1, -(-n_units // width))
    padded = np.zeros((n_in, n_panels * width), Z.dtype)
    padded[:, :n_units] = Z
    return aligned(padded.reshape(n_in, n_panels, width).transpose(1, 0, 2))


def out_of_panels(panels):
    """Copy panels back into a matrix (n_in, n_panels * width): also the columns of zeros."""
    return panels.transpose(1, 0, 2).reshape(panels.shape[1], -1)
