"""Ops for tanh, sigmoid and softplus."""

import numpy as np
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)
from scipy import special

from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.kernels.elementwise import FUNCTIONS, ON_LISTS

__all__ = ["Elementwise", "ListElementwise"]


def _numpy_softplus(x):
    return np.logaddexp(0, x)


_IN_NUMPY = {"tanh": np.tanh, "sigmoid": special.expit, "softplus": _numpy_softplus}


class _Function(Op):
    """One function of `kernels.elementwise`: `function` is "tanh", "sigmoid" or "softplus"."""

    __props__ = ("function",)

    def __init__(self, function):
        self.function = function

    def infer_shape(self, *arguments):
        """Return the shape of the first input; PyTensor 3.0 passes one more argument."""
        *_, input_shapes = arguments
        return input_shapes[:1]


class Elementwise(_Function):
    """The function of every element of a float32 array of any rank.

    It is not part of PyTensor's fused loops. Those have so many inputs and outputs that LLVM cannot
    prove them distinct, and then does not vectorise the loop.
    """

    def make_node(self, x):
        """Build the node; its output has x's type."""
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        (x,) = inputs
        output_storage[0][0] = np.asarray(_IN_NUMPY[self.function](x), dtype=x.dtype)


@register_funcify_default_op_cache_key(Elementwise)
def _numba_elementwise(op, node, **kwargs):
    function = FUNCTIONS[op.function]

    @numba_njit
    def native_elementwise(x):
        contiguous = np.ascontiguousarray(x)
        result = np.empty_like(contiguous)
        function(contiguous.reshape(-1), result.reshape(-1))
        return result

    return native_elementwise, VERSION


class ListElementwise(_Function):
    """The function of the values of lists, see `blocks.lists`: 0 beyond each list.

    Inputs: float32 values (m_b, capacity), counts (m_b,). A list may be much shorter than the
    longest, so most of the capacity need not be computed.
    """

    def make_node(self, values, counts):
        """Build the node; its output has the type of the values."""
        return Apply(self, [values, counts], [values.type()])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        values, counts = inputs
        listed = np.arange(values.shape[1]) < counts[:, None]
        result = np.where(listed, _IN_NUMPY[self.function](values), 0)
        output_storage[0][0] = result.astype(values.dtype)


@register_funcify_default_op_cache_key(ListElementwise)
def _numba_list_elementwise(op, node, **kwargs):
    function = ON_LISTS[op.function]

    @numba_njit
    def native_list_elementwise(values, counts):
        contiguous = np.ascontiguousarray(values)
        result = np.empty_like(contiguous)
        function(contiguous, counts, result)
        return result

    return native_list_elementwise, VERSION
