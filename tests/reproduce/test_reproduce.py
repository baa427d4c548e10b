"""The scripts of reproduce/, on a small data set or with a stand-in for the training."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_records import make_record
from PIL import Image

from reinforce_dropout.results import claims, records
from reinforce_dropout.results import figures as drawing
from reinforce_dropout.results.claims import PAPER
from reinforce_dropout.running.apart import Outcome
from reinforce_dropout.systems import from_dict, preset

SCRIPTS = Path(__file__).parents[2] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own

import again  # noqa: E402
import random_search  # noqa: E402
import run_all  # noqa: E402
import systems as systems_script  # noqa: E402

import figures  # noqa: E402


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
    folder = root / "runs" / "quick"
    runs = {name: records.read(folder / f"{name}-seed1.hdf5") for name in PAPER}
    for name, record in runs.items():
        assert record.attributes["status"] == "finished"
        assert record.attributes["n_threads"] == 1
        assert record.attributes["command"].startswith("python reproduce/run_all.py --root")
        trained = from_dict(record.attributes["experiment"])
        assert not preset(name).replace(n_epochs=3).differences(trained)
    assert printed == claims.table({"recorded": {}, "this run": runs}, quick=True)
    drawn = root / "runs" / "figures" / "quick"
    assert (drawn / "table.md").read_text() == printed
    assert {p.name for p in drawn.iterdir()} == {"table.md", "figure1.png", "figure1.pdf"}
    drawing.save_figure(
        drawing.figure1(runs["policy-500"], runs["policy-800-800"], quick=True), root / "again"
    )
    assert (root / "again.png").read_bytes() == (drawn / "figure1.png").read_bytes()


@pytest.fixture
def recorded(tmp_path):
    """A root that holds recorded runs of all presets."""
    results = tmp_path / "reproduce" / "results"
    results.mkdir(parents=True)
    for name in PAPER:
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
    runs = {name: make_record(name) for name in PAPER}
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
    runs = {name: make_record(name) for name in PAPER}
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


@pytest.mark.parametrize("missing", PAPER)
def test_figures_names_the_record_that_is_missing(recorded, missing):
    (recorded / "reproduce" / "results" / f"{missing}.hdf5").unlink()
    result = CliRunner().invoke(figures.main, ["--root", str(recorded)])
    assert result.exit_code == 1 and result.stdout == ""
    assert re.fullmatch(rf".*results/{missing}.hdf5 is missing: .*\n", result.stderr)
    assert not (recorded / "figures").exists()


@pytest.mark.parametrize(
    "name",
    sorted(path.stem for path in SCRIPTS.glob("*.py") if "__main__" in path.read_text()),
)
def test_help_states_the_claim_and_hides_what_is_for_tests(name):
    result = CliRunner().invoke(importlib.import_module(name).main, ["--help"])
    assert result.exit_code == 0
    claim = result.stdout.split("\n\n")[1].strip()
    assert claim.startswith(("Section 4", "Reproduce", "Redraw", "Time", "Write", "Fit"))
    assert "--root" not in result.stdout


@pytest.fixture
def run(monkeypatch):
    """Return ``run(root, *options, **how)``: run_all.py with a stand-in for the sweep.

    How the runs of presets end is told by name; all others finish. ``script`` is another script.
    """

    def run(root, *options, script=run_all, **how):
        def sweep(runs, folder, **_):
            folder.mkdir(parents=True, exist_ok=True)
            outcomes = {}
            for planned in runs:
                outcome = Outcome(*how.get(planned.preset.replace("-", "_"), ("finished",)))
                if outcome.how == "finished":
                    chosen = {k: v for k, v in planned.settings.items() if k != "seed"}
                    seed = planned.experiment().seed
                    record = make_record(planned.preset, seed=seed, **chosen)
                    record.attributes["seed"] = seed
                    records.write(folder / f"{planned.name}.hdf5", record)
                outcomes[planned.name] = outcome
            return outcomes

        for module in (script, again):
            monkeypatch.setattr(module, "sweep", sweep, raising=False)
        return CliRunner().invoke(script.main, ["--root", str(root), *options])

    return run


def test_another_seed_goes_to_folders_of_its_own(run, tmp_path):
    result = run(tmp_path, "--seed", "2", "--quick")
    assert result.exit_code == 0, result.output
    found = {path.relative_to(tmp_path / "runs").as_posix() for path in tmp_path.rglob("*.*")}
    names = {f"quick-seed-2/{name}-seed2.hdf5" for name in PAPER}
    drawn = {f"figures/quick-seed-2/{name}" for name in ("table.md", "figure1.png", "figure1.pdf")}
    assert found == names | drawn


def test_a_failure_lets_the_others_be_reported_and_is_told_at_the_end(run, tmp_path):
    result = run(tmp_path, policy_800_800=("failed", "the data is no good: correct it."))
    assert result.exit_code == 1
    told = "policy-800-800-seed1: the data is no good: correct it."
    assert result.stderr.splitlines()[-1] == told
    runs = {name: make_record(name, seed=1) for name in ("policy-500", "baseline-500")}
    assert result.stdout == claims.table({"recorded": {}, "this run": runs})
    assert [path.name for path in (tmp_path / "runs" / "figures").iterdir()] == ["table.md"]


def test_an_interrupt_is_told_and_draws_nothing(run, tmp_path):
    result = run(tmp_path, policy_500=("interrupted",))
    assert result.exit_code == 130 and result.stdout == ""
    assert result.stderr.startswith("Interrupted:") and result.stderr.count("\n") == 1
    assert not (tmp_path / "runs" / "figures").exists()


@pytest.mark.parametrize("name", ["ledger", "tradeoff"])
def test_a_sweep_again_ends_in_its_own_table_and_figure(run, name, tmp_path):
    result = run(tmp_path, name, "--quick", script=again)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "figures" / "quick"
    assert {path.name for path in folder.iterdir()} == {f"{name}.{s}" for s in ("md", "png", "pdf")}
    assert result.stdout == (folder / f"{name}.md").read_text()
    assert "Not run yet" not in result.stdout
    result = run(tmp_path / "other", name, script=again, policy_500=("failed", "no data: add it."))
    assert result.exit_code == 1
    assert all(line.endswith(": no data: add it.") for line in result.stderr.splitlines())
    assert "policy-500" in result.stdout.partition("Not run yet")[2]
    result = run(tmp_path / "third", name, script=again, policy_500=("interrupted",))
    assert result.exit_code == 130 and result.stdout == ""


def test_a_random_search_trains_its_choice_again(run, tmp_path):
    result = run(tmp_path, "--quick", script=random_search)
    assert result.exit_code == 0, result.output
    (runs,) = (tmp_path / "runs").glob("quick/random_search")
    names = [path.stem for path in runs.iterdir()]
    assert sum(name.endswith("-seed7") for name in names) == 24
    again = [name for name in names if not name.endswith("-seed7")]
    assert sorted(name for name in again if "rate" not in name) == [
        f"policy-500-seed{seed}" for seed in random_search.FRESH_SEEDS
    ]
    assert len(again) == 6
    assert "| the preset | 71, 72, 73 |" in result.stdout and "All 24 trials" in result.stdout


def test_dasnet_is_compared_with_the_network_that_it_steers(run, monkeypatch, tmp_path):
    """Its sweep comes last, and each seed has a network of its own."""

    def compare(path, other, test):
        steered, frozen = (records.read(p).attributes for p in (path, other))
        named = steered["experiment"]["cnn"].replace("{seed}", str(steered["seed"]))
        assert named == str(other) and frozen["experiment"]["system"] == "cnn"
        assert len(test.images) == 10_000
        return {"only": steered["seed"], "only_other": 2, "p": 0.5}

    monkeypatch.setattr(systems_script, "compare", compare)
    result = run(tmp_path, "--quick", script=systems_script)
    assert result.exit_code == 0, result.output
    assert "Not run yet" not in result.stdout
    paths = list((tmp_path / "runs").glob("quick/systems/*.hdf5"))
    lengths = {p.stem: records.read(p).attributes["experiment"]["n_epochs"] for p in paths}
    assert {"dasnet-seed21", "sts-2000-n_epochs=200-seed21"} <= lengths.keys()
    assert set(lengths.values()) == {3}, "--quick holds for all runs, even if the grid has a length"
    for seed in systems_script.SEEDS:
        assert (
            f"dasnet, seed {seed}, beside its frozen network: {seed} of the test" in result.stdout
        )
    result = run(tmp_path / "other", script=systems_script, dasnet=("failed", "no: mend it."))
    assert result.exit_code == 1 and "dasnet-seed21: no: mend it." in result.stderr


def test_a_run_of_all_leaves_the_recorded_figures_alone(run, recorded):
    assert script("figures.py", root=recorded).returncode == 0
    before = {path: path.read_bytes() for path in (recorded / "figures").iterdir()}
    result = run(recorded)
    assert result.exit_code == 0, result.output
    assert before == {path: path.read_bytes() for path in (recorded / "figures").iterdir()}
    own = recorded / "runs" / "figures"
    assert (own / "table.md").read_text() == result.stdout
    assert {path.name for path in own.iterdir()} == {"table.md", "figure1.png", "figure1.pdf"}
