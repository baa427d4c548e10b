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

__all__ = ["in_use", "pack", "packed_mean", "packed_product", "unpack"]

_wide_tile, _narrow_tile = unit_tile(TILE_VECTORS), unit_tile(1)

#: Numbers copied that take as long as so many multiplications; see `sharing.threads_for`.
_COPY = 4

_check, _capacity = numba.njit(ops.check), numba.njit(ops.count_most)
_check_packed, _check_biases = numba.njit(ops.check_packed), numba.njit(ops.check_biases)


@numba.njit
def _numbers(units):
    """Return the numbers of the units in use, int64, then others; and how many they are."""
    numbers = np.empty(units.size, np.int64)
    n = 0
    for k in range(units.size):
        numbers[n] = k
        n += units[k]
    return numbers, n


@numba.njit
def _parts_for(work, n_blocks):
    """Return in how many parts threads share the blocks, see `sharing.threads_for`."""
    return min(threads_for(work), max(1, n_blocks))


@numba.njit
def _n_blocks(n_rows, size):
    return (n_rows + size - 1) // size


@numba.njit
def _in_use_blocks(first, last, s, size, active):
    for block in range(first, last):
        units = active[block]
        for i in range(block * size, min(s.shape[0], (block + 1) * size)):
            row = s[i]
            for k in range(row.size):
                units[k] |= row[k] != 0


