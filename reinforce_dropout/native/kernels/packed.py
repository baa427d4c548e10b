"""Numba kernels that pack activations and unpack them, see `reinforce_dropout.blocks.packed`.

Threads share the blocks. Every number is summed in the same order for any number of threads.
"""

import numba
import numpy as np

from reinforce_dropout.blocks import packed as ops
from reinforce_dropout.native.kernels.sharing import share, threads_for
from reinforce_dropout.native.llvm.block_simd import transpose_tile
from reinforce_dropout.native.llvm.vectors import VECTOR_BYTES, address

__all__ = [
    "COPY",
    "capacity_of",
    "check_mask",
    "check_packed",
    "count_blocks",
    "list_in_use",
    "numbers_in_use",
    "pack_in_use",
    "parts_for",
    "unpack",
]

#: A copied number takes as long as this many multiplications; see `sharing.threads_for`.
COPY = 4

check_mask, capacity_of = numba.njit(ops.check), numba.njit(ops.count_most)
check_packed = numba.njit(ops.check_packed)


@numba.njit
def list_in_use(units, numbers):
    """Write the indices of the units in use, then others; return the number of units in use."""
    n = 0
    for k in range(units.size):
        numbers[n] = k
        n += units[k]
    return n


@numba.njit
def numbers_in_use(units):
    """Return the indices of the units in use, int64."""
    numbers = np.empty(units.size, np.int64)
    return numbers[: list_in_use(units, numbers)]


@numba.njit
def parts_for(work, n_blocks):
    """Return the number of parts in which threads share the blocks, see `sharing.threads_for`."""
    return min(threads_for(work), max(1, n_blocks))


@numba.njit
def count_blocks(n_rows, size):
    """Return the number of blocks of `size` rows; the last may be shorter."""
    return (n_rows + size - 1) // size


@numba.njit
def _find_in_use(s, block, size, units):
    """Set the `units` that are not zero for some instance of a block; unset the others."""
    units[:] = False
    for i in range(block * size, min(s.shape[0], (block + 1) * size)):
        row = s[i]
        for k in range(row.size):
            units[k] |= row[k] != 0


@numba.njit
def _pack_one(row, units, packed):
    numbers = numbers_in_use(units)
    for t in range(numbers.size):
        packed[t, 0] = row[numbers[t]]


@numba.njit
def _pack_several(s, block, size, units, places, packed):
    itemsize, n_units = s.itemsize, s.shape[1]
    lanes = VECTOR_BYTES // itemsize
    n = 0
    for k in range(n_units):
        places[k] = n * packed.strides[0] if units[k] else -1
        n += units[k]
    start = block * size
    n_rows = min(size, s.shape[0] - start)
    for i in range(0, packed.shape[1], lanes):
        for k in range(0, n_units, lanes):
            if np.any(units[k : k + lanes]):
                transpose_tile(
                    address(packed) + i * itemsize,
                    address(places) + k * places.itemsize,
                    address(s) + (start + i) * s.strides[0] + k * itemsize,
                    s.strides[0],
                    n_rows - i,
                    n_units - k,
                    s.dtype.type(0),
                )


@numba.njit
def _room_for_places(s):
    """Return room for the place of each unit. The rest of the last vector goes nowhere."""
    return np.full(s.shape[1] + VECTOR_BYTES // s.itemsize, -1, np.int64)


@numba.njit
def _pack_block(s, block, size, units, places, packed):
    """Pack the rows of a block."""
    if packed.shape[1] == 1:
        _pack_one(s[block], units, packed)
    else:
        _pack_several(s, block, size, units, places, packed)


@numba.njit
def _pack_share(part, n_parts, s, size, active, packed):
    places = _room_for_places(s)
    for block in range(*share(part, n_parts, active.shape[0], 1)):
        _find_in_use(s, block, size, active[block])
        _pack_block(s, block, size, active[block], places, packed[block])


@numba.njit(parallel=True)
def _pack_in_parallel(n_parts, s, size, active, packed):
    for part in numba.prange(n_parts):
        _pack_share(part, n_parts, s, size, active, packed)


@numba.njit
def pack_in_use(s, size, width):
    """Leave out of s (m_b, n_units) the units that are zero for a whole block.

    Returns packed (n_blocks, n_units, width), not filled beyond the units in use, and active
    (n_blocks, n_units), which names them.
    """
    n_blocks = count_blocks(s.shape[0], size)
    active = np.empty((n_blocks, s.shape[1]), np.bool_)
    packed = np.empty((n_blocks, s.shape[1], width), s.dtype)
    n_parts = parts_for(COPY * s.size, n_blocks)
    if n_parts == 1:
        _pack_share(0, 1, s, size, active, packed)
    else:
        _pack_in_parallel(n_parts, s, size, active, packed)
    return packed, active


@numba.njit
def unpack(packed, active, n_rows, size, width):
    """Put back the zeros: (n_rows, n_units)."""
    n_blocks = count_blocks(n_rows, size)
    check_mask(active, n_blocks, active.shape[1])
    check_packed(packed, n_blocks, capacity_of(active), width)
    s = np.zeros((n_rows, active.shape[1]), packed.dtype)
    for block in range(active.shape[0]):
        start = block * size
        numbers = numbers_in_use(active[block])
        for i in range(min(size, n_rows - start)):
            for t in range(numbers.size):
                s[start + i, numbers[t]] = packed[block, t, i]
    return s
