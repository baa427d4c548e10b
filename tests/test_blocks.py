"""Block dropout: one decision for a block of instances and a group of units."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled

from reinforce_dropout import backends, blocks, costs
from reinforce_dropout.algorithm import policy_updates, training_step
from reinforce_dropout.experiment import Experiment
from reinforce_dropout.network import MASK_RULES, build

SIZES = [(m, B) for m in (1, 4, 7) for B in (1, 2, 3, 7, 10**9)]


@pytest.mark.parametrize(("m", "B"), SIZES)
def test_block_mean_and_state(m, B):
    """Each block's own instances count alike, in whole, shorter and only blocks."""
    s, v = pt.dmatrix(), pt.dvector()
    graphs = [*(blocks.block_state(s, B, how) for how in ("mean", "max")), blocks.block_mean(v, B)]
    S = np.random.default_rng(0).normal(size=(m, 5)) - 5
    mean, largest, costs_of_blocks = compiled([s, v], graphs)(S, S[:, 0])
    np.testing.assert_allclose(mean, reference.block_mean(S, B), rtol=1e-12)
    np.testing.assert_allclose(costs_of_blocks, reference.block_mean(S[:, 0], B), rtol=1e-12)
    np.testing.assert_array_equal(largest, [S[k : k + B].max(axis=0) for k in range(0, m, B)])


