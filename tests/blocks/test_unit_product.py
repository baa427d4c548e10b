"""Masks for every instance over single units: the Op and its kernel."""

import numpy as np
import pytensor.tensor as pt
import pytest
from reference import compiled
from test_lists import DTYPES, RATES, Layer

from reinforce_dropout.blocks import unit_product
from reinforce_dropout.native.kernels.unit_product import unit_product as kernel
from reinforce_dropout.running import threads

#: Instances, units below and above: none, one image, one panel, a short last panel, and two tiles
#: with one panel after a pair.
SHAPES = [(0, 5, 7), (1, 1, 1), (1, 70, 90), (33, 17, 16), (30, 33, 50), (150, 20, 43)]


def layer_of(shape, dtype, how="random"):
    """Return operands and results of a layer: its groups are single units."""
    return Layer((*shape, 1), dtype, how)


def by_perform(*operands):
    """Run the Op in NumPy."""
    inputs = [pt.as_tensor_variable(v).type() for v in operands]
    return compiled(inputs, unit_product.UnitProduct()(*inputs))(*operands)


@pytest.mark.parametrize("how", RATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_of_single_units(dtype, shape, how):
    """By the Op and by its kernel."""
    layer = layer_of(shape, dtype, how)
    layer.assert_right(by_perform(*layer.operands()))
    layer.assert_right(kernel(*layer.operands()))


@pytest.mark.cpu
def test_threads_and_company_change_no_bit():
    """An instance has the same numbers alone and among others, by one thread and by two."""
    layer = layer_of((300, 300, 320), "float32")
    values, units, counts, W, b, mask = layer.operands()
    results = []
    for n in (1, 2):
        with threads.limited(n):
            results.append(kernel(values, units, counts, W, b, mask))
    layer.assert_right(results[0])
    layer.assert_right(results[1])  # the units, too, as far as the lists reach
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for i in range(len(values)):
        own = slice(i, i + 1)
        alone = kernel(values[own], units[own], counts[own], W, b, mask[own])
        n = alone[2][0]
        np.testing.assert_array_equal(alone[0][0, :n], results[0][0][i, :n])


def spoilt(change):
    """Return operands with one of them changed."""
    operands = dict(zip("values units counts W b mask".split(), layer_of((30, 33, 50), "float32")
                        .operands(), strict=True))  # fmt: skip
    return list((operands | change(operands)).values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: {"units": v["units"][:, :3]}, "values and units need one shape"),
        (lambda v: {"counts": v["counts"][:3]}, "the lists do not go with each other"),
        (lambda v: {"units": v["units"] + np.uint16(48)}, "give the units of their layer"),
        (lambda v: {"mask": v["mask"][:3]}, "a row for each instance"),
        (lambda v: {"mask": v["mask"][:, :3]}, "a column for each unit"),
        (lambda v: {"b": v["b"][:3]}, "each unit a bias"),
        (lambda v: {"W": v["W"][1:].copy()}, "a column of the panels"),
        (lambda v: {"W": v["W"][:, :, :7].copy()}, "each row needs a line of the cache"),
    ],
)
def test_operands_that_do_not_go_together_are_refused(change, words):
    for product in (by_perform, kernel):
        with pytest.raises(ValueError, match=words):
            product(*spoilt(change))


def test_other_types_are_refused():
    values, units, counts, W, b, mask = layer_of((2, 3, 4), "float32").operands()
    for wrong in ((values, W.astype("float64"), mask), (values, W, mask.astype("int8"))):
        with pytest.raises(TypeError, match="one dtype, and masks as bool"):
            unit_product.UnitProduct()(wrong[0], units, counts, wrong[1], b, wrong[2])
