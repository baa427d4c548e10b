"""Systems: one file each, with its settings, how it is built, and its presets.

A system is a module with

- ``Settings``, which extends `settings.Experiment`, and ``PRESETS``, a tuple of them;
- ``TRAINING`` and ``PREDICTION``: tables from the name of an execution to
  ``build(settings, image_shape, n_classes) -> System``. Every system has the execution "dense".
"""

from typing import Any

from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.systems import (
    block_policy,
    cnn,
    condnet,
    dasnet,
    dropout,
    dsnn,
    plain,
    policy,
    second_look,
    standout,
    stochastic_neurons,
)
from reinforce_dropout.systems.settings import Experiment
from reinforce_dropout.systems.system import System

__all__ = [
    "PRESETS", "SYSTEMS", "Experiment", "System", "build_for_prediction", "build_for_training",
    "from_dict", "preset",
]  # fmt: skip

SYSTEMS = {
    module.Settings.system: module
    for module in (
        plain,
        policy,
        block_policy,
        standout,
        dropout,
        stochastic_neurons,
        condnet,
        dsnn,
        cnn,
        dasnet,
        second_look,
    )
}
"""All systems by name."""

PRESETS: dict[str, Experiment] = {p.name: p for module in SYSTEMS.values() for p in module.PRESETS}
"""Experiments with chosen settings, by name."""


def preset(name: str) -> Experiment:
    """Return the preset called `name`.

    Raises
    ------
    ExperimentError
        There is no such preset.

    Examples
    --------
    >>> preset("policy-800-800").n_units
    (800, 800)
    """
    if name not in PRESETS:
        raise ExperimentError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}.")
    return PRESETS[name]


def from_dict(fields: dict[str, Any]) -> Experiment:
    """Return an experiment from the result of `Experiment.as_dict`.

    Raises
    ------
    ExperimentError
        The system is unknown, it lacks a field, or a value is not allowed.
    """
    fields = dict(fields)
    name = fields.pop("system", None)
    if name not in SYSTEMS:
        raise ExperimentError(
            f"there is no system {name!r}; the systems are {', '.join(SYSTEMS)}: "
            "upgrade reinforce-dropout, or use the program that wrote it."
        )
    return SYSTEMS[name].Settings().replace(**fields)


def build_for_training(experiment, image_shape, n_classes, execution="dense"):
    """Build a system with its initial parameters.

    Parameters
    ----------
    experiment : Experiment
    image_shape : tuple of int
    n_classes : int
    execution : str
        A key of the system's ``TRAINING``: how the training step is computed. Others are refused.
    """
    builds = SYSTEMS[experiment.system].TRAINING
    return _build(builds, experiment, image_shape, n_classes, execution, "trains")


def build_for_prediction(experiment, image_shape, n_classes, execution="dense", instances=None):
    """Build a system for passes of a trained model.

    Parameters
    ----------
    experiment, image_shape, n_classes
        As for `build_for_training`.
    execution : str
        A key of the system's ``PREDICTION``: how the passes are computed. Others are refused.
    instances : int, optional
        Neighbouring examples that share a decision; by default as in training.
    """
    own = execution in SYSTEMS[experiment.system].PREDICTION
    if instances is not None or (execution == "block-sparse" and not own):
        experiment = block_policy.in_blocks(experiment, instances)
    builds = SYSTEMS[experiment.system].PREDICTION
    return _build(builds, experiment, image_shape, n_classes, execution, "predicts")


def _build(builds, experiment, image_shape, n_classes, execution, verb):
    if execution not in builds:
        raise ExperimentError(
            f"the system {experiment.system} {verb} with the execution {' or '.join(builds)}, "
            f"not {execution!r}."
        )
    return builds[execution](experiment, image_shape, n_classes)
