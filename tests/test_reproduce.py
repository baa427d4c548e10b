"""The scripts of reproduce/, on a small data set or with a stand-in for the training."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from test_claims import cells
from test_report import make_record

from reinforce_dropout import claims, records, report
from reinforce_dropout.experiment import PRESETS

SCRIPTS = Path(__file__).parents[1] / "reproduce"
TESTS = Path(__file__).parent

# Runs run_all.py with another `common.train`, also in the processes that it spawns: they import
# the main module again. What it does for each preset is told in the environment.
STAND_IN = f"""
import os, signal, sys, time
sys.path[:0] = [{str(SCRIPTS)!r}, {str(TESTS)!r}]
import common, run_all
from tqdm import tqdm
from test_report import make_record
from reinforce_dropout import interrupts, threads
from reinforce_dropout.errors import DataError

def train(options, experiment, row=0, before_epoch=None):
    name = experiment.name
    (options.root / f"{{name}}.began").write_text(f"{{row}} {{time.monotonic()}} {{os.getpid()}}")
    behaviour = os.environ.get(name.replace("-", "_"), "train")
    if behaviour == "refuse":
        raise DataError("the data is no good: mend it.")
    if behaviour == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "defect":
        raise ZeroDivisionError
    if behaviour == "second":
        while not (options.root / "policy-800-800.shares").exists():
            time.sleep(0.01)
    if behaviour == "outlast":
        shares = []
        threads.use_in_kernels = shares.append
        while shares[-1:] != [os.environ["UNTIL"]]:
            before_epoch()
            shares[-1] = str(shares[-1])
            (options.root / f"{{name}}.shares").write_text(" ".join(dict.fromkeys(shares)))
            time.sleep(0.01)
    if behaviour == "long":
        with interrupts.deferred() as pending:  # as training does
            try:
                while True:
                    with tqdm.get_lock():
                        time.sleep(0.01)
                    pending.check()
            finally:
                time.sleep(0.5)
                (options.root / f"{{name}}.saved").touch()
    return make_record(name)

common.train = train
run_all.n_cores = lambda: int(os.environ["CORES"])
if __name__ == "__main__":
    sys.exit(common.main("", run_all.run_all))
