"""Rewrites that put the native Ops into a graph; only :func:`mode` of this package uses them.

PyTensor's own optimiser of matrix products recognises ``W - lr * (s.T @ g + 2 * l2 * W)`` in any
spelling. It makes one ``Gemm`` of it: ``beta * W + alpha * s.T @ g``. PyTensor's Numba mode does
not use it, because the linker has no ``Gemm``. Here it runs, and each ``Gemm`` becomes a native Op.
"""

from pytensor.compile.mode import optdb
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.graph.traversal import apply_depends_on
from pytensor.scalar.basic import Cast, Mul, Tanh
from pytensor.scalar.math import Sigmoid, Softplus
from pytensor.tensor.blas import _dot22, gemm_no_inplace
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import dot
from pytensor.tensor.rewriting.blas import GemmOptimizer, local_dot_to_dot22

from reinforce_dropout.blocks.list_updates import GroupUpdate, UnitUpdate
from reinforce_dropout.blocks.lists import GroupProduct
from reinforce_dropout.blocks.submatrix import PutSubmatrix
from reinforce_dropout.blocks.unit_product import UnitProduct
from reinforce_dropout.native.ops.elementwise import Elementwise, ListElementwise
from reinforce_dropout.native.ops.products import (
    MaskedProductTransposed,
    Products,
    ProductTransposed,
    RankUpdates,
)
from reinforce_dropout.native.ops.uniforms import use_uniforms

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
def gemm_to_rank_updates(fgraph, node):
    """``Gemm`` of ``s.T`` and g becomes a :class:`RankUpdates`, any other plain arithmetic.

    ::

        Gemm(W, alpha, Transpose(s), g, beta) -> RankUpdates(s, W, Mul(alpha, g), beta)
        Gemm(V, alpha, x, y, beta) -> Add(Mul(beta, V), Mul(alpha, Dot(x, y)))
    """
    W, alpha, x, g, beta = node.inputs
    s = _untransposed(x)
    if s is None or W.dtype not in _DTYPES:
        return [beta * W + alpha * dot(x, g)]
    return RankUpdates(1)(s, W, alpha * g, beta, return_list=True)


@node_rewriter([RankUpdates])
def merge_rank_updates(fgraph, node):
    """Two updates of one W with the same s become one, as ``s.T @ (g + g')`` costs half.

    ::

        RankUpdates(s, RankUpdates(s, W, h, c), g, b)
            -> RankUpdates(s, W, Add(Mul(b, h), g), Mul(b, c))
    """
    if node.op.n_matrices > 1:
        return None
    s, inner, g, beta = node.inputs
    if not (inner.owner and inner.owner.op == RankUpdates(1)):
        return None
    inner_s, W, inner_g, inner_beta = inner.owner.inputs
    if inner_s is not s or len(fgraph.clients[inner]) > 1:
        return None
    return RankUpdates(1)(s, W, beta * inner_g + g, beta * inner_beta, return_list=True)


@node_rewriter([_dot22])
def dot22_to_product(fgraph, node):
    """``Dot22`` becomes a product with W or with its transpose, or ``Dot`` again.

    ::

        Dot22(s, W) -> Products(s, W)
        Dot22(g, Transpose(W)) -> ProductTransposed(g, W)
        Dot22(Transpose(s), g) -> Dot(Transpose(s), g)
    """
    x, y = node.inputs
    if x.dtype not in _DTYPES or _untransposed(x) is not None:
        return [dot(x, y)]
    W = _untransposed(y)
    return [Products()(x, y) if W is None else ProductTransposed()(x, W)]


def _partner(fgraph, node):
    """Return another node of the same Op on the same s that can be joined to `node`, or None."""
    s, W = node.inputs[:2]
    for other, position in fgraph.clients[s]:
        if other.op == node.op and position == 0 and other is not node:
            if other.inputs[1].dtype == W.dtype and len(other.outputs) == 1:
                # If one node needed the other's result, the joined node would need its own.
                if not (apply_depends_on(node, other) or apply_depends_on(other, node)):
                    return other
    return None


@node_rewriter([Products])
def pair_products(fgraph, node):
    """``s @ W`` and ``s @ Z``, of a layer and its policy, become one node.

    ::

        Products(s, W), Products(s, Z) -> Products(s, W, Z).0, Products(s, W, Z).1
    """
    other = _partner(fgraph, node) if len(node.outputs) == 1 else None
    if other is None:
        return None
    s, W = node.inputs
    product, partner = Products()(s, W, other.inputs[1])
    return {node.outputs[0]: product, other.outputs[0]: partner}


