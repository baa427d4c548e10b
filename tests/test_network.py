"""The network with gates: one walk over its layers, by every rule."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled, gated_network, parameters, thetas

from reinforce_dropout import bernoulli
from reinforce_dropout.gates import Gate
from reinforce_dropout.network import RULES, decided, forward, multilayer_perceptron

X = np.random.default_rng(0).normal(size=(5, 4))


def outputs(passed):
    """Return the expressions of a forward pass in one list."""
    return [*(v for stage in passed.stages for v in (stage.s, stage.z, stage.U)), passed.logits]


@pytest.mark.parametrize("hidden", [(3,), (3, 2), (2, 3, 4)], ids=str)
def test_forward_of_any_depth(hidden):
    """``s_{i+1} = act(s_i W_i + b_i) * u_i``, against NumPy with the same masks."""
    network = reference.double_network((4, *hidden, 3))
    rng = np.random.default_rng(1)
    masks = [rng.integers(0, 2, (5, n)).astype("float64") for n in hidden]
    x, U = pt.dmatrix("x"), [pt.dmatrix() for _ in hidden]
    passed = forward(network, x, rule=reference.given(U))
    results = compiled([x, *U], outputs(passed))(X, *masks)
    P = reference.values(network)
    zs, logits = reference.forward(P, X, masks)
    s, expected = X, []
    for i, (z, u) in enumerate(zip(zs, masks, strict=True), start=1):
        expected += [s, z, u]
        s = np.tanh(s @ P[f"W_{i}"] + P[f"b_{i}"]) * u
    for result, value in zip(results, [*expected, logits], strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-10, atol=1e-12)
    assert [stage.name for stage in passed.stages] == [str(i + 1) for i in range(len(hidden))]
    assert [stage.gate for stage in passed.stages] == network.gates
    assert [stage.u for stage in passed.stages] == U


def test_dropped_units_do_not_matter():
    """The output of a unit has no influence if its mask is 0."""
    network = reference.double_network((4, 3, 2))
    x, u = pt.dmatrix("x"), pt.dmatrix("u")
    passed = forward(network, x, rule=reference.given([u]))
    logits = compiled([x, u], passed.logits)
    mask = np.tile([1.0, 0.0, 1.0], (5, 1))
    before = logits(X, mask)
    W = network.layers[0].W
    W.set_value(W.get_value() + np.array([0.0, 9.0, 0.0]))
    np.testing.assert_array_equal(logits(X, mask), before)


def test_without_gates_it_is_a_plain_network():
    """No masks, no draws, and the same initial weights as with gates."""
    plain = multilayer_perceptron(np.random.default_rng(3), (4, 3, 2), pt.tanh)
    gated = gated_network(np.random.default_rng(3), (4, 3, 2))
    assert plain.gates == [None] and thetas(plain) == []
    for p, m in zip(plain.params, gated.params, strict=True):
        assert p.name == m.name
        np.testing.assert_array_equal(p.get_value(), m.get_value())
    x = pt.fmatrix("x")
    passed = forward(plain, x)
    assert (passed.stages, passed.rng) == ([], None)
    logits = compiled([x], passed.logits)(X.astype("float32"))
    P = reference.values(plain)
    expected = np.tanh(X @ P["W_1"] + P["b_1"]) @ P["W_out"] + P["b_out"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def test_a_layer_without_a_gate_between_layers_with_gates():
    """Its units all take part; the stages are those of the others, by their layers' names."""
    network = reference.double_network((4, 3, 2, 3, 2))
    first, _, third = network.gates
    network = network._replace(gates=[first, None, third])
    rng = np.random.default_rng(1)
    masks = [rng.integers(0, 2, (5, n)).astype("float64") for n in (3, 3)]
    x, U = pt.dmatrix("x"), [pt.dmatrix(), pt.dmatrix()]
    passed = forward(network, x, rule=reference.given(U))
    assert [stage.name for stage in passed.stages] == ["1", "3"]
    P = reference.values(reference.double_network((4, 3, 2, 3, 2)))
    everything = [masks[0], np.ones((5, 2)), masks[1]]
    _, expected = reference.forward(P, X, everything)
    logits = compiled([x, *U], passed.logits)(X, *masks)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_parameters():
    """Their order, unique names, shapes and type; network and policies are separate lists."""
    network = gated_network(np.random.default_rng(0), (784, 5, 6, 10))
    assert [p.name for p in network.params] == ["W_1", "b_1", "W_2", "b_2", "W_out", "b_out"]
    assert [[p.name for p in theta] for theta in thetas(network)] == [
        ["Z_1", "o_1"],
        ["Z_2", "o_2"],
    ]
    assert [w.name for w in network.weights] == ["W_1", "W_2", "W_out"]
    shapes = [p.get_value().shape for p in parameters(network)]
    assert shapes == [(784, 5), (5,), (5, 6), (6,), (6, 10), (10,), (784, 5), (5,), (5, 6), (6,)]
    assert {p.get_value().dtype for p in parameters(network)} == {np.dtype("float32")}


def test_initial_parameters_follow_from_the_generator():
    """The same seed gives the same network, another seed another; no two matrices are alike."""
    first, again, other = (gated_network(np.random.default_rng(k), (4, 4, 4)) for k in (1, 1, 2))
    for p, a, q in zip(*(parameters(n) for n in (first, again, other)), strict=True):
        np.testing.assert_array_equal(p.get_value(), a.get_value())
        assert p.ndim == 1 or (p.get_value() != q.get_value()).all()
    W, Z = (part[0].get_value() for part in (first.layers[0].params, thetas(first)[0]))
    assert (W != Z).all()


