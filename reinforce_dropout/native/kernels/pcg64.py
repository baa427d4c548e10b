"""NumPy's generator PCG64 in compiled code: its numbers, bit for bit, drawn by several threads.

The generator is ``s <- a s + c`` with numbers of 128 bits. :func:`_mixed` makes 64 bits of a state.
(M. E. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
Random Number Generation", 2014, calls the mixing XSL-RR.) Each thread first jumps over the numbers
of the threads before it.
"""

import ctypes

import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.native.kernels.sharing import share, threads_for
from reinforce_dropout.native.llvm import wide
from reinforce_dropout.native.llvm.vectors import (
    HAS_AVX512,
    INT,
    Vectors,
    address,
    counted_loop,
)

__all__ = ["fill_with_uniforms", "own_words"]

_STATE = ir.IntType(128)
_A = _STATE(0x2360ED051FC65DA44385DF649FCCF645)

#: A draw takes as long as this many multiplications; see `sharing.threads_for`.
_DRAW = 25

#: Draws side by side, because a multiplication waits for the one before it.
_CHAINS = 2 * wide.LANES if HAS_AVX512 else 4


def own_words(generator):
    """Return the memory, uint64 (4,), in which a generator keeps its state.

    It holds the words of s, then of c, each with the low word first. A change there changes the
    state. It lives as long as the generator. None if the generator is no PCG64, or if NumPy was
    compiled to keep the state in another order.
    """
    bits = getattr(generator, "bit_generator", None)
    if type(bits) is not np.random.PCG64:
        return None
    # The first member of NumPy's struct points to the two numbers.
    place = ctypes.c_void_p.from_address(bits.ctypes.state_address).value
    words = np.frombuffer((ctypes.c_uint64 * 4).from_address(place), "uint64")
    state = bits.state["state"]
    expected = [word for n in (state["state"], state["inc"]) for word in (n % 2**64, n >> 64)]
    return words if words.tolist() == expected else None


@numba.njit(parallel=True)
def fill_with_uniforms(numbers, words):
    """Fill `numbers`, C-ordered, with draws uniform from 0 to 1; `words` (see `own_words`) advance.

    Each draw has 53 bits, which float32 rounds.
    """
    n_parts = threads_for(_DRAW * numbers.size)
    for part in numba.prange(n_parts):
        _draw_share(part, n_parts, numbers, words)
    _jump(address(words), numbers.size)


@numba.njit
def _draw_share(part, n_parts, numbers, words):
    first, last = share(part, n_parts, numbers.size, LINE_BYTES // numbers.itemsize)
    _draw(address(words), address(numbers), first, last, numbers.dtype.type(0))


@intrinsic
def _draw(typingctx, words, numbers, first, last, zero):
    """Draw the numbers `first` to `last` (excluded) after the state; `zero` has their dtype.

    `words` and `numbers` are the addresses of the state, which does not change, and of number 0.
    """

    def codegen(context, builder, signature, args):
        words, numbers, first, last, _ = args
        v = Vectors(builder, signature.args[-1])
        s, c = (_load(builder, words, i) for i in range(2))
        chains = (_vector_chains if HAS_AVX512 else _scalar_chains)(v, numbers, s, c, first)
        n_steps = builder.sdiv(builder.sub(last, first), INT(_CHAINS))
        counted_loop(builder, INT(0), n_steps, *chains)
        done = builder.add(first, builder.mul(n_steps, INT(_CHAINS)))

        def draw_one(position, state):
            (s,) = state
            at = v.element(numbers, v.scalar, position)
            builder.store(_uniform(v, *_halves(builder, s)), at)
            return [_next(builder, s, c)]

        state = _next(builder, _after(builder, s, c, done), c)
        counted_loop(builder, done, last, [state], draw_one)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, zero), codegen


def _next(builder, s, c):
    return builder.add(builder.mul(_A, s), c)


def _leap(builder, s, c, first):
    """Return the first `_CHAINS` states from number `first` on, and what `_CHAINS` draws add."""
    states, added = [_next(builder, _after(builder, s, c, first), c)], c
    for _ in range(_CHAINS - 1):
        states.append(_next(builder, states[-1], c))
        added = _next(builder, added, c)
    return states, added


_LEAP = pow(_A.constant, _CHAINS, 2**128)


