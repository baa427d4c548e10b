"""Layers of which every instance uses single units of its own choice.

The lists and panels are those of `lists`. Panels are summed two at a time, if an instance uses one
of their units. So at 15 % nearly all lines of the weights are read, at 5 % four in five. What pays
is that no input is read that is zero.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from reinforce_dropout.blocks.lists import (
    UNIT,
    capacity,
    check_line,
    check_lists,
    check_operand_types,
    check_width,
    list_types,
)


class UnitProduct(Op):
    """``s W + b`` for the single units that each instance uses, from the list of its units below.

    Inputs: values, units, counts of the layer below; W in panels (n_panels, n_in, lanes), see
    `panels`; b (n_units,); mask (m_b, n_units) bool. Output: the lists of this layer.
    """

    __props__ = ()

    def make_node(self, values, units, counts, W, b, mask):
        """Build the node."""
        inputs = [pt.as_tensor_variable(v) for v in (values, units, counts, W, b, mask)]
        values, _, _, W, b, mask = inputs
        check_operand_types(values, W, b, mask)
        return Apply(self, inputs, list_types(values.dtype))

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        values, units, counts, panels, b, mask = inputs
        check_lists(values, units, counts, panels.shape[1])
        check_line(panels)
        check(counts, panels, b, mask)
        check_width(b.size)
        W = np.concatenate(panels, axis=1)
        out = np.zeros((len(mask), capacity(mask, 1)), values.dtype)
        out_units, out_counts = np.zeros(out.shape, UNIT), np.zeros(len(out), np.int64)
        for i, in_use in enumerate(mask):
            own, below = np.flatnonzero(in_use), units[i, : counts[i]]
            out_counts[i], out_units[i, : own.size] = own.size, own
            out[i, : own.size] = values[i, : counts[i]] @ W[np.ix_(below, own)] + b[own]
        for storage, result in zip(output_storage, (out, out_units, out_counts), strict=True):
            storage[0] = result


def check(counts, W, b, mask):
    """Refuse weights, biases and masks that do not go together. Numba compiles all checks."""
    n_panels = (b.size + W.shape[2] - 1) // W.shape[2]
    if n_panels != W.shape[0] or mask.shape != (len(counts), b.size):
        raise ValueError(
            "the mask does not go with the layer: it needs a row for each instance and a column "
            "for each unit, and each unit a bias and a column of the panels."
        )
