"""The matrix products of a training step, for a mini-batch: few rows, many of their entries zero.

A mini-batch of 20 rows leaves general-purpose BLAS far below the machine's peak: it packs
operands for a reuse that 20 rows do not give.  Moreover most of the numbers that a product
multiplies a weight by are zero here: 81 % of MNIST's pixels, and 70 to 88 % of the masked
activations.  So :func:`products` and :func:`rank_updates` list the non-zero entries first and add
up only the rows of the weights that these call for, for a layer's W and its policy's Z alike; and
:func:`masked_product_transposed` computes only what the mask lets through.

Threads share the columns of a product and the rows of an update.  Every element is summed in the
same order whatever their number, so that it makes no difference to a single bit.
"""

import numba
import numpy as np

from reinforce_dropout.native.simd import (
    DOT_ROWS,
    SPAN_BYTES,
    TILE,
    VECTOR_BYTES,
    address,
    combine_rows,
    dot_rows,
    dot_tile,
    lowest_bit,
    n_threads,
    non_zero_bits,
)

__all__ = ["masked_product_transposed", "product_transposed", "products", "rank_updates"]

#: Rows of a weight matrix handled before going on: with one span of columns they fill
#: part of the first-level cache, so that all examples read them from there.
_BLOCK = 64
#: BLAS, which packs its operands, is faster with more rows than this,
_MANY_ROWS = 64
#: or with fewer columns.
_FEW_COLUMNS = 32
#: Density of a mask beyond which a product computes what it drops, too.
_DENSE = 0.6
#: Multiplications by a weight below which waking another thread costs more than it saves.
_WORTH_A_THREAD = 200_000

numba.get_num_threads()  # Numba tells LLVM of the symbol in `n_threads` once it has been asked.

_tile = dot_tile(*TILE)
_single = dot_tile(1, 1)
_TILE_ROWS, _TILE_COLUMNS = TILE


@numba.njit
def _suits_blas(s, n_out):
    return s.shape[0] > _MANY_ROWS or n_out < _FEW_COLUMNS or s.size == 0


@numba.njit
def _threads_for(work):
    """Return how many threads to use for so many multiplications by a weight."""
    return n_threads() if work > _WORTH_A_THREAD else 1


