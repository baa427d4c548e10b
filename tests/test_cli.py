import dataclasses
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from idx import write_dataset

from reinforce_dropout import systems
from reinforce_dropout.cli import main
from reinforce_dropout.results import records
from reinforce_dropout.running import training
from reinforce_dropout.systems import PRESETS, SYSTEMS

# What the commands do does not depend on the backend; "python" compiles nothing.
SMALL = ["--set", "n_units=12,9", "--epochs", "3", "--threads", "1", "--backend", "python"]


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def assert_refused(result, *words):
    """One sentence on stderr, nothing on stdout, exit code 1."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def trained(small_data, tmp_path_factory):
    """A record made by the command line."""
    path = tmp_path_factory.mktemp("cli") / "run.hdf5"
    result = run("train", "policy-800-800", *SMALL, "--data", small_data, "--out", path, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{path}: policy-800-800 (seed 1) reached its last epoch after")
    assert result.stderr == ""
    return path


def test_every_command_has_help():
    for arguments in ([], *([name] for name in main.commands)):
        result = run(*arguments, "--help")
        assert result.exit_code == 0 and "Usage:" in result.stdout
    assert run("--version").stdout.strip().endswith(importlib.metadata.version("reinforce-dropout"))


def test_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "reinforce_dropout", "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "Usage: reinforce-dropout" in result.stdout


def sections():
    """Return what `presets` prints of each system, by name."""
    parts = ["", *run("presets").stdout.rstrip().split("System ")[1:]]
    return {part.split(".")[0]: part for part in parts[1:]}


def test_presets_name_every_preset_and_field_of_every_system():
    listed = sections()
    assert list(listed) == list(SYSTEMS)
    for name, module in SYSTEMS.items():
        assert all(f"    preset {preset.name}: " in listed[name] for preset in module.PRESETS)
        for field in dataclasses.fields(module.Settings):
            if field.name != "name":
                assert f"        {field.name} = " in listed[name]
                assert unspaced(field.metadata["text"]) in unspaced(listed[name])


def unspaced(text):
    """Return the text without spaces: lines may break at hyphens too."""
    return "".join(text.split())


@pytest.mark.parametrize("name", list(SYSTEMS))
def test_presets_print_values_as_set_takes_them(name):
    """The fields' defaults, and what each preset chooses otherwise."""
    lines = sections()[name].splitlines()
    fields = [line.strip().split(" = ") for line in lines if re.match("        [a-z]", line)]
    defaults = SYSTEMS[name].Settings()
    assert defaults.replace(**dict(fields)) == defaults
    chosen = [line.strip()[7:].split(": ") for line in lines if line.startswith("    preset ")]
    for preset, settings in chosen:
        pairs = [] if settings == "the defaults" else [s.split("=") for s in settings.split(" ")]
        assert defaults.replace(name=preset, **dict(pairs)) == PRESETS[preset]


def test_train_options_reach_the_experiment(small_data, tmp_path):
    result = run(
        *("train", "policy-500", "--seed", 7, "--epochs", 1, "--set", "n_units=6"),
        *("--set", "lam=0.01", "--set", "kl_gradient=score", "--data", small_data),
        *("--out", tmp_path / "run.hdf5"),
    )
    assert result.exit_code == 0, result.output
    attributes = records.read(tmp_path / "run.hdf5").attributes
    expected = PRESETS["policy-500"].replace(
        seed=7, n_epochs=1, n_units=(6,), lam=0.01, kl_gradient="score"
    )
    assert systems.from_dict(attributes["experiment"]) == expected
    assert attributes["seed"] == 7 and attributes["backend"] == "numba"
    assert "policy-500 epoch 1/1" in result.stderr  # the progress bar
    assert "backend numba" in result.stderr  # what "auto" took


def test_train_twice_is_train_once(trained, small_data):
    before = trained.read_bytes()
    result = run(
        "train", "policy-800-800", *SMALL, "--data", small_data, "--out", trained, "--quiet"
    )
    assert result.exit_code == 0
    assert trained.read_bytes() == before


def test_default_name_of_the_record(small_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("train", "baseline-500", *SMALL, "--data", small_data)
    assert [p.name for p in tmp_path.glob("*.hdf5")] == ["baseline-500-seed1.hdf5"]


def test_show_prints_settings_provenance_and_epochs(trained):
    output = run("show", trained).stdout
    record = records.read(trained)
    assert "    system = policy\n" in output and "    n_units = 12,9\n" in output
    assert "    lam = 0.0001\n" in output
    assert "    status: finished\n" in output and "pytensor" in output
    assert "Last epoch: 3\n" in output
    assert f"Best epoch: {record.best_attributes['epoch']}\n" in output
    assert f"test error {record.best_attributes['test_error']:.2%}" in output


def test_show_leaves_out_what_was_not_evaluated(trained, tmp_path):
    record = records.read(trained)
    record.curves["test_error_expected"][:] = np.nan
    records.write(tmp_path / "run.hdf5", record)
    output = run("show", tmp_path / "run.hdf5").stdout
    assert output.count("    test_error_sampled: ") == 2
    assert "test_error_expected" not in output and "nan" not in output.split("Last epoch")[1]


def test_evaluate_prints_the_recorded_errors_by_all_rules(trained, small_data):
    result = run("evaluate", trained, "--data", small_data)
    assert result.exit_code == 0, result.output
    record = records.read(trained)
    rules, best = ("sampled", "expected", "thresholded"), record.best_epoch - 1
    recorded = [record.curves[f"test_error_{rule}"][best] for rule in rules]
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("test")]
    assert [row[2] for row in rows] == list(rules)
    assert [row[3] for row in rows] == [f"{error:.2%}" for error in recorded]
    assert all(row[1] == "90" and len(row) == 6 for row in rows)
    # Without --data, the data set that the record names.
    assert run("evaluate", trained).stdout == result.stdout


