"""Vector instructions for the kernels: the LLVM code that Numba's loop vectoriser does not find.

Numba compiles Python loops well, but it keeps a running sum in memory instead of in registers
when the number of terms is known only at run time.  :func:`combine_rows` is that one loop,
written with LLVM's portable vectors, which become AVX-512, AVX2, SSE or NEON instructions.
"""

import itertools

import llvmlite.binding
import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "DOT_ROWS",
    "SPAN_BYTES",
    "TILE",
    "VECTOR_BYTES",
    "address",
    "combine_rows",
    "dot_rows",
    "dot_tile",
    "lowest_bit",
    "n_threads",
    "non_zero_bits",
]

HAS_AVX512 = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
#: Bytes in one vector, and vectors in the widest span: together they fit the register file.
VECTOR_BYTES = 64 if HAS_AVX512 else 32
SPAN_VECTORS = 8
#: Rows of the left and of the right factor whose dot products fit the register file together.
TILE = (4, 4) if HAS_AVX512 else (4, 2)
#: Rows on the left whose dot products with one row on the right fit it, too.
DOT_ROWS = 8
#: Bytes of a row that one call of :func:`combine_rows` handles at most.
SPAN_BYTES = VECTOR_BYTES * SPAN_VECTORS

_INT = ir.IntType(64)
_INT32 = ir.IntType(32)


class _Vectors:
    """The LLVM types and instructions for vectors of one floating-point type.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where the instructions go.
    dtype : numba.types.Float
        ``float32`` or ``float64``.
    """

    def __init__(self, builder, dtype):
        self.builder = builder
        self.itemsize = dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.itemsize
        self.scalar = ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.mask_type = ir.VectorType(ir.IntType(1), self.lanes)
        self.suffix = f"v{self.lanes}f{dtype.bitwidth}"

    def _intrinsic(self, name, result, arguments):
        module = self.builder.module
        return cgutils.get_or_insert_function(module, ir.FunctionType(result, arguments), name)

    def splat(self, scalar):
        """Vector with `scalar` in every lane."""
        undefined = ir.Constant(self.type, ir.Undefined)
        one_lane = self.builder.insert_element(undefined, scalar, _INT32(0))
        lanes = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one_lane, undefined, lanes)

    def first_lanes(self, count):
        """Mask of the first `count` lanes (an ``i64``)."""
        indices = ir.VectorType(_INT32, self.lanes)
        undefined = ir.Constant(indices, ir.Undefined)
        count = self.builder.trunc(count, _INT32)
        counts = self.builder.shuffle_vector(
            self.builder.insert_element(undefined, count, _INT32(0)),
            undefined,
            ir.Constant(indices, [0] * self.lanes),
        )
        return self.builder.icmp_signed("<", ir.Constant(indices, list(range(self.lanes))), counts)

    def pointer(self, address, element):
        """`address` (an ``i64``) as a pointer to `element`."""
        return self.builder.inttoptr(address, element.as_pointer())

    def element(self, base, kind, t):
        """Pointer to element `t` of the array of type `kind` at address `base`."""
        return self.builder.gep(self.pointer(base, kind), [t])

    def load(self, address, mask=None):
        """Vector at `address`, which need not be aligned; zero in lanes outside `mask`."""
        pointer = self.pointer(address, self.type)
        if mask is None:
            return self.builder.load(pointer, align=self.itemsize)
        function = self._intrinsic(
            f"llvm.masked.load.{self.suffix}.p0",
            self.type,
            [pointer.type, _INT32, self.mask_type, self.type],
        )
        zero = ir.Constant(self.type, [0.0] * self.lanes)
        return self.builder.call(function, [pointer, _INT32(self.itemsize), mask, zero])

    def store(self, vector, address, mask=None):
        """Write the lanes of `vector` inside `mask` to `address`."""
        pointer = self.pointer(address, self.type)
        if mask is None:
            self.builder.store(vector, pointer, align=self.itemsize)
            return
        function = self._intrinsic(
            f"llvm.masked.store.{self.suffix}.p0",
            ir.VoidType(),
            [self.type, pointer.type, _INT32, self.mask_type],
        )
        self.builder.call(function, [vector, pointer, _INT32(self.itemsize), mask])

    def multiply_add(self, a, b, c):
        """Return ``a * b + c``, rounded once where the machine has an instruction for it."""
        function = self._intrinsic(f"llvm.fmuladd.{self.suffix}", self.type, [self.type] * 3)
        return self.builder.call(function, [a, b, c])

    def total(self, vector):
        """Sum of the lanes, by halving."""
        lanes = self.lanes
        while lanes > 1:
            lanes //= 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            low, high = (
                self.builder.shuffle_vector(
                    vector,
                    undefined,
                    ir.Constant(ir.VectorType(_INT32, lanes), list(range(start, start + lanes))),
                )
                for start in (0, lanes)
            )
            vector = self.builder.fadd(low, high)
        return self.builder.extract_element(vector, _INT32(0))


