"""Vector instructions for weights in panels as wide as a line of the cache.

A row of a panel is a line: the weights from one unit below to the units of the panel.
"""

import llvmlite.ir as ir
import numpy as np
from numba import types
from numba.extending import intrinsic

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.blocks.lists import UNIT
from reinforce_dropout.native.llvm.vectors import INT, VECTOR_BYTES, Vectors, counted_loop, either

__all__ = ["add_to_lines", "line_dots", "lines_of_sums"]

#: Vectors of sums that run side by side, because an addition waits for the one before it. A
#: processor without AVX-512 has 16 registers.
_SUMS = 8
#: Terms that are added side by side, at most.
_CHAINS = 4
_UNIT = ir.IntType(8 * np.dtype(UNIT).itemsize)


def _line(v, base):
    """Return the addresses of the vectors of the line at `base`."""
    return [v.builder.add(base, INT(at)) for at in range(0, LINE_BYTES, VECTOR_BYTES)]


def _unit(v, units, t):
    """Return the number of the unit at entry t of a list."""
    return v.builder.zext(v.builder.load(v.element(units, _UNIT, t)), INT)


def _listed_line(v, panel, units, t):
    """Return the addresses of the vectors of the line that entry t of a list names."""
    return _line(v, v.step(panel, INT(LINE_BYTES), _unit(v, units, t)))


