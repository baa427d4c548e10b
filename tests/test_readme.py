"""What the README states of code and results is true."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from reinforce_dropout import experiment, records, report
from reinforce_dropout.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RECORDED = sorted((ROOT / "reproduce" / "results").glob("*.hdf5"))


def test_table_is_that_of_the_recorded_runs():
    table = report.table(report.read_by_preset(RECORDED))
    assert (ROOT / "figures" / "table.md").read_text() == table
    assert table.rstrip() in README


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_runs_are_reruns_of_the_presets_from_a_clean_commit(path):
    record = records.read(path)
    name = record.attributes["experiment"]["name"]
    recorded = experiment.Experiment.from_dict(record.attributes["experiment"])
    assert recorded.differences(experiment.preset(name)).keys() <= {"seed"}
    assert record.attributes["status"] == "finished" and record.checkpoint is None
    assert record.attributes["stopped_by"] == "patience"
    assert re.fullmatch("[0-9a-f]{40}", record.attributes["git_commit"])


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
    assert set(re.findall(r"make ([a-z-]+)", README)) <= set(targets)
    used = set(re.findall(r"reinforce-dropout (train|evaluate|show|presets|[a-z]+) ", README))
    assert used & set(main.commands) == used


def test_fields_in_the_table_of_open_questions_exist():
    section = README.split("## What the paper leaves open")[1].split("## ")[0]
    fields = re.findall(r"`(\w+)(?:=[^`]*)?`", section)
    assert len(fields) >= 12
    assert set(fields) <= {*experiment.Experiment().as_dict(), "Experiment"}
