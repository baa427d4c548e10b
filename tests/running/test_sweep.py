"""Sweeps on this machine: with real runs, and with a stand-in for the process that trains one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from reinforce_dropout.cli import main
from reinforce_dropout.results import records
from reinforce_dropout.running import apart, grid, sweep, training
from reinforce_dropout.systems import preset

ROOT = Path(sweep.__file__).parents[2]

# A stand-in for the process that trains a run. The environment tells what it does, by the name of
# the run. It notes its process and, every time, the number of threads that it may use.
STAND_IN = """
import contextlib, json, os, signal, sys, threading, time
job = json.loads(sys.stdin.readline())
stem = job["path"].removesuffix(".hdf5")
name = os.path.basename(stem)
behaviour = json.loads(os.environ["BEHAVIOUR"]).get(name, "finish")
open(stem + ".began", "w").write(f"{time.monotonic()} {os.getpid()}")
ended = threading.Event()
def obey():
    for line in sys.stdin:
        open(stem + ".threads", "a").write(line)
    ended.set()
threading.Thread(target=obey, daemon=True).start()
def tell(**message):
    with contextlib.suppress(BrokenPipeError):  # the sweep was killed
        print(json.dumps(message), flush=True)
idle = {"epoch": None, "updates": 0, "curves": {}}
tell(**idle)
if behaviour == "long" or behaviour.startswith("until "):
    while not ended.wait(0.02):
        tell(**idle)
        if behaviour.startswith("until ") and os.path.exists(behaviour.removeprefix("until ")):
            break
    else:
        time.sleep(0.3)
        open(stem + ".saved", "w")
        tell(how="interrupted", text="")
        os._exit(0)
elif behaviour == "die":
    os.kill(os.getpid(), signal.SIGKILL)
elif behaviour == "refuse":
    tell(how="failed", text="the data is no good: correct it.")
elif behaviour == "busy":
    tell(how="busy", text="another process is training into it: wait for it.")
elif behaviour == "defect":
    tell(how="defect", text="Traceback ... ZeroDivisionError")
elif behaviour == "vanish":
    os._exit(3)
if behaviour in ("finish",) or behaviour.startswith("until "):
    tell(how="finished", text="")
open(stem + ".ended", "w").write(str(time.monotonic()))
os._exit(0)
"""

# Runs a command with the stand-in, and with as many cores as the environment says.
COMMAND = """
import os, sys
import joblib
from reinforce_dropout import cli
from reinforce_dropout.running import apart
apart.COMMAND = (sys.executable, sys.argv.pop(1))
joblib.cpu_count = lambda: int(os.environ.get("CORES", "2"))
cli.main(prog_name="reinforce-dropout")
"""


def begin(tmp_path, *arguments, cores=2, **behaviour):
    """Start `sweep` of policy-500 with the stand-in, in a process group of its own."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    names = {name.replace("_", "-"): what for name, what in behaviour.items()}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, tmp_path / "stand_in.py", "sweep", *arguments]
        + ["--folder", tmp_path / "runs"],
        cwd=ROOT,
        env=os.environ | {"CORES": str(cores), "BEHAVIOUR": json.dumps(names)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def noted(tmp_path, what):
    """Return {run: text} of what the stand-ins have noted."""
    found = {path.stem: path.read_text() for path in (tmp_path / "runs").glob(f"*.{what}")}
    return {name: text for name, text in found.items() if text or what == "saved"}


def wait_for(tmp_path, *runs, what="began"):
    """Wait until all `runs` have noted something."""
    _wait(lambda: noted(tmp_path, what).keys() >= set(runs))


def _wait(until):
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("whom", "what"), [("group", signal.SIGINT), ("main", signal.SIGTERM)], ids=["Ctrl-C", "kill"]
)
def test_an_interrupt_saves_all_and_starts_nothing_more(tmp_path, whom, what):
    process = begin(
        tmp_path, "policy-500", "--seeds", "1-3",
        policy_500_seed1="long", policy_500_seed2="long",
    )  # fmt: skip
    wait_for(tmp_path, "policy-500-seed1", "policy-500-seed2")
    (os.killpg if whom == "group" else os.kill)(process.pid, what)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # out of patience
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "2 interrupted" in out or "3 interrupted" in out
    assert err.splitlines()[-1].startswith("Interrupted: type the same command")
    assert "Traceback" not in err
    began = noted(tmp_path, "began")
    assert noted(tmp_path, "saved").keys() == began.keys()
    assert began.keys() == {"policy-500-seed1", "policy-500-seed2"}
    assert not any(alive(int(text.split()[1])) for text in began.values())


def test_a_sweep_that_is_killed_leaves_no_run_behind(tmp_path):
    process = begin(tmp_path, "policy-500", policy_500_seed1="long")
    wait_for(tmp_path, "policy-500-seed1")
    process.kill()
    process.wait()
    wait_for(tmp_path, "policy-500-seed1", what="saved")
    process.stdout.close(), process.stderr.close()


