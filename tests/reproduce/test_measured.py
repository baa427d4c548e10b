"""What scripts measure themselves: the frontier, the steps and variances of the policy search."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from click.testing import CliRunner
from made_records import make_record

from reinforce_dropout import backends, systems
from reinforce_dropout.results import records
from reinforce_dropout.running import datasets, training
from reinforce_dropout.systems import plain, policy
from reinforce_dropout.systems.learner import compile_learner, copies

SCRIPTS = Path(__file__).parents[2] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own

import again  # noqa: E402
import frontier as script  # noqa: E402
import gradient_variance  # noqa: E402
import paired  # noqa: E402
import policy_search  # noqa: E402
from evidence import frontier, runs, variance  # noqa: E402


def test_a_network_is_unbeaten_if_no_other_is_as_low_in_both():
    points = [(1, 5), (2, 3), (3, 3), (2, 4), (4, 1), (4, 1)]
    assert frontier.unbeaten(points) == [True, True, False, False, True, True]


def test_the_faster_execution_counts(tmp_path, monkeypatch):
    """A network without block-sparse execution is timed dense only."""
    for name in ("baseline-500-seed1", "policy-500-seed1"):
        records.write(tmp_path / f"{name}.hdf5", make_record(name.rpartition("-")[0]))
    speeds = {("baseline-500", "all units", "dense"): (5.0, 2.0),
              ("policy-500", "sampled", "dense"): (4.0, 1.0),
              ("policy-500", "sampled", "block-sparse"): (3.0, 9.0),
              ("policy-500", "thresholded", "dense"): (2.0, 1.5),
              ("policy-500", "thresholded", "block-sparse"): (2.5, 0.5)}  # fmt: skip
    monkeypatch.setattr(
        script, "compile_pass",
        lambda run, *way: speeds.get((run.attributes["experiment"]["name"], *way)),
    )  # fmt: skip
    monkeypatch.setattr(script, "seconds", lambda way, batches: way[len(batches) > 1])
    images = np.zeros((2000, 4), "float32")
    times = script.microseconds(tmp_path, images, n_turns=3)
    assert times == {
        "baseline-500-seed1": {"all units": {
            "batch": 5e6 / 1024, "execution_batch": "dense",
            "single": 2e6 / 200, "execution_single": "dense",
        }},
        "policy-500-seed1": {"sampled": {
            "batch": 3e6 / 1024, "execution_batch": "block-sparse",
            "single": 1e6 / 200, "execution_single": "dense",
        }, "thresholded": {
            "batch": 2e6 / 1024, "execution_batch": "dense",
            "single": 0.5e6 / 200, "execution_single": "block-sparse",
        }},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fields", "rules"),
    [
        ("baseline-500", {}, ["all units"]),
        ("dropout-800-800", {}, ["expected"]),
        ("policy-500", {}, ["sampled", "thresholded"]),
        ("policy-500", {"evaluation_rule": "thresholded"}, ["thresholded"]),
        ("block-800-800", {}, ["sampled", "thresholded"]),
        ("group-800-800", {"gate": "uniform"}, ["sampled"]),
        ("second-look-80-32", {}, ["thresholded"]),
    ],
)
def test_rules_that_are_timed(name, fields, rules):
    """Masks of uniform gates that are most probable are all units, or none."""
    run = make_record(name, **fields)
    assert script.rules(run) == rules
    experiment = runs.experiment(run)
    system = systems.build_for_prediction(experiment, (3, 3), 4)
    assert set(rules) <= set(system.predict)


@pytest.mark.parametrize(
    "module, timing", [(script, "microseconds"), (policy_search, "step_times")]
)
def test_times_are_of_one_thread_of_blas(module, timing, monkeypatch, tmp_path):
    """BLAS does not follow the number of Numba's threads, and a record says that it was one."""

    def timed(*_):
        blas = [p for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]
        return [pool["num_threads"] for pool in blas]

    monkeypatch.setattr(module, timing, timed)
    monkeypatch.setattr(again, "run", lambda *_, measure, **__: measure(tmp_path, ["command"]))
    with threadpoolctl.threadpool_limits(2, "blas"):
        result = CliRunner().invoke(module.main, [])
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "times.json").read_text())
    assert facts["n_threads"] == 1 and set(facts["times"]) == {1}


