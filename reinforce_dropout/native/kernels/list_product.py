"""Numba kernel for `blocks.list_product`: all units, from the lists of single instances.

Threads share the instances. Panels are summed up to four at a time, so the list of an instance is
read less often. Every number is summed in the order of its list, for any number of threads and of
instances.
"""

import numba
import numpy as np

from reinforce_dropout.blocks import list_product as ops
from reinforce_dropout.native.kernels.lists import (
    check_line,
    check_lists,
    for_whole_panels,
    panels_at_once,
    sum_panels,
)
from reinforce_dropout.native.kernels.packed import parts_for
from reinforce_dropout.native.kernels.sharing import share
from reinforce_dropout.native.llvm.vectors import address

__all__ = ["list_product"]

_check = numba.njit(ops.check)


@numba.njit
def _product_share(part, n_parts, below, W, b, out):
    """Compute a part of the instances; `b` and the rows of `out` have room for whole panels."""
    values, units, counts = below
    start, stop = share(part, n_parts, len(counts), 1)
    panel, line, zero = W.strides[0], W.shape[2] * W.itemsize, out.dtype.type(0)
    p = 0
    while p < W.shape[0]:
        n_panels = panels_at_once(W.shape[0] - p)
        for i in range(start, stop):
            sum_panels(
                n_panels,
                address(out) + i * out.strides[0] + p * line,
                address(W) + p * panel,
                panel,
                address(units) + i * units.strides[0],
                address(values) + i * values.strides[0],
                counts[i],
                address(b) + p * line,
                zero,
            )
        p += n_panels


@numba.njit(parallel=True)
def _product_in_parallel(n_parts, below, W, b, out):
    for part in numba.prange(n_parts):
        _product_share(part, n_parts, below, W, b, out)


@numba.njit
def list_product(values, units, counts, W, b):
    """``s W + b`` for every unit: (m_b, n_units)."""
    check_lists(values, units, counts, W.shape[1])
    check_line(W)
    _check(W, b)
    padded, below = for_whole_panels(b, W), (values, units, counts)
    out = np.empty((len(counts), padded.size), values.dtype)
    n_parts = parts_for(counts.sum() * padded.size, len(counts))
    if n_parts == 1:
        _product_share(0, 1, below, W, padded, out)
    else:
        _product_in_parallel(n_parts, below, W, padded, out)
    return out[:, : b.size]