"""


def script(name, *options, root):
    """Run a script, and return the finished process; compiling anew can take minutes."""
    command = [sys.executable, SCRIPTS / name, "--root", root, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def trained(small_data, tmp_path_factory):
    """A root in which run_all.py --quick has run, and what it printed."""
    root = tmp_path_factory.mktemp("root")
    process = script("run_all.py", "--quick", "--data", small_data, root=root)
    assert process.returncode == 0, process.stderr
    return root, process.stdout


def test_run_all_trains_and_reports(trained):
    root, printed = trained
    runs = {name: records.read(root / "runs" / "quick" / f"{name}.hdf5") for name in PRESETS}
    for name, record in runs.items():
        assert record.attributes["status"] == "finished"
        assert record.attributes["n_threads"] == 1
        assert record.attributes["command"].startswith("python reproduce/run_all.py --root")
        differences = (
            PRESETS[name]
            .replace(n_epochs=3)
            .differences(PRESETS[name].from_dict(record.attributes["experiment"]))
        )
        assert not differences
    assert printed == claims.table({"recorded": {}, "this run": runs}, quick=True)
    figures = root / "runs" / "figures" / "quick"
    assert (figures / "table.md").read_text() == printed
    assert {p.name for p in figures.iterdir()} == {"table.md", "figure1.png", "figure1.pdf"}
    report.save_figure(
        report.figure1(runs["policy-500"], runs["policy-800-800"], quick=True), root / "again"
    )
    assert (root / "again.png").read_bytes() == (figures / "figure1.png").read_bytes()


def test_finished_runs_are_not_run_again(trained, small_data):
    root, printed = trained
    before = {p: p.read_bytes() for p in (root / "runs" / "quick").glob("*.hdf5")}
    process = script("policy_500.py", "--quick", "--data", small_data, root=root)
    assert process.returncode == 0, process.stderr
    assert before == {p: p.read_bytes() for p in (root / "runs" / "quick").glob("*.hdf5")}
    own = {claim: row for claim, row in cells(printed).items() if claim.startswith("policy-500:")}
    assert cells(process.stdout) == own


def test_another_seed_goes_to_folders_of_its_own(trained, small_data, tmp_path):
    options = "--quick", "--seed", "2", "--data", small_data
    process = script("baseline_500.py", *options, root=tmp_path)
    assert process.returncode == 0, process.stderr
    (path,) = tmp_path.rglob("*.hdf5")
    assert path.relative_to(tmp_path) == Path("runs/quick-seed-2/baseline-500.hdf5")
    record = records.read(path)
    assert record.attributes["seed"] == record.attributes["experiment"]["seed"] == 2
    other = records.read(trained[0] / "runs" / "quick" / "baseline-500.hdf5")
    assert record.curves["train_nll"][0] != other.curves["train_nll"][0]


def test_another_run_in_the_place_is_refused_in_a_sentence(trained, small_data, tmp_path):
    runs = tmp_path / "runs" / "quick"
    runs.mkdir(parents=True)
    (runs / "policy-500.hdf5").write_bytes(
        (trained[0] / "runs" / "quick" / "baseline-500.hdf5").read_bytes()
    )
    process = script("policy_500.py", "--quick", "--data", small_data, root=tmp_path)
    assert process.returncode == 1
    assert "policy-500.hdf5 holds another run" in process.stderr
    assert process.stderr.count("\n") == 1 and process.stdout == ""


@pytest.fixture
def recorded(tmp_path):
    """A root that holds recorded runs of all presets."""
    results = tmp_path / "reproduce" / "results"
    results.mkdir(parents=True)
    for name in PRESETS:
        records.write(results / f"{name}.hdf5", make_record(name))
    return tmp_path


def test_figures_redraws_from_the_recorded_runs(recorded):
    processes = []
    written = []
    for _ in range(2):
        processes.append(script("figures.py", root=recorded))
        assert processes[-1].returncode == 0, processes[-1].stderr
        written.append({p.name: p.read_bytes() for p in (recorded / "figures").iterdir()})
    assert written[0].keys() == {"table.md", "figure1.png", "figure1.pdf"}
    assert written[0] == written[1]
    assert written[0]["table.md"].decode() == processes[0].stdout
    runs = {name: make_record(name) for name in PRESETS}
    assert processes[0].stdout == claims.table({"recorded": runs})
    with Image.open(recorded / "figures" / "figure1.png") as image:
        assert image.width == 2000
    assert not (recorded / "runs").exists()


def test_figures_sets_seeds_side_by_side(recorded):
    results = recorded / "reproduce" / "results"
    for folder, name in (
        ("seed-2", "policy-500"),
        ("seed-10", "policy-500"),
        ("rerun", "baseline-500"),
    ):
        (results / folder).mkdir()
        (results / folder / f"{name}.hdf5").write_bytes((results / f"{name}.hdf5").read_bytes())
    process = script("figures.py", root=recorded)
    assert process.returncode == 0, process.stderr
    runs = {name: make_record(name) for name in PRESETS}
    name = "policy-500"
    columns = {
        "seed 1": runs,
        "seed 2": {name: runs[name]},
        "seed 10": {name: runs[name]},
        "rerun": {"baseline-500": runs["baseline-500"]},
    }
    assert (recorded / "figures" / "seeds.md").read_text() == claims.table(columns)
    heading = "mean ± standard deviation of seeds 1, 2, 10"
    columns = {"recorded": runs, heading: {name: [runs[name]] * 3}}
    assert process.stdout == claims.table(columns)


@pytest.mark.parametrize("missing", PRESETS)
def test_figures_names_the_record_that_is_missing(recorded, missing):
    (recorded / "reproduce" / "results" / f"{missing}.hdf5").unlink()
    process = script("figures.py", root=recorded)
    assert process.returncode == 1 and process.stdout == ""
    assert re.fullmatch(rf".*results/{missing}.hdf5 is missing: .*\n", process.stderr)
    assert not (recorded / "figures").exists()


@pytest.mark.parametrize(
    "path",
    sorted(path for path in SCRIPTS.glob("*.py") if "__main__" in path.read_text()),
    ids=lambda path: path.name,
)
def test_help_states_the_claim_and_hides_what_is_for_tests(path):
    process = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    assert process.returncode == 0
    assert process.stdout.split("\n\n")[1].startswith(("Section 4", "Reproduce", "Redraw"))
    assert "--quick" in process.stdout and "--root" not in process.stdout


def begin(tmp_path, cores=2, **behaviour):
    """Start run_all.py with the stand-in in a process group of its own."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return subprocess.Popen(
        [sys.executable, tmp_path / "stand_in.py", "--root", tmp_path],
        env=os.environ | {"CORES": str(cores)} | behaviour,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def beginnings(tmp_path):
    """Return {preset: (row, time, process)} of the presets whose training has begun."""
    found = {}
    for path in tmp_path.glob("*.began"):
        if len(words := path.read_text().split()) == 3:
            found[path.stem] = int(words[0]), float(words[1]), int(words[2])
    return found


