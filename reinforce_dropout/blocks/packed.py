"""Packed activations, in which a dropped unit costs nothing.

A unit that a block of instances drops is zero for the whole block. So the block keeps a smaller
matrix: one row for each unit in use, one column for each instance. A product reads only the weights
between units in use. At 15 % of the units, that is 2 % of the product between two hidden layers.

==========  ======================================  ===============================================
name        shape                                   what
==========  ======================================  ===============================================
``active``  (n_blocks, n_units) bool                units in use
``packed``  (n_blocks, capacity, width)             row t: the t-th unit in use; column: an instance
==========  ======================================  ===============================================

``capacity`` is at least the largest number of units in use by a block. ``width`` is the block's
size in whole vectors. Entries beyond a block's own units and instances are never used.

The Ops compute with NumPy here; under Numba, `native` compiles them. They have no code for JAX. An
Op has one dtype, float32 or float64. None defines a gradient: training cuts its operands out of the
matrices instead, see `submatrix`.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

LANES = 16
"""Numbers in a vector. Blocks of more than one instance are padded to a multiple."""


def padded_width(instances_per_block):
    """Return the columns for a block: 1 for a single instance, else whole vectors."""
    return 1 if instances_per_block == 1 else -(-instances_per_block // LANES) * LANES


class _BlockOp(Op):
    """An Op on blocks of `instances_per_block` rows; the last block may be shorter."""

    __props__ = ("instances_per_block",)

    def __init__(self, instances_per_block):
        self.instances_per_block = instances_per_block

    def _rows(self, n_rows):
        """Slices of the rows of each block."""
        size = self.instances_per_block
        return [slice(i, min(i + size, n_rows)) for i in range(0, n_rows, size)]


class PackInUse(_BlockOp):
    """Leave out the units that are zero for all instances: s (m_b, n_units) -> packed, active."""

    def make_node(self, s):
        """Build the node."""
        s = _numbers(s, 2)
        return Apply(self, [s], [pt.tensor3(dtype=s.dtype), pt.matrix(dtype="bool")])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        (s,) = inputs
        rows = self._rows(len(s))
        active = np.zeros((len(rows), s.shape[1]), bool)
        for units, own in zip(active, rows, strict=True):
            units[:] = (s[own] != 0).any(axis=0)
        packed = _zeros(active, padded_width(self.instances_per_block), s.dtype)
        for block, units, own in zip(packed, active, rows, strict=True):
            block[: units.sum(), : own.stop - own.start] = s[own, units].T
        output_storage[0][0], output_storage[1][0] = packed, active


class _OfPacked(_BlockOp):
    """An Op from packed, active and the number of rows m_b to a matrix."""

    def make_node(self, packed, active, n_rows):
        """Build the node; `n_rows` is an integer scalar."""
        packed, active, n_rows = _numbers(packed, 3), _mask(active), _count(n_rows)
        return Apply(self, [packed, active, n_rows], [pt.matrix(dtype=packed.dtype)])

    def _checked_rows(self, packed, active, n_rows):
        """Slices of the rows of each block, after a check that the inputs fit each other."""
        rows = self._rows(int(n_rows))
        check(active, len(rows), active.shape[1])
        width = padded_width(self.instances_per_block)
        check_packed(packed, len(rows), count_most(active), width)
        return rows


class Unpack(_OfPacked):
    """Put back the zeros: packed, active and the number of rows m_b -> s (m_b, n_units)."""

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        packed, active, n_rows = inputs
        rows = self._checked_rows(*inputs)
        s = np.zeros((int(n_rows), active.shape[1]), packed.dtype)
        for block, units, own in zip(packed, active, rows, strict=True):
            s[own, units] = block[: units.sum(), : own.stop - own.start].T
        output_storage[0][0] = s


class BlockLogits(_OfPacked):
    """``z = s Z + o`` with the mean s of each block's own instances, 0 for units not in use.

    Inputs: packed, active, the number of rows m_b, Z in panels (see `panels`), o (n_units,).
    Output: z (n_blocks, n_units).
    """

    def make_node(self, packed, active, n_rows, Z, o):
        """Build the node."""
        packed, Z, o = _numbers(packed, 3), _numbers(Z, 3), _numbers(o, 1)
        _check_dtypes(packed, Z, o)
        inputs = [packed, _mask(active), _count(n_rows), Z, o]
        return Apply(self, inputs, [pt.matrix(dtype=packed.dtype)])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        packed, active, n_rows, panels, o = inputs
        rows = self._checked_rows(packed, active, n_rows)
        check_panels(panels, active.shape[1], len(o))
        Z = np.concatenate(panels, axis=1)[:, : len(o)]
        z = np.empty((len(rows), len(o)), packed.dtype)
        for logits, block, units, own in zip(z, packed, active, rows, strict=True):
            mean = block[: units.sum(), : own.stop - own.start].mean(axis=1)
            logits[:] = mean @ Z[units] + o
        output_storage[0][0] = z


class PackedProduct(_BlockOp):
    """``b + s W`` for the units in use above, from the units in use below.

    Inputs: packed and active of the layer below, Wt (n_units, n_in), b (n_units,), active of this
    layer. Output: packed of this layer. Wt is transposed: the weights of a unit are neighbours.
    """

    def make_node(self, packed, below, Wt, b, above):
        """Build the node."""
        packed, Wt, b = _numbers(packed, 3), _numbers(Wt, 2), _numbers(b, 1)
        _check_dtypes(packed, Wt, b)
        below, above = _mask(below), _mask(above)
        return Apply(self, [packed, below, Wt, b, above], [pt.tensor3(dtype=packed.dtype)])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        packed, below, Wt, b, above = inputs
        (n_units, n_in), size = Wt.shape, self.instances_per_block
        check(below, len(packed), n_in)
        check(above, len(packed), n_units)
        check_packed(packed, len(packed), count_most(below), padded_width(size))
        check_biases(b, n_units)
        out = _zeros(above, packed.shape[2], packed.dtype)
        for result, s, units_below, units in zip(out, packed, below, above, strict=True):
            weights = Wt[np.ix_(units, units_below)]
            result[: len(weights)] = weights @ s[: weights.shape[1]] + b[units, None]
        output_storage[0][0] = out


def check(active, n_blocks, n_units):
    """Refuse masks of another shape than (n_blocks, n_units). Numba compiles all checks."""
    if active.shape != (n_blocks, n_units):
        raise ValueError(
            "a mask has the wrong shape: it needs one row for each block and one column for each "
            "unit."
        )


def check_packed(packed, n_blocks, n_units, width):
    """Refuse packed activations of other blocks, fewer than `n_units` units, or another width."""
    if packed.shape[0] != n_blocks or packed.shape[1] < n_units or packed.shape[2] != width:
        raise ValueError(
            "the packed activations do not go with their mask: pack them with the same mask and "
            "the same instances_per_block."
        )


def check_panels(Z, n_in, n_units):
    """Refuse panels for other units below, or for fewer than `n_units` units."""
    if Z.shape[1] != n_in or Z.shape[0] * Z.shape[2] < n_units:
        raise ValueError(
            "the weights in panels do not go with the activations: they need one row for each "
            "unit below and one column for each unit."
        )


def check_biases(b, n_units):
    """Refuse biases unless there is one for each unit."""
    if b.shape != (n_units,):
        raise ValueError("the biases do not go with the weights: give one for each unit.")


def count_most(active):
    """Return the capacity: the largest number of units in use by a block, 0 without blocks."""
    most = 0
    for units in active:
        most = max(most, np.count_nonzero(units))
    return most


def _zeros(active, width, dtype):
    return np.zeros((len(active), count_most(active), width), dtype)


def _numbers(variable, ndim):
    variable = pt.as_tensor_variable(variable)
    if variable.ndim != ndim or variable.dtype not in ("float32", "float64"):
        raise TypeError(
            f"numbers must be float32 or float64 in {ndim} dimensions here, not {variable.type}."
        )
    return variable


def _check_dtypes(packed, weights, biases):
    if not packed.dtype == weights.dtype == biases.dtype:
        raise TypeError(
            f"activations are {packed.dtype}, weights {weights.dtype} and biases {biases.dtype}: "
            "give all three one dtype."
        )


def _mask(variable):
    variable = pt.as_tensor_variable(variable)
    if variable.ndim != 2 or variable.dtype != "bool":
        raise TypeError(f"a mask must be a matrix of bool, such as u > 0, not {variable.type}.")
    return variable


def _count(variable):
    variable = pt.as_tensor_variable(variable)
    if variable.ndim != 0 or "int" not in variable.dtype:
        raise TypeError(f"a number of rows must be an integer scalar, not {variable.type}.")
    return variable