def test_forward_keeps_float32():
    """For any default dtype of PyTensor."""
    network = gated_network(np.random.default_rng(0), (4, 3, 2))
    rng = pytensor.shared(np.random.default_rng(0))
    for rule in RULES.values():
        for floatX in ("float32", "float64"):
            with pytensor.config.change_flags(floatX=floatX):
                passed = forward(network, pt.fmatrix("x"), rng, rule)
            assert {v.dtype for v in outputs(passed)} == {"float32"}


def test_rules():
    """Their order and values; a unit at sigma = 1/2 is thresholded off."""
    assert list(RULES) == ["sampled", "expected", "thresholded"]
    z = pt.dmatrix("z")
    logits = np.array([[-3.0, -1e-9, 0.0, 1e-9, 3.0]])
    for name, expected in {
        "expected": reference.sigm(logits),
        "thresholded": [[0, 0, 0, 1, 1]],
    }.items():
        u, rng = RULES[name](bernoulli, z, "state")
        assert rng == "state"
        np.testing.assert_allclose(compiled([z], u)(logits), expected, rtol=1e-12)


def test_sampled_masks_are_the_familys():
    """The first draw from the given state is that of `bernoulli.sample`."""
    z, rng = pt.dmatrix("z"), pytensor.shared(np.random.default_rng(0))
    logits = np.zeros((6, 7))
    draws = (RULES["sampled"](bernoulli, z, rng)[0], bernoulli.sample(z, rng)[0])
    ours, familys = (compiled([z], u)(logits) for u in draws)
    np.testing.assert_array_equal(ours, familys)


def test_every_layer_draws_its_own_masks():
    """Layers of the same width and probabilities have different masks; the state goes on."""
    network = gated_network(np.random.default_rng(0), (4, 40, 40, 2), initial_rate=0.5)
    x, rng = pt.fmatrix("x"), pytensor.shared(np.random.default_rng(0))
    passed = forward(network, x, rng)
    assert passed.rng is not rng
    draw = compiled([x], [stage.U for stage in passed.stages], updates=[(rng, passed.rng)])
    (a, b), (c, _) = draw(X.astype("float32")), draw(X.astype("float32"))
    assert (a != b).any() and (a != c).any()


class Halves:
    """A family of decisions that halve: no Bernoulli variables at all."""

    @staticmethod
    def sample(z, rng):
        """Return a half of z."""
        return z / 2, rng


def test_a_gate_brings_its_own_family_action_and_expansion():
    """The walk asks the gate for all of them: here, the first input is added to every unit."""
    network = multilayer_perceptron(np.random.default_rng(3), (4, 3, 2), pt.tanh)
    gate = Gate(
        policy=lambda s: s[:, [0]],
        family=Halves,
        act=lambda h, U: h + U,
        expand=lambda u, s: u[:, [0, 0, 0]] + s[:, [0, 0, 0]] / 2,
    )
    x = pt.fmatrix("x")
    passed = forward(network._replace(gates=[gate]), x)
    P, images = reference.values(network), X.astype("float32")
    u, U, logits = compiled([x], [passed.stages[0].u, passed.stages[0].U, passed.logits])(images)
    np.testing.assert_array_equal(u, images[:, :1] / 2)
    np.testing.assert_array_equal(U, np.tile(images[:, :1], 3))
    h = np.tanh(images @ P["W_1"] + P["b_1"]) + images[:, :1]
    np.testing.assert_allclose(logits, h @ P["W_out"] + P["b_out"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("i", [1, 2, 3])
def test_a_pass_anew_from_a_layer(i):
    """It decides what is given there, and above by the rule; what lies below is not computed."""
    network = reference.double_network((4, 3, 2, 3, 2))
    rng = np.random.default_rng(1)
    masks = [rng.integers(0, 2, (5, n)).astype("float64") for n in (3, 2, 3)]
    x, u, U = pt.dmatrix("x"), pt.dmatrix("u"), [pt.dmatrix() for _ in masks]
    passed = forward(network, x, rule=reference.given(U))
    tried = forward(
        network, passed.stages[i - 1].s, None, decided(u, reference.given(U[i:])), start=i
    )
    assert [stage.name for stage in tried.stages] == [str(k) for k in range(i, 4)]
    assert tried.stages[0].u is u
    other = 1 - masks[i - 1]
    logits = compiled([x, u, *U], tried.logits, on_unused_input="ignore")(X, other, *masks)
    changed = [*masks[: i - 1], other, *masks[i:]]
    _, expected = reference.forward(reference.values(network), X, changed)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_decisions_above_are_drawn_anew():
    """By default; the given one draws nothing."""
    rng, u = pytensor.shared(np.random.default_rng(0)), pt.dmatrix("u")
    rule = decided(u)
    z = pt.dmatrix("z")
    assert rule(bernoulli, z, rng) == (u, rng)
    above, after = rule(bernoulli, z, rng)
    assert after is not rng and above is not u
    value = np.zeros((4, 3))
    found = compiled([z], above)(value)
    right, _ = bernoulli.sample(z, rng)
    np.testing.assert_array_equal(found, compiled([z], right)(value))