def wait_for(tmp_path, *presets):
    """Wait until the training of all `presets` has begun."""
    deadline = time.monotonic() + 100
    while not beginnings(tmp_path).keys() >= set(presets):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process_id):
    """Whether a process is there."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("whom", "what"), [("group", signal.SIGINT), ("main", signal.SIGTERM)], ids=["Ctrl-C", "kill"]
)
def test_an_interrupt_saves_all_and_starts_nothing_more(tmp_path, whom, what):
    process = begin(tmp_path, policy_800_800="long", policy_500="long")
    wait_for(tmp_path, "policy-800-800", "policy-500")
    time.sleep(0.2)
    send = os.killpg if whom == "group" else os.kill
    send(process.pid, what)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # out of patience
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.startswith("Interrupted:") and err.count("\n") == 1
    saved = {path.stem for path in tmp_path.glob("*.saved")}
    assert saved == beginnings(tmp_path).keys() == {"policy-800-800", "policy-500"}
    assert not any(alive(process_id) for _, _, process_id in beginnings(tmp_path).values())
    assert not (tmp_path / "runs" / "figures").exists()


def test_ctrl_c_saves_the_last_run_while_other_workers_are_idle(tmp_path):
    process = begin(tmp_path, cores=3, policy_800_800="long")
    wait_for(tmp_path, *PRESETS)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("Interrupted:") and err.count("\n") == 1
    assert (tmp_path / "policy-800-800.saved").exists()


def test_ctrl_c_while_the_workers_start(tmp_path):
    process = begin(tmp_path, policy_800_800="long", policy_500="long")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs /proc to see the workers before they tell of themselves")
    while len(children.read_text().split()) < 3:  # two workers and multiprocessing's own helper
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("Interrupted:") and err.count("\n") == 1
    assert not beginnings(tmp_path)


@pytest.mark.parametrize(
    ("cores", "first", "last"), [(1, 1, 1), (2, 1, 2), (4, 1, 4), (9, 3, 4)], ids="1249"
)
def test_the_last_run_takes_over_the_cores_of_those_that_have_ended(tmp_path, cores, first, last):
    behaviour = {"policy_800_800": "outlast", "policy_500": "second", "baseline_500": "second"}
    process = begin(tmp_path, cores=cores, UNTIL=str(last), **behaviour)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    shares = (tmp_path / "policy-800-800.shares").read_text().split()
    assert (shares[0], shares[-1]) == (str(first), str(last))


def test_a_failure_lets_the_others_go_on_and_is_told_at_the_end(tmp_path):
    process = begin(tmp_path, policy_800_800="refuse")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "policy-800-800: the data is no good: mend it."
    assert "Traceback" not in err
    runs = {name: make_record(name) for name in ("policy-500", "baseline-500")}
    assert out == claims.table({"recorded": {}, "this run": runs})
    assert [path.name for path in (tmp_path / "runs" / "figures").iterdir()] == ["table.md"]


def test_a_run_of_all_leaves_the_recorded_figures_alone(recorded):
    assert script("figures.py", root=recorded).returncode == 0
    before = {path: path.read_bytes() for path in (recorded / "figures").iterdir()}
    process = begin(recorded)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert before == {path: path.read_bytes() for path in (recorded / "figures").iterdir()}
    own = recorded / "runs" / "figures"
    assert (own / "table.md").read_text() == out
    assert {path.name for path in own.iterdir()} == {"table.md", "figure1.png", "figure1.pdf"}


def test_a_killed_process_is_told_in_a_sentence(tmp_path):
    process = begin(tmp_path, policy_500="die")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "policy-500: its process was killed" in err and "Traceback" not in err


def test_a_defect_keeps_its_traceback(tmp_path):
    process = begin(tmp_path, policy_500="defect")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("cores", [1, 3])
def test_longest_first_and_a_row_for_each(tmp_path, cores):
    process = begin(tmp_path, cores=cores)
    process.communicate(timeout=60)
    assert process.returncode == 0
    began = beginnings(tmp_path)
    assert {row for row, _, _ in began.values()} <= set(range(cores))
    if cores == 1:
        order = sorted(began, key=lambda name: began[name][1])
        assert order == ["policy-800-800", "policy-500", "baseline-500"]
        assert len({process_id for _, _, process_id in began.values()}) == 1
