"""Records of the first version load as today's: the same settings, curves, models and errors."""

import dataclasses
import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytensor
import pytest
from reference import AS_WRITTEN

import reinforce_dropout
from reinforce_dropout import backends, load_evaluation, systems
from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import records
from reinforce_dropout.results.upgrades import settings, upgrade
from reinforce_dropout.running import datasets, training
from reinforce_dropout.systems import block_policy, plain, policy

RESULTS = Path(reinforce_dropout.__file__).parents[1] / "reproduce" / "results"
FOLDERS = (".", "seed-*", "rerun", "comparison", "blocks")
"""Other folders hold sweeps, whose runs differ from the presets."""
COMMITTED = [
    path
    for folder in FOLDERS
    for path in sorted(RESULTS.glob(f"{folder}/*.hdf5"))
    if path.stem not in ("training_speed", "block_speedup")
]
RULES = ("sampled", "expected", "thresholded")
KNOWN = {
    "comparison/baseline-500-mean": {"n_epochs": (200, 1000), "loss_reduction": ("mean", "sum")},
    "comparison/policy-800-800-total": {"kl_gradient": ("total", "score")},
}
"""Where a committed run differs from the preset that its experiment is named after."""

FLAT = {
    "name": "custom", "n_units": [500], "activation": "tanh", "policy": True,
    "loss_reduction": "sum", "learning_rate": 0.01, "policy_learning_rate": 0.01, "l2": 0.001,
    "lam": 0.0, "q": 0.1, "initial_rate": 0.12, "baseline": "batch-mean", "baseline_decay": 0.9,
    "kl_gradient": "total", "batch_size": 20, "shuffle": False, "n_epochs": 1000,
    "patience": 10_000, "patience_increase": 2.0, "improvement_threshold": 0.995,
    "evaluation_rule": "sampled", "validation_fraction": 1 / 6, "seed": 1,
    "instances_per_block": 1, "units_per_block": 1, "block_state": "mean", "uniform": False,
}  # fmt: skip
"""The settings of the first version, all in one dictionary."""


@pytest.fixture
def as_written(monkeypatch):
    """Run graphs node by node."""
    monkeypatch.setattr(backends, "mode", lambda *_, **options: AS_WRITTEN)
    with pytensor.config.change_flags(cxx=""):
        yield


def name_of(path):
    """Return the path in the folder of results, without suffix."""
    return path.relative_to(RESULTS).with_suffix("").as_posix()


def test_there_are_records():
    """The parametrized tests below would pass without any."""
    assert len(COMMITTED) >= 20


@pytest.mark.parametrize("path", COMMITTED, ids=name_of)
def test_committed_records_are_todays_presets(path):
    """The seed may differ. The record is whole, and can be written and read again."""
    record = records.read(path)
    experiment = systems.from_dict(record.attributes["experiment"])
    name = name_of(path)
    if experiment.name in systems.PRESETS:
        found = experiment.differences(systems.preset(experiment.name))
        assert found.pop("seed", None) == (None if experiment.seed == 1 else (experiment.seed, 1))
        assert found == KNOWN.get(name, {})
    else:
        assert name == "blocks/dense-as-active"
    image_shape, n_classes = record.dimensions  # older records have the pixels only
    assert image_shape in [(784,), (28, 28)] and n_classes == 10
    assert record.attributes["execution"] in ("dense", "block-sparse")
    for part in ("valid", "test"):
        error = record.curves[f"{part}_error"]
        assert error.shape == (record.n_epochs,)
        right = record.best_attributes[f"{part}_error"]
        np.testing.assert_allclose(error[record.best_epoch - 1], right, rtol=1e-6)
    assert record.best_epoch == 1 + np.argmin(record.curves["valid_error"])
    system = systems.build_for_prediction(experiment, *record.dimensions)
    if record.best:
        assert {k: v.shape for k, v in record.best.items()} == {
            k: p.get_value(borrow=True).shape for k, p in system.parameters.items()
        }
    with h5py.File(path) as raw:
        for part in ("valid", "test"):
            column = raw[f"curves/{part}_error"][()]
            if column.ndim == 2:
                for i, rule in enumerate(RULES):
                    found = record.curves[f"{part}_error_{rule}"]
                    np.testing.assert_array_equal(found, column[:, i])
        for name in raw["best"].keys() - record.best.keys():
            # Uniform policies: a matrix of zeros, and a constant that the settings say.
            assert experiment.gate == "uniform" and name[0] in "Zo"
            value = raw["best"][name][()]
            rate = experiment.initial_rate
            right = 0 if name[0] == "Z" else np.log(rate / (1 - rate))
            np.testing.assert_allclose(value, right, rtol=1e-6)


@pytest.mark.parametrize("name", ["policy-500", "blocks/block-800-800"])
def test_written_again_they_are_of_the_second_version(name, tmp_path):
    """And hold the same."""
    record = records.read(RESULTS / f"{name}.hdf5")
    records.write(tmp_path / "run.hdf5", record)
    with h5py.File(tmp_path / "run.hdf5") as root:
        assert root.attrs["format"] == "reinforce-dropout record, version 2"
    again = records.read(tmp_path / "run.hdf5")
    assert again.attributes == record.attributes
    assert again.best_attributes == record.best_attributes
    for found, right in ((again.curves, record.curves), (again.best, record.best)):
        assert found.keys() == right.keys()
        for key, value in right.items():
            assert found[key].dtype == value.dtype and found[key].tobytes() == value.tobytes()


