"""Matrices each of whose rows begins where a line of the cache begins; see `alignment`.

For what a kernel reads again and again: a copy costs less than the vectors that would straddle two
lines.
"""

import numba
import numpy as np

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.native.vectors import address

__all__ = ["aligned_rows", "copy_rows", "with_aligned_rows"]


@numba.njit
def aligned_rows(n_rows, n_columns, like):
    """Return room for a matrix of the dtype of the array `like`, as ``np.empty`` does."""
    line = LINE_BYTES // like.itemsize
    stride = (n_columns + line - 1) // line * line
    room = np.empty(n_rows * stride + line, like.dtype)
    # Of a local array, but only the remainder is used, and `room` is still mentioned below.
    start = -address(room) % LINE_BYTES // like.itemsize
    return room[start : start + n_rows * stride].reshape(n_rows, stride)[:, :n_columns]


@numba.njit
def with_aligned_rows(matrix):
    """Return a copy of a matrix."""
    copy = aligned_rows(matrix.shape[0], matrix.shape[1], matrix)
    copy_rows(copy, matrix)
    return copy


@numba.njit
def copy_rows(target, source):
    """Do ``target[...] = source`` for matrices of one shape.

    By a loop, because Numba compiles the message of its shape error with every such assignment, for
    four seconds.
    """
    for i in range(source.shape[0]):
        to, row = target[i], source[i]
        for j in range(row.size):
            to[j] = row[j]
