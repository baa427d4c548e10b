"""Numba kernel for `packed.PackedProduct`: the layers of block dropout.

Threads share the blocks. Every number is summed in the same order for any number of threads.
"""

import numba
import numpy as np

from reinforce_dropout.blocks import packed as ops
from reinforce_dropout.native.kernels.packed import (
    capacity_of,
    check_mask,
    check_packed,
    list_in_use,
    parts_for,
)
from reinforce_dropout.native.kernels.sharing import share
from reinforce_dropout.native.llvm.block_simd import (
    TILE_UNITS,
    TILE_VECTORS,
    dots_of_used,
    unit_tile,
)
from reinforce_dropout.native.llvm.simd import DOT_ROWS
from reinforce_dropout.native.llvm.vectors import VECTOR_BYTES, address

__all__ = ["packed_product"]

_wide_tile, _narrow_tile = unit_tile(TILE_VECTORS), unit_tile(1)

#: At most so many blocks are computed together, so their lists stay in the second-level cache.
_BLOCKS = 64
#: Units of a block that are computed before those of the next block: some tiles.
_GROUP = 4 * TILE_UNITS
#: The same for blocks of one instance, which list the units below again for every group.
_GROUP_OF_ONE = 16 * TILE_UNITS

_check_biases = numba.njit(ops.check_biases)


@numba.njit
def _product_units(s, inputs, Wt, b, units, out):
    """Compute units of one block, rows of `out`, from s (capacity below, width)."""
    if out.shape[1] == 1:
        _product_of_one(s, inputs, Wt, b, units, out)
    else:
        _product_tiles(s, inputs, Wt, b, units, out)


@numba.njit
def _product_tiles(s, inputs, Wt, b, units, out):
    lanes = VECTOR_BYTES // out.itemsize
    for t in range(0, units.size, TILE_UNITS):
        count = min(TILE_UNITS, units.size - t)
        to, rows = address(out) + t * out.strides[0], address(units) + t * units.itemsize
        i = 0
        while i < out.shape[1]:
            place = (
                to + i * out.itemsize, out.strides[0], address(Wt), Wt.strides[0], rows, count,
                address(b), address(inputs), address(s) + i * s.itemsize, s.strides[0], inputs.size,
                out.dtype.type(0),
            )  # fmt: skip
            if out.shape[1] - i >= TILE_VECTORS * lanes:
                _wide_tile(*place)
                i += TILE_VECTORS * lanes
            else:
                _narrow_tile(*place)
                i += lanes


@numba.njit
def _product_of_one(s, inputs, Wt, b, units, out):
    """Compute the units of one instance by vectors of Wt, which needs no gathering.

    Lanes of inputs that are not in use are neither read nor added.
    """
    lanes = VECTOR_BYTES // s.itemsize
    length = (Wt.shape[1] + lanes - 1) // lanes * lanes
    row, used = np.zeros(length, s.dtype), np.zeros(length, np.bool_)
    places, n_places = np.empty(length // lanes, np.int64), 0
    for k in range(inputs.size):
        row[inputs[k]], used[inputs[k]] = s[k, 0], True
        if n_places == 0 or places[n_places - 1] != inputs[k] // lanes:
            places[n_places] = inputs[k] // lanes
            n_places += 1
    _dots_of_used(Wt, b, units, row, used, places[:n_places], out)


@numba.njit
def _dots_of_used(Wt, b, units, row, used, places, out):
    for t in range(0, units.size, DOT_ROWS):
        dots_of_used(
            address(out) + t * out.strides[0],
            out.strides[0],
            address(Wt),
            Wt.strides[0],
            address(units) + t * units.itemsize,
            min(DOT_ROWS, units.size - t),
            address(b),
            address(row),
            address(used),
            address(places),
            places.size,
            row.dtype.type(0),
        )


@numba.njit
def _lists_in_use(active):
    """Return the indices of the units in use by each block, as rows, and their counts."""
    numbers, counts = np.empty(active.shape, np.int64), np.empty(len(active), np.int64)
    for block in range(len(active)):
        counts[block] = list_in_use(active[block], numbers[block])
    return numbers, counts


@numba.njit
def _product_blocks(packed, below, Wt, b, above, out):
    """Compute all blocks, a group of units of each before the next group.

    So the weights of a group are fetched once for all blocks, not once for each block.
    """
    inputs, n_inputs = _lists_in_use(below)
    units, n_units = _lists_in_use(above)
    group = _GROUP if out.shape[2] > 1 else _GROUP_OF_ONE
    for first in range(0, out.shape[1], group):
        for block in range(len(out)):
            n = min(group, n_units[block] - first)
            if n > 0:
                _product_units(
                    packed[block], inputs[block, : n_inputs[block]],
                    Wt, b, units[block, first : first + n], out[block, first:],
                )  # fmt: skip
    for block in range(len(out)):
        out[block, n_units[block] :] = 0


@numba.njit
def _product_share(part, n_parts, packed, below, Wt, b, above, out):
    first, last = share(part, n_parts, out.shape[0], 1)
    for block in range(first, last, _BLOCKS):
        own = slice(block, min(last, block + _BLOCKS))
        _product_blocks(packed[own], below[own], Wt, b, above[own], out[own])


@numba.njit(parallel=True)
def _product_in_parallel(n_parts, packed, below, Wt, b, above, out):
    for part in numba.prange(n_parts):
        _product_share(part, n_parts, packed, below, Wt, b, above, out)


@numba.njit
def packed_product(packed, below, Wt, b, above, width):
    """``b + s W`` for the units in use above, from the units in use below."""
    n_blocks, capacity, _ = packed.shape
    check_mask(below, n_blocks, Wt.shape[1])
    check_mask(above, n_blocks, Wt.shape[0])
    check_packed(packed, n_blocks, capacity_of(below), width)
    _check_biases(b, Wt.shape[0])
    out = np.empty((n_blocks, capacity_of(above), width), packed.dtype)
    n_parts = parts_for(n_blocks * capacity * width * out.shape[1], n_blocks)
    if n_parts == 1:
        _product_share(0, 1, packed, below, Wt, b, above, out)
    else:
        _product_in_parallel(n_parts, packed, below, Wt, b, above, out)
    return out