def test_table_and_figure_of_the_frontier(tmp_path):
    """A learned policy has a row for each rule, with that rule's error and time."""
    rows = {
        "baseline-500-seed1": {"all units": (0.02, 2.0)},
        "baseline-500-seed2": {"all units": (0.04, 4.0)},
        "policy-500-seed1": {"sampled": (0.03, 2.5), "thresholded": (0.01, 1.0)},
        "second-look-80-32-seed1": {"thresholded": (0.015, 1.5)},
    }
    times = {}
    for name, rules in rows.items():
        run = make_record(name.rpartition("-")[0], seed=int(name[-1]))
        times[name] = {}
        for rule, (error, time) in rules.items():
            curve = "test_error" if rule == "all units" else f"test_error_{rule}"
            run.curves[curve][run.best_epoch - 1] = error
            times[name][rule] = {"batch": time, "single": 10 * time, "execution_batch": "dense",
                                 "execution_single": "block-sparse"}  # fmt: skip
        records.write(tmp_path / f"{name}.hdf5", run)
    (tmp_path / "times.json").write_text(json.dumps({"times": times}))
    records.write(tmp_path / "untimed-seed1.hdf5", make_record("baseline-500", n_units=(9,)))
    found = runs.read(tmp_path)
    text = frontier.table(found)
    quick, looks_twice, drawn, slow = text.splitlines()[2:6]
    assert quick.startswith("| policy-500 | 500 | 1 | most probable | 1.00 % |")
    assert quick.count(" yes ") == 2
    assert "| 1.00 (dense) | yes | 10.00 (block-sparse) | yes |" in quick
    assert looks_twice.startswith("| second-look-80-32 | 80-32 and 400-400 | 1 | most probable |")
    assert drawn.startswith("| policy-500 | 500 | 1 | drawn | 3.00 % |") and " yes " not in drawn
    assert "3.00 (dense)" in slow and " yes " not in slow and "| all |" in slow
    assert "(9,)" not in text and len(text.splitlines()) == 8
    assert len(frontier.figure(found).titles) == 8  # a network with two rules and two, two panels


def test_the_steps_of_a_search_are_timed_once_for_all_seeds(monkeypatch):
    plain = {f"plain-seed{seed}": make_record("policy-500", seed=seed) for seed in (1, 2)}
    found = plain | {"disarm-seed1": make_record("policy-500", estimator="disarm")}
    compiled = []

    def turn_of(experiment, data):
        compiled.append(experiment.estimator)
        seconds = iter([0.5, 0.1, 0.2] if experiment.estimator == "disarm" else [0.3, 0.1, 0.1])
        return lambda: next(seconds)

    monkeypatch.setattr(policy_search, "turn_of", turn_of)
    times = policy_search.step_times(found, None, n_turns=3)
    assert compiled == ["reinforce", "disarm"]
    assert {name: time["step"] for name, time in times.items()} == pytest.approx(
        {"plain-seed1": 1000, "plain-seed2": 1000, "disarm-seed1": 2000}
    )


def test_a_timed_turn_makes_as_many_steps_as_it_says(small_data, monkeypatch):
    """The policies learn from epoch 3 on, so the steps are those of the last epoch."""
    monkeypatch.setattr(policy_search, "N_STEPS", 4)
    made = []

    def make_learner(system, experiment, mode):
        made.append(compile_learner(system, experiment, mode))
        return made[0]

    monkeypatch.setattr(policy_search, "make_learner", make_learner)
    data = datasets.load(small_data)
    experiment = policy.Settings(n_units=(3,), batch_size=5, policy_from_epoch=3, n_epochs=3)
    turn = policy_search.turn_of(experiment, data, "python")
    before = made[0].state()
    assert turn() > 0
    own = compile_learner(
        systems.build_for_training(experiment, data.image_shape, data.n_classes),
        experiment, backends.mode("python"),
    )  # fmt: skip
    own.begin(3)
    own.restore(*before)
    for first in (0, 0, 5, 10, 15):
        own.step(data.train.images[first : first + 5], data.train.labels[first : first + 5])
    for name, value in own.state()[0].items():
        np.testing.assert_array_equal(value, made[0].state()[0][name])


