"""The matrix products of training and evaluation, for a layer's W and its policy's Z alike.

A mini-batch of 20 rows leaves general-purpose BLAS far below the machine's peak: it packs operands
for a reuse that 20 rows do not give. Moreover most of the numbers that a product multiplies a
weight by are zero here: 81 % of MNIST's pixels, and 70 to 88 % of the masked activations. So
:func:`products` and :func:`rank_updates` list the non-zero entries first, if they are few enough,
and add up only the rows of the weights that these call for; :func:`masked_product_transposed`
computes only what the mask lets through. Many rows without a policy, as in the evaluation of a
plain network, are dense products with packed weights.

BLAS is not called at all: its threads and those of these kernels would wait for each other on the
same cores.
"""

import numba
import numpy as np

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.native.aligned_rows import aligned_rows, copy_rows, with_aligned_rows
from reinforce_dropout.native.non_zeros import (
    count_by_column,
    count_non_zeros,
    non_zeros_by_block,
    non_zeros_by_column,
)
from reinforce_dropout.native.sharing import share, threads_for
from reinforce_dropout.native.simd import (
    DOT_ROWS,
    DOT_TILE,
    SPAN_BYTES,
    TILE_BYTES,
    TILE_ROWS,
    combine_rows,
    dot_rows,
    dot_tile,
    row_tile,
)
from reinforce_dropout.native.vectors import VECTOR_BYTES, address, prefetch

__all__ = [
    "BLOCK",
    "add_listed",
    "masked_product_transposed",
    "product_transposed",
    "products",
    "rank_updates",
    "serves_many",
]

#: Rows of a weight matrix handled before going on: with one span of columns they stay in the
#: first-level cache, from where all examples read them;
BLOCK = 64
#: packed, they stay in the second-level cache.
_PACKED_BLOCK = 512
#: Packing weights pays for more examples than this,
_FEW_ROWS = 64
#: and threads share the examples, not the columns, of more than this.
_MANY_ROWS = 256
#: With fewer columns a list of non-zero entries costs more than it saves.
_FEW_COLUMNS = 32
#: Density from which on computing everything is faster.
_DENSE = 0.6
#: Larger weights have left the second-level cache since their last use, so they are fetched early,
_FAR_BYTES = 2**20
#: unless a row of them serves fewer examples: rows that serve none would be fetched in vain.
_MANY_USES = 4

_tile, _single = row_tile(TILE_ROWS), row_tile(1)
_dots, _single_dot = dot_tile(*DOT_TILE), dot_tile(1, 1)
_DOTS_LEFT, _DOTS_RIGHT = DOT_TILE


@numba.njit
def _tiles(n_rows, out, out_stride, beta, s, s_stride, s_step, rows, row_stride, length, width):
    """Apply :func:`simd.row_tile` to any number of rows, at most `TILE_BYTES` wide."""
    i = 0
    while i < n_rows:
        out_i, s_i = out + i * out_stride, s + i * s_stride
        if i + TILE_ROWS <= n_rows:
            _tile(out_i, out_stride, beta, s_i, s_stride, s_step, rows, row_stride, length, width)
            i += TILE_ROWS
        else:
            _single(out_i, out_stride, beta, s_i, s_stride, s_step, rows, row_stride, length, width)
            i += 1


