"""Activations of single instances as lists, for groups of units that each instance chooses.

A list keeps what an instance uses: the numbers of its units, and their values. A group is one panel
of the weights or several, and a panel is as wide as a line of the cache. So an instance reads whole
lines, of its own units below and of its own groups, and nothing else.

==========  ======================  ===============================================================
name        shape                   what
==========  ======================  ===============================================================
``values``  (m_b, capacity)         value t of an instance; what its list does not reach is not used
``units``   (m_b, capacity) uint16  number of that unit; they rise
``counts``  (m_b,) int64            length of each instance's list
==========  ======================  ===============================================================

As in `packed`, the Ops compute with NumPy here; under Numba, `native` compiles them. They have no
code for JAX. `GroupProduct` is differentiated by the values below only: see `list_updates` for the
weights and biases.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import disconnected_type, grad_not_implemented
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from reinforce_dropout.alignment import LINE_BYTES

#: The dtype of a unit's number. Lists of half the bytes leave more of the cache to the weights.
UNIT = "uint16"
#: The widest layer whose units have such numbers.
MOST_UNITS = 2**16


def panel_lanes(dtype):
    """Return the columns of a panel: so many numbers fill a line of the cache."""
    return LINE_BYTES // np.dtype(dtype).itemsize


class ListNonZeros(Op):
    """List what is not zero: s (m_b, n_units) -> values, units, counts."""

    __props__ = ()

    def make_node(self, s):
        """Build the node."""
        s = pt.as_tensor_variable(s)
        return Apply(self, [s], list_types(s.dtype))

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        (s,) = inputs
        check_width(s.shape[1])
        values, units = np.zeros_like(s), np.zeros(s.shape, UNIT)
        counts = np.count_nonzero(s, axis=1)
        for i, row in enumerate(s):
            units[i, : counts[i]] = np.flatnonzero(row)
            values[i, : counts[i]] = row[row != 0]
        for storage, result in zip(output_storage, (values, units, counts), strict=True):
            storage[0] = result


class GroupProduct(Op):
    """``s W + b`` for the groups that each instance uses, from the list of its units below.

    Inputs: values, units, counts of the layer below; W in panels (n_panels, n_in, lanes), see
    `panels`; b (n_units,); groups (m_b, n_groups) bool. Output: the lists of this layer.

    Parameters
    ----------
    size : int
        Units in a group, whole panels. The last group may be shorter.
    """

    __props__ = ("size",)

    def __init__(self, size):
        self.size = size

    def make_node(self, values, units, counts, W, b, groups):
        """Build the node."""
        inputs = [pt.as_tensor_variable(v) for v in (values, units, counts, W, b, groups)]
        values, _, _, W, b, groups = inputs
        check_operand_types(values, W, b, groups)
        return Apply(self, inputs, list_types(values.dtype))

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        values, units, counts, panels, b, groups = inputs
        check_lists(values, units, counts, panels.shape[1])
        check_line(panels)
        check(self.size, counts, panels, b, groups)
        check_width(b.size)
        W = np.concatenate(panels, axis=1)[:, : b.size]
        out = np.zeros((len(groups), capacity(groups, self.size)), values.dtype)
        out_units, out_counts = np.zeros(out.shape, UNIT), np.zeros(len(out), np.int64)
        for i, in_use in enumerate(np.repeat(groups, self.size, axis=1)[:, : b.size]):
            own, below = np.flatnonzero(in_use), units[i, : counts[i]]
            out_counts[i], out_units[i, : own.size] = own.size, own
            out[i, : own.size] = values[i, : counts[i]] @ W[np.ix_(below, own)] + b[own]
        for storage, result in zip(output_storage, (out, out_units, out_counts), strict=True):
            storage[0] = result

    def connection_pattern(self, node):
        """Say that only the numbers, no list's units, depend on numbers."""
        numbers = (0, 3, 4)  # values, W, b
        return [[i in numbers, False, False] for i in range(len(node.inputs))]

    def pullback(self, inputs, outputs, cotangents):
        """Take gradients from the values of this layer to those of the layer below."""
        _, units, counts, W, b, _ = inputs
        below = GroupProductTransposed()(cotangents[0], *outputs[1:], W, units, counts)
        W, b = (
            grad_not_implemented(self, i, v, "Take `list_updates` instead.")
            for i, v in ((3, W), (4, b))
        )
        return [below, disconnected_type(), disconnected_type(), W, b, disconnected_type()]


