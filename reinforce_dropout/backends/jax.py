"""The backend jax: XLA, for the CPU or an Nvidia GPU. All repairs that JAX needs are here.

JAX needs every shape as a constant while it traces. PyTensor's shape inference would replace shapes
by computed numbers, which JAX refuses.
"""

import pytensor.tensor as pt
from pytensor.compile.mode import get_mode
from pytensor.graph.basic import Constant
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.tensor.basic import ARange
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.exceptions import NotScalarConstantError
from pytensor.tensor.math import Sum
from pytensor.tensor.shape import Shape, Shape_i
from pytensor.tensor.subtensor import Subtensor, get_constant_idx

from reinforce_dropout.backends.packages import check_package

_INFERENCE = ("ShapeOpt", "local_replace_AdvancedSubtensor", "reassociate_matmul_chain")
"""Rewrites that infer shapes, or need inferred ones: the last one, from PyTensor 3.3.7 on."""


def check():
    """Raise BackendError if the backend cannot work here."""
    check_package(
        "jax", "install it with pip install 'reinforce-dropout[jax]', or leave --backend out"
    )


def mode(adaptive=False):
    """Return the compilation mode."""
    return (
        get_mode("JAX")
        .excluding(*_INFERENCE)
        .register((dfs_rewriter(sum_in_own_dtype), 60))
        .register((dfs_rewriter(entry_of_shape, count_in_own_dtype), 1))
        .register((dfs_rewriter(length_of_vector), _BEFORE_FUSION))
    )


@node_rewriter([Sum])
def sum_in_own_dtype(fgraph, node):
    """Let a sum be accumulated in the dtype of its result.

    PyTensor accumulates float32 in float64. Its JAX linker does not go back to float32. So the
    parameters would be float64 after one step, and every further step several times slower.
    """
    op = node.op
    if op.acc_dtype == op.dtype:
        return None
    return [Sum(axis=op.axis, dtype=op.dtype, acc_dtype=op.dtype)(*node.inputs)]


_BEFORE_FUSION = 48.9
"""Position among the rewrites. Fusion follows at 49, and would hide the scalars from JAX."""


@node_rewriter([Subtensor])
def entry_of_shape(fgraph, node):
    """Write an entry of a shape in the form that is a constant while JAX traces.

    Before: ``Subtensor{i}(Shape(v))``. After: ``Shape_i{i}(v)``.
    """
    (shape, *_), indices = node.inputs, node.op.idx_list
    if not (shape.owner and isinstance(shape.owner.op, Shape)):
        return None
    try:
        i = get_constant_idx(indices, node.inputs)[0]
    except NotScalarConstantError:
        return None
    if isinstance(i, slice):
        return None
    v = shape.owner.inputs[0]
    return [Shape_i(int(i) % v.ndim)(v)]


@node_rewriter([ARange])
def count_in_own_dtype(fgraph, node):
    """Let JAX count in the dtype of the result; PyTensor writes the ends 0 and 1 as int8."""
    dtype = node.op.dtype
    if all(v.dtype == dtype for v in node.inputs):
        return None
    ends = [pt.constant(v.data, dtype=dtype) if isinstance(v, Constant) else v for v in node.inputs]
    return None if ends == node.inputs else [node.op(*ends)]


@node_rewriter([DimShuffle])
def length_of_vector(fgraph, node):
    """Write the only entry of a vector's shape as a constant, not as an array from a tuple.

    Before: ``ExpandDims(Shape(v))`` of a vector v. After: ``ExpandDims(Shape_i{0}(v))``.
    """
    shape = node.inputs[0]
    if shape.owner and isinstance(shape.owner.op, Shape) and shape.owner.inputs[0].ndim == 1:
        length = Shape_i(0)(shape.owner.inputs[0])
        return [pt.shape_padleft(length, node.outputs[0].ndim)]
    return None