@numba.njit
def _pack(panel, W, k, j):
    """Copy to `panel` as much of W as fits it, from row k and column j on."""
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
            _tiles(
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
def _fetch(part, n_parts, W, block, column):
    """Have a part of a block's rows brought near: a span from a column on."""
    n_rows = max(0, min(BLOCK, W.shape[0] - block * BLOCK))
    n_bytes = min(SPAN_BYTES, (W.shape[1] - column) * W.itemsize)
    at = address(W) + block * BLOCK * W.strides[0] + column * W.itemsize
    for k in range(part * n_rows // n_parts, (part + 1) * n_rows // n_parts):
        for line in range(0, n_bytes, LINE_BYTES):
            prefetch(at + k * W.strides[0] + line)


@numba.njit
def serves_many(n_entries, W):
    """Whether so many non-zero entries of s use a row of W often enough to fetch all rows early."""
    return n_entries >= _MANY_USES * W.shape[0]


@numba.njit
def add_listed(out, first, W, columns, factors, starts, stops, far):
    """Add to `out` the columns of ``s @ W`` from `first` on, from the non-zero entries of s.

    Of block B of `BLOCK` columns of s and row i, they are the entries ``starts[B, i] <= t <
    stops[B, i]`` of the lists. If W is `far`, its rows are fetched before they are needed.
    """
    itemsize, width = out.itemsize, out.shape[1]
    span = SPAN_BYTES // itemsize
    for block in range(starts.shape[0]):
        for j in range(0, width, span):
            ends = j + span >= width
            for i in range(out.shape[0]):
                if far:
                    _fetch(i, out.shape[0], W, block + ends, first + (0 if ends else j + span))
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
def _product_columns(first, last, out, s, W, columns, factors, firsts):
    """Compute columns `first` to `last` of a product, from the lists or, without `firsts`, all.

    In an array of their own: threads that add in lines of the cache that they share wait for each
    other at every row.
    """
    own = aligned_rows(s.shape[0], last - first, out)
    own[...] = 0
    if firsts.size > 0:
        # The sums of many rows stay in the second-level cache for a span of columns only.
        many = s.shape[0] > _MANY_ROWS
        width = SPAN_BYTES // s.itemsize if many else max(own.shape[1], 1)
        far = W.size * s.itemsize > _FAR_BYTES and serves_many(firsts[-1, -1], W)
        starts, stops = firsts[:, :-1], firsts[:, 1:]
        for j in range(0, own.shape[1], width):
            add_listed(own[:, j : j + width], first + j, W, columns, factors, starts, stops, far)
    else:
        panel_width = TILE_BYTES // s.itemsize if s.shape[0] > _FEW_ROWS else 0
        _add_dense(own, first, s, W, np.empty((_PACKED_BLOCK, panel_width), s.dtype))
    copy_rows(out[:, first:last], own)


@numba.njit
def _product_share(part, n_parts, s_W, W, s_Z, Z, s, columns, factors, firsts):
    n_rows, n_W, n_Z = s.shape[0], W.shape[1], Z.shape[1]
    row, last_row, first, last = 0, n_rows, 0, n_W + n_Z
    if n_rows > _MANY_ROWS:
        row, last_row = share(part, n_parts, n_rows, TILE_ROWS)
    else:
        first, last = share(part, n_parts, n_W + n_Z, VECTOR_BYTES // W.itemsize)
    s, s_W, s_Z = s[row:last_row], s_W[row:last_row], s_Z[row:last_row]
    firsts = firsts[:, row : last_row + 1]
    _product_columns(min(first, n_W), min(last, n_W), s_W, s, W, columns, factors, firsts)
    first, last = max(first - n_W, 0), max(last - n_W, 0)
    _product_columns(first, last, s_Z, s, Z, columns, factors, firsts)


@numba.njit(parallel=True)
def _products_in_parallel(n_parts, s_W, W, s_Z, Z, s, columns, factors, firsts):
    for part in numba.prange(n_parts):
        _product_share(part, n_parts, s_W, W, s_Z, Z, s, columns, factors, firsts)


@numba.njit
def products(s, W, Z):
    """``s @ W`` and ``s @ Z``, for s (n_rows, n_in), W (n_in, n_W) and Z (n_in, n_Z).

    Z may have no columns. Where most entries of `s` are zero they contribute nothing, even if what
    they multiply in W or Z is infinite or NaN; but many rows without a Z, of a network without
    policies, are computed densely: that is what speed-ups by leaving out units are compared with.
    """
    s, W, Z = np.ascontiguousarray(s), np.ascontiguousarray(W), np.ascontiguousarray(Z)
    n_rows, n_W, n_Z = s.shape[0], W.shape[1], Z.shape[1]
    s_W, s_Z = np.empty((n_rows, n_W), s.dtype), np.empty((n_rows, n_Z), s.dtype)
    columns, factors = np.empty(0, np.int64), np.empty(0, s.dtype)
    firsts = np.empty((0, 0), np.int64)
    n_entries = s.size
    if (n_rows <= _MANY_ROWS or n_Z > 0) and n_W + n_Z >= _FEW_COLUMNS:
        n_non_zero = count_non_zeros(s)
        if n_non_zero <= _DENSE * s.size:
            n_entries = n_non_zero
            columns, factors, firsts = non_zeros_by_block(s, BLOCK)
    n_parts = threads_for(n_entries * (n_W + n_Z))
    _products_in_parallel(n_parts, s_W, W, s_Z, Z, s, columns, factors, firsts)
    return s_W, s_Z


@numba.njit
def _update_listed(start, stop, W, g, beta, rows, factors, firsts):
    """Update rows `start` to `stop` of W from the non-zero entries of the columns of s."""
    itemsize, row = W.itemsize, W.strides[0]
    span = SPAN_BYTES // itemsize
    for j in range(0, W.shape[1], span):
        for k in range(start, stop):
            if firsts[k] < firsts[k + 1] or beta != 1:
                combine_rows(
                    address(W) + k * row + j * itemsize,
                    beta,
                    address(g) + j * itemsize,
                    g.strides[0],
                    address(rows),
                    address(factors),
                    firsts[k],
                    firsts[k + 1],
                    min(span, W.shape[1] - j),
                )


@numba.njit
def _update_dense(start, stop, W, g, beta, s):
    """Update rows `start` to `stop` of W from all entries of the columns of s."""
    itemsize, row = W.itemsize, W.strides[0]
    span = TILE_BYTES // itemsize
    for k in range(start, stop, TILE_ROWS):
        for j in range(0, W.shape[1], span):
            _tiles(
                min(TILE_ROWS, stop - k),
                address(W) + k * row + j * itemsize,
                row,
                beta,
                address(s) + k * itemsize,
                itemsize,
                s.strides[0],
                address(g) + j * itemsize,
                g.strides[0],
                s.shape[0],
                min(span, W.shape[1] - j),
            )


@numba.njit
def _first_row(part, n_parts, firsts):
    """Return where a part begins: every row costs something, and so does every entry."""
    n = firsts.size - 1
    cost = part * (n + firsts[n]) // n_parts
    k = 0
    while k + firsts[k] < cost:
        k += 1
    return min(k, n)


@numba.njit
def _update_share(part, n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, s, listed, rows, factors, firsts):
    if listed:
        start, stop = _first_row(part, n_parts, firsts), _first_row(part + 1, n_parts, firsts)
        _update_listed(start, stop, W, g_W, beta_W, rows, factors, firsts)
        _update_listed(start, stop, Z, g_Z, beta_Z, rows, factors, firsts)
    else:
        start, stop = share(part, n_parts, W.shape[0], TILE_ROWS)
        _update_dense(start, stop, W, g_W, beta_W, s)
        _update_dense(start, stop, Z, g_Z, beta_Z, s)


@numba.njit(parallel=True)
def _updates_in_parallel(n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, s, listed, rows, factors, firsts):
    for part in numba.prange(n_parts):
        _update_share(
            part, n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, s, listed, rows, factors, firsts
        )


@numba.njit
def rank_updates(s, W, g_W, beta_W, Z, g_Z, beta_Z):
    """``W[...] = beta_W * W + s.T @ g_W``, and so Z, in one pass over each.

    s (n_rows, n_in), W (n_in, n_W), g_W (n_rows, n_W), Z (n_in, n_Z), g_Z (n_rows, n_Z), all of one
    dtype, which is that of the scalars `beta_W` and `beta_Z`; W and Z C-ordered. Z may have no
    columns. Where most entries of `s` are zero they contribute nothing, even if what they multiply
    in g is infinite or NaN.
    """
    s, g_W, g_Z = np.ascontiguousarray(s), with_aligned_rows(g_W), with_aligned_rows(g_Z)
    firsts = count_by_column(s)
    n_entries, n_columns = firsts[-1], W.shape[1] + Z.shape[1]
    rows, factors = np.empty(0, np.int64), np.empty(0, s.dtype)
    listed = n_entries <= _DENSE * s.size and n_columns >= _FEW_COLUMNS
    if listed:
        rows, factors = non_zeros_by_column(s, firsts)
    else:
        n_entries = s.size
    n_parts = threads_for(n_entries * n_columns)
    _updates_in_parallel(n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, s, listed, rows, factors, firsts)


@numba.njit
def _transposed_columns(first, last, out, g, W):
    """Compute columns `first` to `last` of ``g @ W.T``: dot products with those rows of W."""
    itemsize, n_rows, n_out = g.itemsize, g.shape[0], g.shape[1]
    row, out_row = n_out * itemsize, out.shape[1] * itemsize
    zero = g.dtype.type(0)
    out_at, g_at, W_at = address(out), address(g), address(W)
    for k in range(first, last, _DOTS_RIGHT):
        k_stop = min(last, k + _DOTS_RIGHT)
        for i in range(0, n_rows, _DOTS_LEFT):
            i_stop = min(n_rows, i + _DOTS_LEFT)
            if k_stop - k == _DOTS_RIGHT and i_stop - i == _DOTS_LEFT:
                _dots(
                    out_at + i * out_row + k * itemsize,
                    out_row,
                    g_at + i * row,
                    row,
                    W_at + k * row,
                    row,
                    n_out,
                    zero,
                )
                continue
            for kk in range(k, k_stop):
                for ii in range(i, i_stop):
                    _single_dot(
                        out_at + ii * out_row + kk * itemsize,
                        out_row,
                        g_at + ii * row,
                        row,
                        W_at + kk * row,
                        row,
                        n_out,
                        zero,
                    )


@numba.njit(parallel=True)
def _transposed_in_parallel(n_parts, out, g, W):
    for part in numba.prange(n_parts):
        first, last = share(part, n_parts, W.shape[0], _DOTS_RIGHT)
        _transposed_columns(first, last, out, g, W)


@numba.njit
def _narrow_product_transposed(g, W):
    """``g @ W.T`` by whole rows: dot products of few columns would be all beginning and end."""
    transposed = np.ascontiguousarray(W.T)
    out = np.zeros((g.shape[0], W.shape[0]), g.dtype)
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            row, factor, weights = out[i], g[i, j], transposed[j]
            for k in range(row.size):
                row[k] += factor * weights[k]
    return out


@numba.njit
def product_transposed(g, W):
    """``g @ W.T``, shape (n_rows, n_in), for g (n_rows, n_out) and W (n_in, n_out)."""
    g, W = np.ascontiguousarray(g), np.ascontiguousarray(W)
    n_in, n_out = W.shape
    if n_out < _FEW_COLUMNS:
        return _narrow_product_transposed(g, W)
    out = np.empty((g.shape[0], n_in), g.dtype)
    n_parts = threads_for(g.size * n_in)
    _transposed_in_parallel(n_parts, out, g, W)
    return out


@numba.njit
def _masked_columns(first, last, out, g, W, rows, firsts):
    """Compute columns `first` to `last` of ``g @ W.T`` in the rows listed for each."""
    for k in range(first, last):
        for t in range(firsts[k], firsts[k + 1], DOT_ROWS):
            dot_rows(
                address(out) + k * out.itemsize,
                out.strides[0],
                address(g),
                g.strides[0],
                address(rows) + t * rows.itemsize,
                min(DOT_ROWS, firsts[k + 1] - t),
                address(W) + k * W.strides[0],
                g.shape[1],
                g.dtype.type(0),
            )


@numba.njit(parallel=True)
def _masked_in_parallel(n_parts, out, g, W, rows, firsts):
    for part in numba.prange(n_parts):
        first, last = share(part, n_parts, W.shape[0], _DOTS_RIGHT)
        _masked_columns(first, last, out, g, W, rows, firsts)


@numba.njit
def masked_product_transposed(g, W, u):
    """``g @ W.T`` where the mask u (n_rows, n_in) is not zero; the rest is not meant to be used."""
    g, W, u = np.ascontiguousarray(g), np.ascontiguousarray(W), np.ascontiguousarray(u)
    n_in, n_out = W.shape
    if n_out < _FEW_COLUMNS:
        return product_transposed(g, W)
    firsts = count_by_column(u)
    if firsts[-1] > _DENSE * u.size:
        return product_transposed(g, W)
    out = np.zeros((g.shape[0], n_in), g.dtype)
    rows, _ = non_zeros_by_column(u, firsts)
    n_parts = threads_for(firsts[-1] * n_out)
    _masked_in_parallel(n_parts, out, with_aligned_rows(g), W, rows, firsts)
    return out
