"""Weights laid out in panels."""

import numpy as np
import pytest

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.blocks.panels import in_panels, panel_width


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 7), (3, 0), (5, 1), (4, 64), (9, 333), (2, 800)])
def test_side_by_side_they_are_the_matrix(shape, dtype):
    """And zeros; every row begins where a line of the cache does."""
    Z = np.random.default_rng(0).normal(size=shape).astype(dtype)
    panels = in_panels(Z)
    padded = np.concatenate(panels, axis=1)
    np.testing.assert_array_equal(padded[:, : shape[1]], Z)
    assert not padded[:, shape[1] :].any() and panels.dtype == Z.dtype
    assert panels.flags.c_contiguous and panels.ctypes.data % LINE_BYTES == 0
    assert panels.strides[1] % LINE_BYTES == 0


@pytest.mark.parametrize(
    "n_columns, width", [(500, 128), (800, 80), (4096, 128), (896, 112), (10, 64)]
)
def test_two_threads_have_as_much_to_do(n_columns, width):
    """The paper's layers fill an even number of panels, as far as whole lines allow."""
    assert panel_width(n_columns, 4) == width
    assert panel_width(n_columns, 8) * 8 in range(4 * LINE_BYTES, 9 * LINE_BYTES, LINE_BYTES)
