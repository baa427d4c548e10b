"""PyTensor Ops for the matrix products of a training step.

They replace ``Dot`` and the updates of weights after differentiation, so they define no gradients.
All inputs of one node have the same floating-point dtype.
"""

import numpy as np
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)
from pytensor.tensor.type import tensor

from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.kernels.forward_products import products
from reinforce_dropout.native.kernels.rank_updates import rank_updates
from reinforce_dropout.native.kernels.shapes import check_masked, check_update
from reinforce_dropout.native.kernels.transposed_products import (
    masked_product_transposed,
    product_transposed,
)

__all__ = ["MaskedProductTransposed", "ProductTransposed", "Products", "RankUpdates"]


class Products(Op):
    """``s @ W``, and ``s @ Z`` if there is a Z. Both use one list of the non-zero entries of s.

    s (n_rows, n_in), W (n_in, n_W), Z (n_in, n_Z).
    """

    __props__ = ()

    def make_node(self, s, *weights):
        """Build the node for one or two weight matrices, with one output for each."""
        outputs = [tensor(dtype=s.dtype, shape=(s.type.shape[0], W.type.shape[1])) for W in weights]
        return Apply(self, [s, *weights], outputs)

    def infer_shape(self, *arguments):
        """Return the outputs' shapes; PyTensor 3.0 passes one more argument than 3.3."""
        *_, input_shapes = arguments
        (n_rows, _), *weight_shapes = input_shapes
        return [(n_rows, n_out) for _, n_out in weight_shapes]

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        s, *weights = inputs
        for storage, W in zip(output_storage, weights, strict=True):
            storage[0] = np.dot(s, W)


class ProductTransposed(Op):
    """``g @ W.T``: g (n_rows, n_out), W (n_in, n_out), without a copy of W's transpose."""

    __props__ = ()

    def make_node(self, g, W):
        """Build the node; its output has shape (n_rows, n_in)."""
        shape = (g.type.shape[0], W.type.shape[0])
        return Apply(self, [g, W], [tensor(dtype=g.dtype, shape=shape)])

    def infer_shape(self, *arguments):
        """Return the output's shape; PyTensor 3.0 passes one more argument than 3.3."""
        *_, input_shapes = arguments
        (n_rows, _), (n_in, _), *_ = input_shapes
        return [(n_rows, n_in)]

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        g, W = inputs
        output_storage[0][0] = np.dot(g, W.T)


class MaskedProductTransposed(ProductTransposed):
    """``g @ W.T`` where the mask u (n_rows, n_in) is not zero; only for a multiplication by u.

    Elsewhere the result is zero or the product, whichever is faster.
    """

    def make_node(self, g, W, u):
        """Build the node; its output has u's shape."""
        return Apply(self, [g, W, u], [u.type()])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        g, W, u = inputs
        check_masked.py_func(g, W, u)
        output_storage[0][0] = np.dot(g, W.T)


class RankUpdates(Op):
    """``beta * W + s.T @ g`` for one or two matrices W with the same s (n_rows, n_in).

    W (n_in, n_out), g (n_rows, n_out); beta is a scalar. If `inplace`, the results overwrite the
    `n_matrices` matrices.
    """

    __props__ = ("n_matrices", "inplace")

    def __init__(self, n_matrices, inplace=False):
        self.n_matrices = n_matrices
        self.inplace = inplace
        if inplace:
            self.destroy_map = {i: [1 + 3 * i] for i in range(n_matrices)}

    def make_node(self, s, *updates):
        """Build the node from s, and W, g, beta of every matrix, with one output for each."""
        return Apply(self, [s, *updates], [W.type() for W in updates[::3]])

    def infer_shape(self, *arguments):
        """Return the shapes of the matrices."""
        *_, input_shapes = arguments
        return list(input_shapes[1::3])

    def perform(self, node, inputs, output_storage):
        """Compute with NumPy, for linkers other than Numba's."""
        s, *updates = inputs
        for storage, W, g, beta in zip(
            output_storage, updates[::3], updates[1::3], updates[2::3], strict=True
        ):
            check_update.py_func(s, W, g)
            result = W if self.inplace else W.copy()
            result *= beta
            result += np.dot(s.T, g)
            storage[0] = result


@register_funcify_default_op_cache_key(Products)
def _numba_products(op, node, **kwargs):
    if len(node.outputs) == 2:
        return products, VERSION

    @numba_njit
    def native_product(s, W):
        return products(s, W, np.empty((W.shape[0], 0), W.dtype))[0]

    return native_product, VERSION


@register_funcify_default_op_cache_key(ProductTransposed)
def _numba_product_transposed(op, node, **kwargs):
    return product_transposed, VERSION


@register_funcify_default_op_cache_key(MaskedProductTransposed)
def _numba_masked_product_transposed(op, node, **kwargs):
    return masked_product_transposed, VERSION


@register_funcify_default_op_cache_key(RankUpdates)
def _numba_rank_updates(op, node, **kwargs):
    inplace = op.inplace

    @numba_njit
    def own(W):
        return np.ascontiguousarray(W) if inplace else W.copy()

    if op.n_matrices == 1:

        @numba_njit
        def native_rank_update(s, W, g, beta):
            W = own(W)
            no_Z, no_g = np.empty((W.shape[0], 0), W.dtype), np.empty((s.shape[0], 0), W.dtype)
            rank_updates(s, W, g, beta.item(), no_Z, no_g, beta.item())
            return W

        return native_rank_update, VERSION

    @numba_njit
    def native_rank_updates(s, W, g_W, beta_W, Z, g_Z, beta_Z):
        W, Z = own(W), own(Z)
        rank_updates(s, W, g_W, beta_W.item(), Z, g_Z, beta_Z.item())
        return W, Z

    return native_rank_updates, VERSION
