"""Masks for every instance: Ops and kernels for groups of units, and the passes by instance."""

from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.graph.traversal import ancestors
from reference import compiled, gated_network, in_blocks, parameters

from reinforce_dropout import native, systems
from reinforce_dropout.blocks import by_instance, lists, training_by_instance
from reinforce_dropout.blocks.list_product import ListProduct
from reinforce_dropout.blocks.packed import PackedProduct
from reinforce_dropout.blocks.panels import in_panels
from reinforce_dropout.blocks.sharing import Sharing, n_groups
from reinforce_dropout.blocks.unit_product import UnitProduct
from reinforce_dropout.gates import BoundedPolicy, bounded, low_rank, uniform
from reinforce_dropout.layers import ACTIVATIONS
from reinforce_dropout.native.kernels import lists as kernels
from reinforce_dropout.network import RULES, forward
from reinforce_dropout.running import threads
from reinforce_dropout.systems import block_policy

DTYPES = [pytest.param("float32", marks=pytest.mark.cpu), "float64"]
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}
#: Instances, units below and above, units in a group: none, one image, one group, groups of several
#: panels, a short last one.
SHAPES = [
    (0, 5, 7, 16), (1, 1, 1, 16), (1, 70, 90, 32), (7, 17, 16, 16), (9, 40, 250, 112),
    (20, 30, 200, 48), (30, 33, 50, 16),
]  # fmt: skip
RATES = {"none": 0, "all": 1, "random": 0.4}


class Layer:
    """Operands of a layer, and the results by plain NumPy; NaN wherever nothing may be read."""

    def __init__(self, shape, dtype, how="random"):
        rng = np.random.default_rng(0)
        n, n_in, n_units, self.size = shape
        below = rng.random((n, n_in)) < RATES[how]
        self.groups = rng.random((n, n_groups(n_units, self.size))) < RATES[how]
        self.s = (rng.normal(size=(n, n_in)) * below).astype(dtype)
        W, self.b = rng.normal(size=(n_in, n_units)).astype(dtype), rng.normal(size=n_units)
        self.b = self.b.astype(dtype)
        self.in_use = np.repeat(self.groups, self.size, axis=1)[:, :n_units]
        self.product = (self.s @ W + self.b) * self.in_use
        W[~below.any(axis=0)] = np.nan
        W[:, ~self.in_use.any(axis=0)] = np.nan
        self.W = in_panels(W, lists.panel_lanes(dtype))

    def operands(self):
        """Return the inputs of `GroupProduct`; a list ends with what must not be read."""
        n, n_in = self.s.shape
        values = np.full((n, n_in), np.nan, self.s.dtype)
        units = np.full((n, n_in), 2**16 - 1, "uint16")
        counts = np.count_nonzero(self.s, axis=1)
        for i, row in enumerate(self.s):
            units[i, : counts[i]] = np.flatnonzero(row)
            values[i, : counts[i]] = row[row != 0]
        return values, units, counts, self.W, self.b, self.groups

    def assert_right(self, found):
        """Check the lists of the product."""
        values, units, counts = found
        assert values.dtype == self.s.dtype and (units.dtype, counts.dtype) == ("uint16", "int64")
        assert values.shape == units.shape and values.shape[1] % self.size == 0
        np.testing.assert_array_equal(counts, self.in_use.sum(axis=1))
        for i, own in enumerate(self.in_use):
            np.testing.assert_array_equal(units[i, : counts[i]], np.flatnonzero(own))
            np.testing.assert_allclose(
                values[i, : counts[i]], self.product[i, own], rtol=0,
                atol=TOLERANCE[self.s.dtype.name] * np.sqrt(self.s.shape[1]),
            )  # fmt: skip
            assert not values[i, counts[i] :].any()


def by_perform(size, *operands):
    """Run the Op in NumPy."""
    inputs = [pt.as_tensor_variable(v).type() for v in operands]
    return compiled(inputs, lists.GroupProduct(size)(*inputs))(*operands)


