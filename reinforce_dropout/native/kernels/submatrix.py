"""Numba kernels for the Ops of `reinforce_dropout.blocks.submatrix`.

Threads share the rows, as in the products. So a product finds most of its operands near its core.
"""

import numba

from reinforce_dropout.blocks.submatrix import check_part
from reinforce_dropout.native.kernels.shapes import check_places
from reinforce_dropout.native.kernels.sharing import share, threads_for

#: An element is far from the core, so it takes as long as this many multiplications; see
#: `sharing.threads_for`.
_ELEMENT = 16
#: Shares are multiples of so many rows, as are the tiles of a product.
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
    """Return the function of all rows; threads share them if there are many."""

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


take, put = _by_threads(_take_rows), _by_threads(_put_rows)