@pytest.fixture(scope="module")
def plain(small_data, tmp_path_factory):
    """A record of a network without policies."""
    path = tmp_path_factory.mktemp("cli") / "plain.hdf5"
    result = run("train", "baseline-500", *SMALL, "--data", small_data, "--out", path, "--quiet")
    assert result.exit_code == 0, result.output
    return path


def test_evaluate_prints_one_error_where_there_is_one_rule(plain, small_data):
    result = run("evaluate", plain, "--data", small_data)
    assert result.exit_code == 0, result.output
    (row,) = (line for line in result.stdout.splitlines() if line.startswith("test"))
    error = records.read(plain).best_attributes["test_error"]
    assert row.split() == ["test", "90", "all", "units", f"{error:.2%}"]
    assert "best epoch" in run("show", plain).stdout


def test_evaluate_with_other_blocks(trained, plain, small_data):
    def active(*options):
        result = run("evaluate", trained, "--data", small_data, *options)
        assert result.exit_code == 0, result.output
        return [line.split()[4:] for line in result.stdout.splitlines()[1:]]

    assert active("--instances-per-block", 1) == active() != active("--instances-per-block", 8)
    assert run("evaluate", trained, "--instances-per-block", 0).exit_code == 2
    refused = run("evaluate", plain, "--data", small_data, "--instances-per-block", 8)
    assert_refused(refused, "no policies", "leave instances_per_block out")


def test_evaluate_by_choice_of_execution(trained, plain, small_data):
    def evaluate(record, *options):
        return run("evaluate", record, "--data", small_data, *options)

    sparse = evaluate(trained, "--execution", "block-sparse")
    assert sparse.exit_code == 0, sparse.output
    assert sparse.stdout == evaluate(trained).stdout and sparse.stderr == ""
    assert evaluate(trained, "--execution", "sparse").exit_code == 2
    refused = evaluate(plain, "--execution", "block-sparse")
    assert_refused(refused, "no policies", "the execution dense")


def test_evaluate_refuses_other_data(trained, tmp_path):
    larger = write_dataset(tmp_path / "larger", shape=(9, 9))
    assert_refused(run("evaluate", trained, "--data", larger), "64 pixels", "81 pixels", "--data")
    more = write_dataset(tmp_path / "more", n_classes=6)
    assert_refused(run("evaluate", trained, "--data", more), "4 classes", "labels up to 5")


def test_evaluate_warns_of_data_that_has_changed(trained, small_data, tmp_path):
    assert run("evaluate", trained).stderr == ""
    other = write_dataset(tmp_path / "other", n_train=300, n_test=90, seed=5)
    result = run("evaluate", trained, "--data", other)
    assert result.exit_code == 0 and result.stdout.count("test") == 3
    assert result.stderr.startswith(f"Warning: {other} does not hold the data")
    assert result.stderr.count("\n") == 1


def test_want_of_memory_gets_one_sentence(monkeypatch, tmp_path):
    def allocate(*_):
        raise MemoryError("Unable to allocate 584. GiB")

    monkeypatch.setattr(training, "make_learner", allocate)
    result = run("train", "policy-500", "--out", tmp_path / "run.hdf5", "--quiet")
    assert_refused(result, "not enough memory (Unable to allocate 584. GiB)", "lower n_units")


def test_help_of_train_says_how_often_the_file_is_replaced():
    words = f"at most every {training.SECONDS_BETWEEN_WRITES:.0f} seconds"
    assert words in " ".join(run("train", "--help").stdout.split())