@pytest.mark.parametrize("how", RATES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_product_of_lists(dtype, shape, how):
    """By the Op and by its kernel."""
    layer = Layer(shape, dtype, how)
    layer.assert_right(by_perform(layer.size, *layer.operands()))
    layer.assert_right(kernels.group_product(*layer.operands(), layer.size))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_zero_is_listed(dtype):
    """Also a row of zeros, negative numbers and NaN; the kernel's lists are the Op's."""
    s = np.random.default_rng(1).normal(size=(6, 37)).astype(dtype)
    s[np.abs(s) < 0.7], s[3], s[4, 5] = 0, 0, np.nan
    x = pt.matrix(dtype=dtype)
    for values, units, counts in (
        compiled([x], lists.ListNonZeros()(x))(s),
        kernels.list_non_zeros(s),
    ):
        assert values.dtype == dtype and values.shape == units.shape == s.shape
        assert (units.dtype, counts.dtype) == ("uint16", "int64")
        for row, *one, count in zip(s, values, units, counts, strict=True):
            np.testing.assert_array_equal(one[1][:count], np.flatnonzero(row))
            np.testing.assert_array_equal(one[0][:count], row[row != 0])


@pytest.mark.cpu
@pytest.mark.parametrize("size", [16, 32, 64])
def test_neighbours_give_the_bits_of_single_lines(size):
    """Units that follow each other are read from end to end, those apart one by one."""
    rng = np.random.default_rng(4)
    n_in, counts = 150, np.arange(100, 151, 10)
    values = rng.normal(size=(len(counts), n_in)).astype("float32")
    W, b = rng.normal(size=(n_in, 128)).astype("float32"), np.zeros(128, "float32")
    spread, groups = np.full((2 * n_in, 128), np.nan, "float32"), rng.random((6, 128 // size)) < 0.7
    spread[::2] = W
    units = np.broadcast_to(np.arange(n_in, dtype=lists.UNIT), values.shape).copy()
    listed = partial(kernels.group_product, values)
    together, _, _ = listed(units, counts, in_panels(W, 16), b, groups, size)
    apart, _, _ = listed(2 * units, counts, in_panels(spread, 16), b, groups, size)
    np.testing.assert_array_equal(together, apart)


@pytest.mark.cpu
def test_threads_and_company_change_no_bit():
    """An instance has the same numbers alone and among others, by one thread and by two."""
    layer = Layer((40, 300, 320, 16), "float32")
    values, units, counts, W, b, groups = layer.operands()
    results = []
    for n in (1, 2):
        with threads.limited(n):
            results.append(kernels.group_product(values, units, counts, W, b, groups, 16))
    layer.assert_right(results[0])
    layer.assert_right(results[1])  # the units, too, as far as the lists reach
    np.testing.assert_array_equal(results[0][0], results[1][0])
    for i in range(len(values)):
        own = slice(i, i + 1)
        alone = kernels.group_product(values[own], units[own], counts[own], W, b, groups[own], 16)
        n = alone[2][0]
        np.testing.assert_array_equal(alone[0][0, :n], results[0][0][i, :n])


def spoilt(change):
    """Return operands with one of them changed."""
    operands = dict(zip("values units counts W b groups".split(), Layer(SHAPES[-1], "float32")
                        .operands(), strict=True))  # fmt: skip
    return list((operands | change(operands)).values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: {"units": v["units"][:, :3]}, "values and units need one shape"),
        (lambda v: {"counts": v["counts"][:3]}, "the lists do not go with each other"),
        (lambda v: {"units": v["units"] + np.uint16(48)}, "give the units of their layer"),
        (lambda v: {"groups": v["groups"][:3]}, "a row for each instance"),
        (lambda v: {"groups": v["groups"][:, :1]}, "a column for each group"),
        (lambda v: {"b": v["b"][:3]}, "each unit one column"),
        (lambda v: {"W": v["W"][:, :, :7].copy()}, "each row needs a line of the cache"),
        (lambda v: {"W": v["W"][1:].copy()}, "a group needs whole panels"),
    ],
)
def test_operands_that_do_not_go_together_are_refused(change, words):
    for product in (by_perform, lambda size, *operands: kernels.group_product(*operands, size)):
        with pytest.raises(ValueError, match=words):
            product(16, *spoilt(change))


def test_layers_with_too_many_units_are_refused():
    x, wide = pt.fmatrix(), np.zeros((1, lists.MOST_UNITS + 1), "float32")
    for listed in (compiled([x], lists.ListNonZeros()(x)), kernels.list_non_zeros):
        with pytest.raises(ValueError, match="no more than 65536 units"):
            listed(wide)
    below = np.zeros((0, 1), "float32"), np.zeros((0, 1), lists.UNIT), np.zeros(0, int)
    W, groups = np.zeros((4097, 1, 16), "float32"), np.zeros((0, 4097), bool)
    for product in (by_perform, lambda size, *operands: kernels.group_product(*operands, size)):
        with pytest.raises(ValueError, match="no more than 65536 units"):
            product(16, *below, W, wide[0], groups)


def test_other_types_are_refused():
    values, units, counts, W, b, groups = Layer(SHAPES[-1], "float32").operands()
    for wrong in ((values, W.astype("float64"), groups), (values, W, groups.astype("int8"))):
        with pytest.raises(TypeError, match="one dtype, and masks as bool"):
            lists.GroupProduct(16)(wrong[0], units, counts, wrong[1], b, wrong[2])


HIDDEN = (70, 32)


def network_of(units, rank=0, activation="tanh"):
    """Return a network in float32 whose biases and rates are spread out."""
    network = gated_network(
        np.random.default_rng(0), (9, *HIDDEN, 4), ACTIVATIONS[activation], units=units
    )
    if rank:
        widths = zip((9, *HIDDEN), HIDDEN, strict=False)
        gates = [
            low_rank(rank)(np.random.default_rng(i), n_in, n_groups(n, units), str(i))
            for i, (n_in, n) in enumerate(widths, start=1)
        ]
        network = network._replace(gates=gates)
    for i, p in enumerate(parameters(network)):
        value = np.random.default_rng(i).normal(size=p.get_value().shape)
        p.set_value(value.astype("float32"))
    return network


def both(network, units, rule="sampled", function=compiled):
    """Compile ``[logits, z, u, U]`` of the dense pass, and of the one that skips."""
    functions, sharing = [], Sharing(1, units)
    for walk in (
        partial(forward, in_blocks(network, sharing)),
        partial(by_instance.forward, by_instance.listed(network, sharing)),
    ):
        x, state = pt.fmatrix("x"), pytensor.shared(np.random.default_rng(3))
        passed = walk(x, state, RULES[rule])
        parts = [getattr(stage, name) for name in ("z", "u", "U") for stage in passed.stages]
        outputs, updates = [passed.logits, *parts], [(state, passed.rng)] * (rule == "sampled")
        functions.append(function([x], outputs, updates=updates))
    return functions


def assert_same(dense, sparse):
    """Compare passes over two batches, the second with the draws that follow."""
    x = np.maximum(np.random.default_rng(2).normal(size=(11, 9)) + 0.4, 0).astype("float32")
    for batch in (x, x[:1]):
        for one, other in zip(dense(batch), sparse(batch), strict=True):
            assert other.dtype == one.dtype == "float32" and other.shape == one.shape
            np.testing.assert_allclose(other, one, rtol=0, atol=3e-5)


@pytest.mark.parametrize("rule", ["sampled", "thresholded"])
@pytest.mark.parametrize(
    ("units", "rank", "activation"),
    [(16, 0, "tanh"), (32, 0, "sigmoid"), (16, 3, "relu"), (1, 0, "sigmoid"), (1, 3, "tanh")],
)
def test_same_function_of_the_same_draws(units, rank, activation, rule):
    network = network_of(units, rank, activation)
    assert by_instance.suits(network, Sharing(1, units))
    assert_same(*both(network, units, rule))


@pytest.mark.parametrize("rank", [0, 3])
def test_policies_with_a_least_rate_skip_too(rank):
    network = network_of(16, rank)
    gates = [g._replace(policy=BoundedPolicy(g.policy, 0.2)) for g in network.gates]
    network = network._replace(gates=gates)
    assert by_instance.suits(network, Sharing(1, 16))
    assert_same(*both(network, 16))


@pytest.mark.parametrize("units", [16, 1])
@pytest.mark.parametrize("gate", [uniform, bounded(uniform, 0.2)], ids=["uniform", "bounded"])
def test_policies_that_never_look_skip_too(gate, units):
    network = network_of(units)
    gates = [
        gate(None, None, n_groups(n, units), str(i), 0.4) for i, n in enumerate(HIDDEN, start=1)
    ]
    network = network._replace(gates=gates)
    assert by_instance.suits(network, Sharing(1, units))
    assert not training_by_instance.suits(network, Sharing(1, units))
    assert_same(*both(network, units))


@pytest.mark.parametrize("units", [16, 1])
def test_same_function_in_native_mode(units):
    network, in_native_mode = network_of(units), partial(pytensor.function, mode=native.mode())
    dense, _ = both(network, units)
    _, sparse = both(network, units, function=in_native_mode)
    assert_same(dense, sparse)


@pytest.mark.parametrize(("instances", "units"), [(1, 16), (1, 32), (1, 8), (1, 1), (2, 16)])
def test_what_block_sparse_prediction_takes(instances, units):
    """Instances have these Ops for single units, and these for groups that fill panels."""
    experiment = block_policy.Settings(
        n_units=HIDDEN, instances_per_block=instances, units_per_block=units
    )
    system = systems.build_for_prediction(experiment, (3, 3), 4, "block-sparse")
    for rule in ("sampled", "thresholded"):
        passed = system.predict[rule](pt.fmatrix("x"), pytensor.shared(np.random.default_rng(0)))
        ops = {type(v.owner.op) for v in ancestors([passed.logits]) if v.owner}
        single = instances == 1 and units == 1
        assert (UnitProduct in ops) == single
        assert (lists.GroupProduct in ops) == (instances == 1 and units in (16, 32))
        assert (ListProduct in ops) == (instances == 1 and units in (1, 16, 32))
        assert (PackedProduct in ops) != (ListProduct in ops)


def test_what_it_does_not_suit():
    """Blocks, groups that end within a panel, policies without a product, units without numbers."""
    network = network_of(16)
    assert not by_instance.suits(network, Sharing(2, 16))
    assert not by_instance.suits(network_of(8), Sharing(1, 8))
    wide = network.output._replace(
        W=pytensor.shared(np.zeros((lists.MOST_UNITS + 1, 4), "float32"))
    )
    assert not by_instance.suits(network._replace(output=wide), Sharing(1, 16))
    gates = [gate._replace(policy=lambda s: s) for gate in network.gates]
    assert not by_instance.suits(network._replace(gates=gates), Sharing(1, 16))
