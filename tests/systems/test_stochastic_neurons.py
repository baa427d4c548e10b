"""Stochastic neurons: their values, the expectation of each gradient, sparsity and threshold."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import AS_WRITTEN, all_masks, compiled, sigm, values_of
from test_settings import check_sentence

from reinforce_dropout import backends, load_evaluation, systems, train
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.running import datasets
from reinforce_dropout.systems import stochastic_gates, stochastic_neurons
from reinforce_dropout.systems.stochastic_gates import NEURONS

SIZES = (4,), 3
N_UNITS = 3
GATER = ["W_gater", "b_gater", "W_gates", "b_gates"]
NETWORK = ["W_1", "b_1", "W_out", "b_out"]
BINARY = ["straight-through", "straight-through-with-slope", "stochastic-binary"]


def settings(neuron, **fields):
    """Return settings of a few experts; by default nothing but the loss is descended."""
    chosen = {
        "n_units": (N_UNITS,), "gater_units": 5, "loss_reduction": "mean", "l2": 0.0,
        "learning_rate": 1.0, "gater_learning_rate": 1.0, "sparsity": 0.0, "max_squared_norm": 0.0,
        "target": 0.3,
    }  # fmt: skip
    return stochastic_neurons.Settings(neuron=neuron, **chosen | fields)


def built(experiment):
    """Return the system of an experiment; its biases are random too."""
    system = systems.build_for_training(experiment, *SIZES)
    rng = np.random.default_rng(6)
    for p in system.parameters.values():
        value = p.get_value()
        p.set_value(rng.normal(0, 0.7, value.shape).astype("float32"))
    return system


def batch(size=2):
    """Return a mini-batch."""
    rng = np.random.default_rng(2)
    x = rng.random((size, SIZES[0][0])).astype("float32")
    return x, rng.integers(0, SIZES[1], size).astype("int32")


def given_noise(monkeypatch):
    """Have all gates take their draws from one symbolic input, and return that input."""
    noise = pt.fmatrix("noise")
    monkeypatch.setattr(stochastic_gates, "drawn", lambda rate, rng: (noise, rng))
    monkeypatch.setattr(pt.random, "normal", lambda **_: (None, noise))
    return noise


def compile_moves(system, noise):
    """Return ``moves(x, y, noise)``: what one step subtracts from each parameter.

    The parameters and all else are as before afterwards.
    """
    x, y = pt.fmatrix("x"), pt.ivector("y")
    updates = system.step(x, y, None).updates
    function = compiled(
        [x, y, noise], [v - after for v, after in updates.items()], on_unused_input="ignore"
    )
    names = [v.name for v in updates]
    return lambda *arguments: dict(zip(names, function(*arguments), strict=True))


def logits_of_gates(P, x):
    """Return z; `P` maps names to arrays."""
    return np.tanh(x @ P["W_gater"] + P["b_gater"]) @ P["W_gates"] + P["b_gates"]


def nll_of(P, x, y, h):
    """Return the nll of each example with the gates h."""
    return reference.nll(((x @ P["W_1"] + P["b_1"]) * h) @ P["W_out"] + P["b_out"], y)


def root(z):
    """Return sqrt(sigma)."""
    return np.sqrt(sigm(z))


def rectified(a):
    """Return max(a, 0), of complex numbers by their real part."""
    return np.where(a.real > 0, a, 0)


THROUGH = {
    "straight-through": lambda z, b: b + (z - z.real),
    "straight-through-with-slope": lambda z, b: b + (sigm(z) - sigm(z.real)),
    "noisy-rectifier": lambda z, n: rectified(z + 0.5 * n),
    "sts": lambda z, b: b * root(z),
    "sts-sampled-with-sigma": lambda z, b: b * root(z),
    "rectifier": lambda z, n: rectified(z),
}
"""The gate as back-propagation sees it, given what is drawn; a real z is not differentiated."""


@pytest.mark.parametrize("neuron", THROUGH)
def test_steps_are_numpys(neuron, monkeypatch):
    """All parameters, with what is drawn held fixed, and with the term that holds the target."""
    noise = given_noise(monkeypatch)
    system = built(settings(neuron, sparsity=0.2, noise_std=0.5, learning_rate=0.5))
    moves, P, (x, y) = compile_moves(system, noise), values_of(system), batch(6)
    rng = np.random.default_rng(3)
    kind = THROUGH[neuron]
    drawn = rng.normal(size=(6, N_UNITS)) if "rect" in neuron else rng.integers(0, 2, (6, N_UNITS))
    found = moves(x, y, drawn.astype("float32"))

    def loss(P):
        z = logits_of_gates(P, x)
        h = kind(z, drawn)
        if "rect" in neuron:
            paid = h.sum(axis=1).mean()
        else:
            m = (root(z) if neuron == "sts" else sigm(z)).mean(axis=0)
            paid = -(0.3 * np.log(m) + 0.7 * np.log(1 - m)).sum()
        return nll_of(P, x, y, h).mean() + 0.2 * paid

    expected = reference.gradient(loss, P, NETWORK + GATER)
    for name, g in expected.items():
        rate = 0.5 if name in NETWORK else 1.0
        np.testing.assert_allclose(found[name], rate * g, rtol=2e-3, atol=2e-6, err_msg=name)
        assert abs(g).max() > 1e-3, name


def test_both_options_of_the_authors_code_are_tested():
    assert THROUGH.keys() | {"stochastic-binary"} == NEURONS.keys()


def expected_moves(system, noise, rate_of, x, y):
    """Return E[what a step subtracts], by all binary draws of two examples."""
    moves, P = compile_moves(system, noise), values_of(system)
    rate, total = rate_of(logits_of_gates(P, x)), 0
    for bits in all_masks(2 * N_UNITS):
        b = bits.reshape(2, N_UNITS)
        probability = np.prod(b * rate + (1 - b) * (1 - rate))
        found = moves(x, y, b.astype("float32"))
        total = total + probability * np.concatenate([found[name].ravel() for name in GATER])
    return total


def gradient_of_expectation(P, x, y):
    """Return the gradient of E[mean nll] in the gater, for h ~ Bernoulli(sigma)."""

    def loss(P):
        z, total = logits_of_gates(P, x), 0
        for h in all_masks(N_UNITS):
            probability = (h * sigm(z) + (1 - h) * (1 - sigm(z))).prod(axis=1)
            total = total + (probability * nll_of(P, x, y, h)).mean()
        return total

    return np.concatenate([g.ravel() for g in reference.gradient(loss, P, GATER).values()])


def test_stochastic_binary_is_unbiased(monkeypatch):
    """By all masks, with any baseline that is remembered from earlier mini-batches."""
    noise, (x, y) = given_noise(monkeypatch), batch()
    system = built(settings("stochastic-binary"))
    symbolic = pt.fmatrix("x"), pt.ivector("y")
    remembered = {v.name: v for v in system.step(*symbolic, None).updates}
    true = gradient_of_expectation(values_of(system), x, y)
    scale = abs(true).max()
    for cost in (0.0, 1.5):
        monkeypatch.setattr(
            stochastic_gates.baselines, "per_unit", lambda past, c=cost: fixed_baseline(c)
        )
        found = expected_moves(system, noise, sigm, x, y)
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-4 * scale)
    assert scale > 1e-2 and {"weighted_cost_1", "weight_1"} <= remembered.keys()


def fixed_baseline(cost):
    """Return a baseline that does not depend on the mini-batch."""
    return lambda C, stage: (pt.zeros_like(stage.z) + np.float32(cost), {})


def test_stochastic_binary_remembers_earlier_mini_batches_only(monkeypatch):
    """Its first step has the baseline 0. Then it is E[(h - sigma)^2 L] / E[(h - sigma)^2]."""
    noise, (x, y) = given_noise(monkeypatch), batch()
    system = built(settings("stochastic-binary", learning_rate=0.0, gater_learning_rate=1e-3))
    xs, ys = pt.fmatrix("x"), pt.ivector("y")
    updates = system.step(xs, ys, None).updates
    step = compiled([xs, ys, noise], [], updates=updates)
    h = np.array([[1, 0, 1], [0, 0, 1]], "float32")
    P = [values_of(system)]
    for _ in range(2):
        step(x, y, h)
        P.append(values_of(system))
    for before, after, past in ((P[0], P[1], 0), (P[1], P[2], 1)):
        z = logits_of_gates(before, x)
        L, square = nll_of(before, x, y, h)[:, None], (h - sigm(z)) ** 2
        first_L = nll_of(P[0], x, y, h)[:, None]
        first_square = (h - sigm(logits_of_gates(P[0], x))) ** 2
        b = past * (first_square * first_L).sum(axis=0) / first_square.sum(axis=0)
        dz = (h - sigm(z)) * (L - b) / 2
        found = (before["b_gates"] - after["b_gates"]) / 1e-3
        np.testing.assert_allclose(found, dz.sum(axis=0), rtol=2e-3, atol=2e-4)
        assert square.any()


def test_straight_through_has_its_documented_bias(monkeypatch):
    """Its expectation is E[dL/dh], as if h were z; the true gradient is
    sigma (1 - sigma) (E[L given h = 1] - E[L given h = 0]).

    With the slope only the curvature of L in h remains as bias.
    """  # noqa: D205, D400
    noise, (x, y) = given_noise(monkeypatch), batch()
    found, systems_ = {}, {}
    for neuron in ("straight-through", "straight-through-with-slope"):
        systems_[neuron] = built(settings(neuron))
        found[neuron] = expected_moves(systems_[neuron], noise, sigm, x, y)
    P = values_of(systems_["straight-through"])
    z = logits_of_gates(P, x)
    mean_dL_dh = np.zeros((2, N_UNITS))
    for h in all_masks(N_UNITS):
        probability = (h * sigm(z) + (1 - h) * (1 - sigm(z))).prod(axis=1, keepdims=True)
        for j in range(N_UNITS):
            moved = h.astype(complex) + 1e-30j * np.eye(N_UNITS)[j]
            mean_dL_dh[:, [j]] += probability * nll_of(P, x, y, moved).imag[:, None] / 1e-30
    slopes = {"straight-through": 1, "straight-through-with-slope": sigm(z) * (1 - sigm(z))}
    true, errors = gradient_of_expectation(P, x, y), {}
    for neuron, slope in slopes.items():
        dz = mean_dL_dh * slope / 2

        def pulled(P, dz=dz):
            return (logits_of_gates(P, x) * dz).sum()

        documented = [g.ravel() for g in reference.gradient(pulled, P, GATER).values()]
        np.testing.assert_allclose(found[neuron], np.concatenate(documented), rtol=0, atol=2e-5)
        errors[neuron] = np.linalg.norm(found[neuron] - true) / np.linalg.norm(true)
    assert errors["straight-through"] > 1  # steps several times too long
    assert 0.005 < errors["straight-through-with-slope"] < 0.3


def test_straight_through_with_slope_is_unbiased_for_a_linear_loss(monkeypatch):
    """And straight-through is off by the slope, exactly."""
    noise = given_noise(monkeypatch)
    z, c = pt.fmatrix("z"), np.float32([[2.0, -1.0, 0.5]])
    z0 = np.float32([[0.3, -1.2, 2.0]])
    slope = sigm(z0) * (1 - sigm(z0))
    for neuron, expected in (("straight-through", c), ("straight-through-with-slope", c * slope)):
        h, _ = NEURONS[neuron].sample(z, None, None)
        gradient = compiled([z, noise], pytensor.grad((c * h).sum(), z))
        for bits in all_masks(N_UNITS):  # for every draw, therefore in expectation
            np.testing.assert_allclose(
                gradient(z0, bits[None].astype("float32")), expected, rtol=1e-5
            )


# ---- values ----


def test_sts_is_sigma_on_average_and_on_with_its_root():
    """E h = sigma, P(h > 0) = sqrt(sigma); the code's variant has sigma^1.5 and sigma."""
    z = np.linspace(-4, 4, 9, dtype="float32")
    x, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(4))
    tall = np.tile(z, (40_000, 1))
    for neuron, mean, on in (("sts", 1, 0.5), ("sts-sampled-with-sigma", 1.5, 1)):
        h = compiled([x], NEURONS[neuron].sample(x, rng, None)[0])(tall)
        np.testing.assert_allclose(h.mean(axis=0), sigm(z) ** mean, atol=0.015)
        np.testing.assert_allclose((h > 0).mean(axis=0), sigm(z) ** on, atol=0.015)
        # exactly, given that it is on
        np.testing.assert_allclose(h.max(axis=0), root(z), rtol=1e-5)


