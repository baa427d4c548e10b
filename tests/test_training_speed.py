"""The comparison of training speed: every column does the same work, and the numbers say what."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reinforce_dropout import datasets, network
from reinforce_dropout.errors import RecordError

SCRIPTS = Path(__file__).parents[1] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own

import training_speed  # noqa: E402
from speed import measure, ours  # noqa: E402
from speed import results as files  # noqa: E402
from speed.results import Measurement, Results, Setting, Turns  # noqa: E402

PEERS = {"eager": "pytorch", "compile": "pytorch", "scan": "jax_scan"}


@pytest.fixture(scope="module")
def data():
    return datasets.load()


def begin(data, policy, n_steps=5, n_units=(30, 20)):
    """Return the arguments of a column: parameters, x, y, learning rate."""
    setting = Setting(1, n_units, 20, policy)
    parameters = measure.inputs(setting, data, n_steps)
    if policy:  # both values of the masks that are given below
        rng = np.random.default_rng(0)
        for i in (1, 2):
            parameters[f"o_{i}"] = rng.normal(size=n_units[i - 1]).astype("float32")
    return parameters, parameters.pop("x"), parameters.pop("y"), 0.01


def peer(name):
    """Return the module and the class of a peer, or skip."""
    library = {"pytorch": "torch", "jax_scan": "jax"}[PEERS[name]]
    pytest.importorskip(library)
    module = __import__(f"speed.{PEERS[name]}", fromlist=["_"])
    return module, {"eager": "Eager", "compile": "Compiled", "scan": "Scan"}[name]


def give_masks(module, monkeypatch):
    """Let the units with sigma > 1/2 take part, in a peer as in `network.thresholded`."""
    if module.__name__.endswith("pytorch"):
        monkeypatch.setattr(module, "draw", lambda sigma: (sigma > 0.5).float())
    else:
        monkeypatch.setattr(module, "draw", lambda key, sigma: (sigma > 0.5).astype("float32"))


@pytest.fixture(scope="module")
def our_result(data):
    """Statistics and parameters of five steps with given masks, with policies and without."""
    result = {}
    for policy in (False, True):
        column = type("Given", (ours.Numba,), {"mask": staticmethod(network.thresholded)})
        made = column(*begin(data, policy))
        result[policy] = made.turn(), made.parameters()
    return result


@pytest.mark.parametrize("policy", [False, True], ids=["plain", "policies"])
@pytest.mark.parametrize("name", PEERS)
def test_every_column_does_the_same_work(name, policy, our_result, data, monkeypatch):
    module, kind = peer(name)
    give_masks(module, monkeypatch)
    arguments = begin(data, policy)
    made = getattr(module, kind)(*arguments)
    start = arguments[0]
    for key, value in made.parameters().items():
        np.testing.assert_array_equal(value, start[key], err_msg=key)
    statistics = made.turn()
    ours_statistics, ours_parameters = our_result[policy]
    np.testing.assert_allclose(statistics, ours_statistics, rtol=1e-4)
    theirs = made.parameters()
    assert theirs.keys() == ours_parameters.keys()
    for key, value in ours_parameters.items():
        moved = np.abs(value - start[key]).max()
        assert moved > 1e-4, key
        # Finer than what the L2 penalty does in these steps, which is 1e-5.
        np.testing.assert_allclose(theirs[key], value, rtol=0, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", ["ours", *PEERS])
def test_masks_are_sampled_anew_at_the_policies_rates(name, data):
    kind = ours.Numba if name == "ours" else getattr(*peer(name))
    parameters, x, y, _ = begin(data, True, n_units=(300, 300))
    x[:], y[:] = x[0], y[0]
    # At rate 0 nothing changes but the masks.
    statistics = kind(parameters, x, y, 0.0).turn()
    assert len({*statistics[:, 0]}) == len(x)
    sigma = 1 / (1 + np.exp(-(x[0] @ parameters["Z_1"] + parameters["o_1"])))
    deviation = np.sqrt((sigma * (1 - sigma)).sum()) / sigma.size
    assert np.abs(statistics[:, 1] - sigma.mean()).max() < 5 * deviation
    entropy = -(sigma * np.log(sigma) + (1 - sigma) * np.log(1 - sigma)).mean()
    np.testing.assert_allclose(statistics[:, 3], entropy, rtol=1e-4)


def test_the_work_of_a_step_is_counted():
    plain, policies = Setting(2, (3, 5), 7, False), Setting(2, (3, 5), 7, True)
    # Forward; to the weights; to the inputs, except the image's. Then the policies' first two.
    network_flops = 2 * 7 * ((784 * 3 + 15 + 50) + (784 * 3 + 15 + 50) + (15 + 50))
    assert plain.flops() == network_flops
    assert policies.flops() == network_flops + 2 * 7 * 2 * (784 * 3 + 15)
    assert plain.n_bytes() == 12 * (784 * 3 + 15 + 50)
    assert policies.n_bytes() == 12 * (2 * (784 * 3 + 15) + 50)


def test_initial_rate_is_that_of_the_paper_late_in_training(data):
    parameters = measure.inputs(Setting(1, (200,), 20, True), data, 2)
    sigma = 1 / (1 + np.exp(-(parameters["x"][0] @ parameters["Z_1"] + parameters["o_1"])))
    assert sigma.mean() == pytest.approx(0.3, abs=0.02)


def made_results(**microseconds):
    """Return results of all targets' settings; the bound is 100 microseconds with 2 threads."""
    attributes = {
        "auto": "numba", "left_out": {"c": "no compiler"}, "versions": {"python": "3"},
        "command": "python reproduce/training_speed.py", "git_commit": "", "host_cpu": "a CPU",
        "n_threads": 2, "started": "2020-01-01T00:00:00+00:00", "ended": "",
    }  # fmt: skip
    measurements = []
    for n_threads in (1, 2):
        for n_units in ((500,), (800, 800)):
            for policy in (False, True):
                setting = Setting(n_threads, n_units, 20, policy)
                times = microseconds | {"copy": 1.0, "product": 1.0}
                turns = {
                    column: Turns(time * np.array([1.1, 0.9, 1, 1, 3]), (2.0, 1.0), 0.3, 10)
                    for column, time in times.items()
                }
                measurements.append(Measurement(setting, turns))
    return Results(attributes, measurements)


