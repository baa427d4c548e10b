"""Activations of single instances as lists, for groups of units that each instance chooses.

A list keeps what an instance uses: the numbers of its units, and their values. A group is one panel
of the weights or several, and a panel is as wide as a line of the cache. So an instance reads whole
lines, of its own units below and of its own groups, and nothing else.

==========  =====================  ================================================================
name        shape                  what
==========  =====================  ================================================================
``values``  (m_b, capacity)        value t of an instance; what its list does not reach is not used
``units``   (m_b, capacity) int32  number of that unit
``counts``  (m_b,) int64           length of each instance's list
==========  =====================  ================================================================

As in `packed`, the Ops compute with NumPy here; under Numba, `native` compiles them. They have no
code for JAX and define no gradient.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from reinforce_dropout.alignment import LINE_BYTES


def panel_lanes(dtype):
    """Return the columns of a panel: so many numbers fill a line of the cache."""
    return LINE_BYTES // np.dtype(dtype).itemsize


class ListNonZeros(Op):
    """List what is not zero: s (m_b, n_units) -> values, units, counts."""

    __props__ = ()

    def make_node(self, s):
        """Build the node."""
        s = pt.as_tensor_variable(s)
        return Apply(self, [s], _lists(s.dtype))

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        (s,) = inputs
        values, units = np.zeros_like(s), np.zeros(s.shape, np.int32)
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
        if not values.dtype == W.dtype == b.dtype or groups.dtype != "bool":
            raise TypeError(
                f"activations are {values.dtype}, weights {W.dtype}, biases {b.dtype} and groups "
                f"{groups.dtype}: give the first three one dtype, and groups as bool."
            )
        return Apply(self, inputs, _lists(values.dtype))

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        values, units, counts, panels, b, groups = inputs
        check(self.size, values, units, counts, panels, b, groups)
        W = np.concatenate(panels, axis=1)[:, : b.size]
        out = np.zeros((len(groups), capacity(groups, self.size)), values.dtype)
        out_units, out_counts = np.zeros(out.shape, np.int32), np.zeros(len(out), np.int64)
        for i, in_use in enumerate(np.repeat(groups, self.size, axis=1)[:, : b.size]):
            own, below = np.flatnonzero(in_use), units[i, : counts[i]]
            out_counts[i], out_units[i, : own.size] = own.size, own
            out[i, : own.size] = values[i, : counts[i]] @ W[np.ix_(below, own)] + b[own]
        for storage, result in zip(output_storage, (out, out_units, out_counts), strict=True):
            storage[0] = result


def capacity(groups, size):
    """Return room for the longest list: all units of the groups in use, the last one filled up."""
    most = 0
    for in_use in groups:
        most = max(most, np.count_nonzero(in_use))
    return most * size


def check(size, values, units, counts, W, b, groups):
    """Refuse operands that do not go together. Numba compiles all checks."""
    if values.shape != units.shape or len(counts) != len(values) or len(groups) != len(values):
        raise ValueError(
            "the lists do not go with each other: values and units need one shape, and counts and "
            "groups a row for each instance."
        )
    if size % W.shape[2] or W.shape[0] != (b.size + W.shape[2] - 1) // W.shape[2]:
        raise ValueError(
            "the panels do not go with the groups: a group needs whole panels, and each unit one "
            "column."
        )
    if groups.shape[1] != (b.size + size - 1) // size:
        raise ValueError("the groups do not go with the biases: each group needs its units.")


def _lists(dtype):
    return [pt.matrix(dtype=dtype), pt.imatrix(), pt.lvector()]
