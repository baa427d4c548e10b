"""A part from outside: one function and one row add what is not in the package."""

from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from click.testing import CliRunner
from pytensor.gradient import disconnected_grad
from reference import AS_WRITTEN

from reinforce_dropout import (
    backends,
    load_evaluation,
    load_prediction,
    reinforce,
    systems,
    train,
)
from reinforce_dropout.algorithm import training_step
from reinforce_dropout.cli import main
from reinforce_dropout.costs import Paid
from reinforce_dropout.gates import Gate
from reinforce_dropout.initializers import parameter
from reinforce_dropout.layers import dense
from reinforce_dropout.network import Network, forward
from reinforce_dropout.running import datasets
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems import descent, plain, policy
from reinforce_dropout.systems.learner import compile_learner
from reinforce_dropout.systems.settings import at_least, one_of, setting, settings
from reinforce_dropout.systems.system import System, by_name
from reinforce_dropout.updates import sgd


@pytest.fixture(autouse=True)
def as_written(monkeypatch):
    """Run graphs node by node."""
    monkeypatch.setattr(backends, "mode", lambda *_, **options: AS_WRITTEN)
    with pytensor.config.change_flags(cxx=""):
        yield


def learner_of(experiment, dataset):
    """Return a compiled learner, and epochs with it."""
    system = systems.build_for_training(experiment, dataset.image_shape, dataset.n_classes)
    learner = compile_learner(system, experiment, AS_WRITTEN)
    return learner, Epochs(learner, dataset.train, experiment)


@pytest.fixture(scope="module")
def dataset(small_data):
    return datasets.load(small_data)


# ---- a gate: every unit is multiplied by Gaussian noise around a learned mean ----


def normal(z, rng):
    """Draw from N(z, 1)."""
    next_rng, u = pt.random.normal(z, rng=rng, dtype=z.dtype, return_next_rng=True)
    return disconnected_grad(u), next_rng


GAUSSIAN = SimpleNamespace(
    sample=normal,
    mean=lambda z: z,
    mode=lambda z: z,
    log_prob=lambda z, u: -0.5 * ((u - z) ** 2).sum(axis=1),
    entropy=lambda z: pt.zeros_like(z[:, 0]) + z.shape[1] * np.float32(1.419),
    kl=lambda z, q: 0.5 * ((z - np.float32(q)) ** 2).sum(axis=1),
)


class Constant(NamedTuple):
    """One mean a unit, the same for every state; it learns."""

    o: Any

    @property
    def theta(self):
        """The means."""
        return [self.o]

    def __call__(self, s):
        """Means (m_b, n_units)."""
        return pt.zeros((s.shape[0], 1), dtype=s.dtype) + self.o


def gaussian(rng, n_in, n_units, name, initial_rate):
    """Return a gate whose means all start at `initial_rate`."""
    o = parameter(np.full(n_units, initial_rate, "float32"), f"o_{name}")
    return Gate(Constant(o), GAUSSIAN)


def test_a_gate_with_a_family_of_its_own(small_experiment, small_data, tmp_path, monkeypatch):
    monkeypatch.setitem(policy.GATES, "gaussian", gaussian)
    experiment = small_experiment.replace(gate="gaussian", n_epochs=2, initial_rate=0.5)
    record = train(experiment, tmp_path / "run.hdf5", data=small_data, show_progress=False)
    assert record.best["o_1"].shape == (12,) and "Z_1" not in record.best
    assert (record.best["o_1"] != 0.5).all()
    assert record.curves["train_nll"][1] < record.curves["train_nll"][0]
    np.testing.assert_allclose(record.curves["policy_entropy"], 1.419, rtol=1e-5)
    test, best = datasets.load(small_data).test, record.best_epoch - 1
    errors = load_evaluation(record)(test).errors
    for rule in ("sampled", "expected", "thresholded"):
        assert errors[rule] == record.curves[f"test_error_{rule}"][best]


# ---- a baseline that remembers: the lowest cost ever seen ----


def lowest_ever(C, stage):
    """Never rewards an example."""
    least = pytensor.shared(np.float32(1e9), name=f"least_{stage.name}")
    lower = pt.minimum(least, C.min())
    return pt.zeros_like(C) + lower, {least: lower}