@pytest.mark.parametrize("G", [1, 2, 3, 5, 9])
@pytest.mark.parametrize(("m", "B"), SIZES)
def test_expand(m, B, G):
    """Neighbours share a decision; no two decisions here are alike."""
    u, x = pt.dmatrix(), pt.dmatrix()
    U = np.arange(-(-m // B) * blocks.n_groups(5, G), dtype="float64")
    U = U.reshape(-1, blocks.n_groups(5, G))
    f = compiled([u, x], blocks.expand(u, x, 5, B, G), on_unused_input="ignore")
    np.testing.assert_array_equal(f(U, np.empty((m, 2))), reference.expand(U, (m, 5), B, G))


def test_per_instance_policies_have_the_graph_they_had():
    """With 1 and 1 nothing is put between state, decision and mask."""
    s, u = pt.fmatrix(), pt.fmatrix()
    assert blocks.block_state(s, 1) is s and blocks.block_mean(s, 1) is s
    assert blocks.expand(u, s, 3, 1, 1) is u
    forward = network_of(Experiment(n_units=(4, 3))).forward(s, pytensor.shared(rng()))
    assert all(a is b for a, b in zip(forward.u, forward.U, strict=True))
    assert blocks.compilation_mode("JAX", 1) == "JAX"


def rng(seed=0):
    """Return a generator."""
    return np.random.default_rng(seed)


def network_of(experiment, n_in=4, n_classes=3):
    """Return the network of an experiment."""
    return build(experiment, n_in, n_classes)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_shapes_of_a_pass(how):
    """7 instances in blocks of 3, layers of 5 and 4 units in groups of 2; by every rule."""
    e = Experiment(
        n_units=(5, 4), instances_per_block=3, units_per_block=2, block_state=how, batch_size=7
    )
    network, x = network_of(e), pt.fmatrix("x")
    assert [p.get_value().shape for p in network.thetas[0] + network.thetas[1]] == [
        (4, 3),
        (3,),
        (5, 2),
        (2,),
    ]
    X = rng().normal(size=(7, 4)).astype("float32")
    for name, rule in MASK_RULES.items():
        forward = network.forward(x, pytensor.shared(rng()), rule)
        z, u, U = compiled([x], [forward.z[0], forward.u[0], forward.U[0]])(X)
        state = reference.block_mean(X, 3) if how == "mean" else [X[:3].max(0), X[3:6].max(0), X[6]]
        Z, o = (p.get_value() for p in network.thetas[0])
        np.testing.assert_allclose(z, state @ Z + o, rtol=1e-5)
        assert {a.dtype for a in (z, u, U)} == {np.dtype("float32")}
        np.testing.assert_array_equal(U, reference.expand(u, (7, 5), 3, 2))
        if name != "sampled":
            expected = reference.sigm(z) if name == "expected" else z > 0
            np.testing.assert_allclose(u, expected, rtol=1e-5)


@pytest.mark.parametrize("kl_gradient", ["total", "score"])
def test_expectation_over_all_decisions(kl_gradient):
    """Of the policies' gradients: that of the expected cost, of a block's mean nll and its KLs.

    Two blocks, of 2 instances and of 1; two layers, each with a group of 2 units and one of 1.
    With "score" the layer's own divergence is lost, see `reinforce.score_cost`.
    """
    B = G = 2
    e = Experiment(
        n_units=(3, 3), instances_per_block=B, units_per_block=G, baseline="none", batch_size=3,
        lam=0.3, q=0.2, kl_gradient=kl_gradient, policy_learning_rate=1.0,
    )  # fmt: skip
    network = reference.double_network((2, 3, 3, 2), instances_per_block=B, units_per_block=G)
    for policy, n_in in zip(network.policies, (2, 3), strict=True):
        assert policy.Z.get_value().shape == (n_in, 2)
    X, Y = rng(3).normal(size=(3, 2)), np.array([0, 1, 1])
    x, y, U = pt.dmatrix("x"), pt.ivector("y"), [pt.dmatrix(), pt.dmatrix()]
    forward = network.forward(x, mask=reference.given(U))
    updates, _ = policy_updates(network, forward, costs.nll(forward.logits, y), e)
    steps = compiled([x, y, *U], [theta - new for theta, new in updates])
    P = reference.values(network)

    def cost(P, decisions, layers=(0, 1)):
        zs, logits = reference.forward(P, X, decisions, B=B, G=G)
        C = reference.block_mean(reference.nll(logits, Y), B)
        return (C + e.lam * sum(reference.kl(zs[i], e.q) for i in layers)).mean(), zs

    def probability(zs, decisions):
        return np.prod([np.exp(reference.log_pi(z, u)) for z, u in zip(zs, decisions, strict=True)])

    def expected_cost(P, layers=(0, 1)):
        total = 0
        for decisions in reference.joint_masks(2, (2, 2)):
            C, zs = cost(P, decisions, layers)
            total = total + probability(zs, decisions) * C
        return total

    found = {theta.name: 0 for theta, _ in updates}
    for decisions in reference.joint_masks(2, (2, 2)):
        weight = probability(cost(P, decisions)[1], decisions)
        values = steps(X, Y.astype("int32"), *decisions)
        for (theta, _), value in zip(updates, values, strict=True):
            found[theta.name] = found[theta.name] + weight * value
    for i in (0, 1):
        learned = (0, 1) if kl_gradient == "total" else tuple({0, 1} - {i})
        exact = reference.gradient(
            lambda P, learned=learned: expected_cost(P, learned), P, [f"Z_{i + 1}", f"o_{i + 1}"]
        )
        for name, value in exact.items():
            assert np.abs(value).max() > 1e-3
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    # Central differences of the plain cost, which know nothing of complex steps.
    moved = [P | {"o_1": P["o_1"] + d * np.array([1.0, 0.0])} for d in (1e-5, -1e-5)]
    slope = (expected_cost(moved[0]) - expected_cost(moved[1])) / 2e-5
    if kl_gradient == "total":
        np.testing.assert_allclose(found["o_1"][0], slope, rtol=1e-6)


@pytest.mark.parametrize("backend", ["numba", "c", "jax"])
@pytest.mark.parametrize("how", ["mean", "max"])
def test_compiled_steps_agree_with_the_graph_as_written(backend, how):
    """By the thresholded rule, so that all backends decide alike, on mini-batches of two sizes."""
    if backend == "jax":
        pytest.importorskip("jax")
    e = Experiment(
        n_units=(6, 5), instances_per_block=3, units_per_block=2, block_state=how, lam=0.1,
        initial_rate=0.5, policy_learning_rate=0.5, batch_size=8,
    )  # fmt: skip
    results = []
    for mode in (reference.AS_WRITTEN, backends.mode(backend)):
        network, x, y = network_of(e), pt.fmatrix("x"), pt.ivector("y")
        step = training_step(network, x, y, e, mask=MASK_RULES["thresholded"])
        f = backends.function(
            [x, y], step.statistics, updates=step.updates, mode=blocks.compilation_mode(mode, 3)
        )
        statistics = [
            f(rng(n).normal(size=(n, 4)).astype("float32"), np.arange(n, dtype="int32") % 3)
            for n in (8, 6, 1)
        ]
        results.append([*statistics, *network.values().values()])
    for written, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, written, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["numba", "jax"])
def test_sampled_decisions_are_shared(backend):
    """Within a block and a group, and by nobody else; at about the policies' rate."""
    if backend == "jax":
        pytest.importorskip("jax")
    e = Experiment(n_units=(64,), instances_per_block=5, units_per_block=3, initial_rate=0.3)
    network, x = network_of(e), pt.fmatrix("x")
    state = pytensor.shared(rng())
    forward = network.forward(x, state)
    mode = blocks.compilation_mode(backends.mode(backend), 5)
    draw = backends.function([x], forward.U[0], updates=[(state, forward.rng)], mode=mode)
    X = np.zeros((503, 4), "float32")
    U, again = np.asarray(draw(X)), np.asarray(draw(X))
    u = U[::5, ::3]
    np.testing.assert_array_equal(U, reference.expand(u, (503, 64), 5, 3))
    assert (U != again).any() and (u[0] != u[1]).any() and 0.27 < u.mean() < 0.33


def test_uniform_policies_neither_look_nor_learn():
    """Z stays 0 and o at the initial rate while the network learns."""
    e = Experiment(
        n_units=(6,), uniform=True, initial_rate=0.3, lam=0.1, instances_per_block=4, batch_size=4
    )
    network, x, y = network_of(e), pt.fmatrix("x"), pt.ivector("y")
    before = network.values()
    np.testing.assert_array_equal(before["Z_1"], 0)
    np.testing.assert_allclose(reference.sigm(before["o_1"]), 0.3, rtol=1e-5)
    step = training_step(network, x, y, e, pytensor.shared(rng()))
    assert step.averages == []
    f = compiled([x, y], step.statistics, updates=step.updates)
    f(rng().normal(size=(4, 4)).astype("float32"), np.zeros(4, "int32"))
    after = network.values()
    for name in before:
        assert np.array_equal(before[name], after[name]) == (name in ("Z_1", "o_1")), name
