"""Standout: its limits, its masks, and its gradient against NumPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import AS_WRITTEN, compiled, flat, sampled_into, sigm, values_of

from reinforce_dropout import backends, load_evaluation, systems, train
from reinforce_dropout.running import datasets
from reinforce_dropout.systems import plain, policy, standout

SIZES = (6,), 3
N_UNITS = (5, 4)
FIELDS = {"n_units": N_UNITS, "activation": "relu", "learning_rate": 0.1, "l2": 0.01}


def settings(**fields):
    """Return settings of small layers of rectified linear units."""
    return standout.Settings(**FIELDS | fields)


def built(experiment):
    """Return the system of an experiment, with its initial parameters."""
    return systems.build_for_training(experiment, *SIZES)


def batches(n, size=8):
    """Yield mini-batches."""
    rng = np.random.default_rng(2)
    for _ in range(n):
        x = rng.normal(size=(size, SIZES[0][0])).astype("float32")
        yield x, rng.integers(0, SIZES[1], size).astype("int32")


def compile_step(system, **rule):
    """Return the step's generator, and a function that returns its statistics by name."""
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(4))
    step = system.step(x, y, rng, **rule)
    return rng, compiled([x, y], flat(step.statistics), updates=step.updates)


def compile_logits(system, rule, rng=None):
    """Return a function of images: the logits of the softmax and of each stage's masks."""
    x = pt.fmatrix("x")
    passed = system.predict[rule](x, rng)
    return compiled([x], [passed.logits, *(stage.z for stage in passed.stages)])


def numpy_pass(P, x, logits_of, mask_of):
    """Return logits of the softmax and of the masks; `P` maps names to arrays.

    ``logits_of(s, W)`` gives a layer's logits, ``mask_of(i, z)`` its mask; i counts from 0.
    """
    s, zs = x, []
    for i in range(len(N_UNITS)):
        W, b = P[f"W_{i + 1}"], P[f"b_{i + 1}"]
        zs.append(logits_of(s, W))
        a = s @ W + b
        s = np.where(a.real > 0, a, 0) * mask_of(i, zs[-1])
    return s @ P["W_out"] + P["b_out"], zs


@pytest.mark.parametrize("beta_on", standout.POLICIES)
def test_alpha_and_beta_0_are_dropout_at_one_half(beta_on):
    """The same draws, statistics and updates as with gates that keep every unit at 0.5."""
    ours = built(settings(alpha=0.0, beta=0.0, beta_on=beta_on))
    dropout = built(policy.Settings(**FIELDS, gate="uniform", initial_rate=0.5))
    (rng, step), (other_rng, other_step) = compile_step(ours), compile_step(dropout)
    before = values_of(ours)
    for x, y in batches(3):
        statistics = step(x, y)
        np.testing.assert_array_equal(statistics, other_step(x, y))
        np.testing.assert_allclose(statistics[3:], np.log(2), rtol=1e-6)  # nats a unit
    assert values_of(ours).keys() == values_of(dropout).keys()
    for name, value in values_of(ours).items():
        assert (value != before[name]).any(), name
        np.testing.assert_array_equal(value, values_of(dropout)[name], err_msg=name)
    states = [r.get_value().bit_generator.state for r in (rng, other_rng)]
    assert states[0] == states[1] != np.random.default_rng(4).bit_generator.state


def test_a_large_alpha_with_rectified_linear_units_is_the_plain_network():
    """A unit is off where it would be 0 anyway: exactly by the most probable masks.

    By the expected ones it is nearly so: a (1 - sigm(alpha a)) is at most 0.28 / alpha.
    """
    ours, network = built(settings(alpha=1e4, beta=0.0)), built(plain.Settings(**FIELDS))
    x, _ = next(batches(1))
    (expected,) = compile_logits(network, "all units")(x)
    assert (expected > 0).any()
    for rule, tolerance in (("thresholded", 0), ("expected", 1e-3)):
        logits, *zs = compile_logits(ours, rule)(x)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)
        assert all((z > 0).any() and (z < 0).any() for z in zs)