def test_moments_are_free_of_bias():
    """Over many sets of few draws, both have the means of the distribution."""
    rng = np.random.default_rng(0)
    mean, deviation = np.array([1.0, -2.0, 0.0]), np.array([0.5, 1.0, 2.0])
    many = [gradient_variance.moments(rng.normal(mean, deviation, (4, 3))) for _ in range(20_000)]
    found = {key: np.mean([one[key] for one in many]) for key in many[0]}
    assert found["variance"] == pytest.approx((deviation**2).sum(), rel=0.02)
    assert found["squared_mean"] == pytest.approx((mean**2).sum(), rel=0.02)


def test_gradients_are_drawn_for_one_mini_batch_and_nothing_learns(small_data, monkeypatch):
    """A baseline lowers the variance, and keeps the mean."""
    monkeypatch.setattr(gradient_variance, "N_BEFORE", 3)
    data = datasets.load(small_data)
    experiment = policy.Settings(n_units=(4, 3), kl_gradient="score", batch_size=5)
    system = systems.build_for_training(experiment, data.image_shape, data.n_classes)
    parameters = copies(system.parameters)
    drawn = {
        baseline: gradient_variance.draws(
            experiment.replace(baseline=baseline), data, parameters, 1000, "python"
        )
        for baseline in ("none", "leave-one-out-mean")
    }
    for layer, shape in ((1, (1000, 64 * 4 + 4)), (2, (1000, 4 * 3 + 3))):
        plain, better = (drawn[name][layer] for name in ("none", "leave-one-out-mean"))
        assert plain.shape == better.shape == shape
        assert better.var(axis=0).sum() < plain.var(axis=0).sum() / 3
        error = np.sqrt((plain.var(axis=0) + better.var(axis=0)) / 1000)
        assert (np.abs(plain.mean(0) - better.mean(0)) < 5 * error + 1e-6).all()
        half = len(plain) // 2  # the same distribution from the first draw to the last
        change = np.abs(plain[:half].mean(0) - plain[half:].mean(0))
        assert (change < 5 * np.sqrt(2 / half) * plain.std(axis=0) + 1e-6).all()


def test_table_of_variances():
    facts = {"n_draws": 9, "seed": 31, "git_commit": "abc", "command": "python x.py"}
    entry = {"preset": "policy-500", "epoch": 5, "layer": 1}
    measured = [
        entry | {"variant": "own", "variance": 2.0, "squared_mean": 0.5},
        entry | {"variant": "better", "variance": 0.5, "squared_mean": 0.4},
    ]
    text = variance.table(facts | {"measured": measured})
    assert text.splitlines()[2] == "| policy-500 | 5 | 1 | 4 | 0.25 |"


def test_two_models_are_compared_on_the_same_images(small_data, tmp_path):
    data = {"data": small_data, "backend": "python", "show_progress": False}
    paths = [tmp_path / "short.hdf5", tmp_path / "long.hdf5"]
    for path, n_epochs in zip(paths, (1, 6), strict=True):
        experiment = plain.Settings(n_units=(8,), n_epochs=n_epochs, learning_rate=0.002)
        training.train(experiment, path, **data)
    write = tmp_path / "table.md"
    arguments = [*map(str, paths), "--data", str(small_data), "--write", str(write)]
    result = CliRunner().invoke(paired.main, arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == write.read_text()
    for path, line in zip(paths, result.stdout.splitlines()[2:4], strict=True):
        error = records.read(path).best_attributes["test_error"]
        assert line.startswith(f"| {path.stem} | {100 * error:.2f} % |")
    arguments[1] = str(tmp_path / "none.hdf5")
    result = CliRunner().invoke(paired.main, arguments)
    assert result.exit_code == 1 and "none.hdf5" in result.stderr
