"""Packed activations: every Op against plain NumPy, by `perform` and by the kernels."""

from functools import cache

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import graph_replace
from reference import compiled

from reinforce_dropout import native
from reinforce_dropout.blocks.packed import (
    BlockLogits,
    PackedProduct,
    PackInUse,
    Unpack,
    padded_width,
)
from reinforce_dropout.blocks.panels import in_panels
from reinforce_dropout.native.kernels import packed as kernels
from reinforce_dropout.native.kernels import packed_product as product_kernels
from reinforce_dropout.native.kernels.block_logits import block_logits
from reinforce_dropout.running import threads

DTYPES = [pytest.param("float32", marks=pytest.mark.cpu), "float64"]
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
BLOCKS = (1, 4, 16, 20, 32, 50, 128)
#: Rows, units below and above: nothing, single ones, odd ones, more units than a tile or group has.
SHAPES = [(0, 5, 7), (1, 1, 1), (7, 17, 13), (50, 33, 12), (101, 70, 45), (40, 20, 250)]


def rng(seed=0):
    return np.random.default_rng(seed)


def masks(n_blocks, n_units, how, seed=0):
    """Return masks: at random, of no unit, of all units, or of no unit in every other block."""
    random = rng(seed).random((n_blocks, n_units))
    rate = {"none": 0, "all": 1}.get(how, 0.3)
    active = random < rate
    if how == "alternating":
        active[::2] = False
    return active


def pack(s, active, size):
    """Return the results of the units in use, by plain NumPy; NaN for what a block does not use."""
    capacity = active.sum(axis=1).max(initial=0)
    packed = np.full((len(active), capacity, padded_width(size)), np.nan, s.dtype)
    for k, (block, units) in enumerate(zip(packed, active, strict=True)):
        own = s[k * size : (k + 1) * size, units].T
        block[: len(own)] = 0
        block[: len(own), : own.shape[1]] = own
    return packed


