"""Maturation: the network first, the policies from an epoch on, or rarer; all of it resumable."""

import numpy as np
import pytensor
import pytest
from click.testing import CliRunner
from reference import AS_WRITTEN

from reinforce_dropout import backends, load_evaluation, systems, train
from reinforce_dropout.cli import main
from reinforce_dropout.errors import ExperimentError, RecordError
from reinforce_dropout.results import records
from reinforce_dropout.running import datasets, training
from reinforce_dropout.running.early_stopping import Patience
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems import block_policy, plain, policy
from reinforce_dropout.systems.learner import Learner, make_learner
from reinforce_dropout.systems.maturation import by_turns

FIELDS = {"n_units": (6, 5), "learning_rate": 0.02, "policy_learning_rate": 0.05, "batch_size": 50}
NETWORK = {"W_1", "b_1", "W_2", "b_2", "W_out", "b_out"}
POLICIES = {"Z_1", "o_1", "Z_2", "o_2"}


@pytest.fixture(autouse=True)
def as_written(monkeypatch):
    """Run graphs node by node."""
    monkeypatch.setattr(backends, "mode", lambda *_, **options: AS_WRITTEN)
    with pytensor.config.change_flags(cxx=""):
        yield


@pytest.fixture(scope="module")
def dataset(small_data):
    return datasets.load(small_data)


def epochs_of(experiment, dataset):
    """Return epochs of a compiled learner; an epoch has 5 mini-batches."""
    system = systems.build_for_training(experiment, dataset.image_shape, dataset.n_classes)
    return Epochs(make_learner(system, experiment, AS_WRITTEN), dataset.train, experiment)


def parameters_after(experiment, dataset, n_epochs):
    """Return the parameters before training and after each epoch, by name."""
    epochs = epochs_of(experiment, dataset)
    found = [epochs.learner.parameters()]
    for _ in range(n_epochs):
        epochs.run()
        found.append(epochs.learner.parameters())
    return found


def moved(before, after):
    """Return the names of the parameters that changed."""
    return {name for name, value in after.items() if (value != before[name]).any()}


def test_until_the_policies_begin_the_network_is_the_plain_one(dataset):
    """To the last bit: parameters, loss and predictions. From then on both learn."""
    ours = policy.Settings(policy_from_epoch=3, shuffle=True, **FIELDS)
    shared = {k: v for k, v in FIELDS.items() if k != "policy_learning_rate"}
    runs = [epochs_of(e, dataset) for e in (ours, plain.Settings(shuffle=True, **shared))]
    start = runs[0].learner.parameters()
    for _ in range(2):
        curves, plain_curves = (run.run() for run in runs)
        assert curves["train_nll"] == plain_curves["train_nll"]
        np.testing.assert_array_equal(curves["active_fraction"], [1, 1])
        np.testing.assert_array_equal(curves["policy_entropy"], [0, 0])
        mature, others = (run.learner.parameters() for run in runs)
        assert others.keys() == NETWORK and moved(start, mature) == NETWORK
        for name in NETWORK:
            np.testing.assert_array_equal(mature[name], others[name])
        (expected,) = runs[1].learner.predict(dataset.test.images).values()
        found = runs[0].learner.predict(dataset.test.images)
        assert found.keys() == {"sampled", "expected", "thresholded"}
        for logits in found.values():
            np.testing.assert_array_equal(logits, expected)
    curves = runs[0].run()
    assert (curves["active_fraction"] < 0.5).all() and (curves["policy_entropy"] > 0.1).all()
    assert moved(mature, runs[0].learner.parameters()) == NETWORK | POLICIES
    found = runs[0].learner.predict(dataset.test.images)
    assert (found["sampled"] != found["expected"]).any()


def test_from_the_first_epoch_on_is_without_maturation(dataset):
    """The default has no phases."""
    system = systems.build_for_training(policy.Settings(**FIELDS), (8, 8), 4)
    assert system.learner is None


