"""Block dropout: one decision for a block of instances and a group of units."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled, flat, thetas

from reinforce_dropout import backends, costs, gates
from reinforce_dropout.blocks.sharing import (
    BLOCK_STATES,
    Sharing,
    block_mean,
    expand,
    expand_units,
    n_groups,
    shared,
)
from reinforce_dropout.network import RULES, forward
from reinforce_dropout.systems import block_policy, policy

SIZES = [(m, B) for m in (1, 4, 7) for B in (1, 2, 3, 7, 10**9)]


@pytest.mark.parametrize(("m", "B"), SIZES)
def test_block_mean_and_state(m, B):
    """All instances of a block have the same weight, in whole, shorter and single blocks."""
    s, v = pt.dmatrix(), pt.dvector()
    graphs = [*(BLOCK_STATES[how](s, B) for how in ("mean", "max")), block_mean(v, B)]
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
    U = np.arange(-(-m // B) * n_groups(5, G), dtype="float64").reshape(-1, n_groups(5, G))
    expanded = [expand(u, x, 5, Sharing(B, G)), expand_units(u, 5, G)]
    mask, of_blocks = compiled([u, x], expanded, on_unused_input="ignore")(U, np.empty((m, 2)))
    np.testing.assert_array_equal(mask, reference.expand(U, (m, 5), B, G))
    np.testing.assert_array_equal(of_blocks, reference.expand(U, (len(U), 5), 1, G))


def rng(seed=0):
    """Return a generator."""
    return np.random.default_rng(seed)


def settings(**fields):
    """Return settings of block dropout."""
    return block_policy.Settings(**fields)


def system_of(experiment, n_in=4, n_classes=3):
    """Return the system of an experiment."""
    return block_policy.build(experiment, (n_in,), n_classes)


def test_a_gate_for_single_states_becomes_one_for_blocks():
    """Family, action and parameters stay the same."""
    gate = gates.sigmoid_bernoulli(rng(), 4, 3, "1")._replace(family="a family", act="an action")
    wrapped = shared(gate, Sharing(3, 2), 5)
    assert wrapped.policy.theta == gate.policy.theta
    assert (wrapped.family, wrapped.act) == (gate.family, gate.act)
    v, V = pt.dvector(), rng().normal(size=7)
    pooled = compiled([v], wrapped.pool(v))(V)
    np.testing.assert_allclose(pooled, reference.block_mean(V, 3), rtol=1e-12)


def test_a_policy_that_is_shared_by_nobody_has_the_graph_it_had():
    """With blocks of 1 and groups of 1 the state, the decision and the mask stay the same."""
    gate = shared(gates.sigmoid_bernoulli(rng(), 4, 3, "1"), Sharing(1, 1), 3)
    s, u, v = pt.fmatrix(), pt.fmatrix(), pt.fvector()
    assert all(state(s, 1) is s for state in BLOCK_STATES.values())
    assert gate.expand(u, s) is u and gate.pool(v) is v
    passed = system_of(settings(n_units=(4, 3))).predict["sampled"](s, pytensor.shared(rng()))
    assert len(passed.stages) == 2 and all(stage.u is stage.U for stage in passed.stages)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_shapes_of_a_pass(how):
    """7 instances in blocks of 3, layers of 5 and 4 units in groups of 2; by every rule."""
    e = settings(
        n_units=(5, 4), instances_per_block=3, units_per_block=2, block_state=how, batch_size=7
    )
    system, x = system_of(e), pt.fmatrix("x")
    shapes = [(4, 3), (3,), (5, 2), (2,)]
    names = ["Z_1", "o_1", "Z_2", "o_2"]
    assert [system.parameters[name].get_value().shape for name in names] == shapes
    X = rng().normal(size=(7, 4)).astype("float32")
    for name in RULES:
        stage = system.predict[name](x, pytensor.shared(rng())).stages[0]
        z, u, U = compiled([x], [stage.z, stage.u, stage.U])(X)
        state = reference.block_mean(X, 3) if how == "mean" else [X[:3].max(0), X[3:6].max(0), X[6]]
        Z, o = (system.parameters[p].get_value() for p in ("Z_1", "o_1"))
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
    With "score" the layer's own divergence is lost, see `returns.literal`.
    """
    B = G = 2
    e = settings(
        n_units=(3, 3), instances_per_block=B, units_per_block=G, baseline="none", batch_size=3,
        lam=0.3, q=0.2, kl_gradient=kl_gradient, policy_learning_rate=1.0,
    )  # fmt: skip
    network = reference.double_network((2, 3, 3, 2), sharing=Sharing(B, G))
    assert [Z.get_value().shape for Z, _ in thetas(network)] == [(2, 2), (3, 2)]
    X, Y = rng(3).normal(size=(3, 2)), np.array([0, 1, 1])
    x, y, U = pt.dmatrix("x"), pt.ivector("y"), [pt.dmatrix(), pt.dmatrix()]
    passed = forward(network, x, rule=reference.given(U))
    updates = policy.learn_both(e)(network, passed, costs.nll(passed.logits, y))
    updates = {p: new for p, new in updates.items() if p not in network.params}
    steps = compiled([x, y, *U], [theta - new for theta, new in updates.items()])
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

    found = {theta.name: 0 for theta in updates}
    for decisions in reference.joint_masks(2, (2, 2)):
        weight = probability(cost(P, decisions)[1], decisions)
        values = steps(X, Y.astype("int32"), *decisions)
        for theta, value in zip(updates, values, strict=True):
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
    """On mini-batches of two sizes. With the thresholded rule all backends decide alike."""
    if backend == "jax":
        pytest.importorskip("jax")
    e = settings(
        n_units=(6, 5), instances_per_block=3, units_per_block=2, block_state=how, lam=0.1,
        initial_rate=0.5, policy_learning_rate=0.5, batch_size=8,
    )  # fmt: skip
    results = []
    for mode in (reference.AS_WRITTEN, backends.mode(backend)):
        system, x, y = system_of(e), pt.fmatrix("x"), pt.ivector("y")
        step = system.step(x, y, None, rule=RULES["thresholded"])
        f = backends.function(
            [x, y], flat(step.statistics), updates=list(step.updates.items()), mode=mode
        )
        statistics = [
            f(rng(n).normal(size=(n, 4)).astype("float32"), np.arange(n, dtype="int32") % 3)
            for n in (8, 6, 1)
        ]
        results.append([*statistics, *(p.get_value() for p in system.parameters.values())])
    for written, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, written, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["numba", "jax"])
