"""Numba kernel for `blocks.unit_product`: layers whose instances use single units of their own.

Panels are summed as in `lists`, two at a time: so the list of an instance is read half as often.
The instance keeps the sums of its own units. Threads share the instances, and take them by tiles.
The lists of a tile stay in the second-level cache while all panels pass. Every number is summed in
the order of its list, for any number of threads and of instances.
"""

import numba
import numpy as np

from reinforce_dropout.blocks import unit_product as ops
from reinforce_dropout.native.kernels.lists import (
    UNIT,
    capacity,
    check_line,
    check_lists,
    check_width,
    for_whole_panels,
)
from reinforce_dropout.native.kernels.packed import parts_for
from reinforce_dropout.native.kernels.sharing import share
from reinforce_dropout.native.llvm.lines import lines_of_sums
from reinforce_dropout.native.llvm.places import BITS, flag_bits
from reinforce_dropout.native.llvm.vectors import address, lowest_bit

__all__ = ["unit_product"]

_check = numba.njit(ops.check)
_sums_of_pair, _sums_of_one = lines_of_sums(2), lines_of_sums(1)

#: Instances in a tile.
_TILE = 128


@numba.njit
def _bits(mask, i, first, count):
    """Return an integer whose bit j says that instance i uses the unit ``first + j``."""
    bits, j, at = 0, 0, address(mask) + i * mask.strides[0] + first
    while j + BITS <= count:
        bits |= flag_bits(at + j) << j
        j += BITS
    while j < count:
        bits |= np.int64(mask[i, first + j]) << j
        j += 1
    return bits


@numba.njit
def _product_tile(start, stop, below, W, b, mask, sums, out):
    """Compute the instances from `start` to `stop`; `sums` has room for those of two panels."""
    (values, units, counts), (out_values, out_units, out_counts) = below, out
    lanes, zero = W.shape[2], out_values.dtype.type(0)
    for p in range(0, W.shape[0], 2):
        first = p * lanes
        count = min(2 * lanes, mask.shape[1] - first)
        panel, biases = address(W) + p * W.strides[0], address(b) + first * b.itemsize
        for i in range(start, stop):
            bits = _bits(mask, i, first, count)
            if bits == 0:
                continue
            below_i, s = address(units) + i * units.strides[0], address(values)
            s += i * values.strides[0]
            if p + 1 < W.shape[0]:
                _sums_of_pair(
                    address(sums), panel, W.strides[0], below_i, s, counts[i], biases, zero
                )
            else:
                _sums_of_one(
                    address(sums), panel, W.strides[0], below_i, s, counts[i], biases, zero
                )
            n = out_counts[i]
            while bits != 0:
                j = lowest_bit(bits)
                out_values[i, n], out_units[i, n] = sums[j], first + j
                bits &= bits - 1
                n += 1
            out_counts[i] = n


@numba.njit
def _product_share(part, n_parts, below, W, b, mask, out):
    start, stop = share(part, n_parts, len(mask), 1)
    sums = np.empty(2 * W.shape[2], W.dtype)
    out_values, _, out_counts = out
    out_counts[start:stop] = 0
    for first in range(start, stop, _TILE):
        _product_tile(first, min(first + _TILE, stop), below, W, b, mask, sums, out)
    for i in range(start, stop):
        out_values[i, out_counts[i] :] = 0


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
    check_width(b.size)
    room = capacity(mask, 1)
    out = (
        np.empty((len(mask), room), values.dtype),
        np.empty((len(mask), room), UNIT),
        np.empty(len(mask), np.int64),
    )
    padded, below = for_whole_panels(b, W), (values, units, counts)
    n_parts = parts_for(counts.sum() * W.shape[0] * W.shape[2], len(mask))
    if n_parts == 1:
        _product_share(0, 1, below, W, padded, mask, out)
    else:
        _product_in_parallel(n_parts, below, W, padded, mask, out)
    return out