def test_random_masks_at_the_target_rate(dataset):
    """The control: uniform dropout at q learns, with the very updates of a uniform gate."""
    fields = FIELDS | {"policy_learning_rate": 0.01}
    ours = policy.Settings(policy_from_epoch=2, matures_with="random-masks", q=0.3, **fields)
    uniform = policy.Settings(gate="uniform", initial_rate=0.3, **fields)
    epochs, other = epochs_of(ours, dataset), epochs_of(uniform, dataset)
    before, curves, expected = epochs.learner.parameters(), epochs.run(), other.run()
    after = epochs.learner.parameters()
    assert moved(before, after) == NETWORK
    for name, value in other.learner.parameters().items():
        np.testing.assert_allclose(after[name], value, rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(curves["active_fraction"], expected["active_fraction"], rtol=1e-6)
    np.testing.assert_allclose(curves["policy_entropy"], expected["policy_entropy"], rtol=1e-5)
    predicted = epochs.learner.predict(dataset.test.images)
    right = other.learner.predict(dataset.test.images)
    for rule, logits in predicted.items():
        np.testing.assert_allclose(logits, right[rule], rtol=1e-4, atol=1e-5)


def test_a_frozen_network_does_not_learn(dataset):
    """Only the policies do, from their first epoch on."""
    e = policy.Settings(policy_from_epoch=2, freeze_network=True, **FIELDS)
    start, mature, after = parameters_after(e, dataset, 2)
    assert moved(start, mature) == NETWORK and moved(mature, after) == POLICIES
    e = policy.Settings(freeze_network=True, **FIELDS)
    assert moved(*parameters_after(e, dataset, 1)) == POLICIES


def test_policies_learn_in_every_third_mini_batch(dataset):
    """Counted within an epoch; the network learns in all of them, from masks."""
    epochs = epochs_of(policy.Settings(policy_every=3, **FIELDS), dataset)
    learner, found = epochs.learner, []
    for epoch in (1, 2):
        learner.begin(epoch)
        for start in range(0, 250, 50):
            before = learner.parameters()
            images = dataset.train.images[start : start + 50]
            curves = learner.curves(learner.step(images, dataset.train.labels[start : start + 50]))
            assert (curves["active_fraction"] < 0.5).all()
            found.append(moved(before, learner.parameters()))
    both = NETWORK | POLICIES
    assert found == 2 * [NETWORK, NETWORK, both, NETWORK, NETWORK]


def test_steps_in_turn_draw_different_masks(dataset):
    """Each learner has a stream of its own."""
    epochs = epochs_of(policy.Settings(policy_every=2, **FIELDS), dataset)
    _, generators = epochs.learner.state()
    states = [str(generators[f"learner {i}"]["masks"]) for i in range(3)]
    assert len(set(states)) == 3


def interrupted(path, at, monkeypatch):
    """Let a run be interrupted after so many updates."""
    updates = iter(range(1, 10_000))

    def interrupt(_bar):
        if next(updates) == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.ProgressBar, "update", interrupt)


@pytest.mark.parametrize(("at", "fields"), [
    (8, {"policy_from_epoch": 3, "policy_every": 2, "baseline": "learned"}),
    (22, {"policy_from_epoch": 3, "policy_every": 2, "baseline": "learned"}),
    (13, {"policy_from_epoch": 2, "estimator": "disarm", "matures_with": "random-masks"}),
    (12, {"policy_from_epoch": 3, "optimizer": "momentum", "policy_optimizer": "adam"}),
    (8, {"baseline": "per-unit", "natural_gradient": True, "cg_steps": 2}),
], ids=str)  # fmt: skip
def test_a_resumed_run_equals_one_never_stopped(at, fields, small_data, tmp_path, monkeypatch):
    """With 5 updates an epoch it stops in a phase, or at the border of two."""
    e = policy.Settings(n_epochs=5, lam=0.01, **FIELDS | fields)
    options = {"data": small_data, "show_progress": False}
    whole = train(e, tmp_path / "whole.hdf5", **options)
    with monkeypatch.context() as patch:
        interrupted(tmp_path / "run.hdf5", at, patch)
        with pytest.raises(KeyboardInterrupt):
            train(e, tmp_path / "run.hdf5", **options)
    assert records.read(tmp_path / "run.hdf5").n_epochs == at // 5
    resumed = train(e, tmp_path / "run.hdf5", **options)
    for name, curve in whole.curves.items():
        assert len(curve) == 5
        if name != "epoch_seconds":
            np.testing.assert_array_equal(resumed.curves[name], curve, err_msg=name)
    assert resumed.best_attributes == whole.best_attributes
    for name, value in whole.best.items():
        np.testing.assert_array_equal(resumed.best[name], value, err_msg=name)