@node_rewriter([RankUpdates])
def pair_rank_updates(fgraph, node):
    """Join the updates of a layer and of its policy into one node.

    ::

        RankUpdates{1}(s, W, g, b), RankUpdates{1}(s, Z, h, c)
            -> RankUpdates{2}(s, W, g, b, Z, h, c).0, RankUpdates{2}(s, W, g, b, Z, h, c).1
    """
    other = _partner(fgraph, node) if node.op.n_matrices == 1 else None
    if other is None:
        return None
    updated, partner = RankUpdates(2)(*node.inputs, *other.inputs[1:])
    return {node.outputs[0]: updated, other.outputs[0]: partner}


def _is_mask(variable):
    """Whether a variable is a comparison, cast to numbers."""
    apply = variable.owner
    if not (apply and isinstance(apply.op, Elemwise) and isinstance(apply.op.scalar_op, Cast)):
        return False
    (compared,) = apply.inputs
    return compared.dtype == "bool"


@node_rewriter([Elemwise])
def mask_product_transposed(fgraph, node):
    """``(g @ W.T) * u`` with a mask u of that shape: entries that u drops are not computed.

    ::

        Mul(ProductTransposed(g, W), u) -> Mul(MaskedProductTransposed(g, W, u), u)
    """
    if not isinstance(node.op.scalar_op, Mul):
        return None
    for x in node.inputs:
        if x.owner and type(x.owner.op) is ProductTransposed and len(fgraph.clients[x]) == 1:
            for u in node.inputs:
                same = u.type.dtype == x.type.dtype and u.type.broadcastable == x.type.broadcastable
                if same and _is_mask(u):
                    masked = MaskedProductTransposed()(*x.owner.inputs, u)
                    return [node.op(*[masked if v is x else v for v in node.inputs])]
    return None


@node_rewriter([Elemwise])
def fast_elementwise(fgraph, node):
    """Float32 tanh, sigmoid and softplus become :class:`Elementwise` Ops.

    Those of a list's values stop at the end of each list.

    ::

        Tanh(x) -> Elementwise{tanh}(x)
        Tanh(values of a list) -> ListElementwise{tanh}(values, counts)
    """
    function = _FUNCTIONS.get(type(node.op.scalar_op))
    (x, *_) = node.inputs
    if function is None or x.dtype != "float32" or x.ndim == 0:
        return None
    if x.owner and isinstance(x.owner.op, GroupProduct | UnitProduct):
        values, _, counts = x.owner.outputs
        if x is values:
            return [ListElementwise(function)(values, counts)]
    return [Elementwise(function)(x)]


@node_rewriter([RankUpdates])
def rank_updates_inplace(fgraph, node):
    """Let the update overwrite W, if nothing needs the old values afterwards.

    ::

        RankUpdates(s, W, g, b) -> RankUpdates{inplace}(s, W, g, b)
    """
    if node.op.inplace:
        return None
    return RankUpdates(node.op.n_matrices, inplace=True)(*node.inputs, return_list=True)


@node_rewriter([PutSubmatrix, GroupUpdate, UnitUpdate])
def parts_inplace(fgraph, node):
    """Let a part overwrite its array, if nothing needs the old values afterwards.

    ::

        PutSubmatrix(W, ...) -> PutSubmatrix{inplace}(W, ...)
    """
    if node.op.inplace:
        return None
    return [type(node.op)(inplace=True)(*node.inputs)]


# PyTensor runs its own two at 1.7, makes element-wise loops at 49 and allows in-place at 50.
optdb.register("native_dot22", dfs_rewriter(local_dot_to_dot22), TAG, position=1.70)
optdb.register("native_gemm", GemmOptimizer(), TAG, position=1.71)
optdb.register(
    "native_products", dfs_rewriter(gemm_to_rank_updates, dot22_to_product), TAG, position=1.72
)
optdb.register("native_merge", dfs_rewriter(merge_rank_updates), TAG, position=1.73)
optdb.register("native_pairs", dfs_rewriter(pair_products, pair_rank_updates), TAG, position=1.74)
optdb.register("native_uniforms", use_uniforms, TAG, position=48.7)
optdb.register("native_masks", dfs_rewriter(mask_product_transposed), TAG, position=48.8)
optdb.register("native_elementwise", dfs_rewriter(fast_elementwise), TAG, position=48.9)
optdb.register(
    "native_inplace",
    dfs_rewriter(rank_updates_inplace, parts_inplace),
    TAG,
    position=50.2,
)
