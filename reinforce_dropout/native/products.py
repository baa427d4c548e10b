"""PyTensor Ops for the matrix products of a training step.

They take the place of ``Dot`` and of a weight's update after differentiation, so none of them
defines a gradient.  All inputs of one node have the same floating-point dtype.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)
from pytensor.tensor.type import tensor

from reinforce_dropout.native import kernels

__all__ = ["Product", "ProductTransposed", "RankUpdate"]


def _kernel_version():
    """Digest of the kernels' source, so that PyTensor's disk cache never holds stale code."""
    folder = Path(__file__).parent
    sources = [(folder / name).read_bytes() for name in ("kernels.py", "simd.py")]
    return int.from_bytes(sha256(b"".join(sources)).digest()[:8], "big")


_KERNEL_VERSION = _kernel_version()


class Product(Op):
    """``s @ W``: s (n_rows, n_in), W (n_in, n_out); zeros of s are skipped."""

    __props__ = ()

    def make_node(self, s, W):
        """Build the node; its output has shape (n_rows, n_out)."""
        shape = (s.type.shape[0], W.type.shape[1])
        return Apply(self, [s, W], [tensor(dtype=s.dtype, shape=shape)])

    def infer_shape(self, *arguments):
        """Give the output's shape; PyTensor 3.0 passes one argument more than 3.3."""
        *_, input_shapes = arguments
        (n_rows, _), (_, n_out) = input_shapes
        return [(n_rows, n_out)]

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        s, W = inputs
        output_storage[0][0] = np.dot(s, W)


class ProductTransposed(Op):
    """``g @ W.T``: g (n_rows, n_out), W (n_in, n_out), without a copy of W's transpose."""

    __props__ = ()

    def make_node(self, g, W):
        """Build the node; its output has shape (n_rows, n_in)."""
        shape = (g.type.shape[0], W.type.shape[0])
        return Apply(self, [g, W], [tensor(dtype=g.dtype, shape=shape)])

    def infer_shape(self, *arguments):
        """Give the output's shape; PyTensor 3.0 passes one argument more than 3.3."""
        *_, input_shapes = arguments
        (n_rows, _), (n_in, _) = input_shapes
        return [(n_rows, n_in)]

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        g, W = inputs
        output_storage[0][0] = np.dot(g, W.T)


class RankUpdate(Op):
    """``beta * W + alpha * s.T @ g``: W (n_in, n_out), s (n_rows, n_in), g (n_rows, n_out).

    Parameters
    ----------
    inplace : bool
        Whether the result overwrites W.
    """

    __props__ = ("inplace",)

    def __init__(self, inplace=False):
        self.inplace = inplace
        if inplace:
            self.destroy_map = {0: [0]}

    def make_node(self, W, s, g, alpha, beta):
        """Build the node; alpha and beta are scalars of W's dtype."""
        return Apply(self, [W, s, g, alpha, beta], [W.type()])

    def infer_shape(self, *arguments):
        """Give the output's shape, which is W's."""
        *_, input_shapes = arguments
        return [input_shapes[0]]

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        W, s, g, alpha, beta = inputs
        result = W if self.inplace else W.copy()
        result *= beta
        result += alpha * np.dot(s.T, g)
        output_storage[0][0] = result


@register_funcify_default_op_cache_key(Product)
def _numba_product(op, node, **kwargs):
    @numba_njit
    def native_product(s, W):
        return kernels.product(np.ascontiguousarray(s), np.ascontiguousarray(W))

    return native_product, _KERNEL_VERSION


@register_funcify_default_op_cache_key(ProductTransposed)
def _numba_product_transposed(op, node, **kwargs):
    @numba_njit
    def native_product_transposed(g, W):
        return kernels.product_transposed(np.ascontiguousarray(g), np.ascontiguousarray(W))

    return native_product_transposed, _KERNEL_VERSION


@register_funcify_default_op_cache_key(RankUpdate)
def _numba_rank_update(op, node, **kwargs):
    inplace = op.inplace

    @numba_njit
    def native_rank_update(W, s, g, alpha, beta):
        contiguous = np.ascontiguousarray(W) if inplace else W.copy()
        kernels.rank_update(
            contiguous,
            np.ascontiguousarray(s),
            np.ascontiguousarray(g),
            alpha.item(),
            beta.item(),
        )
        return contiguous

    return native_rank_update, _KERNEL_VERSION
