"""A second look: the sum over both decisions, two networks that learn alone, what is skipped."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled, values_of

from reinforce_dropout import backends, systems
from reinforce_dropout.systems import dropout, second_look

SIZES = (6,), 3
FIELDS = {
    "n_units": (5, 4), "batch_size": 8, "loss_reduction": "mean", "l2": 0.0, "optimizer": "sgd",
    "activation": "tanh", "learning_rate": 0.5, "initial_std": 1.0, "max_squared_norm": 2.0,
    "hidden_keep": 1.0,
}  # fmt: skip
SECOND = {"second_units": (7, 6), "second_activation": "sigmoid"}
THETA = "Z", "o"


def settings(**fields):
    """Return settings of small networks whose hidden layers drop nothing."""
    chosen = FIELDS | SECOND | {"second_hidden_keep": 1.0, "lam": 0.3}
    chosen |= {"policy_learning_rate": 0.25} | fields
    return second_look.Settings(**chosen)


def with_values(system):
    """Set biases at random, and policies that are in doubt about some images; return the system."""
    rng = np.random.default_rng(5)
    for name, p in system.parameters.items():
        if name.startswith(("b_", "second_b_")):
            p.set_value(rng.normal(size=p.get_value().shape).astype("float32"))
    system.parameters["Z"].set_value(np.float32([[1.5]]))
    system.parameters["o"].set_value(np.float32([1.0]))
    return system


def batch(size=8):
    """Return images and labels."""
    rng = np.random.default_rng(2)
    x = rng.random((size, SIZES[0][0])).astype("float32")
    return x, rng.integers(0, SIZES[1], size).astype("int32")


def logits(P, x, prefix=""):
    """Return the logits of one network, in NumPy."""
    s, act = x, reference.sigm if prefix else np.tanh
    for i in ("1", "2"):
        s = act(s @ P[f"{prefix}W_{i}"] + P[f"{prefix}b_{i}"])
    return s @ P[f"{prefix}W_out"] + P[f"{prefix}b_out"]


def doubt(a):
    """Return the log-odds that the first guess is wrong, in NumPy."""
    odds = np.sort(np.exp(a - a.max(axis=1, keepdims=True)), axis=1)
    return np.log(odds[:, :-1].sum(axis=1))


def test_the_policy_descends_the_sum_over_both_decisions():
    """Each decision's probability times its cost, by finite differences in NumPy."""
    system, (images, labels) = (
        with_values(systems.build_for_training(settings(input_keep=1.0), *SIZES)),
        batch(),
    )
    P = values_of(system)
    first, second = logits(P, images), logits(P, images, "second_")
    costs = [reference.nll(first, labels), reference.nll(first + second, labels) + 0.3]

    def cost(theta):
        sigma = reference.sigm(doubt(first) * theta["Z"][0] + theta["o"])
        return ((1 - sigma) * costs[0] + sigma * costs[1]).mean()

    system.schedule(31)
    slopes = reference.gradient(cost, {name: P[name] for name in THETA}, THETA)
    x, y = pt.fmatrix("x"), pt.ivector("y")
    step = system.step(x, y, None)
    fraction, nll = compiled(
        [x, y],
        [*step.statistics["active_fraction"], step.statistics["train_nll"]],
        updates=step.updates,
    )(images, labels)
    for name in THETA:
        moved = values_of(system)[name] - P[name]
        assert np.abs(moved).min() > 1e-4
        np.testing.assert_allclose(moved, -0.25 * slopes[name], rtol=1e-3, atol=1e-6)
    sigma = reference.sigm(doubt(first) * 1.5 + 1)
    np.testing.assert_allclose(fraction, sigma.mean(), rtol=1e-5)
    expected = ((1 - sigma) * costs[0] + sigma * (costs[1] - 0.3)).mean()
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_the_policy_waits_until_the_networks_have_matured():
    system = with_values(systems.build_for_training(settings(policy_from_epoch=3), *SIZES))
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(4))
    step = compiled([x, y], [], updates=system.step(x, y, rng).updates)
    for epoch in (1, 2, 3):
        system.schedule(epoch)
        before = values_of(system)
        step(*batch())
        moved = {name for name, p in values_of(system).items() if (p != before[name]).any()}
        assert moved == system.parameters.keys() - (set(THETA) if epoch < 3 else set())