def test_sampled_decisions_are_shared(backend):
    """A block and a group share a decision, and nobody else; at about the policies' rate."""
    if backend == "jax":
        pytest.importorskip("jax")
    e = settings(n_units=(64,), instances_per_block=5, units_per_block=3, initial_rate=0.3)
    system, x = system_of(e), pt.fmatrix("x")
    state = pytensor.shared(rng())
    passed = system.predict["sampled"](x, state)
    draw = backends.function(
        [x], passed.stages[0].U, updates=[(state, passed.rng)], mode=backends.mode(backend)
    )
    X = np.zeros((503, 4), "float32")
    U, again = np.asarray(draw(X)), np.asarray(draw(X))
    u = U[::5, ::3]
    np.testing.assert_array_equal(U, reference.expand(u, (503, 64), 5, 3))
    assert (U != again).any() and (u[0] != u[1]).any() and 0.27 < u.mean() < 0.33


def test_uniform_policies_neither_look_nor_learn():
    """Their rate is no parameter, and stays the same while the network learns."""
    e = settings(
        n_units=(6,), gate="uniform", initial_rate=0.3, lam=0.1, instances_per_block=4, batch_size=4
    )  # fmt: skip
    system, x, y = system_of(e), pt.fmatrix("x"), pt.ivector("y")
    state = pytensor.shared(rng())
    step = system.step(x, y, state)
    assert list(system.parameters) == ["W_1", "b_1", "W_out", "b_out"]
    assert set(step.updates) == {*system.parameters.values(), state}
    (stage,) = system.predict["expected"](x, None).stages
    sigma = compiled([x], stage.U)
    before = {name: p.get_value() for name, p in system.parameters.items()}
    images = rng().normal(size=(4, 4)).astype("float32")
    np.testing.assert_allclose(sigma(images), np.full((4, 6), 0.3), rtol=1e-5)
    f = compiled([x, y], flat(step.statistics), updates=step.updates)
    f(images, np.zeros(4, "int32"))
    np.testing.assert_allclose(sigma(images), np.full((4, 6), 0.3), rtol=1e-5)
    for name, p in system.parameters.items():
        assert (p.get_value() != before[name]).any(), name
