"""Vector instructions for blocks of instances: see `simd` for those of mini-batches."""

import itertools

import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from reinforce_dropout.native.llvm.simd import DOT_ROWS
from reinforce_dropout.native.llvm.vectors import (
    HAS_AVX512,
    INT,
    INT32,
    VECTOR_BYTES,
    Vectors,
    cases,
    counted_loop,
)

__all__ = ["TILE_UNITS", "TILE_VECTORS", "dots_of_used", "transpose_tile", "unit_tile"]

#: Units and vectors of instances whose sums fit the register file together.
TILE_UNITS, TILE_VECTORS = (12, 2) if HAS_AVX512 else (5, 2)


def unit_tile(n_vectors):
    """Return a function for some units' sums over the units below, for `n_vectors` of instances.

    Parameters
    ----------
    n_vectors : int
        At most `TILE_VECTORS`.

    Returns
    -------
    intrinsic
        ``tile(out, out_stride, Wt, Wt_stride, units, n_units, b, inputs, s, s_stride, n_inputs,
        zero)``. Strides are bytes from one row to the next, ``n_`` counts, and the others
        addresses; `zero` has the dtype. It computes ``out[t] = b[units[t]] + sum_k Wt[units[t],
        inputs[k]] * s[k]`` for ``t < n_units <= TILE_UNITS``.
    """

    @intrinsic
    def tile(
        typingctx, out, out_stride, Wt, Wt_stride, units, n_units,
        b, inputs, s, s_stride, n_inputs, zero,
    ):  # fmt: skip
        def codegen(context, builder, signature, args):
            (
                out, out_stride, Wt, Wt_stride, units, n_units,
                b, inputs, s, s_stride, n_inputs, _,
            ) = args  # fmt: skip
            v = Vectors(builder, signature.args[-1])

            def vectors(base):
                return [builder.add(base, INT(j * VECTOR_BYTES)) for j in range(n_vectors)]

            def emit(n):
                numbers = [builder.load(v.element(units, INT, INT(t))) for t in range(n)]
                rows = [v.step(Wt, Wt_stride, unit) for unit in numbers]
                biases = [v.splat(builder.load(v.element(b, v.scalar, unit))) for unit in numbers]

                def body(k, sums):
                    number = builder.load(v.element(inputs, INT, k))
                    s_k = [v.load(place) for place in vectors(v.step(s, s_stride, k))]
                    weights = [v.splat(builder.load(v.element(r, v.scalar, number))) for r in rows]
                    terms = itertools.product(weights, s_k)
                    return [v.multiply_add(w, x, c) for (w, x), c in zip(terms, sums, strict=True)]

                initial = [bias for bias in biases for _ in range(n_vectors)]
                sums = iter(counted_loop(builder, INT(0), n_inputs, initial, body))
                for t in range(n):
                    for place in vectors(v.step(out, out_stride, INT(t))):
                        v.store(next(sums), place)

            cases(builder, n_units, TILE_UNITS, emit)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11, zero), codegen

    return tile


@intrinsic
def dots_of_used(
    typingctx, out, out_stride, Wt, Wt_stride, units, n_units, b, row, used, places, n_places, zero
):
    """``out[t] = b[units[t]] + sum_k Wt[units[t], k] * row[k]`` over the k in use.

    Parameters
    ----------
    out, Wt, b, row : int
        Addresses.
    out_stride, Wt_stride : int
        Bytes from one row to the next.
    units : int
        Address of `n_units` numbers of rows of Wt, ``int64``.
    n_units : int
        At least 1, at most `simd.DOT_ROWS`.
    used : int
        Address of a byte for each column, 1 for one in use, and 0 beyond the last up to a whole
        vector. Of others nothing is read.
    places : int
        Address of the numbers of the vectors of columns with any in use, ``int64``.
    n_places : int
    zero : float32 or float64
        Tells the dtype.
    """

    def codegen(context, builder, signature, args):
        (
            out, out_stride, Wt, Wt_stride, units, n_units, b, row, used, places, n_places, _,
        ) = args  # fmt: skip
        v = Vectors(builder, signature.args[-1])
        bytes_type = ir.VectorType(ir.IntType(8), v.lanes)
        no_bytes = ir.Constant(bytes_type, [0] * v.lanes)

        def emit(n):
            numbers = [builder.load(v.element(units, INT, INT(t))) for t in range(n)]
            rows = [v.step(Wt, Wt_stride, unit) for unit in numbers]

            def body(step, sums):
                number = builder.load(v.element(places, INT, step))
                flags = v.pointer(v.step(used, number, INT(v.lanes)), bytes_type)
                mask = builder.icmp_unsigned("!=", builder.load(flags, align=1), no_bytes)
                offset = builder.mul(number, INT(VECTOR_BYTES))
                s = v.load(builder.add(row, offset))
                weights = [v.load(builder.add(r, offset), mask) for r in rows]
                return [v.multiply_add(w, s, c) for w, c in zip(weights, sums, strict=True)]

            zeros = [ir.Constant(v.type, [0.0] * v.lanes)] * n
            sums = counted_loop(builder, INT(0), n_places, zeros, body)
            for t, (unit, vector) in enumerate(zip(numbers, sums, strict=True)):
                bias = builder.load(v.element(b, v.scalar, unit))
                place = v.step(out, out_stride, INT(t))
                total = builder.fadd(bias, v.total(vector))
                builder.store(total, v.pointer(place, v.scalar))

        cases(builder, n_units, DOT_ROWS, emit)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 11, zero), codegen


@intrinsic
def transpose_tile(typingctx, out, places, s, s_stride, n_rows, n_columns, zero):
    """Write a tile's columns as rows: ``out[places[k]][i] = s[i, k]``, one vector each.

    The tile has as many rows and columns as a vector has lanes.

    Parameters
    ----------
    out : int
        Address that the places count from.
    places : int
        Address of ``int64`` distances in bytes, one for each column; negative: leave it out.
    s : int
        Address of the tile's first element.
    s_stride : int
        Bytes from one row to the next.
    n_rows, n_columns : int
        How many there are; zeros stand for the rest.
    zero : float32 or float64
        Tells the dtype.
    """

    def codegen(context, builder, signature, args):
        out, places, s, s_stride, n_rows, n_columns, _ = args
        v = Vectors(builder, signature.args[-1])
        columns, none = v.first_lanes(n_columns), v.first_lanes(INT(0))
        tile = []
        for i in range(v.lanes):
            inside = builder.icmp_signed("<", INT(i), n_rows)
            mask = builder.select(inside, columns, none)
            tile.append(v.load(v.step(s, s_stride, INT(i)), mask))
        step = 1
        while step < v.lanes:  # swap the blocks beside the diagonal, of 1, 2, 4, ... elements
            for i in (i for i in range(v.lanes) if not i & step):
                upper, lower = tile[i], tile[i + step]
                lanes = range(v.lanes)
                above = [j if not j & step else v.lanes + j - step for j in lanes]
                below = [j + step if not j & step else v.lanes + j for j in lanes]
                tile[i], tile[i + step] = (
                    builder.shuffle_vector(upper, lower, _indices(chosen))
                    for chosen in (above, below)
                )
            step *= 2
        for k, column in enumerate(tile):
            place = builder.load(v.element(places, INT, INT(k)))
            with builder.if_then(builder.icmp_signed(">=", place, INT(0))):
                v.store(column, builder.add(out, place))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, zero), codegen


def _indices(numbers):
    return ir.Constant(ir.VectorType(INT32, len(numbers)), numbers)