def test_ratios_and_targets():
    results = made_results(numba=10.0, eager=41.0, scan=12.0, compile=13.0, jax=1.0)
    lines = training_speed.describe_targets(results)
    assert len(lines) == 8  # of 2 threads only
    start = "- 784-500-10, plain: this package / best peer ="
    assert f"{start} 0.83 (0.83 to 0.83), target 0.8: not met" in lines
    start = "- 784-500-10, policies: this package / PyTorch eager ="
    assert f"{start} 0.24 (0.24 to 0.24), target 0.25: met" in lines
    (bound,) = (line for line in lines if "800-800-10, policies" in line and "bound" in line)
    setting = Setting(2, (800, 800), 20, True)
    flops = 2 * 20 * (5 * (784 * 800 + 800 * 800) - 784 * 800 + 3 * 8000)
    assert results.bound(setting) == pytest.approx(
        max(flops / (2 * 2048**3 / 0.9), 12 * (2 * 800 * 1584 + 8000) / (2 * 2**28 / 0.9))
    )
    assert f"= {10 / results.bound(setting):.2f} (" in bound and "target 2.5" in bound
    # 1 thread: a thread's own peaks; here they are the same.
    assert results.peaks(1) == results.peaks(2)


def test_ratios_are_taken_round_by_round_to_the_peer_that_comes_closest():
    """The machine has slow spells: by the medians of the times, 5, 2 and 1.9, scan came closer."""
    microseconds = {
        "numba": [0.5, 1, 5, 6, 7], "eager": [1, 2, 10, 2, 14], "scan": [1.9, 2.2, 11, 1, 1],
    }  # fmt: skip
    turns = {c: Turns(np.array(t, float), (2, 1), 0.3, 10) for c, t in microseconds.items()}
    measurement = Measurement(Setting(2, (500,), 20, True), turns)
    results = Results({"auto": "numba"}, [measurement])
    for to in ("best peer", "PyTorch eager"):
        np.testing.assert_array_equal(results.ratios(measurement, to), [0.5, 0.5, 0.5, 3, 0.5])
    del turns["eager"]
    assert np.median(results.ratios(measurement, "best peer")) == 1 / 2.2
    del turns["scan"]
    assert results.ratios(measurement, "best peer") is None


def test_a_peer_that_is_not_there_leaves_no_ratio():
    results = made_results(numba=10.0)
    lines = training_speed.describe_targets(results)
    assert len(lines) == 2 and all("bound" in line for line in lines)
    text = training_speed.table(results)
    assert "PyTorch eager |" in text and "| - |" in text
    assert "- this package, C is left out: no compiler." in text


