"""Numba kernels for the Ops of `reinforce_dropout.packed`.

Threads share the blocks.  Every number is summed in the same order whatever their number.
"""

import numba
import numpy as np
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout import packed as ops
from reinforce_dropout.native.block_simd import (
    TILE_UNITS,
    TILE_VECTORS,
    dots_of_used,
    transpose_tile,
    unit_tile,
)
from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.sharing import threads_for
from reinforce_dropout.native.simd import DOT_ROWS
from reinforce_dropout.native.vectors import VECTOR_BYTES, address

__all__ = [
    "COPY",
    "capacity_of",
    "check_mask",
    "check_packed",
    "count_blocks",
    "numbers_in_use",
    "pack",
    "pack_in_use",
    "packed_product",
    "parts_for",
    "unpack",
]

_wide_tile, _narrow_tile = unit_tile(TILE_VECTORS), unit_tile(1)

#: Blocks computed together, at most: their lists stay in the second-level cache.
_BLOCKS = 64
#: Units of a block computed before the same number of the next block: some tiles.
_GROUP = 4 * TILE_UNITS
#: The same for blocks of one instance, which must list the units below anew for every group.
_GROUP_OF_ONE = 16 * TILE_UNITS
#: Numbers copied that take as long as so many multiplications; see `sharing.threads_for`.
COPY = 4

check_mask, capacity_of = numba.njit(ops.check), numba.njit(ops.count_most)
check_packed, _check_biases = numba.njit(ops.check_packed), numba.njit(ops.check_biases)


@numba.njit
def _list_in_use(units, numbers):
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
    return numbers[: _list_in_use(units, numbers)]


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
    """Pack a block of one instance; return how many units are in use."""
    numbers = numbers_in_use(units)
    for t in range(numbers.size):
        packed[t, 0] = row[numbers[t]]
    return numbers.size


@numba.njit
def _pack_block(s, block, size, units, places, packed):
    """Pack a block of several instances; return how many units are in use.

    `places` is room for a number for each unit, up to a whole vector, and more than there are
    units it holds what is negative.
    """
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
    return n


@numba.njit
def _pack_share(part, n_parts, s, size, find, active, packed):
    n = active.shape[0]
    places = np.full(s.shape[1] + VECTOR_BYTES // s.itemsize, -1, np.int64)
    for block in range(part * n // n_parts, (part + 1) * n // n_parts):
        units, own = active[block], packed[block]
        if find:
            _find_in_use(s, block, size, units)
        if packed.shape[2] == 1:
            n_packed = _pack_one(s[block], units, own)
        else:
            n_packed = _pack_block(s, block, size, units, places, own)
        if not find:
            own[n_packed:] = 0


@numba.njit(parallel=True)
def _pack_in_parallel(n_parts, s, size, find, active, packed):
    for part in numba.prange(n_parts):
        _pack_share(part, n_parts, s, size, find, active, packed)


@numba.njit
def _pack_all(s, size, find, active, packed):
    n_parts = parts_for(COPY * s.size, active.shape[0])
    if n_parts == 1:
        _pack_share(0, 1, s, size, find, active, packed)
    else:
        _pack_in_parallel(n_parts, s, size, find, active, packed)


@numba.njit
def pack(s, active, size, width):
    """Leave out of s (m_b, n_units) the units not in use: (n_blocks, capacity, width)."""
    n_blocks = count_blocks(s.shape[0], size)
    check_mask(active, n_blocks, s.shape[1])
    packed = np.empty((n_blocks, capacity_of(active), width), s.dtype)
    _pack_all(s, size, False, active, packed)
    return packed


@numba.njit
def pack_in_use(s, size, width):
    """Leave out of s (m_b, n_units) the units that are zero for all of a block, in one pass.

    Of the results, packed (n_blocks, n_units, width) is not filled beyond the units in use, which
    active (n_blocks, n_units) names.
    """
    n_blocks = count_blocks(s.shape[0], size)
    active = np.empty((n_blocks, s.shape[1]), np.bool_)
    packed = np.empty((n_blocks, s.shape[1], width), s.dtype)
    _pack_all(s, size, True, active, packed)
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


@numba.njit
def _product_units(s, inputs, Wt, b, units, out):
    """Compute units of one block, from s (capacity below, width) the rows of `out`."""
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
    """Compute the units of one instance, by vectors of Wt: of few columns that costs no gathering.

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
    """Return the numbers of the units in use by each block, as a row, and how many they are."""
    numbers, counts = np.empty(active.shape, np.int64), np.empty(len(active), np.int64)
    for block in range(len(active)):
        counts[block] = _list_in_use(active[block], numbers[block])
    return numbers, counts


@numba.njit
def _product_blocks(packed, below, Wt, b, above, out):
    """Compute all blocks, a group of units of each before the next group.

    So the weights of a group are fetched once for all blocks that use them, not once for each.
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
    n = out.shape[0]
    first, last = part * n // n_parts, (part + 1) * n // n_parts
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


@register_funcify_default_op_cache_key(ops.PackInUse)
def _numba_pack_in_use(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_pack_in_use(s):
        return pack_in_use(np.ascontiguousarray(s), size, width)

    return native_pack_in_use, VERSION


@register_funcify_default_op_cache_key(ops.Pack)
def _numba_pack(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_pack(s, active):
        return pack(np.ascontiguousarray(s), np.ascontiguousarray(active), size, width)

    return native_pack, VERSION


@register_funcify_default_op_cache_key(ops.Unpack)
def _numba_unpack(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_unpack(packed, active, n_rows):
        return unpack(packed, active, n_rows.item(), size, width)

    return native_unpack, VERSION


@register_funcify_default_op_cache_key(ops.PackedProduct)
def _numba_packed_product(op, node, **kwargs):
    width = ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_packed_product(packed, below, Wt, b, above):
        return packed_product(
            np.ascontiguousarray(packed),
            np.ascontiguousarray(below),
            np.ascontiguousarray(Wt),
            np.ascontiguousarray(b),
            np.ascontiguousarray(above),
            width,
        )

    return native_packed_product, VERSION