def test_show_names_the_continuations(trained, tmp_path):
    record = records.read(trained)
    record.attributes["resumed"] = [{"time": "2026-01-01"}, {"time": "2027", "host_cpu": "x"}]
    records.write(tmp_path / "run.hdf5", record)
    output = run("show", tmp_path / "run.hdf5").stdout
    assert "    resumed: 2026-01-01\n    resumed: 2027, with another host_cpu\n" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "policy-50"], ["no preset 'policy-50'", "policy-500"]),
        (["train", "policy-500", "--set", "colour=red"], ["no field 'colour'", "activation"]),
        (["train", "policy-500", "--set", "self=1"], ["no field 'self'"]),
        (["train", "baseline-500", "--set", "lam=1"], ["system plain has no field 'lam'"]),
        (["train", "policy-500", "--set", "instances_per_block=2"], ["system policy has no fi"]),
        (["train", "policy-500", "--execution", "block-sparse"], ["trains with the execution d"]),
        (
            ["train", "block-800-800", "--execution", "block-sparse", "--set", "batch_size=40"],
            ["mini-batches of one block", "leave the execution dense"],
        ),
        (["train", "policy-500", "--seed", str(2**64)], ["seed must be", "less than 2**64"]),
        (["train", "policy-500", "--set", "q=1"], ["q must be between 0 and 1"]),
        (["train", "policy-500", "--set", "n_units=0"], ["n_units", "each from 1 to"]),
        (["train", "policy-500", "--set", "learning_rate=-1"], ["learning_rate", "0 or more"]),
        (["train", "policy-500", "--epochs", "0"], ["n_epochs must be 1 or more"]),
        (["train", "policy-500", "--backend", "fortran"], ["no backend 'fortran'", "numba"]),
        (["train", "policy-500", "--data", "nowhere"], ["nowhere"]),
        (["train", "policy-500", "--out", "no/such/run.hdf5"], ["no/such/run.hdf5", "folder"]),
        (["show", "nothing.hdf5"], ["nothing.hdf5", "No such file"]),
        (["evaluate", "nothing.hdf5"], ["nothing.hdf5"]),
        (["table", "nothing.hdf5"], ["nothing.hdf5"]),
        (["figure1", "nothing.hdf5"], ["nothing.hdf5"]),
    ],
)
def test_mistakes_get_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*arguments), *words)
    assert [p for p in tmp_path.rglob("*") if not p.name.startswith(".")] == []


def test_set_without_equals_is_wrong_usage():
    result = run("train", "policy-500", "--set", "lam")
    assert result.exit_code == 2 and "FIELD=VALUE" in result.stderr


def test_figure_and_table_of_records(trained, small_data, tmp_path):
    other = tmp_path / "policy-500.hdf5"
    made = run(
        *("train", "policy-500", "--set", "n_units=12", "--epochs", 2, "--data", small_data),
        *("--out", other, "--quiet"),
    )
    assert made.exit_code == 0, made.output
    drawn = run("figure1", other, trained, "--out", tmp_path / "drawn")
    assert drawn.exit_code == 0, drawn.output
    assert drawn.stdout.split() == [str(tmp_path / "drawn.png"), str(tmp_path / "drawn.pdf")]
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "drawn.pdf").read_bytes().startswith(b"%PDF")
    table = run("table", other, trained).stdout
    assert f"{records.read(other).best_attributes['test_error']:.2%}".rstrip("%") in table
    assert_refused(run("figure1", trained), "policy-500")


def test_interrupt_saves_and_the_same_command_goes_on(small_data, tmp_path):
    out = tmp_path / "run.hdf5"
    arguments = ["train", "policy-500", "--set", "n_units=10", "--epochs", "600", "--threads", "1"]
    command = [sys.executable, "-m", "reinforce_dropout", *arguments]
    command += ["--data", str(small_data), "--out", str(out)]
    stopped = {signal.SIGINT: 0, signal.SIGTERM: 0}
    for how in stopped:
        process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
        lines = ""
        while "nll" not in lines:  # the bar shows errors once an epoch has ended
            lines += os.read(process.stderr.fileno(), 1000).decode()
        time.sleep(0.05)
        process.send_signal(how)
        stdout, stderr = process.communicate()
        assert process.returncode == 130
        assert stdout == ""
        assert "Interrupted: the run is saved in" in stderr and "to go on, type: reinf" in stderr
        assert "Traceback" not in stderr
        stopped[how] = len(records.read(out).curves["train_nll"])
    assert 0 < stopped[signal.SIGINT] <= stopped[signal.SIGTERM] < 600
    subprocess.run(command, check=True, capture_output=True)
    whole = tmp_path / "whole.hdf5"
    subprocess.run([*command[:-1], str(whole)], check=True, capture_output=True)
    resumed, uninterrupted = records.read(out), records.read(whole)
    for name in ("train_nll", "valid_error", "test_error", "active_fraction", "policy_entropy"):
        np.testing.assert_array_equal(resumed.curves[name], uninterrupted.curves[name])


def test_the_installed_command_exists():
    command = shutil.which("reinforce-dropout", path=os.path.dirname(sys.executable))
    if command is None:
        pytest.skip("the package is not installed in this environment")
    assert subprocess.run([command, "--version"], capture_output=True).returncode == 0


def test_plot_draws_curves_and_masks(trained, small_data, tmp_path):
    result = run("plot", trained)
    assert result.exit_code == 0, result.output
    stem = trained.with_suffix("")
    assert result.stdout.split() == [f"{stem}-curves.png", f"{stem}-curves.pdf"]
    out = tmp_path / "masks"
    result = run("plot", trained, "--masks", "--out", out, "--backend", "python")
    assert result.exit_code == 0 and result.stdout.split() == [f"{out}.png", f"{out}.pdf"]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    other = write_dataset(tmp_path / "other", n_train=60, n_test=20, shape=(3, 2))
    result = run("plot", trained, "--masks", "--data", other, "--backend", "python")
    assert_refused(result, "give the data it was trained on")