def _scalar_chains(v, numbers, s, c, first):
    """Return the states of the chains, and ``draw(step, states) -> states``."""
    builder = v.builder
    states, added = _leap(builder, s, c, first)

    def draw(step, states):
        position = builder.add(first, builder.mul(step, INT(_CHAINS)))
        for j, s in enumerate(states):
            at = v.element(numbers, v.scalar, builder.add(position, INT(j)))
            builder.store(_uniform(v, *_halves(builder, s)), at)
        return [builder.add(builder.mul(_STATE(_LEAP), s), added) for s in states]

    return states, draw


def _vector_chains(v, numbers, s, c, first):
    """Return the same as `_scalar_chains`; each vector of states is its high and its low words."""
    builder = v.builder
    states, added = _leap(builder, s, c, first)
    parts = range(0, _CHAINS, wide.LANES)
    vectors = [wide.from_numbers(builder, states[j : j + wide.LANES]) for j in parts]
    added = wide.splat(builder, added)

    def draw(step, words):
        position, after = builder.add(first, builder.mul(step, INT(_CHAINS))), []
        for j, high, low in zip(parts, words[::2], words[1::2], strict=True):
            uniform = _uniform(v, high, low)
            at = v.element(numbers, v.scalar, builder.add(position, INT(j)))
            at = builder.bitcast(at, uniform.type.as_pointer())
            builder.store(uniform, at, align=v.itemsize)
            after += wide.add(builder, wide.multiply(builder, (high, low), _LEAP), added)
        return after

    return [word for vector in vectors for word in vector], draw


@intrinsic
def _jump(typingctx, words, n):
    """Advance the state at the address `words` by n draws."""

    def codegen(context, builder, signature, args):
        words, n = args
        s, c = (_load(builder, words, i) for i in range(2))
        high, low = _halves(builder, _after(builder, s, c, n))
        for i, word in enumerate((low, high)):
            builder.store(word, _word(builder, words, i))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _word(builder, words, i):
    return builder.gep(builder.inttoptr(words, INT.as_pointer()), [INT(i)])


def _load(builder, words, i):
    """Load number i of 128 bits: two words, the low one first."""
    low, high = (
        builder.zext(builder.load(_word(builder, words, 2 * i + j)), _STATE) for j in range(2)
    )
    return builder.or_(builder.shl(high, _STATE(64)), low)


def _halves(builder, s):
    return builder.trunc(builder.lshr(s, _STATE(64)), INT), builder.trunc(s, INT)


def _after(builder, s, c, n):
    """Return the state n draws after s, by squaring.

    ``s <- a s + c`` twice is ``s <- a^2 s + (a + 1) c``, which has the same form (F. B. Brown,
    "Random Number Generation with Arbitrary Strides", 1994).
    """

    def body(bit, state):
        a, c, s = state
        is_set = builder.trunc(builder.lshr(n, bit), ir.IntType(1))
        s = builder.select(is_set, builder.add(builder.mul(a, s), c), s)
        return [builder.mul(a, a), builder.add(builder.mul(a, c), c), s]

    n_bits = builder.sub(INT(64), builder.ctlz(n, ir.Constant(ir.IntType(1), 0)))
    return counted_loop(builder, INT(0), n_bits, [_A, c, s], body)[-1]


def _like(value, number):
    """Return a constant of the type of an LLVM value, in every lane if that is a vector."""
    lanes = [number] * value.type.count if isinstance(value.type, ir.VectorType) else number
    return ir.Constant(value.type, lanes)


def _mixed(builder, high, low):
    """Return 64 bits: the halves of a state combined by xor, rotated by its first 6 bits."""
    bits, turn = builder.xor(high, low), builder.lshr(high, _like(high, 58))
    back = builder.and_(builder.sub(_like(turn, 0), turn), _like(turn, 63))
    return builder.or_(builder.lshr(bits, turn), builder.shl(bits, back))


def _uniform(v, high, low):
    """Return the first 53 bits of a mixed state as a fraction, or those of a vector of states."""
    bits = v.builder.lshr(_mixed(v.builder, high, low), _like(high, 11))
    double, kind = ir.DoubleType(), v.scalar
    if isinstance(bits.type, ir.VectorType):
        double, kind = (ir.VectorType(one, bits.type.count) for one in (double, kind))
    number = v.builder.sitofp(bits, double)
    number = v.builder.fmul(number, _like(number, 2.0**-53))
    return number if kind == double else v.builder.fptrunc(number, kind)
