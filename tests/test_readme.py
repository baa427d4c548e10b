"""What the README states of code and results is true."""

import re
from datetime import datetime
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from reinforce_dropout import claims, datasets, experiment, records, report
from reinforce_dropout.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "reproduce" / "results"
RECORDED = [RESULTS / f"{name}.hdf5" for name in experiment.PRESETS]


def test_table_is_that_of_the_recorded_runs():
    seeds = runs_of_seeds()
    heading = f"mean ± standard deviation of seeds {', '.join(map(str, seeds))}"
    means = {name: [runs[name] for runs in seeds.values()] for name in experiment.PRESETS}
    table = claims.table({"recorded": seeds[1], heading: means})
    assert (ROOT / "figures" / "table.md").read_text() == table
    assert table.rstrip() in README


def test_comparison_of_the_readings_is_that_of_the_recorded_runs():
    path = RESULTS / "comparison" / "policy-800-800-total.hdf5"
    total, score = records.read(path), records.read(path.parents[1] / "policy-800-800.hdf5")
    recorded = [experiment.Experiment.from_dict(r.attributes["experiment"]) for r in (score, total)]
    assert recorded[0].differences(recorded[1]) == {"kl_gradient": ("score", "total")}
    columns = {"score": {"policy-800-800": score}, "total": {"policy-800-800": total}}
    table = claims.table(columns, presets=("policy-800-800",))
    assert (ROOT / "figures" / "kl_gradient.md").read_text() == table
    assert table.split("\n\n")[0] in README


def test_error_with_the_averaged_loss_is_that_of_the_recorded_run():
    path = RESULTS / "comparison" / "baseline-500-mean.hdf5"
    record = records.read(path)
    recorded = experiment.Experiment.from_dict(record.attributes["experiment"])
    assert recorded.differences(experiment.preset("baseline-500")).keys() == {
        "loss_reduction",
        "n_epochs",
    }
    error, n_epochs = record.best_attributes["test_error"], len(record.curves["train_nll"])
    assert f"{100 * error:.2f} % test error after {n_epochs} epochs" in README


@cache
def runs_of_seeds():
    """Recorded runs of the presets, by seed."""
    folders = sorted(RESULTS.glob("seed-*"), key=lambda path: int(path.name.split("-")[1]))
    others = {int(path.name.split("-")[1]): sorted(path.glob("*.hdf5")) for path in folders}
    return {seed: report.read_by_preset(paths) for seed, paths in ({1: RECORDED} | others).items()}


@cache
def rerun():
    """Runs of the first seed by later kernels."""
    return report.read_by_preset(sorted((RESULTS / "rerun").glob("*.hdf5")))


def test_runs_side_by_side_are_of_the_same_settings():
    columns = {f"seed {seed}": runs for seed, runs in runs_of_seeds().items()} | {"rerun": rerun()}
    assert (ROOT / "figures" / "seeds.md").read_text() == claims.table(columns)
    for column, runs in columns.items():
        seed = 1 if column == "rerun" else int(column.removeprefix("seed "))
        assert runs.keys() == experiment.PRESETS.keys()
        for name, record in runs.items():
            recorded = experiment.Experiment.from_dict(record.attributes["experiment"])
            assert recorded.differences(experiment.preset(name).replace(seed=seed)) == {}
            assert record.attributes["status"] == "finished"
            assert re.fullmatch("[0-9a-f]{40}", record.attributes["git_commit"])


def minutes(runs):
    """Duration of one `make reproduce`, rounded."""
    began = min(datetime.fromisoformat(record.attributes["started"]) for record in runs.values())
    ended = max(datetime.fromisoformat(record.attributes["ended"]) for record in runs.values())
    return round((ended - began).total_seconds() / 60)


def test_durations_are_those_of_the_recorded_runs():
    a, b, c = (minutes(runs_of_seeds()[seed]) for seed in (2, 3, 4))
    assert f"{a}, {b} and {c} minutes with seeds 2, 3 and 4" in README.replace("\n", " ")
    seconds = [
        runs_of_seeds()[seed]["policy-800-800"].curves["epoch_seconds"].mean() for seed in (2, 3, 4)
    ]
    quoted = f"at the {min(seconds):.0f} to {max(seconds):.0f} seconds an epoch of the larger one"
    assert quoted in README.replace("\n", " ")
    assert rerun()["policy-800-800"].n_epochs * min(seconds) > 80 * 60