@pytest.mark.parametrize(
    ("prefix", "widths", "activation"), [("", (5, 4), "tanh"), ("second_", (7, 6), "sigmoid")]
)
def test_each_network_learns_as_if_it_were_alone(prefix, widths, activation):
    """The same step as `dropout` makes, from the same parameters."""
    both = with_values(systems.build_for_training(settings(input_keep=1.0), *SIZES))
    own = {"n_units": widths, "activation": activation, "input_keep": 1.0}
    alone = systems.build_for_training(dropout.Settings(**FIELDS | own), *SIZES)
    for name, p in alone.parameters.items():
        p.set_value(both.parameters[prefix + name].get_value())
    x, y = pt.fmatrix("x"), pt.ivector("y")
    for system in (both, alone):
        before = values_of(alone)
        compiled([x, y], [], updates=system.step(x, y, None).updates)(*batch())
    for name, p in alone.parameters.items():
        assert np.abs(p.get_value() - before[name]).max() > 1e-3
        np.testing.assert_allclose(
            both.parameters[prefix + name].get_value(), p.get_value(), rtol=1e-5, atol=1e-7
        )


def test_at_first_a_second_look_is_as_probable_as_a_wrong_answer():
    """Also where float32 cannot tell the answer's probability from 1."""
    system = systems.build_for_training(settings(), *SIZES)
    gate = second_look.Gate(second_look.AffinePolicy(*map(system.parameters.get, THETA)))
    a, rng = np.float32([[0, 0, 0], [5, 1, 2], [0, 90, 0]]), None
    stage, _ = second_look.decide(gate, pt.as_tensor(a), rng, second_look.expected)
    sigma = compiled([], stage.u)().ravel()
    np.testing.assert_allclose(sigma[:2], reference.sigm(doubt(a[:2])), rtol=1e-5)
    np.testing.assert_allclose(sigma[2], second_look.LEAST, rtol=1e-3)


def predictions(execution, rule, o=1.0):
    """Return ``(images) -> [logits, decisions]`` of a system, and the system."""
    chosen = settings(input_keep=0.8, second_hidden_keep=0.5)
    system = with_values(systems.build_for_prediction(chosen, *SIZES, execution))
    system.parameters["o"].set_value(np.float32([o]))
    x, rng = pt.fmatrix("x"), pytensor.shared(np.random.default_rng(3))
    passed = system.predict[rule](x, rng)
    updates = [(rng, passed.rng)] if passed.rng is not rng else []
    outputs, mode = [passed.logits, passed.stages[0].u], backends.mode("numba")
    return backends.function([x], outputs, updates=updates, mode=mode), system


@pytest.mark.parametrize("rule", second_look.PASSES)
@pytest.mark.parametrize("execution", ["dense", "block-sparse"])
def test_the_large_network_is_added_where_it_takes_part(execution, rule):
    """Both are mean networks. It takes part for some, all or no images."""
    images, _ = batch(40)
    for o, least, most in ((1.0, 1, 39), (60.0, 40, 40), (-60.0, 0, 0)):
        predict, system = predictions(execution, rule, o)
        found, u = predict(images)
        P = values_of(system)
        for name in ("second_W_2", "second_W_out"):
            P[name] *= 0.5  # the hidden units' rate
        first, second = logits(P, 0.8 * images), logits(P, 0.8 * images, "second_")
        assert least <= u.sum() <= most
        np.testing.assert_allclose(found, first + u * second, rtol=1e-4, atol=1e-5)
        if rule == "thresholded":
            np.testing.assert_array_equal(u[:, 0], doubt(first) * 1.5 + o > 0)


def test_both_executions_draw_the_same():
    images, _ = batch(40)
    (dense, _), (skipping, _) = (predictions(name, "sampled") for name in ("dense", "block-sparse"))
    for n in (40, 1, 0):
        (found, u), (skipped, drawn) = dense(images[:n]), skipping(images[:n])
        np.testing.assert_array_equal(u, drawn)
        np.testing.assert_allclose(found, skipped, rtol=1e-4, atol=1e-5)


def test_a_folded_network_is_the_mean_network():
    """Of dropout in pixels and in hidden layers; without a gate."""
    chosen = dropout.Settings(**FIELDS | {"input_keep": 0.8, "hidden_keep": 0.5})
    x, (images, _) = pt.fmatrix("x"), batch()
    found = []
    for execution in ("dense", "folded"):
        system = systems.build_for_prediction(chosen, *SIZES, execution)
        found.append(compiled([x], system.predict["expected"](x, None).logits)(images))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)
    assert system.predict["expected"](x, None).stages == []
