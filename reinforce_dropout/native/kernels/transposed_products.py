"""Products with a transposed weight matrix, which take the gradients to the layer below.

Rows of the gradients are multiplied by rows of the weights, so nothing is transposed.
:func:`masked_product_transposed` computes only the entries that the mask of the layer below keeps.
"""

import numba
import numpy as np

from reinforce_dropout.native.kernels.non_zeros import (
    DENSE,
    FEW_COLUMNS,
    count_by_column,
    non_zeros_by_column,
)
from reinforce_dropout.native.kernels.shapes import check_masked, check_transposed
from reinforce_dropout.native.kernels.sharing import share, threads_for
from reinforce_dropout.native.llvm.aligned_rows import with_aligned_rows
from reinforce_dropout.native.llvm.simd import DOT_ROWS, DOT_TILE, dot_rows, dot_tile
from reinforce_dropout.native.llvm.vectors import address

__all__ = ["masked_product_transposed", "product_transposed"]

#: If there are many rows, it is faster to compute everything above this density of a mask. Measured
#: from 20 to 200 rows.
_DENSE_IF_MANY_ROWS, _MANY_ROWS = 0.3, 32

_dots, _single_dot = dot_tile(*DOT_TILE), dot_tile(1, 1)
_DOTS_LEFT, _DOTS_RIGHT = DOT_TILE


@numba.njit
def _transposed_columns(first, last, out, g, W):
    """Compute columns `first` to `last` of ``g @ W.T``: dot products with these rows of W."""
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
    """``g @ W.T`` by whole rows, because dot products of few columns would be mostly overhead."""
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
    check_transposed(g, W)
    g, W = np.ascontiguousarray(g), np.ascontiguousarray(W)
    n_in, n_out = W.shape
    if n_out < FEW_COLUMNS:
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
    """``g @ W.T`` where the mask u (n_rows, n_in) is not zero; multiply the result by u."""
    check_masked(g, W, u)
    g, W, u = np.ascontiguousarray(g), np.ascontiguousarray(W), np.ascontiguousarray(u)
    n_in, n_out = W.shape
    if n_out < FEW_COLUMNS:
        return product_transposed(g, W)
    firsts = count_by_column(u)
    dense = DENSE if u.shape[0] < _MANY_ROWS else _DENSE_IF_MANY_ROWS
    if firsts[-1] > dense * u.size:
        return product_transposed(g, W)
    out = np.zeros((g.shape[0], n_in), g.dtype)
    rows, _ = non_zeros_by_column(u, firsts)
    n_parts = threads_for(firsts[-1] * n_out)
    _masked_in_parallel(n_parts, out, with_aligned_rows(g), W, rows, firsts)
    return out
