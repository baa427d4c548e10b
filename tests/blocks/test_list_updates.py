"""Gradients and updates by the lists of single instances: Ops and kernels, against plain NumPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import compiled
from test_lists import DTYPES, RATES, SHAPES, TOLERANCE, Layer, by_perform

from reinforce_dropout import native
from reinforce_dropout.blocks import list_updates, lists
from reinforce_dropout.blocks.panels import in_panels, out_of_panels
from reinforce_dropout.native.kernels import list_updates as update_kernels
from reinforce_dropout.native.kernels import lists as kernels
from reinforce_dropout.running import threads


class Gradients(Layer):
    """Gradients g of a layer, dense and by lists; NaN wherever nothing may be read."""

    def __init__(self, shape, dtype, how="random"):
        super().__init__(shape, dtype, how)
        rng = np.random.default_rng(4)
        n_in, n_units = self.s.shape[1], self.b.size
        self.dense_g = (rng.normal(size=self.in_use.shape) * self.in_use).astype(dtype)
        self.dense_W = rng.normal(size=(n_in, n_units)).astype(dtype)
        self.pairs = (self.s != 0).T.astype(int) @ self.in_use > 0
        self.dense_W[~self.pairs] = np.nan
        self.W = in_panels(self.dense_W, lists.panel_lanes(dtype))
        self.values, self.below, self.n_below = self.operands()[:3]
        everywhere = np.zeros_like(self.W)  # only the lists of this layer are wanted
        operands = self.values, self.below, self.n_below, everywhere, self.b, self.groups
        g, self.above, self.n_above = by_perform(self.size, *operands)
        self.g = np.full_like(g, np.nan)
        for i, count in enumerate(self.n_above):
            self.g[i, : -(-count // self.W.shape[2]) * self.W.shape[2]] = 0
            self.g[i, :count] = self.dense_g[i, self.above[i, :count]]

    def transposed(self):
        """Return the inputs of `GroupProductTransposed`."""
        return self.g, self.above, self.n_above, self.W, self.below, self.n_below

    def update(self):
        """Return the inputs of `GroupUpdate`; the weights are a copy."""
        lists_below = self.values, self.below, self.n_below
        return self.W.copy(), *lists_below, self.g, self.above, self.n_above

    def unit_update(self):
        """Return the inputs of `UnitUpdate`; the biases are a copy."""
        return self.b.copy(), self.g, self.above, self.n_above

    def tolerance(self):
        """Rounding of a sum of so many terms."""
        return TOLERANCE[self.s.dtype.name] * np.sqrt(max(self.s.shape + self.in_use.shape))


def performed(op, operands):
    """Run an Op in NumPy."""
    inputs = [pt.as_tensor_variable(v).type() for v in operands]
    return compiled(inputs, op(*inputs))(*operands)


def in_place(kernel):
    """Return a function that gives what a kernel has made of its first operand."""

    def changed(*operands):
        kernel(*operands)
        return operands[0]

    return changed


@pytest.mark.parametrize("how", RATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_the_units_below(dtype, shape, how):
    """By the Op and by its kernel: those of a list, and 0 beyond it."""
    layer = Gradients(shape, dtype, how)
    expected = layer.dense_g @ np.nan_to_num(layer.dense_W).T
    for found in (
        performed(lists.GroupProductTransposed(), layer.transposed()),
        kernels.group_product_transposed(*layer.transposed()),
    ):
        assert found.dtype == dtype and found.shape == layer.below.shape
        for i, n in enumerate(layer.n_below):
            np.testing.assert_allclose(
                found[i, :n], expected[i, layer.below[i, :n]], rtol=0, atol=layer.tolerance()
            )
            assert not found[i, n:].any()


@pytest.mark.parametrize("how", RATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_of_weights_and_biases(dtype, shape, how):
    """What no instance uses keeps its bits, here NaN."""
    layer = Gradients(shape, dtype, how)
    W = np.where(layer.pairs, layer.dense_W + layer.s.T @ layer.dense_g, np.nan)
    for found in (
        performed(list_updates.GroupUpdate(), layer.update()),
        in_place(update_kernels.group_update)(*layer.update()),
    ):
        assert found.dtype == dtype and found.shape == layer.W.shape
        matrix = out_of_panels(found)
        np.testing.assert_allclose(matrix[:, : W.shape[1]], W, rtol=0, atol=layer.tolerance())
        assert not matrix[:, W.shape[1] :].any()
    b = layer.b + layer.dense_g.sum(axis=0)
    for found in (
        performed(list_updates.UnitUpdate(), layer.unit_update()),
        in_place(update_kernels.unit_update)(*layer.unit_update()),
    ):
        np.testing.assert_allclose(found, b, rtol=0, atol=layer.tolerance())
        unused = ~layer.in_use.any(axis=0)
        np.testing.assert_array_equal(found[unused], layer.b[unused])


@pytest.mark.cpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_neighbours_are_those_of_single_units(dtype):
    """Units that follow one another are computed together: whole vectors of them, and a rest."""
    layer = Gradients((3, 70, 33, 16), dtype, "all")
    expected = kernels.group_product_transposed(*layer.transposed())
    assert (np.diff(layer.below, axis=1) == 1).all()
    for every in (2, 3, 37):
        g, above, n_above, W, below, _ = layer.transposed()
        below = np.ascontiguousarray(below[:, ::every])
        n_below = np.full(len(below), below.shape[1])
        found = kernels.group_product_transposed(g, above, n_above, W, below, n_below)
        np.testing.assert_allclose(found, expected[:, ::every], rtol=0, atol=layer.tolerance())


@pytest.mark.cpu
def test_threads_and_company_change_no_bit():
    """By one thread and by two; an instance's gradients are the same alone and among others."""
    layer = Gradients((40, 300, 320, 16), "float32")
    gradients, weights = [], []
    for n in (1, 2):
        with threads.limited(n):
            gradients.append(kernels.group_product_transposed(*layer.transposed()))
            weights.append(in_place(update_kernels.group_update)(*layer.update()))
    np.testing.assert_array_equal(*gradients)
    np.testing.assert_array_equal(*weights)
    g, above, n_above, W, below, n_below = layer.transposed()
    for i in range(len(g)):
        own = slice(i, i + 1)
        alone = kernels.group_product_transposed(
            g[own], above[own], n_above[own], W, below[own], n_below[own]
        )
        np.testing.assert_array_equal(alone[0], gradients[0][i])


