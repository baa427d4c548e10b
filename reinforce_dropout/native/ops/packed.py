"""Translations to Numba of the Ops in `reinforce_dropout.blocks.packed`."""

import numpy as np
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from reinforce_dropout.blocks import packed as ops
from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.kernels.block_logits import block_logits
from reinforce_dropout.native.kernels.packed import pack_in_use, unpack
from reinforce_dropout.native.kernels.packed_product import packed_product


@register_funcify_default_op_cache_key(ops.PackInUse)
def _numba_pack_in_use(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_pack_in_use(s):
        return pack_in_use(np.ascontiguousarray(s), size, width)

    return native_pack_in_use, VERSION


@register_funcify_default_op_cache_key(ops.Unpack)
def _numba_unpack(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_unpack(packed, active, n_rows):
        return unpack(packed, active, n_rows.item(), size, width)

    return native_unpack, VERSION


@register_funcify_default_op_cache_key(ops.PackedProduct)
def _numba_packed_product(op, node, **kwargs):
    width = ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_packed_product(packed, below, Wt, b, above):
        return packed_product(
            np.ascontiguousarray(packed),
            np.ascontiguousarray(below),
            np.ascontiguousarray(Wt),
            np.ascontiguousarray(b),
            np.ascontiguousarray(above),
            width,
        )

    return native_packed_product, VERSION


@register_funcify_default_op_cache_key(ops.BlockLogits)
def _numba_block_logits(op, node, **kwargs):
    size, width = op.instances_per_block, ops.padded_width(op.instances_per_block)

    @numba_njit
    def native_block_logits(packed, active, n_rows, Z, o):
        return block_logits(
            np.ascontiguousarray(packed),
            np.ascontiguousarray(active),
            n_rows.item(),
            np.ascontiguousarray(Z),
            np.ascontiguousarray(o),
            size,
            width,
        )

    return native_block_logits, VERSION
