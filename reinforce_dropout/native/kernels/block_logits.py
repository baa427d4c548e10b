"""Numba kernel for `packed.BlockLogits`: the logits of a policy for blocks of instances.

First the threads share the blocks, and list the means of the units in use. Then they share the
panels of Z, and add up the rows that are listed, as in `forward_products`.
"""

import numba
import numpy as np

from reinforce_dropout.blocks import packed as ops
from reinforce_dropout.native.kernels.forward_products import BLOCK, add_listed, serves_many
from reinforce_dropout.native.kernels.packed import (
    COPY,
    capacity_of,
    check_mask,
    check_packed,
    count_blocks,
    numbers_in_use,
    parts_for,
)
from reinforce_dropout.native.kernels.sharing import share, threads_for
from reinforce_dropout.native.llvm.aligned_rows import aligned_rows, copy_rows
from reinforce_dropout.native.llvm.vectors import address, prefetch_lines

__all__ = ["block_logits"]

_check_panels = numba.njit(ops.check_panels)


@numba.njit(fastmath={"reassoc"})
def _sum(row):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i]
    return total


@numba.njit
def _list_share(part, n_parts, packed, active, n_rows, size, columns, factors, firsts):
    """List the units in use and their means for a part of the blocks.

    In the lists the units from ``k * BLOCK`` on begin at ``firsts[k, block]``.
    """
    for block in range(*share(part, n_parts, active.shape[0], 1)):
        numbers = numbers_in_use(active[block])
        count = min(size, n_rows - block * size)
        for t in range(numbers.size):
            columns[block, t] = numbers[t]
            factors[block, t] = _sum(packed[block, t, :count]) / packed.dtype.type(count)
        t = block * columns.shape[1]
        for k in range(firsts.shape[0]):
            firsts[k, block] = t
            t += np.count_nonzero(active[block, k * BLOCK : (k + 1) * BLOCK])


@numba.njit(parallel=True)
def _list_in_parallel(n_parts, packed, active, n_rows, size, columns, factors, firsts):
    for part in numba.prange(n_parts):
        _list_share(part, n_parts, packed, active, n_rows, size, columns, factors, firsts)


@numba.njit
def _fetch_listed(W, columns, firsts):
    """Prefetch the rows of W that are listed, if they are too few to fetch all rows."""
    for block in range(columns.shape[0]):
        begin = block * columns.shape[1]
        for t in range(firsts[-1, block] - begin):
            prefetch_lines(address(W) + columns[block, t] * W.strides[0], W.strides[0])


@numba.njit
def _logits_share(part, n_parts, z, Z, o, columns, factors, firsts, far):
    """Compute the columns of z of a part of the panels."""
    width = Z.shape[2]
    for panel in range(*share(part, n_parts, Z.shape[0], 1)):
        if not far and panel + 1 < Z.shape[0]:
            _fetch_listed(Z[panel + 1], columns, firsts)
        start, stop = min(o.size, panel * width), min(o.size, (panel + 1) * width)
        own = aligned_rows(z.shape[0], stop - start, z)
        for block in range(z.shape[0]):
            row = own[block]
            for j in range(row.size):
                row[j] = o[start + j]
        add_listed(own, 0, Z[panel], columns, factors, firsts[:-1], firsts[1:], BLOCK, far)
        copy_rows(z[:, start:stop], own)


@numba.njit(parallel=True)
def _logits_in_parallel(n_parts, z, Z, o, columns, factors, firsts, far):
    for part in numba.prange(n_parts):
        _logits_share(part, n_parts, z, Z, o, columns, factors, firsts, far)


@numba.njit
def block_logits(packed, active, n_rows, Z, o, size, width):
    """``s Z + o`` (n_blocks, n_units): s is the mean of each block, Z (n_panels, n_in, width)."""
    n_blocks, n_in = count_blocks(n_rows, size), active.shape[1]
    check_mask(active, n_blocks, n_in)
    check_packed(packed, n_blocks, capacity_of(active), width)
    _check_panels(Z, n_in, o.size)
    columns = np.empty(packed.shape[:2], np.int64)
    factors = np.empty(packed.shape[:2], packed.dtype)
    firsts = np.empty(((n_in + BLOCK - 1) // BLOCK + 1, n_blocks), np.int64)
    n_parts = parts_for(COPY * packed.size, n_blocks)
    if n_parts == 1:
        _list_share(0, 1, packed, active, n_rows, size, columns, factors, firsts)
    else:
        _list_in_parallel(n_parts, packed, active, n_rows, size, columns, factors, firsts)
    z, n_entries = np.empty((n_blocks, o.size), o.dtype), np.count_nonzero(active)
    n_parts, far = threads_for(n_entries * o.size), serves_many(n_entries, Z[0])
    if n_parts == 1:
        _logits_share(0, 1, z, Z, o, columns, factors, firsts, far)
    else:
        _logits_in_parallel(n_parts, z, Z, o, columns, factors, firsts, far)
    return z
