"""Numba kernels for the Ops of `reinforce_dropout.submatrix`.

Threads share the rows, as the products do: so most of what a product reads is near its core.
"""

import numba
import numpy as np
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.shapes import check_places
from reinforce_dropout.native.sharing import share, threads_for
from reinforce_dropout.submatrix import PutSubmatrix, Submatrix, check_part

#: An element is far from the core: it takes as long as so many multiplications; see
#: `sharing.threads_for`.
_ELEMENT = 16
#: Shares are whole numbers of so many rows, as those of the tiles of a product.
_ROWS = 4

_check_part = numba.njit(check_part)


@numba.njit
def _take_rows(first, last, W, rows, columns, factor, V):
    for i in range(first, last):
        row, result = W[rows[i]], V[i]
        for j in range(columns.size):
            result[j] = factor * row[columns[j]]


@numba.njit
def _put_rows(first, last, W, rows, columns, factor, V):
    for i in range(first, last):
        row, values = W[rows[i]], V[i]
        for j in range(columns.size):
            row[columns[j]] = factor * values[j]


def _by_threads(do_rows):
    """Return the function of all rows, which threads share if they are many."""

    @numba.njit(parallel=True)
    def in_parallel(n_parts, W, rows, columns, factor, V):
        for part in numba.prange(n_parts):
            first, last = share(part, n_parts, rows.size, _ROWS)
            do_rows(first, last, W, rows, columns, factor, V)

    @numba.njit
    def do_all(W, rows, columns, factor, V):
        check_places(W.shape[0], rows)
        check_places(W.shape[1], columns)
        _check_part(V, rows, columns)
        n_parts = threads_for(_ELEMENT * V.size)
        if n_parts == 1:
            do_rows(0, rows.size, W, rows, columns, factor, V)
        else:
            in_parallel(n_parts, W, rows, columns, factor, V)

    return do_all


_take, _put = _by_threads(_take_rows), _by_threads(_put_rows)


@register_funcify_default_op_cache_key(Submatrix)
def _numba_submatrix(op, node, **kwargs):
    @numba_njit
    def native_submatrix(W, rows, columns, scale):
        V = np.empty((rows.size, columns.size), W.dtype)
        _take(W, rows, columns, scale.item(), V)
        return V

    return native_submatrix, VERSION


@register_funcify_default_op_cache_key(PutSubmatrix)
def _numba_put_submatrix(op, node, **kwargs):
    inplace = op.inplace

    @numba_njit
    def native_put_submatrix(W, rows, columns, V, scale):
        result = W if inplace else W.copy()
        _put(result, rows, columns, scale.item(), V)
        return result

    return native_put_submatrix, VERSION
