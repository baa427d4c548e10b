"""The masked network, its layers, policies and initial values."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
import scipy.special
import scipy.stats
from reference import compiled

from reinforce_dropout.initializers import glorot_uniform, logit_of_rate
from reinforce_dropout.layers import ACTIVATIONS, AffineLayer, DenseLayer
from reinforce_dropout.network import MASK_RULES, MaskedNetwork
from reinforce_dropout.policy import SigmoidBernoulliPolicy

X = np.random.default_rng(0).normal(size=(5, 4))


def outputs(forward):
    """Return the expressions of a forward pass in one list."""
    return [*forward.S, *forward.z, *forward.U, forward.logits]


@pytest.mark.parametrize("hidden", [(3,), (3, 2), (2, 3, 4)], ids=str)
def test_forward_of_any_depth(hidden):
    """``s_{i+1} = act(s_i W_i + b_i) * u_i``, against NumPy with the same masks."""
    network = reference.double_network((4, *hidden, 3))
    rng = np.random.default_rng(1)
    masks = [rng.integers(0, 2, (5, n)).astype("float64") for n in hidden]
    x, U = pt.dmatrix("x"), [pt.dmatrix() for _ in hidden]
    forward = network.forward(x, mask=reference.given(U))
    results = compiled([x, *U], outputs(forward))(X, *masks)
    P, L = reference.values(network), len(hidden)
    zs, logits = reference.forward(P, X, masks)
    s, S = X, []
    for i, u in enumerate(masks, start=1):
        S.append(s)
        s = np.tanh(s @ P[f"W_{i}"] + P[f"b_{i}"]) * u
    for result, expected in zip(results, [*S, *zs, *masks, logits], strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-12)
    assert [len(part) for part in (forward.S, forward.z, forward.U)] == [L, L, L]


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("tanh", np.tanh),
        ("sigmoid", scipy.special.expit),
        ("relu", lambda a: np.where(a > 0, a, 0)),
    ],
)
def test_activations(name, act):
    """Of the hidden layers; the output has none."""
    network = reference.double_network((4, 3, 2), activation=name)
    x, u = pt.dmatrix("x"), pt.dmatrix("u")
    forward = network.forward(x, mask=reference.given([u]))
    logits = compiled([x, u], forward.logits, on_unused_input="ignore")(X, np.ones((5, 3)))
    _, expected = reference.forward(reference.values(network), X, [np.ones((5, 3))], act)
    np.testing.assert_allclose(logits, expected, rtol=1e-10)


def test_all_activations_are_tested():
    """The test above names each."""
    assert set(ACTIVATIONS) == {"tanh", "sigmoid", "relu"}


def test_dropped_units_do_not_matter():
    """What a unit would have computed has no influence where its mask is 0."""
    network = reference.double_network((4, 3, 2))
    x, u = pt.dmatrix("x"), pt.dmatrix("u")
    forward = network.forward(x, mask=reference.given([u]))
    logits = compiled([x, u], forward.logits, on_unused_input="ignore")
    mask = np.tile([1.0, 0.0, 1.0], (5, 1))
    before = logits(X, mask)
    W = network.layers[0].W
    W.set_value(W.get_value() + np.array([0.0, 9.0, 0.0]))
    np.testing.assert_array_equal(logits(X, mask), before)


def test_without_policies_it_is_a_plain_network():
    """No masks, no draws, and the same initial weights as with policies."""
    plain = MaskedNetwork(np.random.default_rng(3), (4, 3, 2), initial_rate=None)
    masked = MaskedNetwork(np.random.default_rng(3), (4, 3, 2))
    assert plain.policies == plain.thetas == []
    assert plain.all_parameters == plain.params
    for p, m in zip(plain.params, masked.params, strict=True):
        assert p.name == m.name
        np.testing.assert_array_equal(p.get_value(), m.get_value())
    x = pt.fmatrix("x")
    forward = plain.forward(x)
    assert (forward.z, forward.U, forward.rng) == ([], [], None)
    logits = compiled([x], forward.logits)(X.astype("float32"))
    P = reference.values(plain)
    expected = np.tanh(X @ P["W_1"] + P["b_1"]) @ P["W_out"] + P["b_out"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def test_parameters():
    """Their order, unique names, shapes and type; network and policies are separate lists."""
    network = MaskedNetwork(np.random.default_rng(0), (784, 5, 6, 10))
    assert [p.name for p in network.params] == ["W_1", "b_1", "W_2", "b_2", "W_out", "b_out"]
    assert [[p.name for p in theta] for theta in network.thetas] == [["Z_1", "o_1"], ["Z_2", "o_2"]]
    assert [w.name for w in network.weights] == ["W_1", "W_2", "W_out"]
    theta_1, theta_2 = network.thetas
    assert network.all_parameters == network.params + theta_1 + theta_2
    shapes = [p.get_value().shape for p in network.all_parameters]
    assert shapes == [(784, 5), (5,), (5, 6), (6,), (6, 10), (10,), (784, 5), (5,), (5, 6), (6,)]
    assert {p.get_value().dtype for p in network.all_parameters} == {np.dtype("float32")}
    for i in (0, 1):
        assert network.policies[i].theta == [network.policies[i].Z, network.policies[i].o]
        assert network.layers[i].params == [network.layers[i].W, network.layers[i].b]


def test_initial_parameters_follow_from_the_generator():
    """The same seed gives the same network, another seed another; no two matrices are alike."""
    first, again, other = (MaskedNetwork(np.random.default_rng(k), (4, 4, 4)) for k in (1, 1, 2))
    for p, a, q in zip(*(n.all_parameters for n in (first, again, other)), strict=True):
        np.testing.assert_array_equal(p.get_value(), a.get_value())
        assert p.ndim == 1 or (p.get_value() != q.get_value()).all()
    W, Z = first.layers[0].W.get_value(), first.policies[0].Z.get_value()
    assert (W != Z).all()


def test_forward_keeps_float32():
    """Whatever PyTensor's default is."""
    network = MaskedNetwork(np.random.default_rng(0), (4, 3, 2))
    rng = pytensor.shared(np.random.default_rng(0))
    for rule in MASK_RULES.values():
        for floatX in ("float32", "float64"):
            with pytensor.config.change_flags(floatX=floatX):
                forward = network.forward(pt.fmatrix("x"), rng, rule)
            assert {v.dtype for v in outputs(forward)} == {"float32"}


