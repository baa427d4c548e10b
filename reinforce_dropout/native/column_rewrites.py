"""Rewrites that put `LimitColumns` into a graph; only :func:`native.mode` uses them.

`updates.max_norm` is element-wise arithmetic and a sum over rows. PyTensor's loops pass five times
over a matrix for it, by one thread. The native Op needs one pass, which also adds the step.
"""

import numpy as np
from pytensor.compile.mode import optdb
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.scalar.basic import Add, Maximum, Mul, Reciprocal, Sqr, Sqrt, TrueDiv
from pytensor.tensor.basic import constant, get_underlying_scalar_constant_value
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.exceptions import NotScalarConstantError
from pytensor.tensor.math import Sum

from reinforce_dropout.native.ops.columns import LimitColumns
from reinforce_dropout.native.rewrites import TAG

_DTYPES = ("float32", "float64")


def _broadcast(variable):
    """Return what was broadcast to make `variable`."""
    while variable.owner and isinstance(variable.owner.op, DimShuffle):
        variable = variable.owner.inputs[0]
    return variable


def _arguments(variable, scalar_op):
    """Return the inputs of the element-wise function that makes `variable`, or None."""
    node = _broadcast(variable).owner
    if node and isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, scalar_op):
        return node.inputs
    return None


def _matrix_of_squares(variable):
    """Return V if `variable` is ``(V**2).sum(axis=0)``, else None."""
    node = _broadcast(variable).owner
    if not (node and isinstance(node.op, Sum) and node.op.axis == (0,)):
        return None
    squared = _arguments(node.inputs[0], Sqr)
    return squared[0] if squared else None


def _number(variable):
    """Return the value of a constant whose entries are all equal, else None."""
    try:
        return get_underlying_scalar_constant_value(variable).item()
    except NotScalarConstantError:
        return None


def _limit(factor, V):
    """Return the limit if `factor` is ``sqrt(limit / maximum(squares of V, limit))``, else None."""
    if not (root := _arguments(factor, Sqrt)):
        return None
    if inverted := _arguments(root[0], Reciprocal):  # what PyTensor makes of 1 / x
        limit, longest = 1, inverted[0]
    elif divided := _arguments(root[0], TrueDiv):
        limit, longest = _number(divided[0]), divided[1]
    else:
        return None
    two = _arguments(longest, Maximum)
    if limit is None or not two:
        return None
    found = any(_matrix_of_squares(a) is V and _number(b) == limit for a, b in (two, two[::-1]))
    return limit if found else None


@node_rewriter([Elemwise])
def limit_columns(fgraph, node):
    """Let a :class:`LimitColumns` do the multiplication of `updates.max_norm`.

    ::

        Mul(V, Sqrt(TrueDiv(limit, Maximum(Sum{axis=0}(Sqr(V)), limit)))) -> LimitColumns(V, limit)
    """
    if not isinstance(node.op.scalar_op, Mul) or len(node.inputs) != 2:
        return None
    for V, factor in (node.inputs, node.inputs[::-1]):
        limit = _limit(factor, V) if V.dtype in _DTYPES else None
        if limit is not None:
            return [LimitColumns()(V, constant(np.asarray(limit, V.dtype)))]
    return None


@node_rewriter([LimitColumns])
def step_and_limit_columns(fgraph, node):
    """Add the step in the same pass.

    ::

        LimitColumns(Add(W, step), limit) -> LimitColumns(W, limit, step)
    """
    V, limit, *step = node.inputs
    added = V.owner and isinstance(V.owner.op, Elemwise) and isinstance(V.owner.op.scalar_op, Add)
    if step or not added or len(V.owner.inputs) != 2 or len(fgraph.clients[V]) > 1:
        return None
    W, step = sorted(V.owner.inputs, key=lambda v: v.owner is not None)  # W can be overwritten
    if not W.type.broadcastable == step.type.broadcastable == (False, False):
        return None
    return [LimitColumns()(W, limit, step)] if W.dtype == step.dtype else None


@node_rewriter([LimitColumns])
def limit_columns_inplace(fgraph, node):
    """Let the limited matrix overwrite W, if nothing needs the old values afterwards.

    ::

        LimitColumns(W, limit, ...) -> LimitColumns{inplace}(W, limit, ...)
    """
    return None if node.op.inplace else [LimitColumns(inplace=True)(*node.inputs)]


# After PyTensor has simplified the arithmetic, before it makes element-wise loops at 49.
optdb.register(
    "native_columns", dfs_rewriter(limit_columns, step_and_limit_columns), TAG, position=48.6
)
optdb.register("native_columns_inplace", dfs_rewriter(limit_columns_inplace), TAG, position=50.3)
