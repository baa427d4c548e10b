"""The forward pass that skips dropped units, against the dense one with the same masks."""

from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled, gated_network, in_blocks, parameters

from reinforce_dropout import native, systems
from reinforce_dropout.blocks import forward as sparse
from reinforce_dropout.blocks.sharing import Sharing, n_groups
from reinforce_dropout.gates import low_rank
from reinforce_dropout.layers import ACTIVATIONS
from reinforce_dropout.network import RULES, forward
from reinforce_dropout.systems import block_policy, policy

HIDDEN = (21, 18)


def rng(seed=0):
    return np.random.default_rng(seed)


class Both:
    """A network in float32, its biases and rates spread out, to be executed in two ways."""

    def __init__(self, B, G, how="mean", activation="tanh"):
        self.sharing = Sharing(B, G, how)
        self.network = gated_network(rng(), (9, *HIDDEN, 4), ACTIVATIONS[activation], units=G)
        for p in parameters(self.network):
            p.set_value(rng(1).normal(size=p.get_value().shape).astype("float32"))

    def dense(self, *args, **options):
        """Pass with masks as factors."""
        return forward(in_blocks(self.network, self.sharing), *args, **options)

    def sparse(self, *args, **options):
        """Pass without the weights of dropped units."""
        return sparse.forward(sparse.block_sparse(self.network, self.sharing), *args, **options)


def images(n):
    """Return images, a third of their pixels 0."""
    return np.maximum(rng(2).normal(size=(n, 9)) + 0.4, 0).astype("float32")


def execute(way, rule="sampled", function=compiled):
    """Compile ``[logits, z, u, U]`` of a pass."""
    x, state = pt.fmatrix("x"), pytensor.shared(rng(3))
    passed = way(x, state, RULES[rule])
    parts = [getattr(stage, name) for name in ("z", "u", "U") for stage in passed.stages]
    return function([x], [passed.logits, *parts])


