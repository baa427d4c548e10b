"""LLVM's portable vectors and loops, which become AVX-512, AVX2, SSE or NEON instructions.

:mod:`.simd` and :mod:`.block_simd` are written with them. If the number of terms is known only at
run time, Numba's loop vectoriser keeps a running sum in memory instead of in registers.
"""

import llvmlite.binding
import llvmlite.ir as ir
import numba
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from reinforce_dropout.alignment import LINE_BYTES


def _has_wide_registers():
    """Whether 16 floats fit a register of the processor that Numba compiles for.

    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may name another processor than this machine's. The name
    does not tell the registers. So LLVM compiles a sum of two vectors, and its code tells.
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvmlite.binding.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features
    )
    floats = ir.VectorType(ir.FloatType(), 16)
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(floats, [floats, floats]), "add")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(builder.fadd(*function.args))
    return "%zmm" in machine.emit_assembly(llvmlite.binding.parse_assembly(str(module)))


#: Whether the registers are those of AVX-512.
HAS_AVX512 = _has_wide_registers()
#: Bytes in one vector.
VECTOR_BYTES = 64 if HAS_AVX512 else 32

INT = ir.IntType(64)
INT32 = ir.IntType(32)


class Vectors:
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
        one_lane = self.builder.insert_element(undefined, scalar, INT32(0))
        lanes = ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(one_lane, undefined, lanes)

    def first_lanes(self, count):
        """Mask of the first `count` lanes (an ``i64``)."""
        indices = ir.VectorType(INT32, self.lanes)
        undefined = ir.Constant(indices, ir.Undefined)
        count = self.builder.trunc(count, INT32)
        counts = self.builder.shuffle_vector(
            self.builder.insert_element(undefined, count, INT32(0)),
            undefined,
            ir.Constant(indices, [0] * self.lanes),
        )
        return self.builder.icmp_signed("<", ir.Constant(indices, list(range(self.lanes))), counts)

    def count(self, width):
        """Count the vectors that hold `width` elements (an ``i64``); the last may be partial."""
        return self.builder.udiv(self.builder.add(width, INT(self.lanes - 1)), INT(self.lanes))

    def masks(self, n_vectors, width):
        """Masks for `load` and `store` of `n_vectors` that hold `width` elements."""
        rest = self.builder.sub(width, INT((n_vectors - 1) * self.lanes))
        return [None] * (n_vectors - 1) + [self.first_lanes(rest)]

    def step(self, address, stride, number):
        """Address of row `number`, from that of row 0 and the bytes from one row to the next."""
        return self.builder.add(address, self.builder.mul(stride, number))

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
            [pointer.type, INT32, self.mask_type, self.type],
        )
        zero = ir.Constant(self.type, [0.0] * self.lanes)
        return self.builder.call(function, [pointer, INT32(self.itemsize), mask, zero])

    def not_zero(self, vector):
        """Mask of the lanes of `vector` that are not zero; NaN is not."""
        zero = ir.Constant(self.type, [0.0] * self.lanes)
        return self.builder.fcmp_unordered("!=", vector, zero)

    def compress(self, vector, mask):
        """Vector whose first lanes are those of `vector` inside `mask`. Needs AVX-512."""
        kind = "f" if vector.type.element == self.scalar else "i"
        name = f"llvm.x86.avx512.mask.compress.v{self.lanes}{kind}{8 * self.itemsize}"
        compress = self._intrinsic(name, vector.type, [vector.type, vector.type, self.mask_type])
        return self.builder.call(compress, [vector, ir.Constant(vector.type, None), mask])

    def store(self, vector, address, mask=None):
        """Write the lanes of `vector` inside `mask` to `address`."""
        pointer = self.pointer(address, self.type)
        if mask is None:
            self.builder.store(vector, pointer, align=self.itemsize)
            return
        function = self._intrinsic(
            f"llvm.masked.store.{self.suffix}.p0",
            ir.VoidType(),
            [self.type, pointer.type, INT32, self.mask_type],
        )
        self.builder.call(function, [vector, pointer, INT32(self.itemsize), mask])

    def multiply_add(self, a, b, c):
        """Return ``a * b + c``, rounded once if the machine has an instruction for it."""
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
                    ir.Constant(ir.VectorType(INT32, lanes), list(range(start, start + lanes))),
                )
                for start in (0, lanes)
            )
            vector = self.builder.fadd(low, high)
        return self.builder.extract_element(vector, INT32(0))

    def totals(self, vectors):
        """Vector of the sums of the lanes of as many vectors as there are lanes."""
        evens, odds = (
            ir.Constant(ir.VectorType(INT32, self.lanes), list(range(start, 2 * self.lanes, 2)))
            for start in (0, 1)
        )
        while len(vectors) > 1:  # add neighbouring lanes, until a vector has one lane of each
            vectors = [
                self.builder.fadd(
                    self.builder.shuffle_vector(one, other, evens),
                    self.builder.shuffle_vector(one, other, odds),
                )
                for one, other in zip(vectors[::2], vectors[1::2], strict=True)
            ]
        return vectors[0]


@intrinsic
def address(typingctx, array):
    """Address of an array's first element, as an integer.

    Integers have no reference count, which would cost more than the short loops. But they do not
    keep the array alive, and Numba frees an array after its last use. So take addresses of a
    function's arguments only, which the caller keeps alive.
    """

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, INT)

    return types.int64(array), codegen


@intrinsic
def prefetch(typingctx, at):
    """Fetch the line of the cache at an address to the second level; any address is allowed."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type, INT32, INT32, INT32])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        to_read, locality, data = INT32(0), INT32(2), INT32(1)
        builder.call(function, [pointer, to_read, locality, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@numba.njit
def prefetch_lines(at, n_bytes):
    """Fetch `n_bytes` bytes from an address on, line by line."""
    for line in range(0, n_bytes, LINE_BYTES):
        prefetch(at + line)


@intrinsic
def n_threads(typingctx):
    """Return the number of threads that ``numba.prange`` uses now.

    It calls the symbol that Numba's own parallel loops call. ``numba.get_num_threads`` would use a
    pointer, and code with a pointer cannot be cached on disk.
    """

    def codegen(context, builder, signature, args):
        function_type = ir.FunctionType(INT, [])
        function = cgutils.get_or_insert_function(builder.module, function_type, "get_num_threads")
        return builder.call(function, [])

    return types.int64(), codegen


@intrinsic
def non_zero_bits(typingctx, at, count, zero):
    """Return an integer whose bit j says that element j of the vector at `at` is not zero.

    Elements from `count` on are taken as zero. `zero` has the dtype.
    """

    def codegen(context, builder, signature, args):
        at, count, _ = args
        v = Vectors(builder, signature.args[2])
        flags = v.not_zero(v.load(at, v.first_lanes(count)))
        return builder.zext(builder.bitcast(flags, ir.IntType(v.lanes)), INT)

    return types.int64(types.int64, types.int64, zero), codegen


@intrinsic
def lowest_bit(typingctx, bits):
    """Return the position of the lowest bit that is set in a positive integer."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


def counted_loop(builder, start, stop, initial, body):
    """Emit ``for i in range(start, stop): state = body(i, state)``; return the last state."""
    before = builder.block
    loop = builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", start, stop), loop, done)

    builder.position_at_end(loop)
    i = builder.phi(INT)
    state = [builder.phi(value.type) for value in initial]
    new_state = body(i, state)
    i_next, end = builder.add(i, INT(1)), builder.block
    i.add_incoming(start, before)
    i.add_incoming(i_next, end)
    for phi, first, new in zip(state, initial, new_state, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(new, end)
    builder.cbranch(builder.icmp_signed("<", i_next, stop), loop, done)

    builder.position_at_end(done)
    last = [builder.phi(value.type) for value in initial]
    for phi, first, new in zip(last, initial, new_state, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(new, end)
    return last


def either(builder, condition, emit, emit_other):
    """Emit ``emit() if condition else emit_other()``; return the values of the one that runs."""
    ends = []
    with builder.if_else(condition) as branches:
        for branch, emit_one in zip(branches, (emit, emit_other), strict=True):
            with branch:
                values = emit_one()
                ends.append((values, builder.block))
    (values, block), (other_values, other_block) = ends
    chosen = []
    for value, other in zip(values, other_values, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(value, block)
        phi.add_incoming(other, other_block)
        chosen.append(phi)
    return chosen


def cases(builder, number, largest, emit):
    """Emit ``emit(n)`` for n from 1 to `largest`, and a jump to the one for `number`."""
    end = builder.append_basic_block("end")
    switch = builder.switch(number, end)
    for n in range(1, largest + 1):
        block = builder.append_basic_block(f"case_{n}")
        switch.add_case(INT(n), block)
        builder.position_at_end(block)
        emit(n)
        builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def count_bits(typingctx, bits):
    """Return the number of bits that are set in an integer."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen
