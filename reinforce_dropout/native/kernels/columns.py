"""The limit on the columns of a weight matrix, in one pass with the step that comes before it."""

import numba
import numpy as np

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.native.kernels.shapes import check_step
from reinforce_dropout.native.kernels.sharing import share, threads_for

__all__ = ["limit_columns"]


@numba.njit
def _add_and_square(W, step, squares):
    """Do ``W += step`` and ``squares += (W**2).sum(axis=0)``, row by row."""
    for i in range(W.shape[0]):
        row, change = W[i], step[i]
        for j in range(row.size):
            row[j] += change[j]
            squares[j] += row[j] * row[j]


@numba.njit
def _add_squares(W, squares):
    """Do ``squares += (W**2).sum(axis=0)``, row by row."""
    for i in range(W.shape[0]):
        row = W[i]
        for j in range(row.size):
            squares[j] += row[j] * row[j]


@numba.njit
def _limit_share(W, step, limit):
    """Add the step, and limit the columns of a part of W. A step without columns is none.

    Both passes read whole rows. The processor fetches these ahead, so they are twice as fast as
    passes over a few columns that stay in the second-level cache.
    """
    squares = np.zeros(W.shape[1], W.dtype)
    if step.shape[1]:
        _add_and_square(W, step, squares)
    else:
        _add_squares(W, squares)
    if squares.size == 0 or squares.max() <= limit:
        return
    factors = np.sqrt(limit / np.maximum(limit, squares))
    for i in range(W.shape[0]):
        row = W[i]
        for j in range(row.size):
            row[j] *= factors[j]


@numba.njit(parallel=True)
def _limit_in_parallel(n_parts, W, step, limit):
    for part in numba.prange(n_parts):
        start, stop = share(part, n_parts, W.shape[1], LINE_BYTES // W.itemsize)
        _limit_share(W[:, start:stop], step[:, start:stop], limit)


@numba.njit
def limit_columns(W, step, limit):
    """``W += step``, then scale back columns whose squared length exceeds `limit`.

    W (n_in, n_out) is C-ordered. The step has W's shape, or no columns: then nothing is added. All
    have one dtype. NaN stays NaN.
    """
    if step.shape[1]:
        check_step(W, step)
    _limit_in_parallel(threads_for(W.size), W, step, limit)
