"""Forward products, with a layer's W and its policy's Z at once.

With a mini-batch of 20 rows, a general BLAS stays far below the machine's peak. It packs operands
for a reuse that 20 rows do not give. Also, most factors of the weights are zero here: 81 % of
MNIST's pixels, and 70 to 88 % of the masked activations. So :func:`products`, like `rank_updates`,
first lists the non-zero entries, if they are few enough. Then it adds up only the rows of the
weights that are listed. Activations with few zeros are multiplied as they are. If there are many
rows of these, the weights are packed.

No BLAS is called, because its threads and those of these kernels would wait for each other.
"""

import numba
import numpy as np

from reinforce_dropout.native.kernels.non_zeros import (
    DENSE,
    count_non_zeros,
    list_may_pay,
    non_zeros_by_block,
)
from reinforce_dropout.native.kernels.shapes import check_product
from reinforce_dropout.native.kernels.sharing import share, threads_for
from reinforce_dropout.native.llvm.aligned_rows import aligned_rows, copy_rows
from reinforce_dropout.native.llvm.simd import SPAN_BYTES, TILE_BYTES, TILE_ROWS, combine_rows
from reinforce_dropout.native.llvm.tiles import tiles
from reinforce_dropout.native.llvm.vectors import VECTOR_BYTES, address, prefetch_lines

__all__ = ["BLOCK", "add_listed", "products", "serves_many"]

#: Rows of a weight matrix that all examples use before the next rows. One span of their columns
#: stays in the first-level cache.
BLOCK = 64
#: Bytes of such rows for many examples. Fewer rows would mean more calls than they save.
_LONG_BLOCK_BYTES = 2**16
#: Bytes of packed weights, which stay in the first-level cache while all examples use them.
_PACKED_BYTES = 2**15
#: Packing weights does not pay for this many examples or fewer.
_FEW_ROWS = 64
#: For more examples than this, threads split rows instead of columns.
_MANY_ROWS = 256
#: Of many examples, so many or up to twice as many tell how full all of them are.
_SAMPLE = 128
#: Larger weights have left the second-level cache since their last use, so they are prefetched.
_FAR_BYTES = 2**20
#: Rows of weights are prefetched if each serves so many examples on average. Otherwise too many
#: rows would be fetched in vain.
_MANY_USES = 4


@numba.njit
def _pack(panel, W, k, j):
    """Fill `panel` with W from row k and column j on."""
    for t in range(min(panel.shape[0], W.shape[0] - k)):
        row, packed = W[k + t, j : j + panel.shape[1]], panel[t]
        for c in range(row.size):
            packed[c] = row[c]


@numba.njit
def _add_dense(out, first, s, W, panel):
    """Add to `out` the columns of ``s @ W`` from `first` on; `panel` is room for packed weights."""
    itemsize, width = out.itemsize, out.shape[1]
    span = TILE_BYTES // itemsize
    packed = panel.size > 0
    block = panel.shape[0] if packed else BLOCK
    for k in range(0, s.shape[1], block):
        for j in range(0, width, span):
            if packed:
                _pack(panel, W, k, first + j)
            here = address(W) + k * W.strides[0] + (first + j) * itemsize
            tiles(
                s.shape[0],
                address(out) + j * itemsize,
                out.strides[0],
                out.dtype.type(1),
                address(s) + k * itemsize,
                s.strides[0],
                itemsize,
                address(panel) if packed else here,
                panel.strides[0] if packed else W.strides[0],
                min(block, s.shape[1] - k),
                min(span, width - j),
            )