def test_a_baseline_with_a_memory(small_experiment, dataset, monkeypatch):
    monkeypatch.setitem(policy.BASELINES, "lowest-ever", lambda settings: lowest_ever)
    learner, epochs = learner_of(small_experiment.replace(baseline="lowest-ever"), dataset)
    first, _ = epochs.state()
    assert first["least_1"] == first["least_2"] == np.float32(1e9)
    epochs.run()
    after, generators = epochs.state()  # what a checkpoint holds
    assert 0 < after["least_1"] < 1.5  # log 4 is what a guess costs
    epochs.run()
    epochs.restore(after, generators)
    np.testing.assert_array_equal(learner.state()[0]["least_2"], after["least_2"])
    assert "least_1" not in learner.parameters()


# ---- a product: the gradient, each entry cut off ----


LIMIT = np.float32(1e-3)


def clipped(log_pi, theta, c):
    """Cut off the entries of the policy gradient."""
    return [pt.clip(g, -LIMIT, LIMIT) for g in reinforce.policy_gradient(log_pi, theta, c)]


def test_a_product(small_experiment, dataset, monkeypatch):
    monkeypatch.setitem(policy.PRODUCTS, "clipped", clipped)
    x, y = dataset.train.images[:20], dataset.train.labels[:20]
    moved = {}
    for product in ("pullback", "clipped"):
        experiment = small_experiment.replace(
            product=product, kl_gradient="score", policy_learning_rate=1
        )
        learner, _ = learner_of(experiment, dataset)
        before = learner.parameters()
        learner.step(x, y)
        moved[product] = {k: before[k] - v for k, v in learner.parameters().items()}
    cut = 0
    for name, gradient in moved["pullback"].items():
        if name[0] in "Zo":
            cut += (abs(gradient) > LIMIT).sum()
            gradient = np.clip(gradient, -LIMIT, LIMIT)
        np.testing.assert_allclose(moved["clipped"][name], gradient, atol=1e-6)
    assert cut > 0


# ---- an estimator: each decision's cost against that of the decisions turned round ----


def turned(stage, C, cost_of, rng):
    """Compare with the cost of the opposite mask. It is biased."""
    opposite, rng = cost_of(1 - stage.u, rng)
    return reinforce.Estimate(stage.z, (C - opposite)[:, None] * (stage.u - 0.5), {}, rng)


def test_an_estimator(small_experiment, dataset, monkeypatch):
    monkeypatch.setitem(policy.ESTIMATORS, "turned", lambda settings: turned)
    experiment = small_experiment.replace(
        estimator="turned", policy_learning_rate=0.01, initial_rate=0.5
    )
    learner, epochs = learner_of(experiment, dataset)
    before = learner.parameters()
    first, *_, last = (epochs.run()["train_nll"] for _ in range(4))
    assert last < first
    assert all((v != before[name]).any() for name, v in learner.parameters().items())


# ---- a penalty: what each unit that takes part costs, as in a computer ----


def price(settings):
    """Return a cost that depends on the decisions themselves."""
    return lambda stages, i: Paid(for_decision=stages[i].u.mean(axis=1))


def test_a_penalty(small_experiment, dataset, monkeypatch):
    monkeypatch.setitem(policy.PENALTIES, "price", price)
    active = {}
    for lam in (0, 100):
        experiment = small_experiment.replace(
            penalty="price", lam=lam, initial_rate=0.5, policy_learning_rate=0.02
        )
        _, epochs = learner_of(experiment, dataset)
        for _ in range(3):
            active[lam] = epochs.run()["active_fraction"]
    assert (active[0] > 0.4).all() and (active[100] < 0.2).all()


# ---- a system: one layer, no hidden units ----


@settings
class Settings(systems.Experiment):
    """Settings of a softmax regression."""

    system: ClassVar[str] = "regression"
    learning_rate: float = setting(0.01, at_least(0), "Of the only layer.")
    l2: float = setting(0.0, at_least(0), "Coefficient of the sum of squared weights.")
    loss_reduction: str = setting("sum", one_of(plain.LOSS_REDUCTIONS), "Over a mini-batch.")
    l2_of: str = setting("squares", one_of(plain.L2_PENALTIES), "What is summed.")
    optimizer: str = setting("sgd", one_of(descent.OPTIMIZERS), "How the layer descends.")
    momentum: float = setting(0.9, at_least(0), "Of the optimizer.")