@numba.njit(parallel=True)
def _in_use_in_parallel(n_parts, s, size, active):
    n = active.shape[0]
    for part in numba.prange(n_parts):
        _in_use_blocks(part * n // n_parts, (part + 1) * n // n_parts, s, size, active)


@numba.njit
def in_use(s, size):
    """Which units of s (m_b, n_units) are not zero for all instances of a block."""
    active = np.zeros((_n_blocks(s.shape[0], size), s.shape[1]), np.bool_)
    n_parts = _parts_for(s.size, active.shape[0])
    if n_parts == 1:
        _in_use_blocks(0, active.shape[0], s, size, active)
    else:
        _in_use_in_parallel(n_parts, s, size, active)
    return active


@numba.njit
def _pack_blocks(first, last, s, size, active, packed):
    itemsize, n_units = s.itemsize, s.shape[1]
    lanes = VECTOR_BYTES // itemsize
    places = np.full(n_units + lanes, -1, np.int64)
    for block in range(first, last):
        t = 0
        for k in range(n_units):
            places[k] = t * packed.strides[1] if active[block, k] else -1
            t += active[block, k]
        packed[block, t:] = 0
        start = block * size
        n_rows = min(size, s.shape[0] - start)
        for i in range(0, packed.shape[2], lanes):
            for k in range(0, n_units, lanes):
                if np.any(active[block, k : k + lanes]):
                    transpose_tile(
                        address(packed) + block * packed.strides[0] + i * itemsize,
                        address(places) + k * places.itemsize,
                        address(s) + (start + i) * s.strides[0] + k * itemsize,
                        s.strides[0],
                        n_rows - i,
                        n_units - k,
                        s.dtype.type(0),
                    )


@numba.njit(parallel=True)
def _pack_in_parallel(n_parts, s, size, active, packed):
    n = active.shape[0]
    for part in numba.prange(n_parts):
        _pack_blocks(part * n // n_parts, (part + 1) * n // n_parts, s, size, active, packed)


@numba.njit
def pack(s, active, size, width):
    """Leave out of s (m_b, n_units) the units not in use: (n_blocks, capacity, width)."""
    n_blocks = _n_blocks(s.shape[0], size)
    _check(active, n_blocks, s.shape[1])
    packed = np.empty((n_blocks, _capacity(active), width), s.dtype)
    if width == 1:
        for block in range(n_blocks):
            numbers, n = _numbers(active[block])
            for t in range(n):
                packed[block, t, 0] = s[block, numbers[t]]
            packed[block, n:] = 0
        return packed
    n_parts = _parts_for(_COPY * s.size, n_blocks)
    if n_parts == 1:
        _pack_blocks(0, n_blocks, s, size, active, packed)
    else:
        _pack_in_parallel(n_parts, s, size, active, packed)
    return packed


@numba.njit
def unpack(packed, active, n_rows, size, width):
    """Put back the zeros: (n_rows, n_units)."""
    n_blocks = _n_blocks(n_rows, size)
    _check(active, n_blocks, active.shape[1])
    _check_packed(packed, n_blocks, _capacity(active), width)
    s = np.zeros((n_rows, active.shape[1]), packed.dtype)
    for block in range(active.shape[0]):
        start = block * size
        numbers, n = _numbers(active[block])
        for i in range(min(size, n_rows - start)):
            for t in range(n):
                s[start + i, numbers[t]] = packed[block, t, i]
    return s


@numba.njit(fastmath={"reassoc"})
def _sum(row):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i]
    return total


@numba.njit
def _mean_blocks(first, last, packed, active, n_rows, size, means):
    for block in range(first, last):
        numbers, n = _numbers(active[block])
        count = min(size, n_rows - block * size)
        for t in range(n):
            means[block, numbers[t]] = _sum(packed[block, t, :count]) / packed.dtype.type(count)


@numba.njit(parallel=True)
def _mean_in_parallel(n_parts, packed, active, n_rows, size, means):
    n = active.shape[0]
    for part in numba.prange(n_parts):
        first, last = part * n // n_parts, (part + 1) * n // n_parts
        _mean_blocks(first, last, packed, active, n_rows, size, means)


@numba.njit
def packed_mean(packed, active, n_rows, size, width):
    """Mean of every unit over each block's instances: (n_blocks, n_units)."""
    n_blocks = _n_blocks(n_rows, size)
    _check(active, n_blocks, active.shape[1])
    _check_packed(packed, n_blocks, _capacity(active), width)
    means = np.zeros(active.shape, packed.dtype)
    n_parts = _parts_for(_COPY * packed.size, active.shape[0])
    if n_parts == 1:
        _mean_blocks(0, active.shape[0], packed, active, n_rows, size, means)
    else:
        _mean_in_parallel(n_parts, packed, active, n_rows, size, means)
    return means


@numba.njit
def _product_tiles(s, inputs, n_inputs, Wt, b, units, n_units, out):
    """Compute the units of one block: s (capacity below, width), out (capacity above, width)."""
    lanes = VECTOR_BYTES // out.itemsize
    for t in range(0, n_units, TILE_UNITS):
        count = min(TILE_UNITS, n_units - t)
        to, rows = address(out) + t * out.strides[0], address(units) + t * units.itemsize
        i = 0
        while i < out.shape[1]:
            place = (
                to + i * out.itemsize, out.strides[0], address(Wt), Wt.strides[0], rows, count,
                address(b), address(inputs), address(s) + i * s.itemsize, s.strides[0], n_inputs,
                out.dtype.type(0),
            )  # fmt: skip
            if out.shape[1] - i >= TILE_VECTORS * lanes:
                _wide_tile(*place)
                i += TILE_VECTORS * lanes
            else:
                _narrow_tile(*place)
                i += lanes


@numba.njit
def _product_of_one(s, inputs, n_inputs, Wt, b, units, n_units, out):
    """Compute the units of one instance, by vectors of Wt: of few columns that costs no gathering.

    Lanes of inputs that are not in use are neither read nor added.
    """
    lanes = VECTOR_BYTES // s.itemsize
    length = (Wt.shape[1] + lanes - 1) // lanes * lanes
    row, used = np.zeros(length, s.dtype), np.zeros(length, np.bool_)
    places, n_places = np.empty(length // lanes, np.int64), 0
    for k in range(n_inputs):
        row[inputs[k]], used[inputs[k]] = s[k, 0], True
        if n_places == 0 or places[n_places - 1] != inputs[k] // lanes:
            places[n_places] = inputs[k] // lanes
            n_places += 1
    _dots_of_used(Wt, b, units, n_units, row, used, places, n_places, out)


@numba.njit
def _dots_of_used(Wt, b, units, n_units, row, used, places, n_places, out):
    for t in range(0, n_units, DOT_ROWS):
        dots_of_used(
            address(out) + t * out.strides[0],
            out.strides[0],
            address(Wt),
            Wt.strides[0],
            address(units) + t * units.itemsize,
            min(DOT_ROWS, n_units - t),
            address(b),
            address(row),
            address(used),
            address(places),
            n_places,
            row.dtype.type(0),
        )


@numba.njit
def _product_blocks(first, last, packed, below, Wt, b, above, out):
    for block in range(first, last):
        inputs, n_inputs = _numbers(below[block])
        units, n_units = _numbers(above[block])
        s, result = packed[block], out[block]
        if out.shape[2] == 1:
            _product_of_one(s, inputs, n_inputs, Wt, b, units, n_units, result)
        else:
            _product_tiles(s, inputs, n_inputs, Wt, b, units, n_units, result)
        result[n_units:] = 0


@numba.njit(parallel=True)
def _product_in_parallel(n_parts, packed, below, Wt, b, above, out):
    n = out.shape[0]
    for part in numba.prange(n_parts):
        first, last = part * n // n_parts, (part + 1) * n // n_parts
        _product_blocks(first, last, packed, below, Wt, b, above, out)


@numba.njit
def packed_product(packed, below, Wt, b, above, width):
    """``b + s W`` for the units in use above, from the units in use below."""
    n_blocks, capacity, _ = packed.shape
    _check(below, n_blocks, Wt.shape[1])
    _check(above, n_blocks, Wt.shape[0])
    _check_packed(packed, n_blocks, _capacity(below), width)
    _check_biases(b, Wt.shape[0])
    out = np.empty((n_blocks, _capacity(above), width), packed.dtype)
    n_parts = _parts_for(n_blocks * capacity * width * out.shape[1], n_blocks)
    if n_parts == 1:
        _product_blocks(0, n_blocks, packed, below, Wt, b, above, out)
    else:
        _product_in_parallel(n_parts, packed, below, Wt, b, above, out)
    return out


@register_funcify_default_op_cache_key(ops.InUse)
def _numba_in_use(op, node, **kwargs):
    size = op.instances_per_block

    @numba_njit
    def native_in_use(s):
        return in_use(np.ascontiguousarray(s), size)

    return native_in_use, VERSION


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


@register_funcify_default_op_cache_key(ops.PackedMean)
def _numba_packed_mean(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_packed_mean(packed, active, n_rows):
        return packed_mean(packed, active, n_rows.item(), size, width)

    return native_packed_mean, VERSION


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
