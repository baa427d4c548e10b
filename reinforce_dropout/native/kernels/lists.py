"""Numba kernels for the Ops of `reinforce_dropout.blocks.lists`.

Threads share the instances. A thread takes one panel of the weights after another, and in each the
instances that use it. So a panel stays in the cache for all of them. Every number is summed in the
order of its list, for any number of threads and of instances.
"""

import numba
import numpy as np

from reinforce_dropout.blocks import lists as ops
from reinforce_dropout.native.kernels.packed import COPY, parts_for
from reinforce_dropout.native.kernels.sharing import share
from reinforce_dropout.native.llvm.lines import line_of_sums
from reinforce_dropout.native.llvm.vectors import VECTOR_BYTES, address, lowest_bit, non_zero_bits

__all__ = ["group_product", "list_non_zeros"]

_check, _capacity = numba.njit(ops.check), numba.njit(ops.capacity)


@numba.njit
def _list_row(row, values, units):
    """List what is not zero in a row; return the number."""
    lanes, n = VECTOR_BYTES // row.itemsize, 0
    for k in range(0, row.size, lanes):
        bits = non_zero_bits(address(row) + k * row.itemsize, row.size - k, row.dtype.type(0))
        while bits:
            units[n] = k + lowest_bit(bits)
            values[n] = row[units[n]]
            bits &= bits - 1
            n += 1
    return n


@numba.njit
def _list_share(part, n_parts, s, values, units, counts):
    for i in range(*share(part, n_parts, s.shape[0], 1)):
        counts[i] = _list_row(s[i], values[i], units[i])


@numba.njit(parallel=True)
def _list_in_parallel(n_parts, s, values, units, counts):
    for part in numba.prange(n_parts):
        _list_share(part, n_parts, s, values, units, counts)


@numba.njit
def list_non_zeros(s):
    """Return values, units and counts of what is not zero in s (m_b, n_units)."""
    values, units = np.empty(s.shape, s.dtype), np.empty(s.shape, np.int32)
    counts = np.empty(s.shape[0], np.int64)
    n_parts = parts_for(COPY * s.size, s.shape[0])
    if n_parts == 1:
        _list_share(0, 1, s, values, units, counts)
    else:
        _list_in_parallel(n_parts, s, values, units, counts)
    return values, units, counts


@numba.njit
def _add_panel(panel, first, b, below, i, out):
    """Compute the units of a panel, from number `first` on, for instance i.

    They go to the end of its list, which `out` holds. `below` holds the lists of the layer below.
    """
    (values, units, counts), (out_values, out_units, out_counts) = below, out
    at, size = out_counts[i], out_values.itemsize
    line_of_sums(
        address(out_values) + i * out_values.strides[0] + at * size,
        address(panel),
        address(units) + i * units.strides[0],
        address(values) + i * values.strides[0],
        counts[i],
        address(b) + first * size,
        out_values.dtype.type(0),
    )
    for j in range(panel.shape[1]):
        out_units[i, at + j] = first + j


@numba.njit
def _product_share(part, n_parts, below, W, b, n_units, groups, size, out):
    start, stop = share(part, n_parts, groups.shape[0], 1)
    out_values, _, out_counts = out
    out_counts[start:stop] = 0
    lanes = W.shape[2]
    for p in range(W.shape[0]):
        first = p * lanes
        group, count = first // size, min(lanes, n_units - first)
        for i in range(start, stop):
            if groups[i, group]:
                _add_panel(W[p], first, b, below, i, out)
                out_counts[i] += count
    for i in range(start, stop):
        out_values[i, out_counts[i] :] = 0


@numba.njit(parallel=True)
def _product_in_parallel(n_parts, below, W, b, n_units, groups, size, out):
    for part in numba.prange(n_parts):
        _product_share(part, n_parts, below, W, b, n_units, groups, size, out)


@numba.njit
def group_product(values, units, counts, W, b, groups, size):
    """``s W + b`` for the groups of `size` units that each instance uses."""
    _check(size, values, units, counts, W, b, groups)
    room = _capacity(groups, size)
    out = (
        np.empty((len(groups), room), values.dtype),
        np.empty((len(groups), room), np.int32),
        np.empty(len(groups), np.int64),
    )
    padded = np.zeros(W.shape[0] * W.shape[2], b.dtype)
    padded[: b.size] = b
    below = values, units, counts
    n_parts = parts_for(counts.sum() * room, len(groups))
    if n_parts == 1:
        _product_share(0, 1, below, W, padded, b.size, groups, size, out)
    else:
        _product_in_parallel(n_parts, below, W, padded, b.size, groups, size, out)
    return out
