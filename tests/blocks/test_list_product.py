"""Products with all units of a layer from lists: the Op and its kernel."""

import numpy as np
import pytensor.tensor as pt
import pytest
from reference import compiled
from test_lists import DTYPES, RATES, TOLERANCE, Layer

from reinforce_dropout.blocks.list_product import ListProduct
from reinforce_dropout.native.kernels.list_product import list_product as kernel
from reinforce_dropout.running import threads

#: Instances, units below and above: none, one image, one panel, a pair, and one after a pair.
SHAPES = [(0, 5, 7), (1, 1, 1), (1, 70, 16), (7, 17, 32), (30, 33, 50)]


def operands_of(shape, dtype, how="random"):
    """Return values, units, counts, W, b of a layer, and the product by plain NumPy."""
    layer = Layer((*shape, 1), dtype, how)
    values, units, counts, panels, b, _ = layer.operands()
    read = (layer.s != 0).any(axis=0)
    rng = np.random.default_rng(2)
    panels[:, read, :] = rng.normal(size=panels.shape)[:, read, :]
    W = np.concatenate(panels, axis=1)[:, : b.size]
    return (values, units, counts, panels, b), layer.s[:, read] @ W[read] + b


def by_perform(*operands):
    """Run the Op in NumPy."""
    inputs = [pt.as_tensor_variable(v).type() for v in operands]
    return compiled(inputs, ListProduct()(*inputs))(*operands)


@pytest.mark.parametrize("how", RATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_of_every_unit(dtype, shape, how):
    """By the Op and by its kernel; what no list names is NaN, and not read."""
    operands, right = operands_of(shape, dtype, how)
    for found in (by_perform(*operands), kernel(*operands)):
        assert found.dtype == dtype and found.shape == right.shape
        np.testing.assert_allclose(found, right, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.cpu
def test_threads_and_company_change_no_bit():
    """An instance has the same numbers alone and among others, by one thread and by two."""
    (values, units, counts, *layer), right = operands_of((300, 300, 320), "float32")
    results = []
    for n in (1, 2):
        with threads.limited(n):
            results.append(kernel(values, units, counts, *layer))
    np.testing.assert_allclose(results[0], right, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(results[0], results[1])
    for i in range(0, len(values), 10):
        own = slice(i, i + 1)
        alone = kernel(values[own], units[own], counts[own], *layer)
        np.testing.assert_array_equal(alone[0], results[0][i])


@pytest.mark.parametrize(
    ("which", "change", "words"),
    [
        (1, lambda units: units[:, :3], "values and units need one shape"),
        (2, lambda counts: counts[:3], "the lists do not go with each other"),
        (1, lambda units: units + np.uint16(48), "give the units of their layer"),
        (4, lambda b: b[:3], "each unit needs a column of the panels"),
        (3, lambda W: W[:, :, :7].copy(), "each row needs a line of the cache"),
    ],
)
def test_operands_that_do_not_go_together_are_refused(which, change, words):
    operands = list(operands_of((30, 33, 50), "float32")[0])
    operands[which] = change(operands[which])
    for product in (by_perform, kernel):
        with pytest.raises(ValueError, match=words):
            product(*operands)


def test_other_types_are_refused():
    values, units, counts, W, b = operands_of((2, 3, 4), "float32")[0]
    with pytest.raises(TypeError, match="give all numbers one dtype"):
        ListProduct()(values, units, counts, W.astype("float64"), b)
    with pytest.raises(TypeError, match="units as uint16"):
        ListProduct()(values, units.astype("int64"), counts, W, b)
