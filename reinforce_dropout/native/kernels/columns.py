"""The limit on the columns of a weight matrix, in one pass with the step that comes before it."""

import numba
import numpy as np

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.native.kernels.shapes import check_step
from reinforce_dropout.native.kernels.sharing import share, threads_for
from reinforce_dropout.native.llvm.vectors import address, prefetch_lines

__all__ = ["limit_columns"]

#: Columns of one pass, at most: few enough that many of their weights are still in the second-level
#: cache for the scaling, and enough for long reads.
_SPAN = 256
#: Rows from what is read to what is fetched meanwhile.
_AHEAD = 16


@numba.njit
def _fetch(W, i):
    """Prefetch row i of W, if there is one."""
    if i < W.shape[0]:
        prefetch_lines(address(W) + i * W.strides[0], W.shape[1] * W.itemsize)


@numba.njit
def _add_and_square(W, step, squares):
    """Do ``W += step`` and ``squares += (W**2).sum(axis=0)``, row by row."""
    for i in range(W.shape[0]):
        _fetch(W, i + _AHEAD)
        _fetch(step, i + _AHEAD)
        row, change = W[i], step[i]
        for j in range(row.size):
            row[j] += change[j]
            squares[j] += row[j] * row[j]


@numba.njit
def _add_squares(W, squares):
    """Do ``squares += (W**2).sum(axis=0)``, row by row."""
    for i in range(W.shape[0]):
        _fetch(W, i + _AHEAD)
        row = W[i]
        for j in range(row.size):
            squares[j] += row[j] * row[j]


@numba.njit
def _limit_span(W, step, limit):
    """Add the step, and limit all columns of W. A step without columns is none."""
    squares = np.zeros(W.shape[1], W.dtype)
    if step.shape[1]:
        _add_and_square(W, step, squares)
    else:
        _add_squares(W, squares)
    if squares.max() <= limit:
        return
    factors = np.sqrt(limit / np.maximum(limit, squares))
    for i in range(W.shape[0]):
        row = W[i]
        for j in range(row.size):
            row[j] *= factors[j]


@numba.njit
def _limit_share(W, step, limit):
    """Add the step, and limit the columns of a part of W, span by span."""
    n_spans, line = -(-W.shape[1] // _SPAN), LINE_BYTES // W.itemsize
    for span in range(n_spans):
        start, stop = share(span, n_spans, W.shape[1], line)
        if start < stop:
            _limit_span(W[:, start:stop], step[:, start:stop], limit)


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