@pytest.mark.parametrize("neuron", NEURONS)
def test_gates_at_test_time(neuron):
    """Without noise, and with the threshold: 0 below, the gate's height above."""
    system = built(settings(neuron))
    system.parameters["threshold"].set_value(np.float32(0.2))
    x, images = pt.fmatrix("x"), batch(40)[0]
    z = logits_of_gates(values_of(system), images)
    smooth = {"sts-sampled-with-sigma": sigm(z) ** 1.5, "rectifier": rectified(z)}
    smooth["noisy-rectifier"] = smooth["rectifier"]
    height = {"sts": root(z), "sts-sampled-with-sigma": root(z), "rectifier": rectified(z)}
    height["noisy-rectifier"] = height["rectifier"]
    expected = {
        "expected": smooth.get(neuron, sigm(z)),
        "thresholded": (z > 0.2) * height.get(neuron, 1.0),
    }
    for rule, gates in expected.items():
        passed = system.predict[rule](x, None)
        (stage,) = passed.stages
        outputs = [stage.U, passed.logits, stage.gate.active(stage.U)]
        U, logits, active = compiled([x], outputs)(images)
        np.testing.assert_allclose(U, gates, rtol=1e-4, atol=1e-6)
        P = values_of(system)
        own = ((images @ P["W_1"] + P["b_1"]) * gates) @ P["W_out"] + P["b_out"]
        np.testing.assert_allclose(logits, own, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(active, U != 0)
    assert 0 < (z > 0.2).mean() < 1


@pytest.mark.parametrize("neuron", BINARY)
def test_binary_gates_are_exactly_0_or_1(neuron):
    """No rounding of z is left in them, so that a pass can skip units."""
    x, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(4))
    z = np.random.default_rng(0).normal(0, 5, (500, 4)).astype("float32")
    h = compiled([x], NEURONS[neuron].sample(x, rng, None)[0])(z)
    assert set(np.unique(h)) == {0, 1}
    np.testing.assert_allclose(h.mean(), sigm(z).mean(), atol=0.03)


def test_gradients_are_finite_for_any_logit():
    z, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(4))
    extreme = np.float32([[-1e4, -200, -88, 0, 88, 1e4]])
    for kind in NEURONS.values():
        h, _ = kind.sample(z, rng, stochastic_neurons.Settings())
        paid, _ = kind.sparsity(z, h, stochastic_neurons.Settings())
        found = compiled([z], pytensor.grad(h.sum() + paid, z, disconnected_inputs="ignore"))
        assert np.isfinite(found(extreme)).all()


# ---- the target ----


def test_the_weight_of_rectifiers_follows_the_target():
    """1.1 times while too many are on, 0.9 times while too few; and the same in between."""
    h, e = pt.fmatrix("h"), settings("rectifier", sparsity=0.01, target=0.3)
    cost, updates = stochastic_gates.adaptive_l1(h, h, e)
    ((lam, after),) = updates.items()
    step = compiled([h], cost, updates=updates)
    gates = np.zeros((10, 10), "float32")
    for n_on, factor in ((35, 1.1), (10, 0.9), (30, 1.0)):
        gates.flat[:] = 2.0 * (np.arange(100) < n_on)
        before = lam.get_value()
        np.testing.assert_allclose(step(gates), before * 2.0 * n_on / 10, rtol=1e-5)
        np.testing.assert_allclose(lam.get_value(), before * factor, rtol=1e-6)


def test_the_threshold_comes_to_the_quantile():
    """It leaves the target's fraction on, of numbers that it has not seen."""
    threshold, z = pytensor.shared(np.float32(0), "threshold"), pt.fmatrix("z")
    e = settings("sts", target=0.1)
    step = compiled([z], [], updates=stochastic_neurons.follow_quantile(threshold, z, e))
    rng = np.random.default_rng(0)
    for _ in range(3000):
        step(rng.normal(1, 2, (8, 50)).astype("float32"))
    above = rng.normal(1, 2, 100_000) > threshold.get_value()
    assert abs(above.mean() - 0.1) < 0.01


def test_columns_of_experts_and_gater_are_limited(monkeypatch):
    """Those of the softmax are not."""
    noise = given_noise(monkeypatch)
    system = built(settings("straight-through", max_squared_norm=0.5, learning_rate=0.0))
    x, y = pt.fmatrix("x"), pt.ivector("y")
    before = values_of(system)
    ones = np.ones((2, N_UNITS), "float32")
    compiled([x, y, noise], [], updates=system.step(x, y, None).updates)(*batch(), ones)
    for name in ("W_1", "W_gater", "W_gates"):
        assert ((before[name] ** 2).sum(axis=0) > 0.5).any()
        assert (values_of(system)[name] ** 2).sum(axis=0).max() < 0.5001, name
    np.testing.assert_array_equal(values_of(system)["W_out"], before["W_out"])
    assert (before["W_out"] ** 2).sum(axis=0).max() > 0.5


