"""Translations to Numba of the Ops in `reinforce_dropout.blocks.submatrix`."""

import numpy as np
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout.blocks.submatrix import PutSubmatrix, Submatrix
from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.kernels.submatrix import put, take


@register_funcify_default_op_cache_key(Submatrix)
def _numba_submatrix(op, node, **kwargs):
    @numba_njit
    def native_submatrix(W, rows, columns, scale):
        V = np.empty((rows.size, columns.size), W.dtype)
        take(W, rows, columns, scale.item(), V)
        return V

    return native_submatrix, VERSION


@register_funcify_default_op_cache_key(PutSubmatrix)
def _numba_put_submatrix(op, node, **kwargs):
    inplace = op.inplace

    @numba_njit
    def native_put_submatrix(W, rows, columns, V, scale):
        result = W if inplace else W.copy()
        put(result, rows, columns, scale.item(), V)
        return result

    return native_put_submatrix, VERSION
