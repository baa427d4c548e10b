"""Bytes of bits from flags, and lists of what is set or not zero, without loops and branches."""

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.extending import intrinsic

from reinforce_dropout.native.llvm.vectors import INT, INT32, Vectors

__all__ = ["BITS", "PLACES", "flag_bits", "put_compressed", "put_places", "put_range"]

#: Bits in a byte.
BITS = 8
#: Row B begins with the places of the bits that are set in B, from the lowest.
PLACES = np.zeros((2**BITS, BITS), np.uint8)
for _byte in range(2**BITS):
    _places = np.flatnonzero(_byte >> np.arange(BITS) & 1)
    PLACES[_byte, : _places.size] = _places


@intrinsic
def flag_bits(typingctx, at):
    """Return an integer whose bit j says that flag j of the eight at an address is set."""

    def codegen(context, builder, signature, args):
        flags = ir.VectorType(ir.IntType(8), BITS)
        found = builder.load(builder.inttoptr(args[0], flags.as_pointer()), align=1)
        bits = builder.icmp_unsigned("!=", found, ir.Constant(flags, [0] * BITS))
        return builder.zext(builder.bitcast(bits, ir.IntType(BITS)), INT)

    return types.int64(types.int64), codegen


@intrinsic
def put_places(typingctx, table, byte, first, out, zero):
    """Write ``first`` plus each place of a bit that is set in `byte`.

    Always eight numbers are written. Those after the last place say nothing.

    Parameters
    ----------
    table : int
        Address of `PLACES`.
    byte, first : int
    out : int
        Address of eight numbers.
    zero : uint16 or int64
        Tells their dtype.
    """

    def codegen(context, builder, signature, args):
        table, byte, first, out, _ = args
        small = ir.VectorType(ir.IntType(8), BITS)
        row = builder.add(table, builder.mul(byte, INT(BITS)))
        places = builder.load(builder.inttoptr(row, small.as_pointer()), align=1)
        _put(builder, _from(builder, first, places, signature.args[-1]), out)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, zero), codegen


@intrinsic
def put_range(typingctx, first, out, zero):
    """Write the eight numbers from `first` on to the address `out`; `zero` tells their dtype."""

    def codegen(context, builder, signature, args):
        first, out, _ = args
        places = ir.Constant(ir.VectorType(ir.IntType(8), BITS), list(range(BITS)))
        _put(builder, _from(builder, first, places, signature.args[-1]), out)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, zero), codegen


@intrinsic
def put_compressed(typingctx, at, count, first, values, numbers, zero, number):
    """List what is not zero in the vector at an address; return how many. Needs AVX-512.

    Always a whole vector of values and as many numbers are written. Those after the last entry that
    is not zero say nothing.

    Parameters
    ----------
    at, count : int
        Elements from `count` on are taken as zero.
    first : int
        Number of the first element.
    values, numbers : int
        Addresses of the results.
    zero, number : scalar
        Tell the dtypes of values and numbers.
    """

    def codegen(context, builder, signature, args):
        at, count, first, values, numbers, _, _ = args
        v = Vectors(builder, signature.args[-2])
        vector, lanes = v.load(at, v.first_lanes(count)), range(v.lanes)
        flags = v.not_zero(vector)
        v.store(v.compress(vector, flags), values)
        places = ir.Constant(ir.VectorType(ir.IntType(8 * v.itemsize), v.lanes), list(lanes))
        places = v.compress(places, flags)
        _put(builder, _from(builder, first, places, signature.args[-1]), numbers)
        bits = builder.zext(builder.bitcast(flags, ir.IntType(v.lanes)), INT)
        return builder.ctpop(bits)

    return types.int64(*[types.int64] * 5, zero, number), codegen


def _from(builder, first, places, dtype):
    """Return the vector ``first + places`` of integers of another dtype."""
    kind, n = ir.IntType(dtype.bitwidth), places.type.count
    wide = ir.VectorType(kind, n)
    if places.type.element.width != kind.width:
        narrower = places.type.element.width > kind.width
        places = (builder.trunc if narrower else builder.zext)(places, wide)
    first = builder.trunc(first, kind) if kind.width < INT.width else first
    undefined = ir.Constant(wide, ir.Undefined)
    lane = builder.insert_element(undefined, first, INT32(0))
    zeros = ir.Constant(ir.VectorType(INT32, n), [0] * n)
    return builder.add(places, builder.shuffle_vector(lane, undefined, zeros))


def _put(builder, numbers, out):
    """Write a vector of integers to an address, which need not be aligned."""
    pointer = builder.inttoptr(out, numbers.type.as_pointer())
    builder.store(numbers, pointer, align=numbers.type.element.width // 8)