def test_initial_weights():
    """Glorot's, four times that for the gates."""
    e = stochastic_neurons.Settings(n_units=(300,), gater_units=200)
    P = values_of(systems.build_for_training(e, (100,), 10))
    for name, factor in {"W_1": 1, "W_gater": 1, "W_gates": 4, "W_out": 1}.items():
        limit = factor * np.sqrt(6 / sum(P[name].shape))
        assert 0.98 * limit < abs(P[name]).max() <= limit
    assert not any(P[name].any() for name in P if name[0] == "b")


def test_one_layer_of_experts():
    with pytest.raises(ExperimentError) as error:
        stochastic_neurons.Settings(n_units=(20, 30))
    check_sentence(error, "n_units is 20,30", "give one width")


def test_presets_hold_the_papers_numbers():
    names = [p.name for p in stochastic_neurons.PRESETS]
    assert names == [
        f"{kind}-2000"
        for kind in ("straight-through", "noisy-rectifier", "sts", "stochastic-binary", "rectifier")
    ]
    for e in stochastic_neurons.PRESETS:
        assert e.name == f"{e.neuron}-2000"
        assert (e.n_units, e.gater_units, e.activation) == ((2000,), 400, "tanh")
        assert (e.batch_size, e.learning_rate, e.target) == (32, 0.1, 0.1)
        assert (e.loss_reduction, e.noise_std, e.evaluation_rule) == ("mean", 1, "thresholded")


@pytest.mark.parametrize("name", [p.name for p in stochastic_neurons.PRESETS])
def test_presets_train_and_evaluate(name, small_data, tmp_path, monkeypatch):
    """End to end: it learns, the threshold decides and leaves the target on, as recorded."""
    monkeypatch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
    e = systems.preset(name).replace(
        n_units=(30,), gater_units=12, n_epochs=4, target=0.3, batch_size=10, threshold_rate=1
    )
    with pytensor.config.change_flags(cxx=""):
        record = train(e, tmp_path / "run.hdf5", data=small_data, show_progress=False, n_threads=1)
        evaluation = load_evaluation(record)(datasets.load(small_data).test)
    assert set(record.best) == {*NETWORK, *GATER, "threshold"}
    best = record.best_attributes
    assert best["test_error"] < 0.4  # chance is 0.75
    assert evaluation.errors["thresholded"] == best["test_error"]
    assert record.curves["active_fraction"].shape == (4, 1)
    (active,) = evaluation.active_fraction["thresholded"]
    assert abs(active - 0.3) < 0.15
    (seen,) = record.curves["active_thresholded"][-1]  # while the threshold moves
    if "rectifier" in e.neuron:  # a threshold below 0 leaves fewer on
        assert 0.1 < seen < 0.4
    else:
        np.testing.assert_allclose(seen, 0.3, atol=0.1)
