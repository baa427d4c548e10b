"""Vector instructions for weights in panels as wide as a line of the cache."""

import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.native.llvm.vectors import INT, INT32, VECTOR_BYTES, Vectors, counted_loop

__all__ = ["line_of_sums"]

#: Sums that run side by side, because an addition waits for the one before it.
_CHAINS = 4


@intrinsic
def line_of_sums(typingctx, out, panel, units, values, n, b, zero):
    """``out = b + sum_t values[t] * panel[units[t]]`` for ``t < n``: one line of results.

    Parameters
    ----------
    out, panel, values, b : int
        Addresses. A row of the panel, `out` and `b` are one line each.
    units : int
        Address of the ``int32`` numbers of the rows to add.
    n : int
        Number of terms, 0 or more.
    zero : float32 or float64
        Tells the dtype.
    """

    def codegen(context, builder, signature, args):
        out, panel, units, values, n, b, _ = args
        v = Vectors(builder, signature.args[-1])

        def vectors(base):
            return [builder.add(base, INT(at)) for at in range(0, LINE_BYTES, VECTOR_BYTES)]

        def add_term(t, sums):
            unit = builder.sext(builder.load(v.element(units, INT32, t)), INT)
            row = v.step(panel, INT(LINE_BYTES), unit)
            x = v.splat(builder.load(v.element(values, v.scalar, t)))
            line = [v.load(place) for place in vectors(row)]
            return [v.multiply_add(x, w, c) for w, c in zip(line, sums, strict=True)]

        def add_terms(step, chains):
            sums, first = [], builder.mul(step, INT(_CHAINS))
            for j in range(_CHAINS):
                own = chains[j * width : (j + 1) * width]
                sums += add_term(builder.add(first, INT(j)), own)
            return sums

        width = LINE_BYTES // VECTOR_BYTES
        n_steps = builder.sdiv(n, INT(_CHAINS))
        zeros = [ir.Constant(v.type, [0.0] * v.lanes)] * (width * (_CHAINS - 1))
        biases = [v.load(place) for place in vectors(b)]
        chains = counted_loop(builder, INT(0), n_steps, biases + zeros, add_terms)
        done = builder.mul(n_steps, INT(_CHAINS))
        first = counted_loop(builder, done, n, chains[:width], add_term)
        for j, place in enumerate(vectors(out)):
            total = first[j]
            for other in chains[width + j :: width]:
                total = builder.fadd(total, other)
            v.store(total, place)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, zero), codegen