def test_a_large_alpha_learns_as_the_plain_network():
    """One step from biases of 0, with the masks drawn: their units are on, or 0 anyway."""
    ours, network = built(settings(alpha=1e7, beta=0.0)), built(plain.Settings(**FIELDS))
    (_, step), (_, plain_step) = compile_step(ours), compile_step(network)
    (x, y) = next(batches(1))
    np.testing.assert_allclose(step(x, y)[0], plain_step(x, y)[0], rtol=1e-6)
    for name, value in values_of(network).items():
        np.testing.assert_allclose(values_of(ours)[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


READINGS = {
    "logit": lambda s, W: s @ (0.5 * W) - 0.75,
    "weights": lambda s, W: s @ (0.5 * W - 0.75),
}
"""The logits of a layer at alpha = 0.5 and beta = -0.75, in both readings."""


def test_both_readings_are_tested():
    """The table above has each."""
    assert READINGS.keys() == standout.POLICIES.keys()
    assert standout.Settings().beta_on == "logit"


@pytest.mark.parametrize("beta_on", READINGS)
def test_logits_and_expected_masks_are_numpys(beta_on):
    """Layer by layer, from the activations that are already masked."""
    system = built(settings(alpha=0.5, beta=-0.75, beta_on=beta_on))
    P = values_of(system)
    x, _ = next(batches(1))
    masks = {"expected": lambda i, z: sigm(z), "thresholded": lambda i, z: z > 0}
    for rule, mask_of in masks.items():
        found = compile_logits(system, rule)(x)
        logits, zs = numpy_pass(P, x, READINGS[beta_on], mask_of)
        for value, expected in zip(found, [logits, *zs], strict=True):
            assert value.dtype == "float32"
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta_on", READINGS)
def test_masks_are_constants_for_the_gradient(beta_on):
    """The step is that of NumPy with the drawn masks held fixed, although they depend on W.

    Some gradient would flow to W through the policy if the masks were not constants.
    """
    e = settings(alpha=0.5, beta=-0.75, beta_on=beta_on)
    system, drawn = built(e), []
    for name in ("b_1", "b_2"):  # at a sum of exactly 0 the slope of a unit is a convention
        b = system.parameters[name]
        b.set_value(np.random.default_rng(6).normal(0, 0.1, b.get_value().shape).astype("float32"))

    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(4))
    step = system.step(x, y, rng, rule=sampled_into(drawn))
    assert set(step.updates) == {*system.parameters.values(), rng}
    f = compiled([x, y], drawn, updates=step.updates)
    for images, labels in batches(3):
        P = values_of(system)
        masks = f(images, labels)
        assert all(set(np.unique(u)) == {0, 1} for u in masks)

        def loss(P, images=images, labels=labels, masks=masks):
            logits, _ = numpy_pass(P, images, READINGS[beta_on], lambda i, z: masks[i])
            squares = sum((P[name] ** 2).sum() for name in P if name[0] == "W")
            return reference.nll(logits, labels).sum() + e.l2 * squares

        for name, grad in reference.gradient(loss, P, P).items():
            expected = P[name] - e.learning_rate * grad
            found = values_of(system)[name]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("beta_on", READINGS)
def test_weights_stay_tied(beta_on):
    """After updates the masks follow from the new weights: they have no parameters of their own."""
    system = built(settings(alpha=0.5, beta=-0.75, beta_on=beta_on))
    assert list(system.parameters) == ["W_1", "b_1", "W_2", "b_2", "W_out", "b_out"]
    _, step = compile_step(system)
    look = compile_logits(system, "expected")
    (x, y) = next(batches(1))
    _, before, _ = look(x)
    W = values_of(system)["W_1"]
    step(x, y)
    _, after, _ = look(x)
    assert (values_of(system)["W_1"] != W).any() and (after != before).any()
    expected = READINGS[beta_on](x, values_of(system)["W_1"])
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_starts_from_the_weights_of_the_plain_network():
    """No policy is drawn, so nothing comes between."""
    ours, network = values_of(built(settings())), values_of(built(plain.Settings(**FIELDS)))
    assert ours.keys() == network.keys()
    for name, value in network.items():
        np.testing.assert_array_equal(ours[name], value)


def test_trains_and_evaluates_by_expected_masks(small_data, tmp_path, monkeypatch):
    """End to end: it learns, the expected rule decides, and a record repeats its errors."""
    monkeypatch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
    e = standout.Settings(n_units=(16, 12), activation="relu", n_epochs=3, learning_rate=0.02)
    assert e.evaluation_rule == "expected"
    with pytensor.config.change_flags(cxx=""):
        record = train(e, tmp_path / "run.hdf5", data=small_data, show_progress=False, n_threads=1)
        evaluation = load_evaluation(record)(datasets.load(small_data).test)
    assert set(record.best) == {"W_1", "b_1", "W_2", "b_2", "W_out", "b_out"}
    curves, best = record.curves, record.best_attributes
    np.testing.assert_array_equal(curves["valid_error"], curves["valid_error_expected"])
    assert best["test_error"] < 0.3  # chance is 0.75
    assert evaluation.errors["expected"] == best["test_error"]
    for rule, error in evaluation.errors.items():
        assert error == curves[f"test_error_{rule}"][best["epoch"] - 1]
    assert curves["active_fraction"].shape == curves["policy_entropy"].shape == (3, 2)
