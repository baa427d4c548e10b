"""Numba kernel for `blocks.unit_product`: layers whose instances use single units of their own.

A panel of the weights is summed as in `lists`, wherever an instance uses one of its units. The
instance keeps the sums of its own units. Threads share the instances, and take them by tiles: the
lists of a tile stay in the second-level cache while all panels pass. Every number is summed in the
order of its list, for any number of threads and of instances.
"""

import numba
import numpy as np

from reinforce_dropout.blocks import unit_product as ops
from reinforce_dropout.native.kernels.lists import capacity, check_line, check_lists
from reinforce_dropout.native.kernels.packed import parts_for
from reinforce_dropout.native.kernels.sharing import share
from reinforce_dropout.native.llvm.lines import line_of_sums
from reinforce_dropout.native.llvm.vectors import address, lowest_bit

__all__ = ["unit_product"]

_check = numba.njit(ops.check)

#: Instances in a tile.
_TILE = 128


@numba.njit
def _product_tile(start, stop, below, W, b, mask, line, out):
    """Compute the instances from `start` to `stop`, of which `line` has room for one panel's sums.

    The loops have no calls with arrays, because Numba would count references to them.
    """
    (values, units, counts), (out_values, out_units, out_counts) = below, out
    lanes, itemsize, zero = W.shape[2], out_values.itemsize, out_values.dtype.type(0)
    for p in range(W.shape[0]):
        first = p * lanes
        count = min(lanes, mask.shape[1] - first)
        for i in range(start, stop):
            bits = 0
            for j in range(count):
                bits |= np.int64(mask[i, first + j]) << j
            if bits != 0:
                line_of_sums(
                    address(line),
                    address(W) + p * W.strides[0],
                    address(units) + i * units.strides[0],
                    address(values) + i * values.strides[0],
                    counts[i],
                    address(b) + first * itemsize,
                    zero,
                )
                n = out_counts[i]
                while bits != 0:
                    j = lowest_bit(bits)
                    out_values[i, n], out_units[i, n] = line[j], first + j
                    bits &= bits - 1
                    n += 1
                out_counts[i] = n


@numba.njit
def _product_share(part, n_parts, below, W, b, mask, out):
    start, stop = share(part, n_parts, len(mask), 1)
    line = np.empty(W.shape[2], W.dtype)
    out[2][start:stop] = 0
    for first in range(start, stop, _TILE):
        _product_tile(first, min(first + _TILE, stop), below, W, b, mask, line, out)
    for i in range(start, stop):
        out[0][i, out[2][i] :] = 0


@numba.njit(parallel=True)
def _product_in_parallel(n_parts, below, W, b, mask, out):
    for part in numba.prange(n_parts):
        _product_share(part, n_parts, below, W, b, mask, out)


@numba.njit
def unit_product(values, units, counts, W, b, mask):
    """``s W + b`` for the single units that each instance uses."""
    check_lists(values, units, counts, W.shape[1])
    check_line(W)
    _check(counts, W, b, mask)
    room = capacity(mask, 1)
    out = (
        np.empty((len(mask), room), values.dtype),
        np.empty((len(mask), room), np.int32),
        np.empty(len(mask), np.int64),
    )
    padded = np.zeros(W.shape[0] * W.shape[2], b.dtype)
    padded[: b.size] = b
    below = values, units, counts
    n_parts = parts_for(counts.sum() * W.shape[0] * W.shape[2], len(mask))
    if n_parts == 1:
        _product_share(0, 1, below, W, padded, mask, out)
    else:
        _product_in_parallel(n_parts, below, W, padded, mask, out)
    return out