class GroupProductTransposed(Op):
    """``g W.T`` for the units in use below, from gradients g of the units in use above.

    Inputs: g, units, counts of the layer above, in whole panels as `GroupProduct` gives them; W in
    panels (n_panels, n_in, lanes); units, counts of the layer below. Output: (m_b, capacity below),
    0 beyond each list.
    """

    __props__ = ()

    def make_node(self, g, above, n_above, W, below, n_below):
        """Build the node."""
        inputs = [pt.as_tensor_variable(v) for v in (g, above, n_above, W, below, n_below)]
        g, above, _, W, below, _ = inputs
        check_types([g, W], [above, below])
        return Apply(self, inputs, [pt.matrix(dtype=g.dtype)])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        g, above, n_above, panels, below, n_below = inputs
        check_lists(below, below, n_below, panels.shape[1])
        check_lists(g, above, n_above, panels.shape[0] * panels.shape[2])
        check_whole_panels(above, panels, len(below))
        check_line(panels)
        W, out = np.concatenate(panels, axis=1), np.zeros(below.shape, g.dtype)
        for i, (n, m) in enumerate(zip(n_below, n_above, strict=True)):
            out[i, :n] = W[np.ix_(below[i, :n], above[i, :m])] @ g[i, :m]
        output_storage[0][0] = out


def capacity(groups, size):
    """Return room for the longest list: all units of the groups in use, the last one filled up."""
    most = 0
    for i in range(groups.shape[0]):
        n = 0
        for group in range(groups.shape[1]):  # np.count_nonzero would copy each row under Numba
            n += groups[i, group]
        most = max(most, n)
    return most * size


def check(size, counts, W, b, groups):
    """Refuse weights, biases and groups that do not go together. Numba compiles all checks."""
    if size % W.shape[2] or W.shape[0] != (b.size + W.shape[2] - 1) // W.shape[2]:
        raise ValueError(
            "the panels do not go with the groups: a group needs whole panels, and each unit one "
            "column."
        )
    if groups.shape != (len(counts), (b.size + size - 1) // size):
        raise ValueError(
            "the groups do not go with the layer: they need a row for each instance, and a column "
            "for each group of units."
        )


def check_line(W):
    """Refuse panels of another width than a line of the cache."""
    if W.shape[2] * W.itemsize != LINE_BYTES:
        raise ValueError("the panels have the wrong width: each row needs a line of the cache.")


def check_lists(values, units, counts, n_units):
    """Refuse lists that do not go together, or that name other units than 0 to `n_units`."""
    if values.shape != units.shape or len(counts) != len(units):
        raise ValueError(
            "the lists do not go with each other: values and units need one shape, and counts a "
            "row for each instance."
        )
    for i in range(len(counts)):
        n = counts[i]
        # The numbers of a list rise, so its end tells.
        if n > units.shape[1] or (n > 0 and units[i, n - 1] >= n_units):
            raise ValueError(
                "the lists do not go with the weights: give the units of their layer, and for "
                "each instance no more than there are."
            )


def check_whole_panels(units, W, n_instances):
    """Refuse lists of a layer without room for whole panels, or of other instances than below."""
    if len(units) != n_instances or units.shape[1] % W.shape[2]:
        raise ValueError(
            "the lists do not go with the panels: they need a row for each instance below, and "
            "room for whole panels."
        )


def check_operand_types(values, W, b, mask):
    """Refuse symbolic operands of several dtypes, and masks that are not bool."""
    if not values.dtype == W.dtype == b.dtype or mask.dtype != "bool":
        raise TypeError(
            f"activations are {values.dtype}, weights {W.dtype}, biases {b.dtype} and masks "
            f"{mask.dtype}: give the first three one dtype, and masks as bool."
        )


def check_width(n_units):
    """Refuse a layer with more units than have numbers."""
    if n_units > MOST_UNITS:
        raise ValueError("the layer is too wide for lists: they number no more than 65536 units.")


def check_types(numbers, units):
    """Refuse symbolic numbers of several dtypes, and units that are not `UNIT`."""
    dtypes = sorted({v.dtype for v in numbers})
    if len(dtypes) > 1 or any(v.dtype != UNIT for v in units):
        raise TypeError(
            f"numbers are {' and '.join(dtypes)} and units {units[0].dtype}: give all numbers one "
            f"dtype, and units as {UNIT}."
        )


def list_types(dtype):
    """Return new symbolic lists: values, units and counts."""
    return [pt.matrix(dtype=dtype), pt.matrix(dtype=UNIT), pt.lvector()]
