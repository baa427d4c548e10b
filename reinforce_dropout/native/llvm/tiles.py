"""Any number of rows of a product, by the tiles of `simd`."""

import numba

from reinforce_dropout.native.llvm.simd import TILE_ROWS, row_tile

__all__ = ["tiles"]

_tile, _single = row_tile(TILE_ROWS), row_tile(1)


@numba.njit
def tiles(n_rows, out, out_stride, beta, s, s_stride, s_step, rows, row_stride, length, width):
    """Apply :func:`simd.row_tile` to any number of rows, at most `TILE_BYTES` wide."""
    i = 0
    while i < n_rows:
        out_i, s_i = out + i * out_stride, s + i * s_stride
        if i + TILE_ROWS <= n_rows:
            _tile(out_i, out_stride, beta, s_i, s_stride, s_step, rows, row_stride, length, width)
            i += TILE_ROWS
        else:
            _single(out_i, out_stride, beta, s_i, s_stride, s_step, rows, row_stride, length, width)
            i += 1
