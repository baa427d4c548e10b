"""Inner loops of the kernels for mini-batches, in vector instructions.

:func:`combine_rows` adds up the rows that a list names, :func:`row_tile` all rows;
:func:`dot_tile` and :func:`dot_rows` multiply by the transpose.
"""

import itertools

import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from reinforce_dropout.native.llvm.vectors import (
    HAS_AVX512,
    INT,
    VECTOR_BYTES,
    Vectors,
    cases,
    counted_loop,
)

__all__ = [
    "DOT_ROWS",
    "DOT_TILE",
    "SPAN_BYTES",
    "TILE_BYTES",
    "TILE_ROWS",
    "combine_rows",
    "dot_rows",
    "dot_tile",
    "row_tile",
]

# With these sizes the sums fit the register file.

_SPAN_VECTORS = 8
#: Bytes of a row that one call of :func:`combine_rows` handles at most.
SPAN_BYTES = VECTOR_BYTES * _SPAN_VECTORS
#: Rows and bytes of a row that one call of a :func:`row_tile` handles at most.
TILE_ROWS, _TILE_VECTORS = (4, 4) if HAS_AVX512 else (4, 2)
TILE_BYTES = VECTOR_BYTES * _TILE_VECTORS
#: Rows of the left and of the right factor for a :func:`dot_tile`.
DOT_TILE = (4, 4) if HAS_AVX512 else (4, 2)
#: Rows on the left that :func:`dot_rows` multiplies by one row on the right.
DOT_ROWS = 8


@intrinsic
def combine_rows(typingctx, out, beta, rows, stride, indices, factors, start, stop, width):
    """``out = beta * out + sum_t factors[t] * rows[indices[t]]`` for ``start <= t < stop``.

    Parameters
    ----------
    out : int
        Address of the `width` elements to replace.
    beta : float32 or float64
        Their factor; its dtype is that of every array here.
    rows : int
        Address of row 0.
    stride : int
        Bytes from one row to the next.
    indices : int
        Address of the ``int64`` numbers of the rows to add.
    factors : int
        Address of each row's factor.
    start, stop : int
        The terms to add.
    width : int
        Number of elements, at least 1, at most ``SPAN_BYTES`` worth.
    """

    def codegen(context, builder, signature, args):
        out, beta, rows, stride, indices, factors, start, stop, width = args
        v = Vectors(builder, signature.args[1])

        def emit(n_vectors):
            masks = v.masks(n_vectors, width)

            def vector(base, j):
                return builder.add(base, INT(j * VECTOR_BYTES))

            def body(t, sums):
                index = builder.load(v.element(indices, INT, t))
                row = v.step(rows, stride, index)
                factor = v.splat(builder.load(v.element(factors, v.scalar, t)))
                return [
                    v.multiply_add(factor, v.load(vector(row, j), mask), total)
                    for j, (mask, total) in enumerate(zip(masks, sums, strict=True))
                ]

            scale = v.splat(beta)
            initial = [
                builder.fmul(scale, v.load(vector(out, j), mask)) for j, mask in enumerate(masks)
            ]
            sums = counted_loop(builder, start, stop, initial, body)
            for j, (mask, total) in enumerate(zip(masks, sums, strict=True)):
                v.store(total, vector(out, j), mask)

        cases(builder, v.count(width), _SPAN_VECTORS, emit)
        return context.get_dummy_value()

    integer = types.int64
    signature = types.void(integer, beta, *[integer] * 7)
    return signature, codegen


def row_tile(n_rows):
    """Return a function for `n_rows` rows of a product at once; they share what is loaded.

    Parameters
    ----------
    n_rows : int
        At most `TILE_ROWS`.

    Returns
    -------
    intrinsic
        ``tile(out, out_stride, beta, s, s_stride, s_step, rows, row_stride, length, width)``. It
        computes ``out[i, j] = beta * out[i, j] + sum_t s[i, t] * rows[t, j]`` for ``j < width`` and
        ``t < length``. `width` is at least 1, and at most `TILE_BYTES` worth. `beta` has the dtype.
        `s_stride` is the bytes from one i to the next, `s_step` from one t to the next; the other
        strides are bytes from one row to the next. The rest are addresses.
    """

    @intrinsic
    def tile(
        typingctx, out, out_stride, beta, s, s_stride, s_step, rows, row_stride, length, width
    ):
        def codegen(context, builder, signature, args):
            out, out_stride, beta, s, s_stride, s_step, rows, row_stride, length, width = args
            v = Vectors(builder, signature.args[2])

            def emit(n_vectors):
                masks = v.masks(n_vectors, width)

                def vectors(base):
                    return [
                        (builder.add(base, INT(j * VECTOR_BYTES)), mask)
                        for j, mask in enumerate(masks)
                    ]

                places = [
                    place
                    for i in range(n_rows)
                    for place in vectors(v.step(out, out_stride, INT(i)))
                ]
                firsts = [v.step(s, s_stride, INT(i)) for i in range(n_rows)]

                def body(t, sums):
                    weights = [v.load(*place) for place in vectors(v.step(rows, row_stride, t))]
                    factors = [
                        v.splat(builder.load(v.pointer(v.step(first, s_step, t), v.scalar)))
                        for first in firsts
                    ]
                    terms = itertools.product(factors, weights)
                    return [v.multiply_add(f, w, c) for (f, w), c in zip(terms, sums, strict=True)]

                scale = v.splat(beta)
                initial = [builder.fmul(scale, v.load(*place)) for place in places]
                sums = counted_loop(builder, INT(0), length, initial, body)
                for total, place in zip(sums, places, strict=True):
                    v.store(total, *place)

            cases(builder, v.count(width), _TILE_VECTORS, emit)
            return context.get_dummy_value()

        integer = types.int64
        return types.void(integer, integer, beta, *[integer] * 7), codegen

    return tile