@pytest.mark.parametrize(
    "name",
    ["baseline-500", "policy-500", "blocks/block-800-800",
     "blocks/uniform-block-800-800"],
)  # fmt: skip
def test_committed_models_have_their_recorded_errors(name, as_written):
    """By every rule, from the same draws; rounding may decide one image or two of 10 000."""
    record = records.read(RESULTS / f"{name}.hdf5")
    errors = load_evaluation(record)(datasets.load().test).errors
    recorded = {rule: record.curves.get(f"test_error_{rule}") for rule in RULES}
    if record.attributes["experiment"]["system"] == "plain":
        recorded = {"all units": record.curves["test_error"]}
    assert errors.keys() == recorded.keys()
    for rule, curve in recorded.items():
        assert abs(errors[rule] - curve[record.best_epoch - 1]) < 2.5e-4, rule


@pytest.mark.parametrize(
    ("flat", "expected"),
    [
        ({}, policy.Settings()),
        ({"lam": 0.5, "seed": 3}, policy.Settings(lam=0.5, seed=3)),
        ({"policy": False, "l2": 0.1}, plain.Settings(l2=0.1)),
        ({"instances_per_block": 4}, block_policy.Settings(instances_per_block=4)),
        ({"units_per_block": 4}, block_policy.Settings(units_per_block=4)),
        ({"uniform": True}, block_policy.Settings(gate="uniform")),
        (
            {"uniform": True, "instances_per_block": 20, "block_state": "max"},
            block_policy.Settings(gate="uniform", instances_per_block=20, block_state="max"),
        ),
    ],
    ids=str,
)
def test_settings_of_the_first_version(flat, expected):
    assert systems.from_dict(settings(FLAT | flat)) == expected


@pytest.mark.parametrize("policies", [True, False])
def test_settings_of_before_block_dropout(policies):
    """A record without its fields is of a policy for every instance."""
    new = ("instances_per_block", "units_per_block", "block_state", "uniform")
    old = {k: v for k, v in FLAT.items() if k not in new} | {"policy": policies}
    expected = policy.Settings() if policies else plain.Settings()
    assert systems.from_dict(settings(old)) == expected


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_that_decided_is_kept(rule):
    errors = np.random.default_rng(0).random((5, 3))
    record = records.Record(
        {"experiment": FLAT | {"evaluation_rule": rule}},
        {"valid_error": errors, "test_error": errors + 1},
        {"W_1": np.zeros((7, 500)), "b_out": np.zeros(3)},
        {},
    )
    upgrade(record)
    np.testing.assert_array_equal(record.curves["valid_error"], errors[:, RULES.index(rule)])
    np.testing.assert_array_equal(record.curves["test_error_expected"], 1 + errors[:, 1])
    assert record.dimensions == ((7,), 3) and record.attributes["execution"] == "dense"


@pytest.mark.parametrize("name", policy.PRODUCTS)
def test_what_was_called_estimator_is_the_product(name, tmp_path):
    """In early records of the second version; a record of today keeps its estimator."""
    record = records.read(RESULTS / "policy-500.hdf5")
    fields = record.attributes["experiment"]
    for written, expected in [
        (fields | {"estimator": name}, policy.Settings(name="policy-500", product=name)),
        (
            policy.Settings(estimator="disarm", product=name).as_dict(),
            policy.Settings(estimator="disarm", product=name),
        ),
    ]:
        changed = record.attributes | {"experiment": written}
        records.write(tmp_path / "run.hdf5", dataclasses.replace(record, attributes=changed))
        again = records.read(tmp_path / "run.hdf5").attributes["experiment"]
        assert systems.from_dict(again) == expected


def first_version(path, record):
    """Write a record as the first version did."""
    experiment = systems.from_dict(record.attributes["experiment"])
    flat = FLAT | {k: v for k, v in dataclasses.asdict(experiment).items() if k in FLAT}
    attributes = record.attributes | {"experiment": flat}
    del attributes["dimensions"]
    curves = {k: v for k, v in record.curves.items() if k.count("_error_") == 0}
    for part in ("valid", "test"):
        columns = [record.curves[f"{part}_error_{rule}"] for rule in RULES]
        curves[f"{part}_error"] = np.stack(columns, axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_VERSION", 1)
        image = bytes(records._encode(dataclasses.replace(
            record, attributes=attributes, curves=curves
        )))  # fmt: skip
    digest = hashlib.sha256(image[512:]).hexdigest()
    seal = f"reinforce-dropout record, version 1\nsha256 {digest}\n"
    path.write_bytes(seal.encode().ljust(512, b"\0") + image[512:])


def test_an_unfinished_run_of_the_first_version_goes_on(
    as_written, small_experiment, small_data, tmp_path, monkeypatch
):
    """It ends as a run that was never stopped. Damage is noticed."""
    experiment = small_experiment.replace(n_epochs=3, baseline="moving-average", shuffle=True)
    options = {"data": small_data, "show_progress": False}
    whole = training.train(experiment, tmp_path / "whole.hdf5", **options)
    path, updates = tmp_path / "run.hdf5", iter(range(1, 100))

    def interrupt(_bar):
        if next(updates) == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.ProgressBar, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.train(experiment, path, **options)
    first_version(path, records.read(path))
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "damaged.hdf5").write_bytes(damaged)
    with pytest.raises(RecordError, match="damaged or cut short"):
        records.read(tmp_path / "damaged.hdf5")
    record = training.train(experiment, path, **options)
    assert record.n_epochs == 3 and record.best_attributes == whole.best_attributes
    for name, curve in whole.curves.items():
        if name != "epoch_seconds":
            np.testing.assert_array_equal(record.curves[name], curve)
    for name, value in whole.best.items():
        np.testing.assert_array_equal(record.best[name], value)
