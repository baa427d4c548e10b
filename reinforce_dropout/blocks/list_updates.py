"""Updates of the weights and biases that single instances use, see `lists`.

What no instance uses is neither read nor written.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from reinforce_dropout.blocks.lists import check_line, check_lists, check_types, check_whole_panels


class _Update(Op):
    """An Op whose result overwrites its first input if it is `inplace`."""

    __props__ = ("inplace",)

    def __init__(self, inplace=False):
        self.inplace = inplace
        if inplace:
            self.destroy_map = {0: [0]}

    def infer_shape(self, *arguments):
        """Return the shape of the first input; PyTensor 3.0 passes one more argument than 3.3."""
        *_, input_shapes = arguments
        return [input_shapes[0]]


class GroupUpdate(_Update):
    """``W + s.T g``, where each instance adds to the weights between its own units.

    Inputs: W in panels (n_panels, n_in, lanes); the lists below: values s, units, counts; the lists
    of this layer, in whole panels as `lists.GroupProduct` gives them: steps g, units, counts.
    """

    def make_node(self, W, s, below, n_below, g, above, n_above):
        """Build the node."""
        inputs = [pt.as_tensor_variable(v) for v in (W, s, below, n_below, g, above, n_above)]
        W, s, below, _, g, above, _ = inputs
        check_types([W, s, g], [below, above])
        return Apply(self, inputs, [W.type()])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        panels, s, below, n_below, g, above, n_above = inputs
        check_lists(s, below, n_below, panels.shape[1])
        check_lists(g, above, n_above, panels.shape[0] * panels.shape[2])
        check_whole_panels(above, panels, len(below))
        check_line(panels)
        result = panels if self.inplace else panels.copy()
        for i, (n, m) in enumerate(zip(n_below, n_above, strict=True)):
            panel, column = np.divmod(above[i, :m], result.shape[2])
            result[panel, below[i, :n, None], column] += np.outer(s[i, :n], g[i, :m])
        output_storage[0][0] = result


class UnitUpdate(_Update):
    """``b + g.sum(axis=0)``, where each instance adds to the biases of its own units.

    Inputs: b (n_units,); the lists of this layer: steps g, units, counts.
    """

    def make_node(self, b, g, units, counts):
        """Build the node."""
        b, g, units, counts = (pt.as_tensor_variable(v) for v in (b, g, units, counts))
        check_types([b, g], [units])
        return Apply(self, [b, g, units, counts], [b.type()])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        b, g, units, counts = inputs
        check_lists(g, units, counts, b.size)
        result = b if self.inplace else b.copy()
        for i, n in enumerate(counts):
            result[units[i, :n]] += g[i, :n]
        output_storage[0][0] = result
