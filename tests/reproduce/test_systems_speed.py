"""The steps that are timed beside JAX: both make the same update, and what is written."""

import importlib.util
import json
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from reinforce_dropout import backends, preset, systems
from reinforce_dropout.running import datasets
from reinforce_dropout.systems.learner import compile_learner, copies, put

SCRIPTS = Path(__file__).parents[2] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own

import systems_speed as script  # noqa: E402
from evidence import systems_speed  # noqa: E402

SMALL = {
    "dropout-800-800": {"n_units": (12, 9), "hidden_keep": 1},
    "straight-through-2000": {"n_units": (12,), "gater_units": 7},
}


@pytest.mark.parametrize("name", script.PRESETS)
def test_the_step_in_jax_makes_the_same_update(small_data, monkeypatch, name):
    """With masks of ones, because random ones differ."""
    jax = pytest.importorskip("jax")
    from speed import jax_systems

    monkeypatch.setattr(script, "N_STEPS", 4)
    data = datasets.load(small_data)
    experiment = preset(name).replace(**script.PRESETS[name] | SMALL[name] | {"batch_size": 10})
    x, y = script.batches(data.train, 10)
    system = systems.build_for_training(experiment, data.image_shape, data.n_classes)
    rng = np.random.default_rng(0)
    changed = {  # so long that the limits on the columns bind
        n: rng.normal(0, 1.5, v.get_value().shape).astype("float32")
        for n, v in system.parameters.items()
        if n.startswith("W_")
    }
    if "b_gates" in system.parameters:  # sigma is 1, so all gates are on
        changed["b_gates"] = np.full(12, 40, "float32")
    put(system.parameters, copies(system.parameters) | changed)
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: np.zeros(shape, "float32"))
    learner = compile_learner(system, experiment, backends.mode("python"))
    learner.begin(1)
    scan = jax_systems.Scan(name, learner.parameters(), x, y)
    before = copies(system.parameters)
    assert scan.turn() == pytest.approx(script.turn(learner, x, y), rel=1e-4)
    for n, value in learner.parameters().items():
        np.testing.assert_allclose(scan.state[0][n], value, rtol=1e-3, atol=1e-5, err_msg=n)
        assert (value != before[n]).any(), n


class InThisProcess:
    """An executor that calls at once."""

    def __init__(self, n, context, initializer, arguments):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, call, *arguments):
        done = Future()
        done.set_result(call(*arguments))
        return done


@pytest.fixture
def small_steps(monkeypatch):
    """A small network and few steps, in this process."""
    pytest.importorskip("jax")
    monkeypatch.setattr(script, "N_STEPS", 2)
    monkeypatch.setattr(script, "THREADS", [1])
    changed = {"dropout-800-800": {"n_units": (12, 9), "activation": "relu"}}
    monkeypatch.setattr(script, "PRESETS", changed)
    monkeypatch.setattr(script, "ProcessPoolExecutor", InThisProcess)
    mode = backends.mode("python")
    monkeypatch.setattr(script.backends, "mode", lambda backend: mode)


def test_what_is_written(small_data, tmp_path, small_steps):
    arguments = ["--quick", "--data", str(small_data), "--root", str(tmp_path)]
    result = CliRunner().invoke(script.main, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "runs/quick/systems_speed.json").read_text())
    (row,) = found["measured"]
    assert row["n_threads"] == 1 and row["settings"]["n_units"] == [12, 9]
    for who in ("ours", "jax"):
        assert len(row[who]) == 3 and min(row[who]) > 0
        assert row[f"{who}_loss"] == pytest.approx(np.log(4), rel=0.1)  # hardly learned
    assert found["git_commit"] and "n_threads" not in found
    written = (tmp_path / "runs/figures/quick/systems_speed.md").read_text()
    assert written == result.stdout == systems_speed.table(found)


def test_what_is_missing_is_named(small_data, tmp_path, small_steps, monkeypatch):
    monkeypatch.setattr(script, "N_STEPS", 9)
    arguments = ["--data", str(small_data), "--root", str(tmp_path)]
    result = CliRunner().invoke(script.main, arguments)
    assert result.exit_code == 1
    assert result.stderr == "900 training examples are timed, and there are only 250.\n"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(script.main, arguments)
    assert result.exit_code == 1 and result.stderr.startswith("JAX is not installed: ")
    assert list(tmp_path.iterdir()) == []


def test_table_of_times():
    """The ratio is the median of the ratios turn by turn, not the ratio of the medians."""
    row = {"preset": "some", "n_threads": 2, "ours": [1, 4, 6], "jax": [2, 2, 12]}
    facts = {"n_turns": 3, "n_steps": 50, "host_cpu": "A", "git_commit": "b" * 40, "command": "c"}
    text = systems_speed.table(facts | {"measured": [row]})
    assert text.splitlines()[2] == "| some | 2 | 4 | 2 | 0.50 | 0.50 to 1.25 |"
    assert text.endswith("A; commit bbbbbbbbbbbb; `c`.\n")