def lines_of_sums(n_panels):
    """Return a function for the sums of `n_panels` neighbouring panels: a line of each.

    Units that follow each other are read from end to end, if they are as many as a panel has.
    Without their numbers a line costs two reads instead of three.

    Returns
    -------
    intrinsic
        ``sums(out, panel, panel_bytes, units, values, n, b, zero)``. It computes ``out = b + sum_t
        values[t] * panel[units[t]]`` for ``t < n``, where n is 0 or more. The lines of the panels
        follow each other in `out` and in b. `units` are ``uint16``. `panel_bytes` is the bytes from
        one panel to the next; `zero` has the dtype. The others are addresses.
    """

    @intrinsic
    def sums_of_lines(typingctx, out, panel, panel_bytes, units, values, n, b, zero):
        def codegen(context, builder, signature, args):
            out, panel, panel_bytes, units, values, n, b, _ = args
            v = Vectors(builder, signature.args[-1])
            panels = [v.step(panel, panel_bytes, INT(p)) for p in range(n_panels)]

            def lines(base):
                return [
                    place
                    for p in range(n_panels)
                    for place in _line(v, builder.add(base, INT(p * LINE_BYTES)))
                ]

            def add(t, places, sums):
                x = v.splat(builder.load(v.element(values, v.scalar, t)))
                return [v.multiply_add(x, v.load(w), c) for w, c in zip(places, sums, strict=True)]

            def add_term(t, sums):
                places = [place for own in panels for place in _listed_line(v, own, units, t)]
                return add(t, places, sums)

            def add_terms(step, chains):
                sums, first = [], builder.mul(step, INT(n_chains))
                for j in range(n_chains):
                    own = chains[j * width : (j + 1) * width]
                    sums += add_term(builder.add(first, INT(j)), own)
                return sums

            def add_neighbours(first, chains):
                chains, unit = list(chains), _unit(v, units, first)
                bases = [v.step(own, INT(LINE_BYTES), unit) for own in panels]
                for j in range(run):
                    at = INT(j * LINE_BYTES)
                    places = [w for base in bases for w in _line(v, builder.add(base, at))]
                    own = slice(j % n_chains * width, (j % n_chains + 1) * width)
                    chains[own] = add(builder.add(first, INT(j)), places, chains[own])
                return chains

            def add_run(step, chains):
                first = builder.mul(step, INT(run))
                last = _unit(v, units, builder.add(first, INT(run - 1)))
                distance = builder.sub(last, _unit(v, units, first))
                start = builder.mul(step, INT(run // n_chains))
                end = builder.add(start, INT(run // n_chains))
                return either(
                    builder,
                    builder.icmp_unsigned("==", distance, INT(run - 1)),
                    lambda: add_neighbours(first, chains),
                    lambda: counted_loop(builder, start, end, chains, add_terms),
                )

            width, run = n_panels * LINE_BYTES // VECTOR_BYTES, LINE_BYTES // v.itemsize
            n_chains = min(_CHAINS, max(1, _SUMS // width))
            n_runs, n_steps = builder.sdiv(n, INT(run)), builder.sdiv(n, INT(n_chains))
            zeros = [ir.Constant(v.type, [0.0] * v.lanes)] * (width * (n_chains - 1))
            biases = [v.load(place) for place in lines(b)]
            chains = counted_loop(builder, INT(0), n_runs, biases + zeros, add_run)
            done = builder.mul(n_runs, INT(run // n_chains))
            chains = counted_loop(builder, done, n_steps, chains, add_terms)
            done = builder.mul(n_steps, INT(n_chains))
            first = counted_loop(builder, done, n, chains[:width], add_term)
            for j, place in enumerate(lines(out)):
                total = first[j]
                for other in chains[width + j :: width]:
                    total = builder.fadd(total, other)
                v.store(total, place)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7, zero), codegen

    return sums_of_lines


@intrinsic
def add_to_lines(typingctx, panel, units, values, n, g, zero):
    """``panel[units[t]] += values[t] * g`` for ``t < n``; the units differ from each other.

    Parameters
    ----------
    panel, values, g : int
        Addresses. A row of the panel and `g` are one line each.
    units : int
        Address of the ``uint16`` numbers of the rows.
    n : int
        Number of rows, 0 or more.
    zero : float32 or float64
        Tells the dtype.
    """

    def codegen(context, builder, signature, args):
        panel, units, values, n, g, _ = args
        v = Vectors(builder, signature.args[-1])
        steps = [v.load(place) for place in _line(v, g)]

        def add(t, _):
            x = v.splat(builder.load(v.element(values, v.scalar, t)))
            places = _listed_line(v, panel, units, t)
            for place, step in zip(places, steps, strict=True):
                v.store(v.multiply_add(x, step, v.load(place)), place)
            return []

        counted_loop(builder, INT(0), n, [], add)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, zero), codegen


def line_dots(of_vector):
    """Return a function for dot products of neighbouring rows, each summed over some panels.

    Parameters
    ----------
    of_vector : bool
        Whether there are as many rows as a vector has lanes, or a single one.

    Returns
    -------
    intrinsic
        ``dots(out, W, panel_bytes, row, g, units, n_panels, zero)``. It computes ``out[t] =
        sum_q W[p_q][row + t] @ g[q]`` for ``q < n_panels``, where p_q is the panel of the unit
        ``units[q * lanes]``, ``uint16``, and a line has so many lanes. `panel_bytes` is the bytes
        from one panel to the next; `zero` has the dtype. The others are addresses, except `row`.
    """

    @intrinsic
    def dots(typingctx, out, W, panel_bytes, row, g, units, n_panels, zero):
        def codegen(context, builder, signature, args):
            out, W, panel_bytes, row, g, units, n_panels, _ = args
            v = Vectors(builder, signature.args[-1])
            lanes, n_rows = INT(LINE_BYTES // v.itemsize), v.lanes if of_vector else 1
            first = v.step(W, INT(LINE_BYTES), row)

            def add_panel(q, sums):
                number = builder.udiv(_unit(v, units, builder.mul(q, lanes)), lanes)
                lines = v.step(first, panel_bytes, number)
                factors = [v.load(place) for place in _line(v, v.step(g, INT(LINE_BYTES), q))]
                sums = list(sums)
                for t in range(n_rows):
                    places = _line(v, builder.add(lines, INT(t * LINE_BYTES)))
                    for factor, place in zip(factors, places, strict=True):
                        sums[t] = v.multiply_add(v.load(place), factor, sums[t])
                return sums

            zeros = [ir.Constant(v.type, [0.0] * v.lanes)] * n_rows
            sums = counted_loop(builder, INT(0), n_panels, zeros, add_panel)
            if of_vector:
                v.store(v.totals(sums), out)
            else:
                builder.store(v.total(sums[0]), v.pointer(out, v.scalar))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7, zero), codegen

    return dots