def build(settings, image_shape, n_classes):
    """Build the system."""
    rng = np.random.default_rng(settings.seeds().init)
    network = Network([], [], dense(rng, int(np.prod(image_shape)), n_classes, "out"))
    return System(
        parameters=by_name(network.params),
        step=partial(training_step, network, learn=plain.learn_network(settings)),
        predict={"as it is": partial(forward, network)},
    )


REGRESSION = SimpleNamespace(
    Settings=Settings,
    PRESETS=(Settings(name="regression"),),
    TRAINING={"dense": build},
    PREDICTION={"dense": build},
)


def test_a_system(small_data, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(systems.SYSTEMS, "regression", REGRESSION)
    monkeypatch.setitem(systems.PRESETS, "regression", REGRESSION.PRESETS[0])
    path = tmp_path / "run.hdf5"
    command = ["train", "regression", "--epochs", 3, "--set", "learning_rate=0.005"]
    command += ["--data", small_data, "--out", path, "--quiet"]
    result = CliRunner().invoke(main, list(map(str, command)))
    assert result.exit_code == 0, result.output
    record = train(
        REGRESSION.PRESETS[0].replace(n_epochs=3, learning_rate=0.005), path, data=small_data
    )
    assert set(record.best) == {"W_out", "b_out"} and len(record.curves["train_nll"]) == 3
    assert record.best_attributes["test_error"] < 0.3  # chance is 0.75
    evaluation = load_evaluation(record)(dataset.test)
    assert evaluation.errors == {"as it is": record.best_attributes["test_error"]}
    wrong = load_prediction(record)(dataset.test.images).argmax(axis=1) != dataset.test.labels
    assert wrong.mean() == record.best_attributes["test_error"]
    listed = CliRunner().invoke(main, ["presets"]).stdout
    assert "System regression. Settings of a softmax regression." in listed


# ---- a system whose rate follows a schedule, with a learner of its own ----


def build_decaying(settings, image_shape, n_classes):
    """Build the system above; the rate is divided by the number of the epoch."""
    rate = pytensor.shared(np.float32(0), name="rate")

    def learn(network, passed, nll):
        grads = pytensor.grad(nll.sum(), network.params)
        return sgd(network.params, grads, rate)

    def schedule(epoch):
        rate.set_value(np.float32(settings.learning_rate / epoch))

    def learner(system, experiment, mode):
        compiled = compile_learner(system, experiment, mode)
        return compiled._replace(curves=lambda s: compiled.curves(s) | {"rate": rate.get_value()})

    system = build(settings, image_shape, n_classes)
    (predict,) = system.predict.values()
    (network,) = predict.args
    step = partial(training_step, network, learn=learn)
    return system._replace(step=step, schedule=schedule, learner=learner)


def test_a_schedule_and_a_learner(small_data, tmp_path, monkeypatch):
    """The schedule is told each epoch; a run that was interrupted goes on at its place."""
    decaying = SimpleNamespace(**vars(REGRESSION) | {"TRAINING": {"dense": build_decaying}})
    monkeypatch.setitem(systems.SYSTEMS, "regression", decaying)
    experiment = Settings(n_epochs=4, patience=1000)
    options = {"data": small_data, "show_progress": False}
    whole = train(experiment, tmp_path / "whole.hdf5", **options)
    np.testing.assert_allclose(whole.curves["rate"], 0.01 / np.arange(1, 5), rtol=1e-6)
    before = iter([None, None, KeyboardInterrupt])

    def interrupt():
        if error := next(before):
            raise error

    with pytest.raises(KeyboardInterrupt):
        train(experiment, tmp_path / "parts.hdf5", before_epoch=interrupt, **options)
    parts = train(experiment, tmp_path / "parts.hdf5", **options)
    for curve in ("rate", "train_nll", "valid_error"):
        np.testing.assert_array_equal(parts.curves[curve], whole.curves[curve])