def test_early_stopping_counts_from_the_policies_first_epoch(small_data, tmp_path):
    """An earlier epoch is never the best, and does not use up the patience."""
    e = policy.Settings(policy_from_epoch=4, n_epochs=30, patience=10, **FIELDS)
    e = e.replace(patience_increase=1, learning_rate=0.1)
    record = train(e, tmp_path / "run.hdf5", data=small_data, show_progress=False)
    counted = record.curves["valid_error"][3:]
    patience = Patience(10, 1)
    for n, error in enumerate(counted, start=1):
        assert patience.allows(5 * n)
        patience.improved(error, 5 * n)
    assert not patience.allows(5 * (len(counted) + 1))
    assert record.attributes["stopped_by"] == "patience"
    assert record.best_epoch == 4 + np.argmin(counted)
    assert record.curves["valid_error"][:3].min() < counted.min()  # so the test can fail
    assert (record.best["o_1"] != 0).all()
    errors = load_evaluation(record)(datasets.load(small_data).test).errors
    assert errors["sampled"] == record.best_attributes["test_error"]


def test_a_run_that_is_not_mature_has_no_model(small_data, tmp_path, monkeypatch):
    """One sentence says so; a table of runs leaves it out."""
    path = tmp_path / "run.hdf5"
    interrupted(path, 8, monkeypatch)
    e = policy.Settings(policy_from_epoch=3, n_epochs=5, **FIELDS)
    with pytest.raises(KeyboardInterrupt):
        train(e, path, data=small_data, show_progress=False)
    record = records.read(path)
    assert record.n_epochs == 1 and not record.best
    with pytest.raises(RecordError, match="the record holds no model"):
        load_evaluation(record)
    for command in (["show", path], ["summarize", tmp_path]):
        result = CliRunner().invoke(main, list(map(str, command)))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"policy_from_epoch": 11, "n_epochs": 10}, "policy_from_epoch is 11 but there are 10"),
        ({"freeze_network": True, "policy_every": 2}, "set policy_every=1"),
        ({"optimizer": "momentum", "policy_every": 2}, "set optimizer=sgd, or policy_every=1"),
        ({"min_rate": 0.2, "initial_rate": 0.12}, "set min_rate below initial_rate"),
        ({"policy_rank": 4, "gate": "uniform"}, "set policy_rank=0 or gate=sigmoid-bernoulli"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields, words):
    for cls in (policy.Settings, block_policy.Settings):
        with pytest.raises(ExperimentError, match=words):
            cls(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"estimator": "disarm"}, {"baseline": "learned"}, {"policy_from_epoch": 2},
        {"policy_every": 2}, {"freeze_network": True},
    ],
    ids=str,
)  # fmt: skip
def test_block_sparse_training_refuses_what_it_lacks(fields):
    settings = {"instances_per_block": 20, "baseline": "none"} | fields
    with pytest.raises(ExperimentError, match="leave|execution dense"):
        systems.build_for_training(block_policy.Settings(**settings), (8, 8), 4, "block-sparse")


def test_blocks_mature_too(dataset):
    """Random masks for blocks have the blocks' shape."""
    e = block_policy.Settings(
        policy_from_epoch=2, matures_with="random-masks", instances_per_block=4, units_per_block=2,
        **FIELDS,
    )  # fmt: skip
    start, mature, after = parameters_after(e, dataset, 2)
    assert moved(start, mature) == NETWORK and moved(mature, after) == NETWORK | POLICIES


def test_learners_by_turns():
    """Every learner is told of an epoch, and batches count from 1 in each."""
    calls = []

    def learner(i):
        return Learner(
            step=lambda images, labels: calls.append((i, images)),
            steps=None,
            curves=None,
            rules=("rule",),
            predict=lambda images, rules: (i, rules),
            parameters=lambda: {"W": 5},
            state=lambda: ({"W": 5, "velocity": i}, {"masks": i}),
            restore=lambda arrays, generators: calls.append((i, arrays, generators)),
            begin=lambda epoch: calls.append((i, "epoch", epoch)),
        )

    both = by_turns([learner(0), learner(1)], lambda epoch, batch: (epoch + batch) % 2)
    both.begin(2)
    both.step("a", None)
    both.step("b", None)
    assert both.rules == ("rule",)
    assert both.predict(None) == (0, None)
    both.begin(3)
    both.step("c", None)
    told = [(i, "epoch", epoch) for epoch in (2, 3) for i in (0, 1)]
    assert calls == [*told[:2], (1, "a"), (0, "b"), *told[2:], (0, "c")]
    assert both.predict(None, ["rule"]) == (1, ["rule"])
    arrays, generators = both.state()
    assert arrays == {"W": 5, "velocity of learner 0": 0, "velocity of learner 1": 1}
    calls.clear()
    both.restore(arrays, generators)
    for i, (told, own, generators) in enumerate(calls):
        assert (told, own["W"], own["velocity"], generators) == (i, 5, i, {"masks": i})