def test_mask_rules():
    """Their order and values; a unit at sigma = 1/2 is thresholded off."""
    assert list(MASK_RULES) == ["sampled", "expected", "thresholded"]
    z = pt.dmatrix("z")
    logits = np.array([[-3.0, -1e-9, 0.0, 1e-9, 3.0]])
    for name, expected in {
        "expected": reference.sigm(logits),
        "thresholded": [[0, 0, 0, 1, 1]],
    }.items():
        u, rng = MASK_RULES[name](z, "state")
        assert rng == "state"
        np.testing.assert_allclose(compiled([z], u)(logits), expected, rtol=1e-12)


def test_every_layer_draws_its_own_masks():
    """Layers of the same width and probabilities have different masks; the state goes on."""
    network = MaskedNetwork(np.random.default_rng(0), (4, 40, 40, 2), initial_rate=0.5)
    x, rng = pt.fmatrix("x"), pytensor.shared(np.random.default_rng(0))
    forward = network.forward(x, rng)
    assert forward.rng is not rng
    draw = compiled([x], forward.U, updates=[(rng, forward.rng)])
    (a, b), (c, _) = draw(X.astype("float32")), draw(X.astype("float32"))
    assert (a != b).any() and (a != c).any()


def test_glorot_uniform():
    """Uniform on +-sqrt(6 / (n_in + n_out)), by a Kolmogorov-Smirnov test."""
    W = glorot_uniform(np.random.default_rng(0), 100, 50)
    limit = np.sqrt(6 / 150)
    assert W.shape == (100, 50) and W.dtype == "float32"
    assert np.abs(W).max() <= np.float32(limit)
    uniform = scipy.stats.uniform(-limit, 2 * limit)
    assert scipy.stats.kstest(W.ravel(), uniform.cdf).pvalue > 1e-3
    assert glorot_uniform(np.random.default_rng(0), 2, 3, "float64").dtype == "float64"


@pytest.mark.parametrize("rate", [0.001, 0.12, 0.5, 0.9])
def test_logit_of_rate(rate):
    """The sigmoid of the bias is the rate, for each unit."""
    o = logit_of_rate(rate, 7)
    assert o.shape == (7,) and o.dtype == "float32"
    np.testing.assert_allclose(scipy.special.expit(o), rate, rtol=1e-5)


def test_initial_rate_on_images():
    """The paper's 10 to 15 % of the units are active before training, on inputs like MNIST's."""
    network = MaskedNetwork(np.random.default_rng(0), (784, 500, 10))
    images = np.random.default_rng(1).random((50, 784), "float32")
    images *= np.random.default_rng(2).random((50, 784)) < 0.2
    x = pt.fmatrix("x")
    sigma = network.forward(x, mask=MASK_RULES["expected"]).U[0]
    assert 0.10 < compiled([x], sigma.mean())(images) < 0.15


def test_layers_start_with_zero_biases():
    """Weights by Glorot, biases zero, and the policy's bias at the wanted rate."""
    rng = np.random.default_rng(0)
    for layer in (AffineLayer(rng, 3, 2, "a"), DenseLayer(rng, 3, 2, "d", "relu")):
        np.testing.assert_array_equal(layer.b.get_value(), np.zeros(2, "float32"))
        assert np.abs(layer.W.get_value()).max() > 0
    policy = SigmoidBernoulliPolicy(rng, 3, 2, "p", initial_rate=0.3)
    np.testing.assert_array_equal(policy.o.get_value(), logit_of_rate(0.3, 2))
    assert [p.name for p in policy.theta] == ["Z_p", "o_p"]
