"""Dropout: its update against NumPy, its masks, and the mean network."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import AS_WRITTEN, compiled, flat, sampled_into, values_of

from reinforce_dropout import backends, load_evaluation, systems, train
from reinforce_dropout.running import datasets
from reinforce_dropout.systems import dropout, plain

SIZES = (6,), 3
FIELDS = {
    "n_units": (5, 4), "loss_reduction": "mean", "l2": 0.0, "batch_size": 8,
    "activation": "sigmoid", "learning_rate": 10.0, "initial_std": 1.0, "max_squared_norm": 2.0,
    "optimizer": "momentum", "momentum": 0.99, "schedule_epochs": 24,
}  # fmt: skip


def settings(**fields):
    """Return settings of small layers, with pixels dropped too."""
    return dropout.Settings(**FIELDS | {"input_keep": 0.8} | fields)


def built(experiment):
    """Return the system of an experiment, with its initial parameters."""
    return systems.build_for_training(experiment, *SIZES)


def batches(n, size=8):
    """Yield mini-batches."""
    rng = np.random.default_rng(2)
    for _ in range(n):
        x = rng.random((size, SIZES[0][0])).astype("float32")
        yield x, rng.integers(0, SIZES[1], size).astype("int32")


ACTIVATIONS = {"sigmoid": reference.sigm, "relu": lambda a: np.where(a.real > 0, a, 0)}


def numpy_logits(P, x, masks, act):
    """Return the softmax's logits; the first mask is of the pixels."""
    s = x * masks[0]
    for i, mask in enumerate(masks[1:], start=1):
        s = act(s @ P[f"W_{i}"] + P[f"b_{i}"]) * mask
    return s @ P["W_out"] + P["b_out"]


def scaled_back(W, limit):
    """Return W; columns with a longer squared length get the limit."""
    W = W.copy()
    for j in range(W.shape[1]):
        length = (W[:, j] ** 2).sum()
        if length > limit:
            W[:, j] *= np.sqrt(limit / length)
    return W


@pytest.mark.parametrize(("activation", "rate"), [("sigmoid", 10.0), ("relu", 1.0)])
def test_twenty_steps_are_those_of_the_paper(activation, rate):
    """In five epochs of four steps: mean loss, momentum and rate by the schedule, max-norm.

    The momentum reaches its end in epoch 5 of 24. Some columns are scaled back, others are not.
    """
    e, drawn = settings(activation=activation, learning_rate=rate), []
    system = built(e)
    for name in ("b_1", "b_2"):  # at a sum of exactly 0 the slope of a unit is a convention
        b = system.parameters[name]
        b.set_value(np.random.default_rng(6).normal(0, 0.1, b.get_value().shape).astype("float32"))

    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(4))
    step = system.step(x, y, rng, rule=sampled_into(drawn))
    f = compiled([x, y], drawn, updates=step.updates)
    P = values_of(system)
    V = {name: np.zeros_like(value) for name, value in P.items()}
    n_long = n_short = 0
    for k, (images, labels) in enumerate(batches(20)):
        epoch = 1 + k // 4
        system.schedule(epoch)
        masks = f(images, labels)
        t, T, decay = epoch - 1, 24 / 6, 0.998 ** (3000 / 24)
        mu = 0.99 if t >= T else (t / T) * 0.99 + (1 - t / T) * 0.5

        def loss(P, images=images, labels=labels, masks=masks):
            logits = numpy_logits(P, images, masks, ACTIVATIONS[activation])
            return reference.nll(logits, labels).mean()

        for name, g in reference.gradient(loss, P, list(P)).items():
            V[name] = mu * V[name] - (1 - mu) * rate * decay**t * g
            P[name] = P[name] + V[name]
            if name in ("W_1", "W_2"):
                n_long += ((P[name] ** 2).sum(axis=0) > 2).sum()
                n_short += ((P[name] ** 2).sum(axis=0) < 2).sum()
                P[name] = scaled_back(P[name], 2.0)
        for name, value in P.items():
            found = values_of(system)[name]
            np.testing.assert_allclose(found, value, rtol=1e-3, atol=1e-4, err_msg=f"{name} {k}")
    assert n_long > 20 and n_short > 20
    assert (P["W_out"] ** 2).sum(axis=0).max() > 2  # the output's columns have no limit


