"""Products with all units of a layer, from lists of the layer below: policies, and the output.

The lists and panels are those of `lists`. No input is read that is zero.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from reinforce_dropout.blocks.lists import check_line, check_lists, check_types


class ListProduct(Op):
    """``s W + b`` for every unit, from the list of an instance's units below.

    Inputs: values, units, counts of the layer below; W in panels (n_panels, n_in, lanes), see
    `panels`; b (n_units,). Output: (m_b, n_units). It has no gradient; training takes
    `lists.GroupProduct`, whose lists name what the weights' updates need.
    """

    __props__ = ()

    def make_node(self, values, units, counts, W, b):
        """Build the node."""
        inputs = [pt.as_tensor_variable(v) for v in (values, units, counts, W, b)]
        values, units, _, W, b = inputs
        check_types([values, W, b], [units])
        return Apply(self, inputs, [pt.matrix(dtype=values.dtype)])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        values, units, counts, panels, b = inputs
        check_lists(values, units, counts, panels.shape[1])
        check_line(panels)
        check(panels, b)
        W = np.concatenate(panels, axis=1)[:, : b.size]
        lists = zip(values, units, counts, strict=True)
        out = [s[:n] @ W[below[:n]] + b for s, below, n in lists]
        output_storage[0][0] = np.array(out, values.dtype).reshape(len(counts), b.size)


def check(W, b):
    """Refuse panels and biases that do not go together. Numba compiles all checks."""
    if W.shape[0] != (b.size + W.shape[2] - 1) // W.shape[2]:
        raise ValueError(
            "the panels do not go with the biases: each unit needs a column of the panels."
        )
