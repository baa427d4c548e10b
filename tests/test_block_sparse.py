"""The forward pass that skips dropped units, against the dense one with the same masks."""

import logging
from functools import partial

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import AS_WRITTEN, compiled

from reinforce_dropout import blocks, native
from reinforce_dropout.block_sparse import BlockSparseNetwork, forward_by
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.network import MASK_RULES, MaskedNetwork

HIDDEN = (21, 18)


def rng(seed=0):
    return np.random.default_rng(seed)


def network_of(B, G, how="mean", activation="tanh"):
    """Return a network in float32, its biases and rates spread out."""
    network = MaskedNetwork(
        rng(), (9, *HIDDEN, 4), activation, 0.4,
        instances_per_block=B, units_per_block=G, block_state=how,
    )  # fmt: skip
    for p in network.all_parameters:
        p.set_value(rng(1).normal(size=p.get_value().shape).astype("float32"))
    return network


def images(n):
    """Return images, a third of their pixels 0."""
    return np.maximum(rng(2).normal(size=(n, 9)) + 0.4, 0).astype("float32")


def execute(layers, rule="sampled", function=compiled):
    """Compile ``[logits, z, u, U]`` of a network's or a block-sparse network's forward pass."""
    x, state = pt.fmatrix("x"), pytensor.shared(rng(3))
    forward = layers.forward(x, state, MASK_RULES[rule])
    return function([x], [forward.logits, *forward.z, *forward.u, *forward.U])


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
    """The last block and the last group shorter, and a block longer than all there is."""
    network = network_of(B, G, how, activation)
    both = [execute(layers, rule) for layers in (network, BlockSparseNetwork(network))]
    for n in (1, 10):
        assert_same(images(n), *both)


def test_same_function_in_native_mode():
    """Of blocks and groups, from sampled masks."""
    network = network_of(3, 4)
    in_native_mode = partial(pytensor.function, mode=native.mode())
    sparse = execute(BlockSparseNetwork(network), function=in_native_mode)
    dense = execute(network)
    for n in (1, 10, 50):
        assert_same(images(n), dense, sparse)


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("fraction", ["none", "first layer", "all"])
def test_all_and_no_units(B, fraction):
    """Of a layer without units the output's biases remain."""
    network, x, X = network_of(B, 1), pt.fmatrix("x"), images(7)
    n_blocks = -(-7 // B)
    full = {"none": (0, 0), "first layer": (1, 0), "all": (1, 1)}[fraction]
    masks = [np.full((n_blocks, n), v, "float32") for n, v in zip(HIDDEN, full, strict=True)]
    variables = [pt.fmatrix(), pt.fmatrix()]
    dense, sparse = (
        compiled([x, *variables], layers.forward(x, mask=reference.given(variables)).logits)
        for layers in (network, BlockSparseNetwork(network))
    )
    logits = sparse(X, *masks)
    np.testing.assert_allclose(logits, dense(X, *masks), rtol=0, atol=1e-5)
    if not full[1]:
        np.testing.assert_array_equal(logits, np.tile(network.output.b.get_value(), (7, 1)))


@pytest.mark.parametrize("B", [1, 3])
def test_weights_of_dropped_units_are_not_read(B):
    """Those of a unit that no block uses are NaN, on the side that makes it and that reads it."""
    network, x, X = network_of(B, 1), pt.fmatrix("x"), images(7)
    masks = [np.ones((-(-7 // B), n), "float32") for n in HIDDEN]
    for i, mask in enumerate(masks):
        mask[:, ::2] = 0
        layer, above = network.layers[i], [*network.layers, network.output][i + 1]
        for p, where in ((layer.W, np.s_[:, ::2]), (layer.b, np.s_[::2]), (above.W, np.s_[::2])):
            values = p.get_value()
            values[where] = np.nan
            p.set_value(values)
    for policy in network.policies[1:]:  # the mask is given: logits may be anything
        assert np.isfinite(policy.Z.get_value()).all()
    variables = [pt.fmatrix(), pt.fmatrix()]
    f = compiled(
        [x, *variables],
        BlockSparseNetwork(network).forward(x, mask=reference.given(variables)).logits,
    )
    found = f(X, *masks)
    for p in network.params:
        p.set_value(np.nan_to_num(p.get_value()))
    g = compiled([x, *variables], network.forward(x, mask=reference.given(variables)).logits)
    np.testing.assert_allclose(found, g(X, *masks), rtol=0, atol=1e-5)


def test_a_choice_of_execution(caplog):
    """The expected rule is dense, JAX is dense and says so, mistakes get one sentence."""
    network, x = network_of(3, 1), pt.fmatrix("x")
    assert forward_by("dense", network, AS_WRITTEN) == network.forward
    sparse = forward_by("block-sparse", network, AS_WRITTEN)
    assert sparse(x, None, MASK_RULES["thresholded"]).S[1].ndim == 3  # packed
    assert sparse(x, None, MASK_RULES["expected"]).S[1].ndim == 2
    with pytest.raises(ExperimentError, match="must be one of dense, block-sparse, not 'sparse'"):
        forward_by("sparse", network, AS_WRITTEN)
    plain = MaskedNetwork(rng(), (9, 5, 4), initial_rate=None)
    assert forward_by("dense", plain, AS_WRITTEN) == plain.forward
    with pytest.raises(ExperimentError, match="no policies, .*: set execution to dense."):
        forward_by("block-sparse", plain, AS_WRITTEN)
    assert caplog.records == []


def test_under_jax_the_dense_execution_is_taken(caplog):
    """With one sentence in the log."""
    pytest.importorskip("jax")
    network = network_of(3, 1)
    with caplog.at_level(logging.WARNING):
        assert forward_by("block-sparse", network, "JAX") == network.forward
    (record,) = caplog.records
    assert "jax has no block-sparse execution: the dense one is taken" in record.getMessage()


@pytest.mark.parametrize(("B", "G"), [(1, 1), (1, 4), (3, 1), (3, 4), (20, 4)])
def test_active_units_from_decisions(B, G):
    """The mean of the masks of all instances, without those masks; the last block counts less."""
    u, x = pt.fmatrix(), pt.fmatrix()
    f = compiled([u, x], blocks.active_units(u, x, 21, B, G), on_unused_input="ignore")
    for n in (1, 10):
        decisions = rng().random((-(-n // B), blocks.n_groups(21, G))).astype("float32")
        U = reference.expand(decisions, (n, 21), B, G)
        found = f(decisions, np.zeros((n, 2), "float32"))
        assert found.dtype == "float64"
        np.testing.assert_allclose(found, U.astype("float64").mean(axis=1).sum(), rtol=1e-6)
