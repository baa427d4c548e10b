"""Updates of a layer's W and its policy's Z by the products of activations and gradients.

They work in place, in one pass over the weights. If most activations are zero, the others are
listed first, as in `forward_products`.
"""

import numba
import numpy as np

from reinforce_dropout.native.kernels.non_zeros import (
    DENSE,
    count_by_column,
    list_may_pay,
    non_zeros_by_column,
)
from reinforce_dropout.native.kernels.shapes import check_update
from reinforce_dropout.native.kernels.sharing import share, threads_for
from reinforce_dropout.native.llvm.aligned_rows import with_aligned_rows
from reinforce_dropout.native.llvm.simd import SPAN_BYTES, TILE_BYTES, TILE_ROWS, combine_rows
from reinforce_dropout.native.llvm.tiles import tiles
from reinforce_dropout.native.llvm.vectors import address

__all__ = ["rank_updates"]


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
            tiles(
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
    """Return the first row of a part. Rows and entries both count as work."""
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
    """``W[...] = beta_W * W + s.T @ g_W``, and the same for Z, in one pass over each.

    s (n_rows, n_in), W (n_in, n_W), g_W (n_rows, n_W), Z (n_in, n_Z), g_Z (n_rows, n_Z). All, and
    the scalars `beta_W` and `beta_Z`, have one dtype. W and Z are C-ordered. Z may have no columns.
    If most entries of `s` are zero, the zeros contribute nothing, even if g is infinite or NaN
    there.
    """
    check_update(s, W, g_W)
    check_update(s, Z, g_Z)
    s, g_W, g_Z = np.ascontiguousarray(s), with_aligned_rows(g_W), with_aligned_rows(g_Z)
    firsts = count_by_column(s)
    n_entries, n_columns = firsts[-1], W.shape[1] + Z.shape[1]
    rows, factors = np.empty(0, np.int64), np.empty(0, s.dtype)
    listed = n_entries <= DENSE * s.size and list_may_pay(s.shape[0], n_columns)
    if listed:
        rows, factors = non_zeros_by_column(s, firsts)
    else:
        n_entries = s.size
    n_parts = threads_for(n_entries * n_columns)
    _updates_in_parallel(n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, s, listed, rows, factors, firsts)
