"""The script on the accuracy of block dropout compares like with like."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from made_records import make_record

SCRIPTS = Path(__file__).parents[2] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own

import block_dropout  # noqa: E402

from reinforce_dropout import systems  # noqa: E402
from reinforce_dropout.results import records  # noqa: E402


@pytest.fixture
def block():
    """A run whose best epoch, the third, had 20 and 8 % of the units active."""
    record = make_record("policy-800-800", length=5, best=3)
    record.curves["active_fraction"][2] = 0.2, 0.08
    return record


def test_uniform_rate_is_the_mean_of_the_best_epoch(block):
    uniform = block_dropout.uniform(block)
    assert uniform.differences(systems.preset("block-800-800")).keys() == {
        "name",
        "gate",
        "initial_rate",
    }
    assert uniform.gate == "uniform" and uniform.initial_rate == 0.14


def test_dense_network_has_as_many_units_as_were_active(block):
    dense = block_dropout.dense(block)
    assert dense.n_units == (160, 64) and dense.system == "plain"


def test_table_is_redrawn_from_the_recorded_runs(block, tmp_path):
    options = Namespace(root=tmp_path, quick=False, seed=1)
    block_dropout.redraw(options)
    assert not (tmp_path / "figures").exists()  # nothing is recorded yet
    plain = make_record("baseline-500", length=5, best=3, n_units=(160, 64))
    results = tmp_path / "reproduce" / "results"
    (results / "blocks").mkdir(parents=True)
    for name in block_dropout.NAMES:
        records.write(
            results / "blocks" / f"{name}.hdf5", plain if name == block_dropout.NAMES[2] else block
        )
    records.write(results / "policy-800-800.hdf5", block)
    block_dropout.redraw(options)
    rows = (tmp_path / "figures" / "block_dropout.md").read_text().splitlines()[2:]
    assert len(rows) == 4
    error = f"{100 * np.float64(block.best_attributes['test_error']):.2f} %"
    assert rows[0].startswith("| block-800-800 (800-800) | 14.0 % (20.0, 8.0) | 50.00 % |")
    assert error in rows[0] and "3 of 5" in rows[0]
    sampled, expected = (
        f"{100 * block.curves[f'test_error_{rule}'][2]:.2f} %" for rule in ("sampled", "expected")
    )
    assert sampled != expected
    assert f"| {expected} | 3 of 5 |" in rows[0]
    plain_error = f"{100 * plain.curves['test_error'][2]:.2f} %"
    assert f"| {plain_error} | 3 of 5 |" in rows[2]
    assert "dense-as-active (160-64) | all |" in rows[2]