@intrinsic
def address(typingctx, array):
    """Address of an array's first element, as an integer.

    Integers carry no reference count, which would cost more than the short loops it guards. Nor do
    they keep the array: Numba frees one after its last mention. So take addresses of a function's
    arguments only, which its caller keeps.
    """

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, _INT)

    return types.int64(array), codegen


@intrinsic
def n_threads(typingctx):
    """Return the number of threads that ``numba.prange`` uses now.

    The symbol that Numba's own parallel loops call. ``numba.get_num_threads`` would do so through a
    pointer, and code that holds a pointer cannot be cached on disk.
    """

    def codegen(context, builder, signature, args):
        function_type = ir.FunctionType(_INT, [])
        function = cgutils.get_or_insert_function(builder.module, function_type, "get_num_threads")
        return builder.call(function, [])

    return types.int64(), codegen


@intrinsic
def non_zero_bits(typingctx, at, count, zero):
    """Return an integer whose bit j says that element j of one vector is not zero.

    Parameters
    ----------
    at : int
        Address of the first element.
    count : int
        Elements that there are, if fewer than a vector's; the rest counts as zero.
    zero : float32 or float64
        Tells the dtype.
    """

    def codegen(context, builder, signature, args):
        at, count, _ = args
        v = _Vectors(builder, signature.args[2])
        vector = v.load(at, v.first_lanes(count))
        # Unordered: NaN is not zero.
        flags = builder.fcmp_unordered("!=", vector, ir.Constant(v.type, [0.0] * v.lanes))
        return builder.zext(builder.bitcast(flags, ir.IntType(v.lanes)), _INT)

    return types.int64(types.int64, types.int64, zero), codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """Return the position of the lowest bit that is set in a positive integer."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


def _counted_loop(builder, start, stop, initial, body):
    """Emit ``for i in range(start, stop): state = body(i, state)``; return the last state."""
    before = builder.block
    loop = builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", start, stop), loop, done)

    builder.position_at_end(loop)
    i = builder.phi(_INT)
    state = [builder.phi(value.type) for value in initial]
    new_state = body(i, state)
    i_next = builder.add(i, _INT(1))
    i.add_incoming(start, before)
    i.add_incoming(i_next, loop)
    for phi, first, new in zip(state, initial, new_state, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", i_next, stop), loop, done)

    builder.position_at_end(done)
    last = [builder.phi(value.type) for value in initial]
    for phi, first, new in zip(last, initial, new_state, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(new, loop)
    return last


def _cases(builder, number, largest, emit):
    """Emit ``emit(n)`` for n from 1 to `largest`, and a jump to the one for `number`."""
    end = builder.append_basic_block("end")
    switch = builder.switch(number, end)
    for n in range(1, largest + 1):
        block = builder.append_basic_block(f"case_{n}")
        switch.add_case(_INT(n), block)
        builder.position_at_end(block)
        emit(n)
        builder.branch(end)
    builder.position_at_end(end)


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
        v = _Vectors(builder, signature.args[1])

        def emit(n_vectors):
            mask = v.first_lanes(builder.sub(width, _INT((n_vectors - 1) * v.lanes)))
            masks = [None] * (n_vectors - 1) + [mask]

            def vector(base, j):
                return builder.add(base, _INT(j * VECTOR_BYTES))

            def body(t, sums):
                index = builder.load(v.element(indices, _INT, t))
                row = builder.add(rows, builder.mul(stride, index))
                factor = v.splat(builder.load(v.element(factors, v.scalar, t)))
                return [
                    v.multiply_add(factor, v.load(vector(row, j), mask), total)
                    for j, (mask, total) in enumerate(zip(masks, sums, strict=True))
                ]

            scale = v.splat(beta)
            initial = [
                builder.fmul(scale, v.load(vector(out, j), mask)) for j, mask in enumerate(masks)
            ]
            sums = _counted_loop(builder, start, stop, initial, body)
            for j, (mask, total) in enumerate(zip(masks, sums, strict=True)):
                v.store(total, vector(out, j), mask)

        n_vectors = builder.udiv(builder.add(width, _INT(v.lanes - 1)), _INT(v.lanes))
        _cases(builder, n_vectors, SPAN_VECTORS, emit)
        return context.get_dummy_value()

    integer = types.int64
    signature = types.void(integer, beta, *[integer] * 7)
    return signature, codegen


def _dot_products(v, lefts, rights, length):
    """Emit the dot products of all rows at `lefts` with all rows at `rights`.

    Returns
    -------
    list of scalar
        Those of the first left row, then those of the second, ...
    """
    builder = v.builder

    def add_products(step, sums, mask=None):
        offset = builder.mul(step, _INT(VECTOR_BYTES))
        left_vectors = [v.load(builder.add(row, offset), mask) for row in lefts]
        right_vectors = [v.load(builder.add(row, offset), mask) for row in rights]
        pairs = itertools.product(left_vectors, right_vectors)
        return [v.multiply_add(a, b, c) for (a, b), c in zip(pairs, sums, strict=True)]

    zeros = [ir.Constant(v.type, [0.0] * v.lanes)] * (len(lefts) * len(rights))
    steps = builder.udiv(length, _INT(v.lanes))
    sums = _counted_loop(builder, _INT(0), steps, zeros, add_products)
    rest = builder.sub(length, builder.mul(steps, _INT(v.lanes)))
    return [v.total(vector) for vector in add_products(steps, sums, v.first_lanes(rest))]


def dot_tile(n_left, n_right):
    """Return a function for the dot products of `n_left` rows with `n_right` rows.

    Parameters
    ----------
    n_left, n_right : int
        Rows on each side; their products stay in registers, so few (4 by 4, say).

    Returns
    -------
    intrinsic
        ``tile(out, out_stride, left, left_stride, right, right_stride, length, zero)``, where
        the first seven are addresses or byte counts except `length`, in elements, and
        `zero` tells the dtype; ``out[i, j] = left[i] @ right[j]``.
    """

    @intrinsic
    def tile(typingctx, out, out_stride, left, left_stride, right, right_stride, length, zero):
        def codegen(context, builder, signature, args):
            out, out_stride, left, left_stride, right, right_stride, length, _ = args
            v = _Vectors(builder, signature.args[7])

            def rows(base, stride, count):
                return [builder.add(base, builder.mul(stride, _INT(i))) for i in range(count)]

            lefts, rights = rows(left, left_stride, n_left), rows(right, right_stride, n_right)
            totals = iter(_dot_products(v, lefts, rights, length))
            for row in rows(out, out_stride, n_left):
                for j in range(n_right):
                    builder.store(next(totals), v.element(row, v.scalar, _INT(j)))
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
        v = _Vectors(builder, signature.args[8])

        def emit(n):
            numbers = [builder.load(v.element(indices, _INT, _INT(t))) for t in range(n)]
            lefts = [builder.add(left, builder.mul(left_stride, i)) for i in numbers]
            totals = _dot_products(v, lefts, [right], length)
            for i, total in zip(numbers, totals, strict=True):
                place = builder.add(out, builder.mul(out_stride, i))
                builder.store(total, v.pointer(place, v.scalar))

        _cases(builder, count, DOT_ROWS, emit)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8, zero), codegen