def test_the_mean_network_has_all_units_and_scaled_outgoing_weights():
    """0.8 of the pixels' weights and half of the hidden units'."""
    system = built(settings())
    P, (images, _) = values_of(system), next(batches(1))
    scaled = P | {"W_1": 0.8 * P["W_1"], "W_2": 0.5 * P["W_2"], "W_out": 0.5 * P["W_out"]}
    expected = numpy_logits(scaled, images, [1, 1, 1], reference.sigm)
    x = pt.fmatrix("x")
    found = compiled([x], system.predict["expected"](x, None).logits)(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert systems.preset("dropout-800-800").evaluation_rule == "expected"


def test_units_take_part_at_their_rates():
    """Pixels at 0.8 and hidden units at 0.5, each of them and independently for each image."""
    system = built(settings())
    x, rng = pt.fmatrix("x"), pytensor.shared(np.random.default_rng(4))
    passed = system.predict["sampled"](x, rng)
    masks = compiled([x], [stage.U for stage in passed.stages])(np.ones((4000, 6), "float32"))
    for mask, rate in zip(masks, (0.8, 0.5, 0.5), strict=True):
        assert set(np.unique(mask)) == {0, 1}
        np.testing.assert_allclose(mask.mean(axis=0), rate, atol=0.03)
        correlations = np.corrcoef(mask.T) - np.eye(mask.shape[1])
        assert np.abs(correlations).max() < 0.08
    assert [stage.name for stage in passed.stages] == ["1", "2", "3"]


def test_nothing_is_dropped_at_a_rate_of_1():
    """Such a layer has no gate: nothing is drawn, and nothing is in the statistics."""
    system = built(settings(input_keep=1.0, hidden_keep=1.0))
    x, y = pt.fmatrix("x"), pt.ivector("y")
    step = system.step(x, y, None)
    assert step.statistics["active_fraction"] == step.statistics["policy_entropy"] == []
    found = compiled([x, y], flat(step.statistics))(*next(batches(1)))
    P, (images, labels) = values_of(system), next(batches(1))
    nll = reference.nll(numpy_logits(P, images, [1, 1, 1], reference.sigm), labels).mean()
    np.testing.assert_allclose(found, [nll], rtol=1e-5)
    hidden_only = built(settings(input_keep=1.0)).step(
        x, y, pytensor.shared(np.random.default_rng(0))
    )
    assert len(hidden_only.statistics["active_fraction"]) == 2


def test_no_limit_leaves_long_columns():
    """With max_squared_norm 0; the same step as that of the plain system otherwise."""
    same = {"n_units": (5,), "optimizer": "momentum", "learning_rate": 1.0, "l2": 0.0}
    alone = {"hidden_keep": 1.0, "max_squared_norm": 0.0, "initial_std": 3.0}
    ours, network = built(dropout.Settings(**same, **alone)), built(plain.Settings(**same))
    for name, p in network.parameters.items():
        p.set_value(ours.parameters[name].get_value())
    images, labels = next(batches(1))
    for system in (ours, network):
        x, y = pt.fmatrix("x"), pt.ivector("y")
        compiled([x, y], [], updates=system.step(x, y, None).updates)(images, labels)
    for name, value in values_of(network).items():
        np.testing.assert_array_equal(values_of(ours)[name], value)
    assert ((values_of(ours)["W_1"] ** 2).sum(axis=0) > 15).any()


def test_initial_weights_are_normal():
    """N(0, 0.01^2), the biases 0."""
    system = systems.build_for_training(dropout.Settings(n_units=(400, 300)), (784,), 10)
    for name, value in values_of(system).items():
        if name[0] == "b":
            assert not value.any()
        else:
            assert abs(value.mean()) < 1e-3 and value.std() == pytest.approx(0.01, rel=0.05)


def test_presets_hold_the_papers_numbers():
    """And plain gradient descent has none of them."""
    for name, keep in (("dropout-800-800", 1), ("dropout-input-800-800", 0.8)):
        e = systems.preset(name)
        assert (e.n_units, e.hidden_keep, e.input_keep) == ((800, 800), 0.5, keep)
        assert (e.learning_rate, e.momentum, e.max_squared_norm) == (10, 0.99, 15)
        assert (e.batch_size, e.loss_reduction, e.initial_std, e.l2) == (100, "mean", 0.01, 0)
        assert e.patience > 3000 * 600  # never stops early
    e = systems.preset("plain-sgd-800-800")
    assert (e.n_units, e.hidden_keep, e.input_keep) == ((800, 800), 1, 1)
    assert (e.optimizer, e.max_squared_norm, e.l2) == ("sgd", 0, 0)


@pytest.mark.parametrize("name", [p.name for p in dropout.PRESETS])
def test_presets_train_and_evaluate(name, small_data, tmp_path, monkeypatch):
    """End to end, with a schedule of a few epochs: a record repeats its errors."""
    monkeypatch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
    small = {"n_units": (20, 20), "n_epochs": 6, "batch_size": 10, "initial_std": 0.3}
    e = systems.preset(name).replace(**small)
    if e.schedule_epochs:
        e = e.replace(schedule_epochs=6, activation="relu", learning_rate=0.3)
    with pytensor.config.change_flags(cxx=""):
        record = train(e, tmp_path / "run.hdf5", data=small_data, show_progress=False, n_threads=1)
        evaluation = load_evaluation(record)(datasets.load(small_data).test)
    assert set(record.best) == {"W_1", "b_1", "W_2", "b_2", "W_out", "b_out"}
    assert record.attributes["stopped_by"] == "n_epochs"
    best = record.best_attributes
    assert best["test_error"] < 0.4  # chance is 0.75
    assert evaluation.errors["expected"] == best["test_error"]