def assert_same(X, f_dense, f_sparse):
    """Compare two executions: logits to rounding, decisions and masks exactly."""
    L = len(HIDDEN)
    dense, sparse = f_dense(X), f_sparse(X)
    for one, other in zip(dense[: 1 + L], sparse[: 1 + L], strict=True):
        assert other.dtype == "float32" and other.shape == one.shape
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)
    for one, other in zip(dense[1 + L :], sparse[1 + L :], strict=True):
        np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize("rule", ["sampled", "thresholded"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("G", [1, 4])
@pytest.mark.parametrize("B", [1, 3, 20])
def test_same_function_of_the_same_draws(B, G, how, activation, rule):
    """With a shorter last block and group, and with a block longer than the mini-batch."""
    network = Both(B, G, how, activation)
    both = [execute(way, rule) for way in (network.dense, network.sparse)]
    for n in (1, 10):
        assert_same(images(n), *both)


def test_same_function_in_native_mode():
    """Of blocks and groups, from sampled masks."""
    network = Both(3, 4)
    in_native_mode = partial(pytensor.function, mode=native.mode())
    f_sparse = execute(network.sparse, function=in_native_mode)
    f_dense = execute(network.dense)
    for n in (1, 10, 50):
        assert_same(images(n), f_dense, f_sparse)


def test_both_go_on_with_the_same_state_of_the_generator():
    """Later batches then draw the masks of the dense execution, too."""
    network, x, after = Both(3, 4), pt.fmatrix("x"), []
    for way in (network.dense, network.sparse):
        state = pytensor.shared(rng(3))
        passed = way(x, state)
        compiled([x], passed.logits, updates=[(state, passed.rng)])(images(7))
        after.append(state.get_value().bit_generator.state)
    assert after[0] == after[1] != rng(3).bit_generator.state


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("B", [1, 3])
def test_policies_of_low_rank_decide_alike(B, how):
    """Their first product reads the packed activations."""
    network = Both(B, 4, how)
    widths = zip((9, *HIDDEN), HIDDEN, strict=False)
    gates = [
        low_rank(2)(rng(i), n_in, n_groups(n_units, 4), str(i), 0.5)
        for i, (n_in, n_units) in enumerate(widths, start=1)
    ]
    network.network = network.network._replace(gates=gates)
    states = sparse.block_sparse(network.network, network.sharing).Z
    assert [Z.get_value().shape[1] for Z in states] == [9, HIDDEN[0]]
    assert_same(images(10), *(execute(way) for way in (network.dense, network.sparse)))


def test_policies_of_other_kinds_decide_alike():
    """Logits of a policy that is not affine are computed from whole states."""
    network, X = Both(3, 1), images(10)
    gates = [
        gate._replace(policy=lambda s, policy=gate.policy: pt.tanh(policy(s)))
        for gate in network.network.gates
    ]
    network.network = network.network._replace(gates=gates)
    assert_same(X, *(execute(way) for way in (network.dense, network.sparse)))


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("fraction", ["none", "first layer", "all"])
def test_all_and_no_units(B, fraction):
    """Of a layer without units the output's biases remain."""
    network, x, X = Both(B, 1), pt.fmatrix("x"), images(7)
    n_blocks = -(-7 // B)
    full = {"none": (0, 0), "first layer": (1, 0), "all": (1, 1)}[fraction]
    masks = [np.full((n_blocks, n), v, "float32") for n, v in zip(HIDDEN, full, strict=True)]
    variables = [pt.fmatrix(), pt.fmatrix()]
    f_dense, f_sparse = (
        compiled([x, *variables], way(x, rule=reference.given(variables)).logits)
        for way in (network.dense, network.sparse)
    )
    logits = f_sparse(X, *masks)
    np.testing.assert_allclose(logits, f_dense(X, *masks), rtol=0, atol=1e-5)
    if not full[1]:
        np.testing.assert_array_equal(logits, np.tile(network.network.output.b.get_value(), (7, 1)))


@pytest.mark.parametrize("B", [1, 3])
def test_weights_of_dropped_units_are_not_read(B):
    """Weights of a unit that no block uses are NaN, in the layers below and above it."""
    network, x, X = Both(B, 1), pt.fmatrix("x"), images(7)
    masks = [np.ones((-(-7 // B), n), "float32") for n in HIDDEN]
    layers = [*network.network.layers, network.network.output]
    for i, mask in enumerate(masks):
        mask[:, ::2] = 0
        layer, above = layers[i : i + 2]
        for p, where in ((layer.W, np.s_[:, ::2]), (layer.b, np.s_[::2]), (above.W, np.s_[::2])):
            values = p.get_value()
            values[where] = np.nan
            p.set_value(values)
    for Z, _ in reference.thetas(network.network)[1:]:  # the mask is given: logits may be anything
        assert np.isfinite(Z.get_value()).all()
    variables = [pt.fmatrix(), pt.fmatrix()]
    f = compiled([x, *variables], network.sparse(x, rule=reference.given(variables)).logits)
    found = f(X, *masks)
    for p in network.network.params:
        p.set_value(np.nan_to_num(p.get_value()))
    g = compiled([x, *variables], network.dense(x, rule=reference.given(variables)).logits)
    np.testing.assert_allclose(found, g(X, *masks), rtol=0, atol=1e-5)


def test_a_choice_of_execution():
    """Only 0/1 masks skip work; the expected rule drops nothing, so it runs dense."""
    e = block_policy.Settings(n_units=HIDDEN, instances_per_block=3)
    x, state = pt.fmatrix("x"), pytensor.shared(rng())
    for execution, dimensions in (("dense", 2), ("block-sparse", 3)):
        system = systems.build_for_prediction(e, (9,), 4, execution)
        assert set(system.predict) == set(RULES) and system.together == 3
        for name, predict in system.predict.items():
            above = predict(x, state).stages[1].s  # packed: blocks, units, instances
            assert above.ndim == (2 if name == "expected" else dimensions)


def test_policies_of_single_instances_can_be_executed_in_blocks():
    """A policy decides from one state: that of an instance, then kept as a list, or of a block."""
    e = policy.Settings(n_units=HIDDEN)
    for instances, together, dimensions in ((None, 1, 2), (5, 5, 3)):
        system = systems.build_for_prediction(e, (9,), 4, "block-sparse", instances)
        assert system.together == together
        above = system.predict["sampled"](pt.fmatrix(), pytensor.shared(rng())).stages[1].s
        assert above.ndim == dimensions