@numba.njit
def _fetch(part, n_parts, W, length, block, column):
    """Prefetch a span of columns of a part of a block's rows."""
    n_rows = max(0, min(length, W.shape[0] - block * length))
    n_bytes = min(SPAN_BYTES, (W.shape[1] - column) * W.itemsize)
    at = address(W) + block * length * W.strides[0] + column * W.itemsize
    for k in range(part * n_rows // n_parts, (part + 1) * n_rows // n_parts):
        prefetch_lines(at + k * W.strides[0], n_bytes)


@numba.njit
def serves_many(n_entries, W):
    """Whether `n_entries` non-zero entries of s are enough to prefetch all rows of W."""
    return n_entries >= _MANY_USES * W.shape[0]


@numba.njit
def add_listed(out, first, W, columns, factors, starts, stops, length, far):
    """Add to `out` the columns of ``s @ W`` from `first` on, from the non-zero entries of s.

    The entries ``starts[B, i] <= t < stops[B, i]`` of the lists belong to row i of s, and to block
    B of `length` columns. If W is `far`, its rows are prefetched.
    """
    itemsize, width = out.itemsize, out.shape[1]
    span = SPAN_BYTES // itemsize
    for block in range(starts.shape[0]):
        for j in range(0, width, span):
            ends = j + span >= width
            for i in range(out.shape[0]):
                if far:
                    column = first + (0 if ends else j + span)
                    _fetch(i, out.shape[0], W, length, block + ends, column)
                combine_rows(
                    address(out) + i * out.strides[0] + j * itemsize,
                    out.dtype.type(1),
                    address(W) + (first + j) * itemsize,
                    W.strides[0],
                    address(columns),
                    address(factors),
                    starts[block, i],
                    stops[block, i],
                    min(span, width - j),
                )


@numba.njit
def _product_columns(first, last, out, s, W, columns, factors, firsts, length):
    """Compute columns `first` to `last` of a product, from the lists or, without `firsts`, from s.

    The columns are in an array of their own. Threads that add to the same line of the cache would
    wait for each other at every row.
    """
    if first == last:
        return
    own = aligned_rows(s.shape[0], last - first, out)
    own[...] = 0
    if firsts.size > 0:
        # The sums of many rows stay in the second-level cache only for a span of columns.
        many = s.shape[0] > _MANY_ROWS
        width = SPAN_BYTES // s.itemsize if many else max(own.shape[1], 1)
        far = W.size * s.itemsize > _FAR_BYTES and serves_many(firsts[-1, -1], W)
        starts, stops = firsts[:, :-1], firsts[:, 1:]
        for j in range(0, own.shape[1], width):
            part = own[:, j : j + width]
            add_listed(part, first + j, W, columns, factors, starts, stops, length, far)
    else:
        panel_width = TILE_BYTES // s.itemsize if s.shape[0] > _FEW_ROWS else 0
        panel = np.empty((_PACKED_BYTES // TILE_BYTES, panel_width), s.dtype)
        _add_dense(own, first, s, W, panel)
    copy_rows(out[:, first:last], own)


@numba.njit
def _product_share(part, n_parts, s_W, W, s_Z, Z, s, columns, factors, firsts, length):
    n_rows, n_W, n_Z = s.shape[0], W.shape[1], Z.shape[1]
    row, last_row, first, last = 0, n_rows, 0, n_W + n_Z
    if n_rows > _MANY_ROWS:
        row, last_row = share(part, n_parts, n_rows, TILE_ROWS)
    else:
        first, last = share(part, n_parts, n_W + n_Z, VECTOR_BYTES // W.itemsize)
    s, s_W, s_Z = s[row:last_row], s_W[row:last_row], s_Z[row:last_row]
    firsts = firsts[:, row : last_row + 1]
    lists = (columns, factors, firsts, length)
    _product_columns(min(first, n_W), min(last, n_W), s_W, s, W, *lists)
    first, last = max(first - n_W, 0), max(last - n_W, 0)
    _product_columns(first, last, s_Z, s, Z, *lists)


@numba.njit(parallel=True)
def _products_in_parallel(n_parts, s_W, W, s_Z, Z, s, columns, factors, firsts, length):
    for part in numba.prange(n_parts):
        _product_share(part, n_parts, s_W, W, s_Z, Z, s, columns, factors, firsts, length)


@numba.njit
def _block_length(n_rows, n_columns, itemsize):
    """Return the rows of a weight matrix that all examples use before the next rows."""
    if n_rows <= _MANY_ROWS:
        return BLOCK
    return _LONG_BLOCK_BYTES // min(SPAN_BYTES, max(n_columns, 1) * itemsize)


@numba.njit
def _room_for_lists(s):
    """Return room for the non-zero entries of `s`, or -1 if they are too many for lists.

    Of many rows a sample is counted. Then there is room for everything.
    """
    step = max(1, s.shape[0] // _SAMPLE)
    n_counted = (s.shape[0] + step - 1) // step * s.shape[1]
    n_non_zero = count_non_zeros(s, step)
    if n_non_zero > DENSE * n_counted:
        return -1
    return n_non_zero if step == 1 else s.size


@numba.njit
def products(s, W, Z):
    """``s @ W`` and ``s @ Z``, for s (n_rows, n_in), W (n_in, n_W) and Z (n_in, n_Z).

    Z may have no columns. If most entries of `s` are zero, the zeros contribute nothing, even if W
    or Z is infinite or NaN there.
    """
    check_product(s, W)
    check_product(s, Z)
    s, W, Z = np.ascontiguousarray(s), np.ascontiguousarray(W), np.ascontiguousarray(Z)
    n_rows, n_W, n_Z = s.shape[0], W.shape[1], Z.shape[1]
    s_W, s_Z = np.empty((n_rows, n_W), s.dtype), np.empty((n_rows, n_Z), s.dtype)
    columns, factors = np.empty(0, np.int64), np.empty(0, s.dtype)
    firsts = np.empty((0, 0), np.int64)
    n_entries, length = s.size, _block_length(n_rows, max(n_W, n_Z), s.itemsize)
    if s.size > 0 and list_may_pay(n_rows, n_W + n_Z):
        room = _room_for_lists(s)
        if room >= 0:
            columns, factors, firsts = non_zeros_by_block(s, length, room)
            n_entries = firsts[-1, -1]
    n_parts = threads_for(n_entries * (n_W + n_Z))
    if n_parts == 1:
        _product_share(0, 1, s_W, W, s_Z, Z, s, columns, factors, firsts, length)
    else:
        _products_in_parallel(n_parts, s_W, W, s_Z, Z, s, columns, factors, firsts, length)
    return s_W, s_Z
