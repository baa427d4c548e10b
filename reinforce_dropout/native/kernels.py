"""The three matrix products of a training step, for a mini-batch: few rows, some of them zero.

A mini-batch of 20 rows leaves general-purpose BLAS far below the machine's peak: it packs
operands for a reuse that 20 rows do not give.  Moreover most of the numbers that a product
multiplies a weight by are zero here: 81 % of MNIST's pixels, and 70 to 88 % of the masked
activations.  So :func:`product` and :func:`rank_update` list the non-zero entries first and add
up only the rows of the weights that these call for.
"""

import numba
import numpy as np

from reinforce_dropout.native.simd import SPAN_BYTES, TILE, address, combine_rows, dot_tile, keep

__all__ = ["product", "product_transposed", "rank_update"]

#: Rows of a weight matrix handled before going on: with one span of columns they fill
#: part of the first-level cache, so that all examples read them from there.
_BLOCK = 64
#: BLAS, which packs its operands, is faster with more rows than this,
_MANY_ROWS = 64
#: with fewer columns,
_FEW_COLUMNS = 32
#: or with a larger fraction of entries that are not zero.
_DENSE = 0.6

_tile = dot_tile(*TILE)
_single = dot_tile(1, 1)
_TILE_ROWS, _TILE_COLUMNS = TILE


@numba.njit
def _is_dense(s):
    return np.count_nonzero(s) > _DENSE * s.size


@numba.njit
def product(s, W):
    """``s @ W``, shape (n_rows, n_out), for s (n_rows, n_in) and W (n_in, n_out), C-ordered.

    A zero of `s` contributes nothing, even if what it multiplies in W is infinite or NaN.
    """
    n_rows, n_in = s.shape
    n_out = W.shape[1]
    if n_rows > _MANY_ROWS or n_out < _FEW_COLUMNS or _is_dense(s):
        return np.dot(s, W)
    itemsize = s.itemsize
    out = np.zeros((n_rows, n_out), s.dtype)
    n_blocks = (n_in + _BLOCK - 1) // _BLOCK
    # entries of block B and row i: firsts[B, i] <= t < firsts[B, i + 1]
    offsets = np.empty(s.size + 1, np.int64)
    factors = np.empty(s.size + 1, s.dtype)
    firsts = np.empty((n_blocks, n_rows + 1), np.int64)
    t = 0
    for block in range(n_blocks):
        for i in range(n_rows):
            firsts[block, i] = t
            for k in range(block * _BLOCK, min(n_in, (block + 1) * _BLOCK)):
                offsets[t] = k * n_out * itemsize
                factors[t] = s[i, k]
                t += s[i, k] != 0
        firsts[block, n_rows] = t

    one = s.dtype.type(1)
    span = SPAN_BYTES // itemsize
    out_at, W_at, offsets_at, factors_at = (
        address(out),
        address(W),
        address(offsets),
        address(factors),
    )
    for block in range(n_blocks):
        for j in range(0, n_out, span):
            width = min(span, n_out - j)
            for i in range(n_rows):
                combine_rows(
                    out_at + (i * n_out + j) * itemsize,
                    one,
                    W_at + j * itemsize,
                    offsets_at,
                    factors_at,
                    firsts[block, i],
                    firsts[block, i + 1],
                    width,
                )
    keep((offsets, factors))
    return out


@numba.njit
def rank_update(W, s, g, alpha, beta):
    """``W[...] = beta * W + alpha * s.T @ g`` in one pass over W; returns W.

    W (n_in, n_out), s (n_rows, n_in), g (n_rows, n_out), all C-ordered and of one dtype, which
    is that of `alpha` and `beta`.  A zero of `s` contributes nothing, even if what it multiplies
    in g is infinite or NaN.
    """
    n_in, n_out = W.shape
    n_rows = s.shape[0]
    if n_rows > _MANY_ROWS or n_out < _FEW_COLUMNS or _is_dense(s):
        elements, products = W.reshape(-1), np.dot(s.T, g).reshape(-1)
        for e in range(elements.size):
            elements[e] = beta * elements[e] + alpha * products[e]
        return W
    itemsize = W.itemsize
    # entries of row k of W: firsts[k] <= t < firsts[k + 1]
    offsets = np.empty(s.size + 1, np.int64)
    factors = np.empty(s.size + 1, s.dtype)
    firsts = np.empty(n_in + 1, np.int64)
    t = 0
    for k in range(n_in):
        firsts[k] = t
        for i in range(n_rows):
            offsets[t] = i * n_out * itemsize
            factors[t] = alpha * s[i, k]
            t += s[i, k] != 0
    firsts[n_in] = t

    span = SPAN_BYTES // itemsize
    W_at, g_at, offsets_at, factors_at = (
        address(W),
        address(g),
        address(offsets),
        address(factors),
    )
    for j in range(0, n_out, span):
        width = min(span, n_out - j)
        for k in range(n_in):
            if firsts[k] < firsts[k + 1] or beta != 1:
                combine_rows(
                    W_at + (k * n_out + j) * itemsize,
                    beta,
                    g_at + j * itemsize,
                    offsets_at,
                    factors_at,
                    firsts[k],
                    firsts[k + 1],
                    width,
                )
    keep((offsets, factors))
    return W


@numba.njit
def product_transposed(g, W):
    """``g @ W.T``, shape (n_rows, n_in), for g (n_rows, n_out) and W (n_in, n_out), C-ordered."""
    n_rows, n_out = g.shape
    n_in = W.shape[0]
    if n_rows > _MANY_ROWS or n_out < _FEW_COLUMNS:
        return np.dot(g, W.T)
    itemsize = g.itemsize
    zero = g.dtype.type(0)
    out = np.empty((n_rows, n_in), g.dtype)
    out_at, g_at, W_at = address(out), address(g), address(W)
    row, out_row = n_out * itemsize, n_in * itemsize
    for k in range(0, n_in, _TILE_COLUMNS):
        k_stop = min(n_in, k + _TILE_COLUMNS)
        for i in range(0, n_rows, _TILE_ROWS):
            i_stop = min(n_rows, i + _TILE_ROWS)
            if k_stop - k == _TILE_COLUMNS and i_stop - i == _TILE_ROWS:
                _tile(
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
                    _single(
                        out_at + ii * out_row + kk * itemsize,
                        out_row,
                        g_at + ii * row,
                        row,
                        W_at + kk * row,
                        row,
                        n_out,
                        zero,
                    )
    return out
