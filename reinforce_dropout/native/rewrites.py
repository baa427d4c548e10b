"""Rewrites that put the native Ops into a graph; only :func:`mode` of this package asks for them.

PyTensor's own optimiser of matrix products recognises ``W - lr * (s.T @ g + 2 * l2 * W)``,
however the graph spells it, as one ``Gemm``: ``beta * W + alpha * s.T @ g``.  Its Numba linker has
no such Op and so never calls it.  Here it runs, and what it finds becomes a native Op.
"""

from pytensor.compile.mode import optdb
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.scalar.basic import Tanh
from pytensor.scalar.math import Sigmoid, Softplus
from pytensor.tensor.basic import constant
from pytensor.tensor.blas import _dot22, gemm_no_inplace
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import dot
from pytensor.tensor.rewriting.blas import GemmOptimizer, local_dot_to_dot22

from reinforce_dropout.native.elementwise import Elementwise
from reinforce_dropout.native.products import Product, ProductTransposed, RankUpdate

__all__ = ["TAG"]

#: Tag of these rewrites in PyTensor's rewrite database.
TAG = "reinforce_dropout_native"

_DTYPES = ("float32", "float64")
_FUNCTIONS = {Tanh: "tanh", Sigmoid: "sigmoid", Softplus: "softplus"}


def _untransposed(variable):
    """Return x if `variable` is ``x.T``, else None."""
    apply = variable.owner
    if apply and isinstance(apply.op, DimShuffle) and apply.op.is_matrix_transpose:
        return apply.inputs[0]
    return None


@node_rewriter([gemm_no_inplace])
def gemm_to_rank_update(fgraph, node):
    """``Gemm`` of ``s.T`` and g becomes a :class:`RankUpdate`; any other, plain arithmetic."""
    W, alpha, x, g, beta = node.inputs
    s = _untransposed(x)
    if s is None or W.dtype not in _DTYPES:
        return [beta * W + alpha * dot(x, g)]
    return [RankUpdate()(W, s, g, alpha, beta)]


@node_rewriter([RankUpdate])
def merge_rank_updates(fgraph, node):
    """Two updates of one W with the same s become one, as ``s.T @ (g + g')`` costs half."""
    inner, s, g, alpha, beta = node.inputs
    if not (inner.owner and isinstance(inner.owner.op, RankUpdate)):
        return None
    W, inner_s, inner_g, inner_alpha, inner_beta = inner.owner.inputs
    if inner_s is not s or len(fgraph.clients[inner]) > 1:
        return None
    one = constant(1, dtype=W.dtype)
    return [RankUpdate()(W, s, beta * inner_alpha * inner_g + alpha * g, one, beta * inner_beta)]


@node_rewriter([_dot22])
def dot22_to_product(fgraph, node):
    """``Dot22`` becomes a product with W or with its transpose, or ``Dot`` again."""
    x, y = node.inputs
    if x.dtype not in _DTYPES or _untransposed(x):
        return [dot(x, y)]
    W = _untransposed(y)
    return [Product()(x, y) if W is None else ProductTransposed()(x, W)]


@node_rewriter([Elemwise])
def fast_elementwise(fgraph, node):
    """Float32 tanh, sigmoid and softplus become :class:`Elementwise` Ops."""
    function = _FUNCTIONS.get(type(node.op.scalar_op))
    (x, *_) = node.inputs
    if function is None or x.dtype != "float32" or x.ndim == 0:
        return None
    return [Elementwise(function)(x)]


@node_rewriter([RankUpdate])
def rank_update_inplace(fgraph, node):
    """Let the update overwrite W, if nothing needs the old values afterwards."""
    if node.op.inplace:
        return None
    return [RankUpdate(inplace=True)(*node.inputs)]


# PyTensor runs its own two at 1.7, makes element-wise loops at 49 and allows in-place at 50.
optdb.register("native_dot22", dfs_rewriter(local_dot_to_dot22), TAG, position=1.70)
optdb.register("native_gemm", GemmOptimizer(), TAG, position=1.71)
optdb.register(
    "native_products", dfs_rewriter(gemm_to_rank_update, dot22_to_product), TAG, position=1.72
)
optdb.register("native_merge", dfs_rewriter(merge_rank_updates), TAG, position=1.73)
optdb.register("native_elementwise", dfs_rewriter(fast_elementwise), TAG, position=48.9)
optdb.register("native_inplace", dfs_rewriter(rank_update_inplace), TAG, position=50.2)