@numba.njit
def _share(part, n_parts, size, step):
    """Return the first and the last (excluded) of a part's columns, in whole steps."""
    width = ((size + n_parts - 1) // n_parts + step - 1) // step * step
    return min(size, part * width), min(size, (part + 1) * width)


@numba.njit
def _non_zeros(s, length):
    """List the entries of `s` that are not zero: block after block of `length` columns, row by row.

    Returns
    -------
    columns : ndarray (n_entries or more,) int64
    factors : ndarray (n_entries or more,) of s.dtype
    firsts : ndarray (n_blocks, n_rows + 1) int64
        Block B and row i own the entries ``firsts[B, i] <= t < firsts[B, i + 1]``.
    """
    n_rows, n_columns = s.shape
    n_blocks = (n_columns + length - 1) // length
    columns = np.empty(s.size, np.int64)
    factors = np.empty(s.size, s.dtype)
    firsts = np.empty((n_blocks, n_rows + 1), np.int64)
    lanes = VECTOR_BYTES // s.itemsize
    t = 0
    for block in range(n_blocks):
        stop = min(n_columns, (block + 1) * length)
        for i in range(n_rows):
            firsts[block, i] = t
            for k in range(block * length, stop, lanes):
                at = address(s) + (i * n_columns + k) * s.itemsize
                bits = non_zero_bits(at, stop - k, s.dtype.type(0))
                while bits != 0:
                    columns[t] = k + lowest_bit(bits)
                    factors[t] = s[i, columns[t]]
                    bits &= bits - 1
                    t += 1
        firsts[block, n_rows] = t
    return columns, factors, firsts


@numba.njit
def _non_zeros_by_column(s):
    """List the entries of `s` that are not zero, column by column.

    Returns
    -------
    rows : ndarray (n_entries or more,) int64
    factors : ndarray (n_entries or more,) of s.dtype
    firsts : ndarray (n_columns + 1,) int64
        Column k owns the entries ``firsts[k] <= t < firsts[k + 1]``.
    """
    n_rows, n_columns = s.shape
    rows, factors = np.empty(s.size + 1, np.int64), np.empty(s.size + 1, s.dtype)
    firsts = np.empty(n_columns + 1, np.int64)
    t = 0
    for k in range(n_columns):
        firsts[k] = t
        for i in range(n_rows):  # no branch: what is zero is written over
            rows[t] = i
            factors[t] = s[i, k]
            t += s[i, k] != 0
    firsts[n_columns] = t
    return rows, factors, firsts


@numba.njit
def _product_columns(first, last, out, W, columns, factors, firsts):
    """Add up columns `first` to `last` of a product from the non-zero entries on its left.

    In an array of their own: threads that add in lines of the cache that they share wait for each
    other at every row.
    """
    n_rows = firsts.shape[1] - 1
    own = np.zeros((n_rows, last - first), out.dtype)
    _add_rows(own, W, first, columns, factors, firsts)
    for i in range(n_rows):
        out[i, first:last] = own[i]


@numba.njit
def _add_rows(own, W, first, columns, factors, firsts):
    itemsize = own.itemsize
    n_blocks, n_rows = firsts.shape[0], firsts.shape[1] - 1
    span = SPAN_BYTES // itemsize
    for block in range(n_blocks):
        for j in range(0, own.shape[1], span):
            for i in range(n_rows):
                combine_rows(
                    address(own) + i * own.strides[0] + j * itemsize,
                    own.dtype.type(1),
                    address(W) + (first + j) * itemsize,
                    W.strides[0],
                    address(columns),
                    address(factors),
                    firsts[block, i],
                    firsts[block, i + 1],
                    min(span, own.shape[1] - j),
                )


@numba.njit
def _product_share(part, n_parts, s_W, W, s_Z, Z, columns, factors, firsts):
    n_W, n_Z = W.shape[1], Z.shape[1]
    first, last = _share(part, n_parts, n_W + n_Z, VECTOR_BYTES // W.itemsize)
    _product_columns(min(first, n_W), min(last, n_W), s_W, W, columns, factors, firsts)
    first, last = max(first - n_W, 0), max(last - n_W, 0)
    _product_columns(first, last, s_Z, Z, columns, factors, firsts)


@numba.njit(parallel=True)
def _products_in_parallel(n_parts, s_W, W, s_Z, Z, columns, factors, firsts):
    for part in numba.prange(n_parts):
        _product_share(part, n_parts, s_W, W, s_Z, Z, columns, factors, firsts)


@numba.njit
def products(s, W, Z):
    """``s @ W`` and ``s @ Z``, for s (n_rows, n_in), W (n_in, n_W) and Z (n_in, n_Z), C-ordered.

    Z may have no columns. A zero of `s` contributes nothing, even if what it multiplies in W or Z
    is infinite or NaN.
    """
    n_rows, n_W, n_Z = s.shape[0], W.shape[1], Z.shape[1]
    if _suits_blas(s, n_W + n_Z):
        return np.dot(s, W), np.dot(s, Z)
    s_W, s_Z = np.empty((n_rows, n_W), s.dtype), np.empty((n_rows, n_Z), s.dtype)
    columns, factors, firsts = _non_zeros(s, _BLOCK)
    n_parts = _threads_for(firsts[-1, -1] * (n_W + n_Z))
    if n_parts == 1:
        _product_share(0, 1, s_W, W, s_Z, Z, columns, factors, firsts)
    else:
        _products_in_parallel(n_parts, s_W, W, s_Z, Z, columns, factors, firsts)
    return s_W, s_Z


@numba.njit
def _update_rows(start, stop, W, g, beta, rows, factors, firsts):
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
                    row,
                    address(rows),
                    address(factors),
                    firsts[k],
                    firsts[k + 1],
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
def _update_share(part, n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, rows, factors, firsts):
    start, stop = _first_row(part, n_parts, firsts), _first_row(part + 1, n_parts, firsts)
    _update_rows(start, stop, W, g_W, beta_W, rows, factors, firsts)
    _update_rows(start, stop, Z, g_Z, beta_Z, rows, factors, firsts)


@numba.njit(parallel=True)
def _updates_in_parallel(n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, rows, factors, firsts):
    for part in numba.prange(n_parts):
        _update_share(part, n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, rows, factors, firsts)


@numba.njit
def _update_with_blas(W, s, g, beta):
    elements, products = W.reshape(-1), np.dot(s.T, g).reshape(-1)
    for e in range(elements.size):
        elements[e] = beta * elements[e] + products[e]


@numba.njit
def rank_updates(s, W, g_W, beta_W, Z, g_Z, beta_Z):
    """``W[...] = beta_W * W + s.T @ g_W``, and so Z, in one pass over each.

    s (n_rows, n_in), W (n_in, n_W), g_W (n_rows, n_W), Z (n_in, n_Z), g_Z (n_rows, n_Z), all
    C-ordered and of one dtype, which is that of the scalars `beta_W` and `beta_Z`. Z may have no
    columns. A zero of `s` contributes nothing, even if what it multiplies in g is infinite or NaN.
    """
    if _suits_blas(s, W.shape[1] + Z.shape[1]):
        _update_with_blas(W, s, g_W, beta_W)
        _update_with_blas(Z, s, g_Z, beta_Z)
        return
    rows, factors, firsts = _non_zeros_by_column(s)
    n_parts = _threads_for(firsts[-1] * (W.shape[1] + Z.shape[1]))
    if n_parts == 1:
        _update_share(0, 1, W, g_W, beta_W, Z, g_Z, beta_Z, rows, factors, firsts)
    else:
        _updates_in_parallel(n_parts, W, g_W, beta_W, Z, g_Z, beta_Z, rows, factors, firsts)


@numba.njit
def _transposed_columns(first, last, out, g, W):
    """Compute columns `first` to `last` of ``g @ W.T``: dot products with those rows of W."""
    itemsize, n_rows, n_out = g.itemsize, g.shape[0], g.shape[1]
    row, out_row = n_out * itemsize, out.shape[1] * itemsize
    zero = g.dtype.type(0)
    out_at, g_at, W_at = address(out), address(g), address(W)
    for k in range(first, last, _TILE_COLUMNS):
        k_stop = min(last, k + _TILE_COLUMNS)
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


@numba.njit(parallel=True)
def _transposed_in_parallel(n_parts, out, g, W):
    for part in numba.prange(n_parts):
        first, last = _share(part, n_parts, W.shape[0], _TILE_COLUMNS)
        _transposed_columns(first, last, out, g, W)


@numba.njit
def product_transposed(g, W):
    """``g @ W.T``, shape (n_rows, n_in), for g (n_rows, n_out) and W (n_in, n_out), C-ordered."""
    n_rows, n_out = g.shape
    n_in = W.shape[0]
    if _suits_blas(g, n_out):
        return np.dot(g, W.T)
    out = np.empty((n_rows, n_in), g.dtype)
    n_parts = _threads_for(g.size * n_in)
    if n_parts == 1:
        _transposed_columns(0, n_in, out, g, W)
    else:
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
        first, last = _share(part, n_parts, W.shape[0], _TILE_COLUMNS)
        _masked_columns(first, last, out, g, W, rows, firsts)


@numba.njit
def masked_product_transposed(g, W, u):
    """``g @ W.T`` where the mask u (n_rows, n_in) is not zero; the rest is not meant to be used."""
    n_rows, n_out = g.shape
    n_in = W.shape[0]
    if _suits_blas(g, n_out) or np.count_nonzero(u) > _DENSE * u.size:
        return product_transposed(g, W)
    out = np.zeros((n_rows, n_in), g.dtype)
    rows, _, firsts = _non_zeros_by_column(u)
    n_parts = _threads_for(firsts[-1] * n_out)
    if n_parts == 1:
        _masked_columns(0, n_in, out, g, W, rows, firsts)
    else:
        _masked_in_parallel(n_parts, out, g, W, rows, firsts)
    return out
