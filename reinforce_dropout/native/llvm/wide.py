"""Vectors of numbers of 128 bits, each as two vectors of 64 bits: the high words and the low ones.

LLVM has no vector instructions for numbers of 128 bits. The products below are those of school,
with digits of 32 bits. Only AVX-512 has what makes them faster than the scalar ones.
"""

import llvmlite.ir as ir

from reinforce_dropout.native.llvm.vectors import INT, INT32

__all__ = ["LANES", "add", "from_numbers", "multiply", "splat"]

#: Numbers in a vector.
LANES = 8

_WORDS = ir.VectorType(INT, LANES)
_HALF = 32


def _all(value):
    return ir.Constant(_WORDS, [value % 2**64] * LANES)


def splat(builder, number):
    """Return a vector with an ``i128`` in every lane."""
    return from_numbers(builder, [number] * LANES)


def from_numbers(builder, numbers):
    """Return the vector of some ``i128``, one for each lane."""
    words = []
    for shift in (64, 0):
        vector = ir.Constant(_WORDS, ir.Undefined)
        for lane, number in enumerate(numbers):
            shifted = builder.lshr(number, number.type(shift))
            vector = builder.insert_element(vector, builder.trunc(shifted, INT), INT32(lane))
        words.append(vector)
    return tuple(words)


def add(builder, a, b):
    """Return a + b, modulo 2^128."""
    (a_high, a_low), (b_high, b_low) = a, b
    low = builder.add(a_low, b_low)
    carry = builder.zext(builder.icmp_unsigned("<", low, a_low), _WORDS)
    return builder.add(builder.add(a_high, b_high), carry), low


def multiply(builder, a, factor):
    """Return ``a * factor``, modulo 2^128; `factor` is an int."""
    high, low = a
    factor_high, factor_low = factor >> 64, factor % 2**64
    carried, product = _full_product(builder, low, factor_low)
    for one, other in ((low, factor_high), (high, factor_low)):
        carried = builder.add(carried, builder.mul(one, _all(other)))
    return carried, product


def _full_product(builder, x, y):
    """Return the words of the products of words x and an int y, by digits of 32 bits."""
    mask, half = _all(2**_HALF - 1), _all(_HALF)
    x0, x1 = builder.and_(x, mask), builder.lshr(x, half)
    y0, y1 = _all(y % 2**_HALF), _all(y >> _HALF)
    low, cross, other = builder.mul(x0, y0), builder.mul(x0, y1), builder.mul(x1, y0)
    middle = builder.lshr(low, half)
    for part in (cross, other):
        middle = builder.add(middle, builder.and_(part, mask))
    high = builder.mul(x1, y1)
    for part in (cross, other, middle):
        high = builder.add(high, builder.lshr(part, half))
    return high, builder.or_(builder.shl(middle, half), builder.and_(low, mask))
