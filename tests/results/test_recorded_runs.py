"""The recorded models have their recorded test errors, on any processor.

Another processor rounds sums differently. That can change an example whose two best classes are
nearly equal, or a mask whose draw is nearly its probability.
"""

from functools import cache
from pathlib import Path

import pytest

from reinforce_dropout.results import provenance, records
from reinforce_dropout.running import datasets
from reinforce_dropout.running.evaluation import load_evaluation

RESULTS = Path(__file__).parents[2] / "reproduce" / "results"
FLIPPED_BY_ROUNDING = 3
"""Of 10 000 examples. CONTRIBUTING.md says how many have been seen."""

# Of every kind of network.
NAMES = (
    "baseline-500",
    "policy-500",
    "policy-800-800",
    "comparison/policy-800-800-total",
    "blocks/block-800-800",
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
    errors = load_evaluation(record)(mnist_test_set()).errors
    assert len(errors) == (1 if record.attributes["experiment"]["system"] == "plain" else 3)
    for rule, error in errors.items():
        curve = f"test_error_{rule}" if len(errors) > 1 else "test_error"
        recorded = record.curves[curve][record.best_epoch - 1]
        differing = round(len(mnist_test_set()) * abs(error - recorded))
        assert differing <= (0 if same else FLIPPED_BY_ROUNDING), rule