def test_epochs_with_and_without_policies_are_those_of_the_recorded_runs():
    seeds = runs_of_seeds()
    quoted = ", ".join(
        f"{seeds[seed]['policy-500'].best_epoch} and {seeds[seed]['baseline-500'].best_epoch} "
        f"with seed {seed}"
        for seed in (2, 3, 4)
    )
    assert quoted in README.replace("\n", " ")
    best, plain = seeds[1]["policy-500"].best_epoch, seeds[1]["baseline-500"].best_epoch
    assert f"With seed 1 it does not ({best} and {plain})" in README
    ends = " and ".join(str(seeds[seed]["baseline-500"].n_epochs) for seed in (2, 3))
    assert f"its patience ended after {ends} epochs" in README.replace("\n", " ")


def test_rerun_is_quoted_as_it_was():
    runs = rerun()
    for name in ("policy-500", "policy-800-800"):
        best = runs[name].best_attributes
        fractions = runs[name].curves["active_fraction"][best["epoch"] - 1]
        active = " and ".join(f"{100 * a:.1f}" for a in fractions)
        error, epoch = f"{100 * best['test_error']:.2f} %", best["epoch"]
        quoted = f"{error} test error at epoch {epoch}, with {active} % active"
        assert quoted in README.replace("\n", " ")
        assert f"takes the {runs[name].n_epochs} epochs" in README.replace("\n", " ")


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_runs_are_reruns_of_the_presets_from_a_clean_commit(path):
    record = records.read(path)
    name = record.attributes["experiment"]["name"]
    recorded = experiment.Experiment.from_dict(record.attributes["experiment"])
    assert recorded.differences(experiment.preset(name)).keys() <= {"seed"}
    assert record.checkpoint is None
    assert re.fullmatch("[0-9a-f]{40}", record.attributes["git_commit"])
    assert record.attributes["stopped_by"] == "patience"


def test_names_in_the_equation_table_exist():
    section = README.split("## Equation to code")[1].split("\n\n")[1]
    names = re.findall(r"`([\w.]+)`", "".join(row.split("|")[-2] for row in section.splitlines()))
    assert len(names) >= 14
    for name in names:
        module, *attributes = name.split(".")
        if module == "SigmoidBernoulliPolicy":
            module, attributes = "policy", [module, *attributes]
        found = import_module(f"reinforce_dropout.{module}")
        for attribute in attributes:
            found = getattr(found, attribute)


def test_commands_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)) <= set(targets)
    used = set(re.findall(r"reinforce-dropout (train|evaluate|show|presets|[a-z]+) ", README))
    assert used & set(main.commands) == used


def test_fields_in_the_table_of_open_questions_exist():
    section = README.split("## What the paper leaves open")[1].split("## ")[0]
    fields = re.findall(r"`(\w+)(?:=[^`]*)?`", section)
    assert len(fields) >= 12
    assert set(fields) <= {*experiment.Experiment().as_dict(), "Experiment"}


def test_tables_of_block_dropout_are_those_of_the_recorded_runs():
    assert (ROOT / "figures" / "block_dropout.md").read_text().rstrip() in README
    results = RESULTS / "blocks"
    block, uniform = (
        experiment.Experiment.from_dict(records.read(path).attributes["experiment"])
        for path in (results / "block-800-800.hdf5", results / "uniform-block-800-800.hdf5")
    )
    assert block.differences(experiment.preset("block-800-800")) == {}
    assert uniform.differences(block).keys() == {"name", "uniform", "initial_rate"}


@pytest.mark.parametrize("name", ["block_speedup", "training_speed"])
def test_targets_are_quoted_as_they_were_measured(name):
    """The first table of block_speedup.md; the list at the end of training_speed.md."""
    parts = (ROOT / "figures" / f"{name}.md").read_text().split("\n\n")
    (quoted,) = [part for part in parts if re.search("[:,] (not )?met", part)]
    assert quoted.rstrip() in README


def test_bytes_that_a_single_image_reads_are_those_of_the_cache_lines():
    """784-800-800-10 at 15 %, float32, lines of 16 numbers; rows of 800 and of 784 fill theirs."""
    rng, images = np.random.default_rng(0), datasets.load().test.images[:200]
    megabytes = 64e-6

    def lines(used):
        return used.reshape(-1, 16).any(axis=1).sum()

    dense, sparse = [], []
    for x in images != 0:
        u_1, u_2 = rng.random((2, 800)) < 0.15
        dense.append(megabytes * (800 // 16) * (x.sum() + 800 + 10))
        sparse.append(megabytes * (u_1.sum() * lines(x) + u_2.sum() * lines(u_1) + 10 * lines(u_2)))
    quoted = f"{np.mean(dense):.1f} of its 5 MB, by blocks {np.mean(sparse):.1f}"
    assert quoted in README.replace("\n", " ")
    assert np.mean(dense) < 5.1 * np.mean(sparse)