def _dot_products(v, lefts, rights, length):
    """Emit the dot products of all rows at `lefts` with all rows at `rights`.

    Returns
    -------
    list of scalar
        Products of the first left row, then of the second, ...
    """
    builder = v.builder

    def add_products(step, sums, mask=None):
        offset = builder.mul(step, INT(VECTOR_BYTES))
        left_vectors = [v.load(builder.add(row, offset), mask) for row in lefts]
        right_vectors = [v.load(builder.add(row, offset), mask) for row in rights]
        pairs = itertools.product(left_vectors, right_vectors)
        return [v.multiply_add(a, b, c) for (a, b), c in zip(pairs, sums, strict=True)]

    zeros = [ir.Constant(v.type, [0.0] * v.lanes)] * (len(lefts) * len(rights))
    steps = builder.udiv(length, INT(v.lanes))
    sums = counted_loop(builder, INT(0), steps, zeros, add_products)
    rest = builder.sub(length, builder.mul(steps, INT(v.lanes)))
    return [v.total(vector) for vector in add_products(steps, sums, v.first_lanes(rest))]


def dot_tile(n_left, n_right):
    """Return a function for the dot products of `n_left` rows with `n_right` rows.

    Parameters
    ----------
    n_left, n_right : int
        Rows on each side. Choose few, such as 4 by 4, because their products stay in registers.

    Returns
    -------
    intrinsic
        ``tile(out, out_stride, left, left_stride, right, right_stride, length, zero)``. It computes
        ``out[i, j] = left[i] @ right[j]`` for rows of `length` elements. Strides are bytes from one
        row to the next; `zero` has the dtype. The rest are addresses.
    """

    @intrinsic
    def tile(typingctx, out, out_stride, left, left_stride, right, right_stride, length, zero):
        def codegen(context, builder, signature, args):
            out, out_stride, left, left_stride, right, right_stride, length, _ = args
            v = Vectors(builder, signature.args[7])

            def rows(base, stride, count):
                return [v.step(base, stride, INT(i)) for i in range(count)]

            lefts, rights = rows(left, left_stride, n_left), rows(right, right_stride, n_right)
            totals = iter(_dot_products(v, lefts, rights, length))
            for row in rows(out, out_stride, n_left):
                for j in range(n_right):
                    builder.store(next(totals), v.element(row, v.scalar, INT(j)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7, zero), codegen

    return tile


@intrinsic
def dot_rows(typingctx, out, out_stride, left, left_stride, indices, count, right, length, zero):
    """``out[i, 0] = left[i] @ right`` for the `count` rows i that `indices` names.

    Parameters
    ----------
    out, left, right : int
        Addresses: of a column, of the first of the rows on the left, of the row on the right.
    out_stride, left_stride : int
        Bytes from one row to the next.
    indices : int
        Address of `count` numbers of rows, ``int64``.
    count : int
        At least 1, at most `DOT_ROWS`.
    length : int
        Elements in a row.
    zero : float32 or float64
        Tells the dtype.
    """

    def codegen(context, builder, signature, args):
        out, out_stride, left, left_stride, indices, count, right, length, _ = args
        v = Vectors(builder, signature.args[8])

        def emit(n):
            numbers = [builder.load(v.element(indices, INT, INT(t))) for t in range(n)]
            lefts = [v.step(left, left_stride, i) for i in numbers]
            totals = _dot_products(v, lefts, [right], length)
            for i, total in zip(numbers, totals, strict=True):
                place = v.step(out, out_stride, i)
                builder.store(total, v.pointer(place, v.scalar))

        cases(builder, count, DOT_ROWS, emit)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, zero), codegen
