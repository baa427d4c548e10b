"""The limit on the columns of a weight matrix, in one pass with the step that comes before it."""

import numba
import numpy as np

from reinforce_dropout.native.kernels.shapes import check_step
from reinforce_dropout.native.kernels.sharing import share, threads_for

__all__ = ["limit_columns"]

#: Squares are summed in so many blocks of rows, and then over the blocks: in the same order for any
#: number of threads. Threads share blocks instead of columns. A processor fetches rows ahead, and
#: would fetch another thread's columns, too.
_BLOCKS = 16


@numba.njit
def _add_and_square(W, step, squares):
    """Do ``W += step`` and ``squares += (W**2).sum(axis=0)``, row by row. No step, no columns."""
    for i in range(W.shape[0]):
        row = W[i]
        if step.shape[1]:
            change = step[i]
            for j in range(row.size):
                row[j] += change[j]
        for j in range(row.size):
            squares[j] += row[j] * row[j]


@numba.njit(parallel=True)
def _add_in_parallel(n_parts, W, step, squares):
    """Add the step, and the squares of each block's rows to a row of `squares`."""
    for part in numba.prange(n_parts):
        for block in range(*share(part, n_parts, _BLOCKS, 1)):
            first, last = share(block, _BLOCKS, W.shape[0], 1)
            _add_and_square(W[first:last], step[first:last], squares[block])


@numba.njit(parallel=True)
def _scale_in_parallel(n_parts, W, factors):
    """Multiply each column by its factor."""
    for part in numba.prange(n_parts):
        for i in range(*share(part, n_parts, W.shape[0], 1)):
            row = W[i]
            for j in range(row.size):
                row[j] *= factors[j]


@numba.njit
def limit_columns(W, step, limit):
    """``W += step``, then scale back columns whose squared length exceeds `limit`.

    W (n_in, n_out) is C-ordered. The step has W's shape, or no columns: then nothing is added. All
    have one dtype. NaN stays NaN.
    """
    if step.shape[1]:
        check_step(W, step)
    n_parts = threads_for(W.size)
    of_blocks = np.zeros((_BLOCKS, W.shape[1]), W.dtype)
    _add_in_parallel(n_parts, W, step, of_blocks)
    squares = of_blocks.sum(axis=0)
    if squares.max() <= limit:
        return
    _scale_in_parallel(n_parts, W, np.sqrt(limit / np.maximum(limit, squares)))