def test_what_fails_is_told_and_stops_nothing(tmp_path):
    how = {1: "die", 2: "refuse", 3: "defect", 4: "vanish", 5: "busy"}
    behaviour = {f"policy_500_seed{seed}": what for seed, what in how.items()}
    process = begin(tmp_path, "policy-500", "--seeds", "1-7", "--quiet", **behaviour)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.endswith(": 7 runs: 2 failed, 2 defect, 1 busy, 2 finished.\n")
    lines = err.splitlines()
    assert len(lines) == 5
    assert "policy-500-seed1: its process was killed (SIGKILL)" in lines[0]
    assert lines[1] == "policy-500-seed2: the data is no good: correct it."
    assert "policy-500-seed3: Traceback" in lines[2]
    assert lines[3] == "policy-500-seed4: its process ended with code 3."
    assert lines[4].startswith("policy-500-seed5: another process is training into it")


def test_runs_of_another_process_are_left_to_it(tmp_path):
    process = begin(tmp_path, "policy-500", "--seeds", "1-2", policy_500_seed1="busy")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "1 busy, 1 finished" in out


def test_the_longest_come_first_and_no_more_at_once_than_jobs(tmp_path):
    process = begin(tmp_path, "policy-500", "--grid", "n_units=10,30,20", "--jobs", "1")
    process.communicate(timeout=60)
    assert process.returncode == 0
    spans = {
        int(re.search(r"n_units=(\d+)", name)[1]): (float(text.split()[0]), float(ended))
        for (name, text), ended in zip(
            sorted(noted(tmp_path, "began").items()),
            [text for _, text in sorted(noted(tmp_path, "ended").items())],
            strict=True,
        )
    }
    times = [time for n in (30, 20, 10) for time in spans[n]]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("cores", "jobs", "first", "last"), [(1, 2, 1, 1), (2, 2, 1, 2), (4, 2, 2, 4), (9, 2, 4, 4)]
)
def test_the_last_run_takes_over_the_cores_of_those_that_have_ended(
    tmp_path, cores, jobs, first, last
):
    go, end = tmp_path / "go", tmp_path / "end"
    process = begin(
        tmp_path, "policy-500", "--seeds", "1-2", "--jobs", str(jobs), cores=cores,
        policy_500_seed1=f"until {end}", policy_500_seed2=f"until {go}",
    )  # fmt: skip
    wait_for(tmp_path, "policy-500-seed1", what="threads")
    wait_for(tmp_path, "policy-500-seed2", what="threads")
    go.touch()
    _wait(lambda: noted(tmp_path, "threads")["policy-500-seed1"].split()[-1] == str(last))
    end.touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert noted(tmp_path, "threads")["policy-500-seed1"].split()[0] == str(first)


def test_there_is_a_line_for_the_whole_and_one_for_each_run(tmp_path):
    process = begin(tmp_path, "policy-500", "--seeds", "1-3")
    _, err = process.communicate(timeout=60)
    for seed in (1, 2, 3):
        assert f"policy-500-seed{seed} compiling" in err
        assert f"policy-500-seed{seed}: finished." in err
    assert re.search(r"sweep.*3/3", err)