def test_the_gradient_of_a_product_is_that_of_its_values():
    """Against finite differences; weights and biases have none."""
    layer = Layer(SHAPES[-1], "float64")
    values, units, counts, W, b, groups = layer.operands()
    values, W, b = (np.nan_to_num(v) for v in (values, W, b))
    s, weights = pt.dmatrix("s"), pt.constant(W)
    out, *_ = lists.GroupProduct(layer.size)(s, units, counts, weights, b, groups)
    c = np.random.default_rng(5).normal(size=compiled([s], out)(values).shape)
    cost = (pt.constant(c) * out**2).sum()
    f, gradient = compiled([s], cost), compiled([s], pytensor.grad(cost, s))(values)
    direction, h = np.random.default_rng(6).normal(size=values.shape), 1e-6
    slope = (f(values + h * direction) - f(values - h * direction)) / (2 * h)
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-6)
    with pytest.raises(TypeError, match="not implemented"):
        pytensor.grad(cost, weights)


def spoilt(name, change):
    """Return the operands of all three kernels, one of them changed."""
    layer = Gradients(SHAPES[-1], "float32")
    setattr(layer, name, change(getattr(layer, name)))
    return {
        kernels.group_product_transposed: (lists.GroupProductTransposed(), layer.transposed()),
        update_kernels.group_update: (list_updates.GroupUpdate(), layer.update()),
    }


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("g", lambda v: v[:, :3].copy(), "values and units need one shape"),
        ("n_above", lambda v: v[:3], "counts a row for each instance"),
        ("n_below", lambda v: v[:3], "counts a row for each instance"),
        ("n_below", lambda v: v + 100, "for each instance no more than there are"),
        ("W", lambda v: v[:, :9].copy(), "give the units of their layer"),
        ("W", lambda v: v[:1].copy(), "give the units of their layer"),
        ("W", lambda v: np.zeros((40, *v.shape[1:2], 7), v.dtype), "room for whole panels"),
        ("W", lambda v: np.concatenate([v, v], axis=2)[:3], "needs a line of the cache"),
        ("below", lambda v: v - 100, "give the units of their layer"),
    ],
)
def test_operands_that_do_not_go_together_are_refused(name, change, words):
    for kernel, (op, operands) in spoilt(name, change).items():
        for function in (kernel, lambda *v, op=op: performed(op, v)):
            with pytest.raises(ValueError, match=words):
                function(*operands)


def test_other_instances_below_are_refused():
    layer = Gradients(SHAPES[-1], "float32")
    g, above, n_above, W, below, n_below = layer.transposed()
    with pytest.raises(ValueError, match="a row for each instance below"):
        kernels.group_product_transposed(g[:9], above[:9], n_above[:9], W, below, n_below)


def test_biases_of_another_layer_are_refused():
    layer = Gradients(SHAPES[-1], "float32")
    layer.b = layer.b[:20]
    for function in (
        update_kernels.unit_update,
        lambda *v: performed(list_updates.UnitUpdate(), v),
    ):
        with pytest.raises(ValueError, match="give the units of their layer"):
            function(*layer.unit_update())


def test_other_types_are_refused():
    layer = Gradients(SHAPES[-1], "float32")
    layer.above = layer.above.astype("int64")
    for op, operands in (
        (lists.GroupProductTransposed(), layer.transposed()),
        (list_updates.GroupUpdate(), layer.update()),
        (list_updates.UnitUpdate(), layer.unit_update()),
    ):
        with pytest.raises(TypeError, match="units as uint16"):
            op(*operands)
    layer.g = layer.g.astype("float64")
    with pytest.raises(TypeError, match="float32 and float64.* one dtype"):
        list_updates.GroupUpdate()(*layer.update())


def test_inputs_are_overwritten_only_if_nothing_else_needs_them():
    """In native mode a shared matrix is updated in place, an input is copied."""
    layer = Gradients(SHAPES[-1], "float32")
    for op, operands in (
        (list_updates.GroupUpdate(), layer.update()),
        (list_updates.UnitUpdate(), layer.unit_update()),
    ):
        first, *others = operands
        shared, variable = pytensor.shared(first), pt.as_tensor_variable(first).type()
        f = pytensor.function([], [], updates={shared: op(shared, *others)}, mode=native.mode())
        g = pytensor.function([variable], op(variable, *others), mode=native.mode())
        nodes = [node for made in (f, g) for node in made.maker.fgraph.toposort()]
        assert [n.op.inplace for n in nodes if type(n.op) is type(op)] == [True, False]
        f()
        before = first.copy()
        np.testing.assert_array_equal(g(first), shared.get_value())
        np.testing.assert_array_equal(first, before)
