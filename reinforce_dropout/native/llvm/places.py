"""Bytes of bits from flags, and lists of the bits that are set, without loops and branches."""

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.extending import intrinsic

from reinforce_dropout.native.llvm.vectors import INT, INT32

__all__ = ["BITS", "PLACES", "flag_bits", "put_places"]

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
    zero : int32 or int64
        Tells their dtype.
    """

    def codegen(context, builder, signature, args):
        table, byte, first, out, _ = args
        kind = ir.IntType(signature.args[-1].bitwidth)
        small, wide = ir.VectorType(ir.IntType(8), BITS), ir.VectorType(kind, BITS)
        row = builder.add(table, builder.mul(byte, INT(BITS)))
        places = builder.load(builder.inttoptr(row, small.as_pointer()), align=1)
        undefined = ir.Constant(wide, ir.Undefined)
        first = builder.trunc(first, kind) if kind.width < INT.width else first
        lane = builder.insert_element(undefined, first, INT32(0))
        zeros = ir.Constant(ir.VectorType(INT32, BITS), [0] * BITS)
        all_lanes = builder.shuffle_vector(lane, undefined, zeros)
        units = builder.add(builder.zext(places, wide), all_lanes)
        builder.store(units, builder.inttoptr(out, wide.as_pointer()), align=kind.width // 8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, zero), codegen
