"""Checks that the operands of a kernel fit each other, because kernels read and write by address.

They raise ValueError. The Ops' NumPy code calls the same functions by their ``py_func``.
"""

import numba

__all__ = [
    "check_masked", "check_places", "check_product", "check_step", "check_transposed",
    "check_update",
]  # fmt: skip


@numba.njit
def check_product(s, W):
    """Refuse ``s @ W`` unless W has one row for each column of s."""
    if s.shape[1] != W.shape[0]:
        raise ValueError(
            "a product has operands of the wrong shapes: the weights need one row for each column "
            "of the activations."
        )


@numba.njit
def check_transposed(g, W):
    """Refuse ``g @ W.T`` unless both have the same number of columns."""
    if g.shape[1] != W.shape[1]:
        raise ValueError(
            "a transposed product has operands of the wrong shapes: the weights need one column "
            "for each column of the gradients."
        )


@numba.njit
def check_masked(g, W, u):
    """Refuse ``(g @ W.T) * u`` unless u has the shape of the product."""
    check_transposed(g, W)
    if u.shape != (g.shape[0], W.shape[0]):
        raise ValueError(
            "a mask has the wrong shape: it needs one row for each row of the gradients and one "
            "column for each row of the weights."
        )


@numba.njit
def check_update(s, W, g):
    """Refuse ``W + s.T @ g`` unless the product has the shape of W."""
    if s.shape[0] != g.shape[0] or W.shape != (s.shape[1], g.shape[1]):
        raise ValueError(
            "an update has operands of the wrong shapes: activations and gradients need equally "
            "many rows, and the weights one row for each column of the activations and one column "
            "for each column of the gradients."
        )


@numba.njit
def check_step(W, step):
    """Refuse ``W + step`` unless both have one shape."""
    if W.shape != step.shape:
        raise ValueError("a step has the wrong shape: it needs that of the weights.")


@numba.njit
def check_places(size, places):
    """Refuse indices of rows or columns that are not from 0 to `size` (excluded)."""
    for place in places:
        if place < 0 or place >= size:
            raise ValueError(
                "a submatrix has the wrong numbers: each must be at least 0 and less than the rows "
                "or columns of the matrix."
            )
