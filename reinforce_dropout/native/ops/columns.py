"""An Op for the limit on the columns of a weight matrix, see `updates.max_norm`."""

import numpy as np
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.kernels.columns import limit_columns
from reinforce_dropout.native.kernels.shapes import check_step

__all__ = ["LimitColumns"]


class LimitColumns(Op):
    """``V = W + step``, or W without a step, and ``V * sqrt(limit / max(limit, squares))``.

    W and the step (n_in, n_out); ``squares`` are the sums of V's squares by column; the limit is a
    scalar. If `inplace`, the result overwrites W.
    """

    __props__ = ("inplace",)

    def __init__(self, inplace=False):
        self.inplace = inplace
        if inplace:
            self.destroy_map = {0: [0]}

    def make_node(self, W, limit, *step):
        """Build the node, with or without a step."""
        return Apply(self, [W, limit, *step], [W.type()])

    def infer_shape(self, *arguments):
        """Return W's shape; PyTensor 3.0 passes one more argument than 3.3."""
        *_, input_shapes = arguments
        return [input_shapes[0]]

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        W, limit, *step = inputs
        result = W if self.inplace else W.copy()
        for one in step:
            check_step.py_func(W, one)
            result += one
        result *= np.sqrt(limit / np.maximum(limit, (result**2).sum(axis=0)))
        output_storage[0][0] = result


@register_funcify_default_op_cache_key(LimitColumns)
def _numba_limit_columns(op, node, **kwargs):
    inplace = op.inplace

    @numba_njit
    def own(W):
        return np.ascontiguousarray(W) if inplace else W.copy()

    if len(node.inputs) == 2:

        @numba_njit
        def native_limit_columns(W, limit):
            W = own(W)
            limit_columns(W, np.empty((0, 0), W.dtype), limit.item())
            return W

        return native_limit_columns, VERSION

    @numba_njit
    def native_step_and_limit_columns(W, limit, step):
        W = own(W)
        limit_columns(W, step, limit.item())
        return W

    return native_step_and_limit_columns, VERSION
