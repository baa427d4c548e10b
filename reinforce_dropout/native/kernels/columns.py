"""The limit on the columns of a weight matrix, in one pass with the step that comes before it."""

import numba
import numpy as np

from reinforce_dropout.native.kernels.shapes import check_step
from reinforce_dropout.native.kernels.sharing import share, threads_for

__all__ = ["limit_columns"]

#: Columns of one pass: a thousand rows of them stay in the second-level cache for the scaling.
_SPAN = 128


@numba.njit
def _limit_share(start, stop, W, step, limit):
    """Add the step, and limit columns `start` to `stop`. A step without columns is none."""
    squares = np.empty(_SPAN, W.dtype)
    for first in range(start, stop, _SPAN):
        n = min(_SPAN, stop - first)
        squares[:n] = 0
        for i in range(W.shape[0]):
            row = W[i, first : first + n]
            if step.shape[1]:
                row += step[i, first : first + n]
            for j in range(n):
                squares[j] += row[j] * row[j]
        longest = limit
        for j in range(n):
            longest = max(longest, squares[j])
            squares[j] = np.sqrt(limit / max(limit, squares[j]))
        if longest > limit:
            for i in range(W.shape[0]):
                row = W[i, first : first + n]
                for j in range(n):
                    row[j] *= squares[j]


@numba.njit(parallel=True)
def _limit_in_parallel(n_parts, W, step, limit):
    for part in numba.prange(n_parts):
        start, stop = share(part, n_parts, W.shape[1], _SPAN)
        _limit_share(start, stop, W, step, limit)


@numba.njit
def limit_columns(W, step, limit):
    """``W += step``, then scale back columns whose squared length exceeds `limit`.

    W (n_in, n_out) is C-ordered. The step has W's shape, or no columns: then nothing is added. All
    have one dtype. NaN stays NaN.
    """
    if step.shape[1]:
        check_step(W, step)
    _limit_in_parallel(threads_for(W.size), W, step, limit)
