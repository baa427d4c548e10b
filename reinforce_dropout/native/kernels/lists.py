"""Numba kernels for the Ops of `reinforce_dropout.blocks.lists`.

Threads share the instances. A thread takes one panel of the weights after another, or a few of a
group, and in each the instances that use it. So a panel stays in the cache for all of them. Every
number is summed in the order of its list, for any number of threads and of instances.
"""

import numba
import numpy as np

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.blocks import lists as ops
from reinforce_dropout.native.kernels.non_zeros import AHEAD, PUTS_VALUES, ROOM, put_vector
from reinforce_dropout.native.kernels.packed import COPY, parts_for
from reinforce_dropout.native.kernels.sharing import share
from reinforce_dropout.native.llvm.lines import line_dots, lines_of_sums
from reinforce_dropout.native.llvm.places import BITS, put_range
from reinforce_dropout.native.llvm.vectors import VECTOR_BYTES, address, prefetch

__all__ = [
    "UNIT", "capacity", "check_line", "check_lists", "check_whole_panels", "check_width",
    "for_whole_panels", "group_product", "group_product_transposed", "list_non_zeros",
    "panels_at_once", "sum_panels",
]  # fmt: skip

#: The dtype of the numbers of units, as Numba takes it.
UNIT = np.dtype(ops.UNIT)
_check, capacity = numba.njit(ops.check), numba.njit(ops.capacity)
check_line, check_width = numba.njit(ops.check_line), numba.njit(ops.check_width)
check_lists, check_whole_panels = numba.njit(ops.check_lists), numba.njit(ops.check_whole_panels)
_sums_of_four, _sums_of_two, _sums_of_one = (lines_of_sums(n) for n in (4, 2, 1))
_dots, _single_dot = line_dots(of_vector=True), line_dots(of_vector=False)

#: So many instances read nearly all lines of a panel. Then the next panel is fetched meanwhile.
_MANY = 32


@numba.njit
def for_whole_panels(b, W):
    """Return the biases with zeros after them, one for each column of the panels W."""
    padded = np.zeros(W.shape[0] * W.shape[2], b.dtype)
    padded[: b.size] = b
    return padded


@numba.njit
def _list_row(row, values, units):
    """List what is not zero in a row; return the number.

    Whole vectors are written, and the next ones over those too many. A branch would be guessed
    wrongly.
    """
    n, k, lanes, zero = 0, 0, VECTOR_BYTES // row.itemsize, row.dtype.type(0)
    while k + ROOM <= row.size:
        at = address(row) + k * row.itemsize
        prefetch(at + AHEAD)
        n += put_vector(
            at, lanes, k, address(values) + n * values.itemsize,
            address(units) + n * units.itemsize, units.itemsize, lanes, zero, units.dtype.type(0),
        )  # fmt: skip
        k += lanes
    while k < row.size:
        units[n], values[n] = k, row[k]
        n += row[k] != 0
        k += 1
    if not PUTS_VALUES:
        for t in range(n):
            values[t] = row[units[t]]
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
    check_width(s.shape[1])
    values, units = np.empty(s.shape, s.dtype), np.empty(s.shape, UNIT)
    counts = np.empty(s.shape[0], np.int64)
    n_parts = parts_for(COPY * s.size, s.shape[0])
    if n_parts == 1:
        _list_share(0, 1, s, values, units, counts)
    else:
        _list_in_parallel(n_parts, s, values, units, counts)
    return values, units, counts


@numba.njit
def panels_at_once(n_left):
    """Return how many neighbouring panels are summed at once, of so many left.

    The list of an instance is read once for all of them.
    """
    return 4 if n_left >= 4 else 2 if n_left >= 2 else 1


@numba.njit
def sum_panels(n_panels, out, panel, panel_bytes, units, values, n, b, zero):
    """Sum as many panels as `panels_at_once` says; for the parameters see `lines.lines_of_sums`."""
    if n_panels == 4:
        _sums_of_four(out, panel, panel_bytes, units, values, n, b, zero)
    elif n_panels == 2:
        _sums_of_two(out, panel, panel_bytes, units, values, n, b, zero)
    else:
        _sums_of_one(out, panel, panel_bytes, units, values, n, b, zero)


@numba.njit
def _fetch(at, end):
    """Fetch the lines from one address to another; return the address behind them."""
    while at < end:
        prefetch(at)
        at += LINE_BYTES
    return at