class Blocks:
    """Operands of a layer, and the results by plain NumPy; NaN wherever nothing may be read."""

    def __init__(self, size, shape, dtype, how="random"):
        self.size, (self.n_rows, n_in, n_units) = size, shape
        self.n_blocks = -(-self.n_rows // size)
        self.block = np.arange(self.n_rows) // size
        self.below = masks(self.n_blocks, n_in, how, 1)
        self.above = masks(self.n_blocks, n_units, how, 2)
        self.s = rng(3).normal(size=(self.n_rows, n_in)).astype(dtype)
        self.Wt = rng(4).normal(size=(n_units, n_in)).astype(dtype)
        self.b = rng(5).normal(size=n_units).astype(dtype)
        self.s_below = self.s * self.below[self.block]
        means = [self.s_below[self.block == k].mean(axis=0) for k in range(self.n_blocks)]
        Z = rng(6).normal(size=(n_in, n_units)).astype(dtype)
        self.o = rng(7).normal(size=n_units).astype(dtype)
        self.logits = np.reshape(means, (self.n_blocks, n_in)).astype(dtype) @ Z + self.o
        self.product = (self.s_below @ self.Wt.T + self.b) * self.above[self.block]
        self.packed = pack(self.s_below, self.below, size)
        self.Wt[:, ~self.below.any(axis=0)] = np.nan
        self.Wt[~self.above.any(axis=0)] = np.inf
        self.b[~self.above.any(axis=0)] = np.nan
        Z[~self.below.any(axis=0)] = np.nan
        self.Z = in_panels(Z)

    def operands(self):
        n_rows = np.int64(self.n_rows)
        return self.packed, self.below, n_rows, self.Wt, self.b, self.above, self.Z, self.o

    def assert_right(self, logits, product, s, dense):
        """Check all results of a layer."""
        width = padded_width(self.size)
        assert np.isfinite(product).all()
        assert product.shape == (self.n_blocks, self.above.sum(axis=1).max(initial=0), width)
        np.testing.assert_array_equal(s, self.s_below)
        for found, expected in ((logits, self.logits), (dense, self.product)):
            assert found.dtype == self.s.dtype and found.shape == expected.shape
            tolerance = TOLERANCE[found.dtype.name] * np.sqrt(self.s.shape[1])
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def graph(size, dtype):
    """Return the operands' variables and all that a layer computes of them."""
    packed, Wt, b = pt.tensor3(dtype=dtype), pt.matrix(dtype=dtype), pt.vector(dtype=dtype)
    Z, o = pt.tensor3(dtype=dtype), pt.vector(dtype=dtype)
    below, above = pt.bmatrix().astype("bool"), pt.bmatrix().astype("bool")
    product, n_rows = PackedProduct(size)(packed, below, Wt, b, above), pt.lscalar()
    outputs = [
        BlockLogits(size)(packed, below, n_rows, Z, o),
        product,
        Unpack(size)(packed, below, n_rows),
        Unpack(size)(product, above, n_rows),
    ]
    return [packed, below, n_rows, Wt, b, above, Z, o], outputs


def by_kernels(case):
    """Call the kernels, as the native mode does."""
    size, width = case.size, padded_width(case.size)
    packed, below, n, Wt, b, above, Z, o = case.operands()
    product = product_kernels.packed_product(packed, below, Wt, b, above, width)
    return (
        block_logits(packed, below, n, Z, o, size, width),
        product,
        kernels.unpack(packed, below, n, size, width),
        kernels.unpack(product, above, n, size, width),
    )


@cache
def by_perform(size, dtype):
    return compiled(*graph(size, dtype))


@cache
def by_native_mode():
    """Return a function of transposed matrices: views, whose rows are not contiguous."""
    inputs, outputs = graph(20, "float32")
    transposed = [v.T.type() for v in inputs]
    views = dict(zip(inputs, [v.T for v in transposed], strict=True))
    f = pytensor.function(transposed, graph_replace(outputs, views), mode=native.mode())
    return lambda *operands: f(*(np.asarray(a.T, order="C") for a in operands))


CALLS = {
    "perform": lambda *operands: by_perform(20, "float32")(*operands),
    "native": lambda *operands: by_native_mode()(*operands),
}


@pytest.mark.parametrize("how", ["random", "none", "all", "alternating"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", BLOCKS)
def test_a_layer_equals_numpys(size, dtype, how):
    """It reads nothing of dropped units, which is NaN or infinite here."""
    perform = by_perform(size, dtype)
    for shape in SHAPES:
        case = Blocks(size, shape, dtype, how)
        case.assert_right(*perform(*case.operands()))
        case.assert_right(*by_kernels(case))


def test_compiled_graph_equals_numpys():
    """The functions are compiled in the native mode."""
    for shape in SHAPES:
        case = Blocks(20, shape, "float32")
        case.assert_right(*by_native_mode()(*case.operands()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", BLOCKS)
def test_weights_that_only_other_blocks_need_are_not_read(size, dtype):
    """One block at a time. The weights of dropped units are NaN."""
    case = Blocks(size, (2 * size + 3, 37, 29), dtype)
    s = case.s_below
    perform = by_perform(size, dtype)
    Wt = rng(4).normal(size=case.Wt.shape).astype(dtype)
    b = rng(5).normal(size=case.b.shape).astype(dtype)
    for k in range(case.n_blocks):
        own = case.block == k
        case.s, case.below, case.above = s[own], case.below[[k]], case.above[[k]]
        case.n_rows = own.sum()
        case.packed = pack(s[own], case.below, size)
        case.Wt, case.b = Wt.copy(), b.copy()
        case.Wt[:, ~case.below[0]] = np.nan
        case.Wt[~case.above[0]] = np.nan
        case.b[~case.above[0]] = np.inf
        expected = (s[own] @ Wt.T + b) * case.above
        for results in (by_kernels(case), perform(*case.operands())):
            tolerance = TOLERANCE[dtype] * 6
            np.testing.assert_allclose(results[-1], expected, rtol=0, atol=tolerance)
        case = Blocks(size, (2 * size + 3, 37, 29), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 3, 16])
def test_units_in_use(size, dtype):
    """A unit is in use when it is not zero for one instance: NaN and -0 included."""
    f = compiled([x := pt.matrix(dtype=dtype)], PackInUse(size)(x))
    width = padded_width(size)
    for n_rows in (0, 1, 7, 40):
        s = (rng().normal(size=(n_rows, 37)) * (rng(1).random((n_rows, 37)) < 0.1)).astype(dtype)
        s[:, 5], s[:1, 6] = -0.0, np.nan
        n_blocks = -(-n_rows // size)
        expected = [(s[k * size : (k + 1) * size] != 0).any(axis=0) for k in range(n_blocks)]
        for packed, active in (f(s), kernels.pack_in_use(s, size, width)):
            assert active.dtype == bool
            np.testing.assert_array_equal(active, np.reshape(expected, (n_blocks, 37)))
            for own, units, block in zip(pack(s, active, size), active, packed, strict=True):
                np.testing.assert_array_equal(block[: units.sum()], own[: units.sum()])


@pytest.mark.parametrize("size", [1, 20, 32])
def test_threads_change_no_bit(size):
    """Of results large enough for two."""
    case = Blocks(size, (1000, 150, 200), "float32")
    results = []
    for n_threads in (1, 2):
        with threads.limited(n_threads):
            packed, active = kernels.pack_in_use(case.s_below, size, padded_width(size))
            unpacked = kernels.unpack(packed, active, case.n_rows, size, padded_width(size))
            results.append([active, unpacked, *by_kernels(case)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [1, 20, 32])
def test_kernels_write_nothing_beyond_their_results(size):
    """The result stands between two guards, and every number of it is overwritten."""
    case = Blocks(size, (101, 70, 45), "float32")
    width = padded_width(size)
    packed = case.packed

    def guarded(shape):
        buffer = np.full(np.prod(shape) + 128, 7, "float32")
        return buffer, buffer[64:-64].reshape(shape)

    shape = (case.n_blocks, case.above.sum(axis=1).max(), width)
    buffer, out = guarded(shape)
    product_kernels._product_blocks(packed, case.below, case.Wt, case.b, case.above, out)
    assert (buffer[:64] == 7).all() and (buffer[-64:] == 7).all() and (out != 7).all()
    s = case.s_below
    buffer, out = guarded((case.n_blocks, s.shape[1], width))
    active = np.empty_like(case.below)
    kernels._pack_share(0, 1, s, size, active, out)
    assert (buffer[:64] == 7).all() and (buffer[-64:] == 7).all()
    for block, own, units in zip(out, packed, case.below, strict=True):
        np.testing.assert_array_equal(block[: units.sum()], own[: units.sum()])
        assert (block[units.sum() :] == 7).all()


def wrong_operands():
    """Return operands of a layer with blocks of 20 that do not fit, and a word of why."""
    case = Blocks(20, (33, 6, 5), "float32", "all")
    packed, below, n, Wt, b, above, Z, o = case.operands()
    return {
        "too many blocks below": (
            (packed, below[[0, 1, 1]], n, Wt, b, above, Z, o),
            "mask has the wrong",
        ),
        "too few units below": (
            (packed, below[:, 1:], n, Wt, b, above, Z, o),
            "mask has the wrong shape",
        ),
        "too few blocks above": (
            (packed, below, n, Wt, b, above[1:], Z, o),
            "mask has the wrong shape",
        ),
        "too many units above": (
            (packed, below, n, Wt[1:], b[1:], above, Z, o),
            "mask has the wrong",
        ),
        "biases": ((packed, below, n, Wt, b[1:], above, Z, o), "biases do not go with the weights"),
        "panels for fewer units below": (
            (packed, below, n, Wt, b, above, Z[:, 1:], o),
            "panels do not go",
        ),
        "panels for fewer units": (
            (packed, below, n, Wt, b, above, Z[:, :, :4], o),
            "panels do not go",
        ),
    }


@pytest.mark.parametrize("wrong", wrong_operands())
@pytest.mark.parametrize("call", CALLS)
def test_operands_that_do_not_go_together_are_refused(call, wrong):
    """The error is one sentence, before anything is read."""
    operands, words = wrong_operands()[wrong]
    with pytest.raises(ValueError, match=words):
        CALLS[call](*operands)


def test_packed_activations_of_another_mask_are_refused():
    """They hold fewer units, instances or blocks than their mask names."""
    packed, active = pt.ftensor3(), np.ones((2, 6), bool)
    Wt, b, above = np.ones((5, 6), "float32"), np.ones(5, "float32"), np.ones((2, 5), bool)
    Z, o = in_panels(np.ones((6, 5), "float32")), np.ones(5, "float32")
    size, width = 4, padded_width(4)
    calls = [
        *(
            compiled([packed], output)
            for output in (
                Unpack(size)(packed, active, 7),
                BlockLogits(size)(packed, active, 7, Z, o),
                PackedProduct(size)(packed, active, Wt, b, above),
            )
        ),
        lambda p: kernels.unpack(p, active, 7, size, width),
        lambda p: block_logits(p, active, 7, Z, o, size, width),
        lambda p: product_kernels.packed_product(p, active, Wt, b, above, width),
    ]
    for call in calls:
        call(np.ones((2, 6, width), "float32"))
        for shape in ((2, 5, width), (2, 6, 4), (1, 6, width)):
            with pytest.raises(ValueError, match=r"do not go with|wrong shape"):
                call(np.ones(shape, "float32"))


def test_wrong_types_are_refused_when_the_graph_is_built():
    """Masks of floats or integers, which could be decisions or numbers of units; mixed dtypes."""
    packed, mask = pt.ftensor3(), pt.bmatrix().astype("bool")
    Wt, b, Z = pt.fmatrix(), pt.fvector(), pt.ftensor3()
    for wrong in (pt.fmatrix(), pt.imatrix(), pt.vector(dtype="bool")):
        for build in (
            lambda m: Unpack(4)(packed, m, 7),
            lambda m: BlockLogits(4)(packed, m, 7, Z, b),
            lambda m: PackedProduct(4)(packed, m, Wt, b, mask),
            lambda m: PackedProduct(4)(packed, mask, Wt, b, m),
        ):
            with pytest.raises(TypeError, match="a mask must be a matrix of bool, such as u > 0"):
                build(wrong)
    with pytest.raises(TypeError, match="weights float64 and biases float32: give all three one"):
        PackedProduct(4)(packed, mask, pt.dmatrix(), b, mask)
    with pytest.raises(TypeError, match="weights float64 and biases float32: give all three one"):
        BlockLogits(4)(packed, mask, 7, pt.dtensor3(), b)
    for wrong in (pt.imatrix(), pt.ftensor3()):
        with pytest.raises(TypeError, match="numbers must be float32 or float64 in 2 dimensions"):
            PackInUse(4)(wrong)
    with pytest.raises(TypeError, match="a number of rows must be an integer scalar"):
        Unpack(4)(packed, mask, pt.fscalar())
