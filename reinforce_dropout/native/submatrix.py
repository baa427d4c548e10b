"""Numba kernels for the Ops of `reinforce_dropout.submatrix`."""

import numpy as np
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.submatrix import PutSubmatrix, Submatrix


@register_funcify_default_op_cache_key(Submatrix)
def _numba_submatrix(op, node, **kwargs):
    @numba_njit
    def native_submatrix(W, rows, columns, scale):
        factor = scale.item()
        V = np.empty((rows.size, columns.size), W.dtype)
        for i in range(rows.size):
            row, result = W[rows[i]], V[i]
            for j in range(columns.size):
                result[j] = factor * row[columns[j]]
        return V

    return native_submatrix, VERSION


@register_funcify_default_op_cache_key(PutSubmatrix)
def _numba_put_submatrix(op, node, **kwargs):
    inplace = op.inplace

    @numba_njit
    def native_put_submatrix(W, rows, columns, V, scale):
        result = W if inplace else W.copy()
        factor = scale.item()
        for i in range(rows.size):
            row, values = result[rows[i]], V[i]
            for j in range(columns.size):
                row[columns[j]] = factor * values[j]
        return result

    return native_put_submatrix, VERSION