def test_results_are_read_as_written_and_drawn_alike(tmp_path):
    results = made_results(numba=10.0, eager=41.0, scan=12.0)
    path = tmp_path / "speed.hdf5"
    files.write(path, results)
    again = files.read(path)
    assert again.attributes == results.attributes
    for ours_, theirs in zip(results.measurements, again.measurements, strict=True):
        assert ours_.setting == theirs.setting
        assert ours_.turns.keys() == theirs.turns.keys()
        for column, turns in ours_.turns.items():
            assert turns.quartiles().tolist() == theirs.turns[column].quartiles().tolist()
            assert turns.nll == theirs.turns[column].nll
            assert turns.peak_bytes == theirs.turns[column].peak_bytes
    text = training_speed.redraw(path, tmp_path / "a")
    assert training_speed.redraw(path, tmp_path / "b") == text == training_speed.table(results)
    names = {"training_speed.md", "training_speed.png", "training_speed.pdf"}
    assert {p.name for p in (tmp_path / "a").iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_file_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(RecordError, match="missing or damaged: run"):
        files.read(tmp_path / "none.hdf5")
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(RecordError, match="missing or damaged: run"):
        files.read(tmp_path / "text.hdf5")


def script(root, *options, **environment):
    return subprocess.run(
        [sys.executable, SCRIPTS / "training_speed.py", "--root", root, *options],
        capture_output=True, text=True, timeout=600, env=os.environ | environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """A root in which a tiny run was timed, with what is installed, and what it printed.

    Where the peers are not installed, or broken, they are left out.
    """
    root = tmp_path_factory.mktemp("timed")
    (root / "broken").mkdir()
    (root / "broken" / "jax.py").write_text("raise ModuleNotFoundError(name='jax')")
    (root / "broken" / "torch.py").write_text("raise ImportError('torch is\\nbroken.')")
    path = os.pathsep.join([str(root / "broken"), *sys.path])
    options = ["--nets", "40", "--batch-sizes", "20", "--threads", "1", "--turns", "3"]
    process = script(root, *options, PYTHONPATH=path)
    assert process.returncode == 0, process.stderr
    return root, process


def test_every_columns_loss_falls_on_mnist(timed):
    results = files.read(timed[0] / "runs" / "quick" / "training_speed.hdf5")
    assert [m.setting for m in results.measurements] == [
        Setting(1, (40,), 20, False),
        Setting(1, (40,), 20, True),
    ]
    for measurement in results.measurements:
        for column in results.columns():
            turns = measurement.turns[column]
            assert len(turns.microseconds) == 3 and (turns.microseconds > 0).all()
            assert turns.nll[1] < turns.nll[0] - 0.1
            assert 1e7 < turns.peak_bytes < 1e10
            rate = (0.15, 0.6) if measurement.setting.policy else (1, 1)
            assert rate[0] <= turns.active_fraction <= rate[1]
    attributes = results.attributes
    assert attributes["auto"] == "numba" and "numba" in results.columns()
    assert attributes["command"].startswith("python reproduce/training_speed.py --root")
    assert attributes["started"] <= attributes["ended"]


def test_missing_peers_are_left_out_with_a_word(timed):
    root, process = timed
    results = files.read(root / "runs" / "quick" / "training_speed.hdf5")
    assert not {*results.columns()} & {"eager", "compile", "scan", "jax"}
    left_out = results.attributes["left_out"]
    assert left_out["scan"] == "jax is not installed" and left_out["eager"] == "torch is"
    assert process.stderr.count("JAX lax.scan is left out: jax is not installed\n") == 1
    assert "Traceback" not in process.stderr


def test_redraw_times_nothing(timed):
    root, process = timed
    figures = root / "runs" / "figures" / "quick"
    before = {p.name: p.read_bytes() for p in figures.iterdir()}
    assert before["training_speed.md"].decode() == process.stdout
    recorded = (root / "runs" / "quick" / "training_speed.hdf5").read_bytes()
    again = script(root, "--quick", "--redraw")
    assert again.returncode == 0 and again.stdout == process.stdout
    assert before == {p.name: p.read_bytes() for p in figures.iterdir()}
    assert recorded == (root / "runs" / "quick" / "training_speed.hdf5").read_bytes()


def test_too_many_threads_are_refused_in_a_sentence(tmp_path):
    process = script(tmp_path, "--threads", "100000")
    assert process.returncode == 1 and process.stdout == ""
    assert "100000 threads would share" in process.stderr and process.stderr.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_nothing_to_redraw_is_told_in_a_sentence(tmp_path):
    process = script(tmp_path, "--redraw")
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "reproduce/results/training_speed.hdf5 is missing" in process.stderr
