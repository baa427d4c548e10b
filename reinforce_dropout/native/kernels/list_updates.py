"""Numba kernels for the Ops of `reinforce_dropout.blocks.list_updates`. They work in place.

Threads share the panels of the weights. A thread takes one panel after another, and in each the
instances that use it. So a panel stays in the cache for all of them, no thread writes what another
one does, and every weight is summed in the order of the instances, for any number of threads.
"""

import numba
import numpy as np

from reinforce_dropout.native.kernels.lists import check_line, check_lists, check_whole_panels
from reinforce_dropout.native.kernels.packed import parts_for
from reinforce_dropout.native.kernels.sharing import share
from reinforce_dropout.native.llvm.lines import add_to_lines
from reinforce_dropout.native.llvm.vectors import address

__all__ = ["group_update", "unit_update"]


@numba.njit
def _update_share(part, n_parts, W, s, below, n_below, g, above, n_above):
    """Update a part of the panels. The loops have no calls with arrays, see `lists`."""
    lanes, itemsize, zero = W.shape[2], W.itemsize, W.dtype.type(0)
    places = np.zeros(len(above), np.int64)  # where each list of this layer has got to
    for p in range(*share(part, n_parts, W.shape[0], 1)):
        for i in range(len(above)):
            t = places[i]
            while t < n_above[i] and above[i, t] < p * lanes:
                t += lanes
            places[i] = t
            if t < n_above[i] and above[i, t] == p * lanes:
                add_to_lines(
                    address(W) + p * W.strides[0],
                    address(below) + i * below.strides[0],
                    address(s) + i * s.strides[0],
                    n_below[i],
                    address(g) + i * g.strides[0] + t * itemsize,
                    zero,
                )


@numba.njit(parallel=True)
def _update_in_parallel(n_parts, W, s, below, n_below, g, above, n_above):
    for part in numba.prange(n_parts):
        _update_share(part, n_parts, W, s, below, n_below, g, above, n_above)


@numba.njit
def group_update(W, s, below, n_below, g, above, n_above):
    """``W += s.T g``, where each instance adds to the weights between its own units."""
    check_lists(s, below, n_below, W.shape[1])
    check_lists(g, above, n_above, W.shape[0] * W.shape[2])
    check_whole_panels(above, W, len(below))
    check_line(W)
    n_parts = parts_for(n_below.sum() * g.shape[1], W.shape[0])
    if n_parts == 1:
        _update_share(0, 1, W, s, below, n_below, g, above, n_above)
    else:
        _update_in_parallel(n_parts, W, s, below, n_below, g, above, n_above)


@numba.njit
def unit_update(b, g, units, counts):
    """``b += g.sum(axis=0)``, where each instance adds to the biases of its own units."""
    check_lists(g, units, counts, b.size)
    for i in range(len(units)):
        for t in range(counts[i]):
            b[units[i, t]] += g[i, t]