def cli(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


SETTINGS = ("policy-500", "--set", "n_units=12", "--epochs", "3", "--seeds", "1-2")
GRID = ("--grid", "lam=0,0.001")


@pytest.fixture(scope="module")
def swept(small_data, tmp_path_factory):
    """The folder of a sweep of four real runs."""
    folder = tmp_path_factory.mktemp("sweep")
    result = cli("sweep", *SETTINGS, *GRID, "--folder", folder, "--data", small_data, "--jobs", "2")
    assert result.exit_code == 0, result.output
    assert "4 runs: 4 finished." in result.stdout
    return folder


@pytest.fixture
def folder(swept, tmp_path, monkeypatch):
    """A copy of that folder, and no process that could train."""
    monkeypatch.setattr(apart, "COMMAND", (sys.executable, "-c", "raise SystemExit(9)"))
    return shutil.copytree(swept, tmp_path / "runs")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.hdf5")}


def test_a_run_is_the_one_that_train_makes(swept, small_data, tmp_path):
    names = {f"policy-500-lam={lam}-seed{s}.hdf5" for lam in ("0.0", "0.001") for s in (1, 2)}
    assert contents(swept).keys() == names
    assert not list(swept.glob("*.tmp"))
    found = records.read(swept / "policy-500-lam=0.001-seed2.hdf5")
    experiment = preset("policy-500").replace(n_units=(12,), n_epochs=3, lam=0.001, seed=2)
    own = training.train(
        experiment, tmp_path / "own.hdf5", data=small_data, n_threads=1, show_progress=False
    )
    for group in ("curves", "best"):
        ours, theirs = getattr(own, group), getattr(found, group)
        for name in ours.keys() - {"epoch_seconds"}:
            np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
    assert found.attributes["n_threads"] == 1
    assert found.attributes["experiment"] == experiment.as_dict()


def test_finished_runs_are_not_run_again(folder, small_data):
    before = contents(folder)
    result = cli("sweep", *SETTINGS, *GRID, "--folder", folder, "--data", small_data)
    assert result.exit_code == 0 and "4 runs: 4 finished." in result.stdout
    assert contents(folder) == before


def test_runs_of_a_file_may_have_data_and_execution_of_their_own(small_data, tmp_path):
    file, runs = tmp_path / "sweep.toml", tmp_path / "runs"
    tables = """
        [[runs]]
        preset = "baseline-500"
        [[runs]]
        preset = "block-800-800"
        set = {n_units = [16], n_epochs = 1, instances_per_block = 1, units_per_block = 16}
        """
    file.write_text(f'{tables}data = "{small_data}"\nexecution = "block-sparse"\n')
    sets = ("--set", "n_units=16", "--set", "n_epochs=1", "--backend", "python", "--quiet")
    command = ("sweep", file, *sets, "--folder", runs, "--data", tmp_path / "none")
    result = cli(*command)
    assert result.exit_code == 1 and "2 runs: 1 failed, 1 finished." in result.stdout
    assert "none cannot be read" in result.stderr
    path = runs / "block-800-800-seed1.hdf5"
    assert records.read(path).attributes["execution"] == "block-sparse"
    before = path.read_bytes()
    assert cli(*command).exit_code == 1 and path.read_bytes() == before


def test_records_are_kept_with_curves_only(folder, small_data):
    before = cli("summarize", folder).output
    command = ("sweep", *SETTINGS, *GRID, "--folder", folder, "--data", small_data)
    for _ in range(2):
        result = cli(*command, "--curves-only")
        assert result.exit_code == 0, result.output
    assert all(records.read(path).best == {} for path in folder.glob("*.hdf5"))
    assert cli(*command).exit_code == 0
    assert cli("summarize", folder).output == before
    result = cli("evaluate", folder / "policy-500-lam=0.0-seed1.hdf5")
    assert result.exit_code == 1 and "--curves-only" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "differing"),
    [(["--set", "q=0.3"], "q"), (["--execution", "block-sparse"], "")],
    ids=["settings", "execution"],
)
def test_other_runs_in_the_folder_are_refused_and_kept(
    swept, small_data, tmp_path, changes, differing
):
    folder = shutil.copytree(swept, tmp_path / "runs")
    before = contents(folder)
    command = ("sweep", *SETTINGS, *changes, "--seeds", "1", "--grid", "lam=0", "--quiet")
    result = cli(*command, "--folder", folder, "--data", small_data)
    assert result.exit_code == 1 and "1 runs: 1 failed." in result.stdout
    assert result.stderr.count("\n") == 1 and differing in result.stderr
    assert contents(folder) == before


def test_ctrl_c_saves_a_real_run(small_data, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "reinforce_dropout", "sweep", "policy-500", "--set", "n_units=12"]
        + ["--set", "patience=1000000000", "--epochs", "10000000", "--folder", tmp_path]
        + ["--data", small_data],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    path = tmp_path / "policy-500-seed1.hdf5"
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    record = records.read(path)
    assert record.attributes["status"] == "unfinished"
    assert record.checkpoint_state["epoch"] == record.n_epochs > 0


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["policy-5"], "no preset"),
        (["policy-500", "--grid", "lame=1"], "no field 'lame'"),
        (["policy-500", "--seeds", "5-1"], "empty range"),
        (["policy-500", "--set", "seed=1"], "--seeds"),
        (["policy-500", "--backend", "fortran"], "no backend"),
        (["none.toml"], "cannot read none.toml"),
        (["policy-500", "--scheduler", "nonsense://x"], "no Dask scheduler answers"),
    ],
)
def test_bad_input_is_told_in_a_sentence(tmp_path, arguments, what):
    result = cli("sweep", *arguments, "--folder", tmp_path / "runs")
    assert result.exit_code == 1 and result.stdout == ""
    assert what in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.hdf5"))


@pytest.mark.parametrize(
    "arguments",
    [["a.toml", "--grid", "lam=1"], ["policy-500", "--jobs", "2", "--scheduler", "tcp://x:1"]],
)
def test_options_that_do_not_go_together(tmp_path, arguments):
    assert cli("sweep", *arguments, "--folder", tmp_path / "runs").exit_code == 2


def test_a_folder_that_cannot_be_written_in(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        result = cli("sweep", "policy-500", "--folder", folder)
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        assert "cannot make the folder" in result.stderr
    monkeypatch.setattr(os, "access", lambda path, mode, **_: mode == os.R_OK)  # for root, too
    result = cli("sweep", "policy-500", "--folder", tmp_path)
    assert result.exit_code == 1 and "cannot be written in" in result.stderr


def test_a_record_that_is_damaged_fails_alone(swept, small_data, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "runs")
    damaged = folder / "policy-500-lam=0.0-seed1.hdf5"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = contents(folder)
    command = ("sweep", *SETTINGS, *GRID, "--folder", folder, "--data", small_data)
    result = cli(*command, "--quiet")
    assert result.exit_code == 1 and "1 failed, 3 finished." in result.stdout
    assert f"{damaged.name}" in result.stderr and "damaged" in result.stderr
    assert contents(folder) == before


def test_names_of_runs_fit_into_files():
    (run,) = grid.expand("policy-500", {"n_units": [(500, 500)]})
    assert "/" not in run.name
