"""Every public function has an example in its docstring, and the examples are right."""

import doctest
import importlib
import inspect

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import AS_WRITTEN

import reinforce_dropout

NAMES = {"np": np, "pt": pt, "pytensor": pytensor}
"""What examples need not import."""
PAPER = reinforce_dropout._MODULES
OTHERS = (
    "results.plots", "results.records", "running.datasets", "running.early_stopping",
    "running.evaluation", "running.participation", "running.prediction", "running.training",
    "sklearn", "systems", "systems.settings",
)  # fmt: skip
"""Modules of which some names are public."""


def public(module):
    """Return the functions that a module of the paper defines for others."""
    return [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


@pytest.mark.parametrize("name", [*PAPER, *OTHERS])
def test_examples(name, tmp_path, monkeypatch):
    if name == "sklearn":
        pytest.importorskip("sklearn")
    module = importlib.import_module(f"reinforce_dropout.{name}")
    monkeypatch.chdir(tmp_path)
    with pytensor.config.change_flags(mode=AS_WRITTEN, cxx=""):
        failed, _ = doctest.testmod(module, extraglobs=NAMES)
    assert failed == 0


@pytest.mark.parametrize("name", PAPER)
def test_every_function_of_the_paper_has_an_example(name):
    module = importlib.import_module(f"reinforce_dropout.{name}")
    assert [f.__name__ for f in public(module) if ">>> " not in f.__doc__] == []


@pytest.mark.parametrize("name", sorted(set(reinforce_dropout.__all__) - set(PAPER) - {"PRESETS"}))
def test_every_name_of_the_package_has_an_example(name):
    assert ">>> " in getattr(reinforce_dropout, name).__doc__
