"""Read and write the part of a matrix at some rows and some columns.

The Ops compute with NumPy here; under Numba, `native.submatrix` compiles them.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op


class Submatrix(Op):
    """``scale * W[rows][:, columns]``.

    Inputs: W (n, m); rows and columns, int64 vectors without repetitions; scale, a scalar of W's
    dtype.
    """

    __props__ = ()

    def make_node(self, W, rows, columns, scale):
        """Build the node."""
        rows, columns, scale = (pt.as_tensor_variable(v) for v in (rows, columns, scale))
        return Apply(self, [W, rows, columns, scale], [pt.matrix(dtype=W.dtype)])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        W, rows, columns, scale = inputs
        output_storage[0][0] = scale * W[np.ix_(rows, columns)]


class PutSubmatrix(Op):
    """W with ``scale * V`` instead of ``W[rows][:, columns]``.

    V (len(rows), len(columns)); the rest as for :class:`Submatrix`. If `inplace`, the result
    overwrites W.
    """

    __props__ = ("inplace",)

    def __init__(self, inplace=False):
        self.inplace = inplace
        if inplace:
            self.destroy_map = {0: [0]}

    def make_node(self, W, rows, columns, V, scale):
        """Build the node."""
        rows, columns, scale = (pt.as_tensor_variable(v) for v in (rows, columns, scale))
        return Apply(self, [W, rows, columns, V, scale], [pt.matrix(dtype=W.dtype)])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy."""
        W, rows, columns, V, scale = inputs
        check_part(V, rows, columns)
        result = W if self.inplace else W.copy()
        result[np.ix_(rows, columns)] = scale * V
        output_storage[0][0] = result


def check_part(V, rows, columns):
    """Refuse a part V of another shape than (len(rows), len(columns)). Numba compiles this, too."""
    if V.shape != (rows.size, columns.size):
        raise ValueError(
            "a part of a matrix has the wrong shape: it needs one row and one column for each "
            "number that is given."
        )
