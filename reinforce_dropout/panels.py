"""Weights laid out in panels of neighbouring columns, each of them contiguous in memory.

A product that goes through a span of the columns reads a short piece of every row of the weights.
In a panel these pieces follow one another, so that the processor fetches them ahead, and do not
displace each other in its caches, as pieces do that lie a power of two apart.
"""

import numpy as np

from reinforce_dropout.alignment import LINE_BYTES, aligned

_WIDEST, _NARROWEST = 8 * LINE_BYTES, 4 * LINE_BYTES


def panel_width(n_columns, itemsize):
    """Return the columns in a panel: what fills an even number of panels best, for two threads.

    Parameters
    ----------
    n_columns, itemsize : int

    Returns
    -------
    int
        In whole lines of the cache; the widest of those that are as good.
    """
    widths = range(_WIDEST // itemsize, _NARROWEST // itemsize - 1, -LINE_BYTES // itemsize)
    return min(widths, key=lambda width: -(-n_columns // (2 * width)) * 2 * width)


def in_panels(Z):
    """Lay out a matrix in panels.

    Parameters
    ----------
    Z : ndarray (n_in, n_units)

    Returns
    -------
    ndarray (n_panels, n_in, width)
        A copy: panel p holds the columns from ``p * width`` on. The last panel is padded with
        zeros.
    """
    n_in, n_units = Z.shape
    width = panel_width(n_units, Z.itemsize)
    n_panels = max(1, -(-n_units // width))
    padded = np.zeros((n_in, n_panels * width), Z.dtype)
    padded[:, :n_units] = Z
    return aligned(padded.reshape(n_in, n_panels, width).transpose(1, 0, 2))