@numba.njit
def _product_share(part, n_parts, below, W, b, n_units, groups, size, out):
    """Compute all panels for a part of the instances; each goes to the end of their lists.

    The loops have no calls with arrays, because Numba would count references to them.
    """
    (values, units, counts), (out_values, out_units, out_counts) = below, out
    start, stop = share(part, n_parts, groups.shape[0], 1)
    out_counts[start:stop] = 0
    lanes, itemsize, zero = W.shape[2], out_values.itemsize, out_values.dtype.type(0)
    users, n_users = np.empty(stop - start, np.int64), 0
    end = address(W) + W.shape[0] * W.strides[0]
    p = 0
    while p < W.shape[0]:
        first = p * lanes
        group = first // size
        if first % size == 0:  # a group begins: list its instances, without a branch
            n_users = 0
            for i in range(start, stop):
                users[n_users] = i
                n_users += groups[i, group]
        n_panels = panels_at_once(min((group + 1) * size // lanes, W.shape[0]) - p)
        columns = n_panels * lanes
        ahead = address(W) + (p + n_panels) * W.strides[0]
        portion = n_panels * W.strides[0] // n_users + LINE_BYTES if n_users >= _MANY else 0
        for user in range(n_users):
            i = users[user]
            ahead = _fetch(ahead, min(ahead + portion, end))
            n = out_counts[i]
            sum_panels(
                n_panels,
                address(out_values) + i * out_values.strides[0] + n * itemsize,
                address(W) + p * W.strides[0],
                W.strides[0],
                address(units) + i * units.strides[0],
                address(values) + i * values.strides[0],
                counts[i],
                address(b) + first * itemsize,
                zero,
            )
            at = address(out_units) + i * out_units.strides[0] + n * out_units.itemsize
            for j in range(0, columns, BITS):  # whole panels, so eight numbers at once
                put_range(first + j, at + j * out_units.itemsize, out_units.dtype.type(0))
            out_counts[i] = n + min(columns, n_units - first)
        p += n_panels
    for i in range(start, stop):
        out_values[i, out_counts[i] :] = 0


@numba.njit(parallel=True)
def _product_in_parallel(n_parts, below, W, b, n_units, groups, size, out):
    for part in numba.prange(n_parts):
        _product_share(part, n_parts, below, W, b, n_units, groups, size, out)


@numba.njit
def group_product(values, units, counts, W, b, groups, size):
    """``s W + b`` for the groups of `size` units that each instance uses."""
    check_lists(values, units, counts, W.shape[1])
    check_line(W)
    _check(size, counts, W, b, groups)
    check_width(b.size)
    room = capacity(groups, size)
    out = (
        np.empty((len(groups), room), values.dtype),
        np.empty((len(groups), room), UNIT),
        np.empty(len(groups), np.int64),
    )
    padded, below = for_whole_panels(b, W), (values, units, counts)
    n_parts = parts_for(counts.sum() * room, len(groups))
    if n_parts == 1:
        _product_share(0, 1, below, W, padded, b.size, groups, size, out)
    else:
        _product_in_parallel(n_parts, below, W, padded, b.size, groups, size, out)
    return out


@numba.njit
def _transposed_row(out, g, n_panels, units, W, below):
    """Compute the gradients of one instance for its units `below`, from its line of g.

    Of the layer above it uses `n_panels`; `units` names theirs.
    """
    size, zero, t = out.itemsize, out.dtype.type(0), 0
    lanes, panel = VECTOR_BYTES // size, W.strides[0]
    while t < below.size:
        at, row, end = address(out) + t * size, below[t], t + lanes - 1
        if end < below.size and below[end] == row + lanes - 1:  # neighbours: read from end to end
            _dots(at, address(W), panel, row, address(g), address(units), n_panels, zero)
            t += lanes
        else:
            _single_dot(at, address(W), panel, row, address(g), address(units), n_panels, zero)
            t += 1
    out[below.size :] = 0


@numba.njit
def _transposed_share(part, n_parts, out, g, above, n_above, W, below, n_below):
    lanes = W.shape[2]
    for i in range(*share(part, n_parts, out.shape[0], 1)):
        n_panels = (n_above[i] + lanes - 1) // lanes
        _transposed_row(out[i], g[i], n_panels, above[i], W, below[i, : n_below[i]])


@numba.njit(parallel=True)
def _transposed_in_parallel(n_parts, out, g, above, n_above, W, below, n_below):
    for part in numba.prange(n_parts):
        _transposed_share(part, n_parts, out, g, above, n_above, W, below, n_below)


@numba.njit
def group_product_transposed(g, above, n_above, W, below, n_below):
    """``g W.T`` for the units below that each instance uses."""
    check_lists(below, below, n_below, W.shape[1])
    check_lists(g, above, n_above, W.shape[0] * W.shape[2])
    check_whole_panels(above, W, len(below))
    check_line(W)
    out = np.empty(below.shape, g.dtype)
    n_parts = parts_for(n_below.sum() * g.shape[1], len(below))
    if n_parts == 1:
        _transposed_share(0, 1, out, g, above, n_above, W, below, n_below)
    else:
        _transposed_in_parallel(n_parts, out, g, above, n_above, W, below, n_below)
    return out
