"""Translations to Numba of the Ops for lists: `blocks.lists` and the modules named after it."""

import numpy as np
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout.blocks import list_updates
from reinforce_dropout.blocks import lists as ops
from reinforce_dropout.blocks.list_product import ListProduct
from reinforce_dropout.blocks.unit_product import UnitProduct
from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.kernels.list_product import list_product
from reinforce_dropout.native.kernels.list_updates import group_update, unit_update
from reinforce_dropout.native.kernels.lists import (
    group_product,
    group_product_transposed,
    list_non_zeros,
)
from reinforce_dropout.native.kernels.unit_product import unit_product


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


@register_funcify_default_op_cache_key(UnitProduct)
def _numba_unit_product(op, node, **kwargs):
    @numba_njit
    def native_unit_product(values, units, counts, W, b, mask):
        return unit_product(
            np.ascontiguousarray(values),
            np.ascontiguousarray(units),
            np.ascontiguousarray(counts),
            np.ascontiguousarray(W),
            np.ascontiguousarray(b),
            np.ascontiguousarray(mask),
        )

    return native_unit_product, VERSION


@register_funcify_default_op_cache_key(ListProduct)
def _numba_list_product(op, node, **kwargs):
    @numba_njit
    def native_list_product(values, units, counts, W, b):
        return list_product(
            np.ascontiguousarray(values),
            np.ascontiguousarray(units),
            np.ascontiguousarray(counts),
            np.ascontiguousarray(W),
            np.ascontiguousarray(b),
        )

    return native_list_product, VERSION


@register_funcify_default_op_cache_key(ops.GroupProductTransposed)
def _numba_group_product_transposed(op, node, **kwargs):
    @numba_njit
    def native_group_product_transposed(g, above, n_above, W, below, n_below):
        return group_product_transposed(
            np.ascontiguousarray(g),
            np.ascontiguousarray(above),
            np.ascontiguousarray(n_above),
            np.ascontiguousarray(W),
            np.ascontiguousarray(below),
            np.ascontiguousarray(n_below),
        )

    return native_group_product_transposed, VERSION


@register_funcify_default_op_cache_key(list_updates.GroupUpdate)
def _numba_group_update(op, node, **kwargs):
    inplace = op.inplace

    @numba_njit
    def native_group_update(W, s, below, n_below, g, above, n_above):
        W = np.ascontiguousarray(W) if inplace else W.copy()
        group_update(
            W,
            np.ascontiguousarray(s),
            np.ascontiguousarray(below),
            np.ascontiguousarray(n_below),
            np.ascontiguousarray(g),
            np.ascontiguousarray(above),
            np.ascontiguousarray(n_above),
        )
        return W

    return native_group_update, VERSION


@register_funcify_default_op_cache_key(list_updates.UnitUpdate)
def _numba_unit_update(op, node, **kwargs):
    inplace = op.inplace

    @numba_njit
    def native_unit_update(b, g, units, counts):
        b = b if inplace else b.copy()
        unit_update(b, g, units, counts)
        return b

    return native_unit_update, VERSION
