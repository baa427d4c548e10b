"""The tables of the README and of figures/ are those of the recorded runs."""

import re
import sys
from functools import cache
from pathlib import Path

import pytest

from reinforce_dropout import systems
from reinforce_dropout.results import claims, records

sys.path.append(str(Path(__file__).parents[2] / "reproduce"))

from block_dropout import NAMES, PER_INSTANCE, table  # noqa: E402

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "reproduce" / "results"
RECORDED = [RESULTS / f"{name}.hdf5" for name in claims.PAPER]


def test_table_is_that_of_the_recorded_runs():
    seeds = runs_of_seeds()
    heading = f"mean ± standard deviation of seeds {', '.join(map(str, seeds))}"
    means = {name: [runs[name] for runs in seeds.values()] for name in claims.PAPER}
    text = claims.table({"recorded": seeds[1], heading: means})
    assert (ROOT / "figures" / "table.md").read_text() == text
    columns = {"recorded": seeds[1], heading: means}
    assert f"make figures` -->\n{claims.stated(columns)}<!-- /claims -->" in README


def test_comparison_of_the_readings_is_that_of_the_recorded_runs():
    path = RESULTS / "comparison" / "policy-800-800-total.hdf5"
    total, score = records.read(path), records.read(RESULTS / "policy-800-800.hdf5")
    recorded = [systems.from_dict(r.attributes["experiment"]) for r in (score, total)]
    assert recorded[0].differences(recorded[1]) == {"kl_gradient": ("score", "total")}
    columns = {"score": {"policy-800-800": score}, "total": {"policy-800-800": total}}
    text = claims.table(columns, presets=("policy-800-800",))
    assert (ROOT / "figures" / "kl_gradient.md").read_text() == text


@cache
def runs_of_seeds():
    """Recorded runs of the presets, by seed."""
    folders = sorted(RESULTS.glob("seed-*"), key=lambda path: int(path.name.split("-")[1]))
    others = {int(path.name.split("-")[1]): sorted(path.glob("*.hdf5")) for path in folders}
    return {seed: claims.read_by_preset(paths) for seed, paths in ({1: RECORDED} | others).items()}


@cache
def rerun():
    """Runs of the first seed by later kernels."""
    return claims.read_by_preset(sorted((RESULTS / "rerun").glob("*.hdf5")))


def test_runs_side_by_side_are_of_the_same_settings():
    columns = {f"seed {seed}": runs for seed, runs in runs_of_seeds().items()} | {"rerun": rerun()}
    assert (ROOT / "figures" / "seeds.md").read_text() == claims.table(columns)
    for column, runs in columns.items():
        seed = 1 if column == "rerun" else int(column.removeprefix("seed "))
        assert runs.keys() == set(claims.PAPER)
        for name, record in runs.items():
            recorded = systems.from_dict(record.attributes["experiment"])
            assert recorded.differences(systems.preset(name).replace(seed=seed)) == {}
            assert record.attributes["status"] == "finished"
            assert re.fullmatch("[0-9a-f]{40}", record.attributes["git_commit"])


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_runs_are_reruns_of_the_presets_from_a_clean_commit(path):
    record = records.read(path)
    name = record.attributes["experiment"]["name"]
    recorded = systems.from_dict(record.attributes["experiment"])
    assert recorded.differences(systems.preset(name)).keys() <= {"seed"}
    assert record.checkpoint is None
    assert re.fullmatch("[0-9a-f]{40}", record.attributes["git_commit"])
    assert record.attributes["stopped_by"] == "patience"


def test_tables_of_block_dropout_are_those_of_the_recorded_runs():
    runs = {name: records.read(RESULTS / "blocks" / f"{name}.hdf5") for name in NAMES}
    runs[PER_INSTANCE] = records.read(RESULTS / f"{PER_INSTANCE}.hdf5")
    assert (ROOT / "figures" / "block_dropout.md").read_text() == table(runs)
    results = RESULTS / "blocks"
    block, uniform = (
        systems.from_dict(records.read(path).attributes["experiment"])
        for path in (results / "block-800-800.hdf5", results / "uniform-block-800-800.hdf5")
    )
    assert block.differences(systems.preset("block-800-800")) == {}
    assert uniform.differences(block).keys() == {"name", "gate", "initial_rate"}
    assert uniform.differences(systems.preset("uniform-block-800-800")) == {}
