"""Translations to Numba of the Ops in `reinforce_dropout.blocks.lists`."""

import numpy as np
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout.blocks import lists as ops
from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.kernels.lists import group_product, list_non_zeros


@register_funcify_default_op_cache_key(ops.ListNonZeros)
def _numba_list_non_zeros(op, node, **kwargs):
    @numba_njit
    def native_list_non_zeros(s):
        return list_non_zeros(np.ascontiguousarray(s))

    return native_list_non_zeros, VERSION


@register_funcify_default_op_cache_key(ops.GroupProduct)
def _numba_group_product(op, node, **kwargs):
    size = op.size

    @numba_njit
    def native_group_product(values, units, counts, W, b, groups):
        return group_product(
            np.ascontiguousarray(values),
            np.ascontiguousarray(units),
            np.ascontiguousarray(counts),
            np.ascontiguousarray(W),
            np.ascontiguousarray(b),
            np.ascontiguousarray(groups),
            size,
        )

    return native_group_product, VERSION
