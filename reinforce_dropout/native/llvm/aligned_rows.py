"""Matrices in which every row begins where a line of the cache begins; see `alignment`.

They are for operands that a kernel reads again and again. A copy costs less than vectors that
straddle two lines.
"""

import numba
import numpy as np

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.native.llvm.vectors import address

__all__ = ["aligned_rows", "copy_rows", "with_aligned_rows"]


@numba.njit
def aligned_rows(n_rows, n_columns, like):
    """Return an empty matrix of the dtype of the array `like`."""
    line = LINE_BYTES // like.itemsize
    stride = (n_columns + line - 1) // line * line
    room = np.empty(n_rows * stride + line, like.dtype)
    # The address of a local array is safe here, because `room` is used again below.
    start = -address(room) % LINE_BYTES // like.itemsize
    return room[start : start + n_rows * stride].reshape(n_rows, stride)[:, :n_columns]


@numba.njit
def with_aligned_rows(matrix):
    """Return a copy of a matrix with aligned rows."""
    copy = aligned_rows(matrix.shape[0], matrix.shape[1], matrix)
    copy_rows(copy, matrix)
    return copy


@numba.njit
def copy_rows(target, source):
    """Do ``target[...] = source`` for matrices of one shape.

    It is a loop, because Numba would compile the message of a shape error, which takes four
    seconds.
    """
    for i in range(source.shape[0]):
        to, row = target[i], source[i]
        for j in range(row.size):
            to[j] = row[j]
