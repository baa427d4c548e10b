"""Numba kernels that pack activations and unpack them, see `reinforce_dropout.packed`.

Threads share the blocks.  Every number is summed in the same order whatever their number.
"""

import numba
import numpy as np
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout import packed as ops
from reinforce_dropout.native.block_simd import transpose_tile
from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.sharing import share, threads_for
from reinforce_dropout.native.vectors import VECTOR_BYTES, address

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

#: Numbers copied that take as long as so many multiplications; see `sharing.threads_for`.
COPY = 4

check_mask, capacity_of = numba.njit(ops.check), numba.njit(ops.count_most)
check_packed = numba.njit(ops.check_packed)


@numba.njit
def list_in_use(units, numbers):
    """Write the numbers of the units in use, then others; return how many they are."""
    n = 0
    for k in range(units.size):
        numbers[n] = k
        n += units[k]
    return n


@numba.njit
def numbers_in_use(units):
    """Return the numbers of the units in use, int64."""
    numbers = np.empty(units.size, np.int64)
    return numbers[: list_in_use(units, numbers)]


@numba.njit
def parts_for(work, n_blocks):
    """Return in how many parts threads share the blocks, see `sharing.threads_for`."""
    return min(threads_for(work), max(1, n_blocks))


@numba.njit
def count_blocks(n_rows, size):
    """Return in how many blocks of `size` the rows are cut."""
    return (n_rows + size - 1) // size


@numba.njit
def _find_in_use(s, block, size, units):
    """Set those `units` that are not zero for all instances of a block."""
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
    """Return room for where each unit goes; what is beyond the units, in a vector, goes nowhere."""
    return np.full(s.shape[1] + VECTOR_BYTES // s.itemsize, -1, np.int64)


@numba.njit
def _pack_block(s, block, size, units, places, packed):
    """Pack the rows of s that are a block."""
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
    """Leave out of s (m_b, n_units) the units that are zero for all of a block, in one pass.

    Of the results, packed (n_blocks, n_units, width) is not filled beyond the units in use, which
    active (n_blocks, n_units) names.
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


@register_funcify_default_op_cache_key(ops.PackInUse)
def _numba_pack_in_use(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_pack_in_use(s):
        return pack_in_use(np.ascontiguousarray(s), size, width)

    return native_pack_in_use, VERSION


@register_funcify_default_op_cache_key(ops.Unpack)
def _numba_unpack(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_unpack(packed, active, n_rows):
        return unpack(packed, active, n_rows.item(), size, width)

    return native_unpack, VERSION
