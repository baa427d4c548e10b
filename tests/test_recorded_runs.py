"""The recorded models have their recorded test errors, on any processor.

Sums round otherwise on another processor. An example whose two best classes are nearly equal, or a
mask whose draw is nearly its probability, can then come out otherwise.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from reinforce_dropout import datasets, provenance, records
from reinforce_dropout.evaluation import load_evaluation

RESULTS = Path(__file__).parents[1] / "reproduce" / "results"
FLIPPED_BY_ROUNDING = 3
"""Of 10 000 examples; what has been seen is in CONTRIBUTING.md."""

# Of every kind of network; all of them would take minutes on a slow machine.
NAMES = (
    "baseline-500",
    "policy-500",
    "policy-800-800",
    "comparison/policy-800-800-total",
    "blocks/block-800-800",
    "seed-2/policy-500",
    "seed-3/policy-800-800",
    "seed-4/baseline-500",
)
PROCESSOR = ("processor", "cpu_features", "vector_bytes")


@cache
def mnist_test_set():
    return datasets.load().test


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_model_has_its_recorded_errors(name):
    record = records.read(RESULTS / f"{name}.hdf5")
    here = provenance.collect(["pytest"])
    same = all(record.attributes.get(fact) == here.get(fact) for fact in PROCESSOR)
    recorded = record.curves["test_error"][record.best_epoch - 1]
    errors = load_evaluation(record)(mnist_test_set()).errors
    differing = np.abs(np.rint(len(mnist_test_set()) * (errors - recorded)))
    assert differing.max() <= (0 if same else FLIPPED_BY_ROUNDING)
