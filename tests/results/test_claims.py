"""The table says what the records hold."""

import re

import numpy as np
import pytest
from made_records import make_record

from reinforce_dropout.errors import RecordError
from reinforce_dropout.results import claims, records
from reinforce_dropout.results.claims import QUICK_NOTE


def cells(text):
    """Return {claim: [paper, recorded, ...]} of a table."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


class TestTable:
    """The paper's statements beside our numbers."""

    @pytest.mark.parametrize(
        ("claim", "paper", "ours"),
        [
            ("baseline-500: test error", "1.7 %", "1.66 %"),
            ("baseline-500: epochs to the best model", "-", "2"),
            ("policy-500: test error", "2 %", "2.05 %"),
            ("policy-500: test error, expected masks", "-", "1.98 %"),
            ("policy-500: test error, thresholded masks", "-", "12.00 %"),
            ("policy-500: active units, first to best epoch",
             "10-15 % before training, about 30 % at the lowest test error", "12.2 to 32.6 %"),
            ("policy-500: entropy of the policy, first to best epoch", "-",
             "0.400 to 0.190 nats per unit"),
            ("policy-500: epochs to the best model", "more than without policies", "3"),
            ("policy-800-800: test error", "-", "2.50 %"),
            ("policy-800-800: active units of layer 1, gain from epoch 1 to 5",
             "layer 1 increases much faster than layer 2", "11.0 points"),
            ("policy-800-800: active units of layer 2, gain from epoch 1 to 5",
             "layer 1 increases much faster than layer 2", "-3.1 points"),
            ("policy-800-800: active units of layer 1, first to best epoch", "-", "12.0 to 30.1 %"),
            ("policy-800-800: active units of layer 2, first to best epoch", "-", "12.1 to 21.4 %"),
            ("policy-800-800: active units of layers 1 and 2 at epoch 50", "-", "35.2 and 26.1 %"),
            ("policy-800-800: active units of layers 1 and 2 at epoch 100", "-", "too few epochs"),
            ("policy-800-800: entropy of the first policy, first to best epoch", "decreases",
             "0.380 to 0.210 nats per unit"),
            ("policy-800-800: entropy of the second policy, first to best epoch", "-",
             "0.370 to 0.355 nats per unit"),
        ],
    )  # fmt: skip
    def test_numbers_to_the_digit(self, claim, paper, ours):
        runs = {
            "baseline-500": make_record("baseline-500", 3, 2),
            "policy-500": make_record("policy-500", 4, 3),
            "policy-800-800": make_record("policy-800-800", 50, 2),
        }
        runs["baseline-500"].best_attributes["test_error"] = 0.0166
        runs["policy-500"].best_attributes["test_error"] = 0.0205
        runs["policy-800-800"].best_attributes["test_error"] = 0.025
        runs["policy-500"].curves |= {
            "test_error": np.array([1, 1, 0.0205, 1]),
            "test_error_expected": np.array([1, 1, 0.0198, 1]),
            "test_error_thresholded": np.array([1, 1, 0.12, 1]),
            "active_fraction": np.array([[0.1216], [0.9], [0.3262], [0.8]]),
            "policy_entropy": np.array([[0.4], [0.9], [0.19], [0.8]]),
        }
        active, entropy = np.full((2, 50, 2), 0.8)
        active[[0, 1, 4, 49]] = [[0.12, 0.121], [0.3011, 0.2139], [0.23, 0.09], [0.352, 0.261]]
        entropy[:2] = [[0.38, 0.37], [0.21, 0.355]]
        runs["policy-800-800"].curves |= {"active_fraction": active, "policy_entropy": entropy}
        assert cells(claims.table({"recorded": runs}))[claim] == [paper, ours]
        assert cells(claims.table({"recorded": {}, "this run": runs}))[claim] == [
            paper,
            "not run",
            ours,
        ]

    def test_missing_presets_are_not_run(self):
        table = cells(
            claims.table({"recorded": {"policy-500": make_record("policy-500")}, "this run": {}})
        )
        assert {row[-1] for row in table.values()} == {"not run"}
        recorded = {claim: row[1] == "not run" for claim, row in table.items()}
        assert recorded == {claim: not claim.startswith("policy-500:") for claim in table}

    def test_every_claim_has_its_row_unless_left_out(self):
        assert len(cells(claims.table({"recorded": {}}))) == len(claims.CLAIMS)
        some = cells(claims.table({"recorded": {}}, presets=("policy-500",)))
        assert some.keys() == {
            c for c in cells(claims.table({"recorded": {}})) if c.startswith("policy-500:")
        }

    def test_unfinished_runs_are_marked_in_every_cell(self):
        table = claims.table(
            {"recorded": {"policy-500": make_record("policy-500", 12, 5, unfinished=True)}}
        )
        for claim, (_, ours) in cells(table).items():
            assert ours.endswith("(unfinished, epoch 12)") == claim.startswith("policy-500:")
        assert "- recorded, policy-500: seed 1, 12 epochs, unfinished.\n" in table

    def test_seed_length_and_deviations_are_named(self):
        run = make_record("policy-500", 4, 3, n_epochs=4, lam=0.5)
        run.attributes["seed"] = run.attributes["experiment"]["seed"] = 7
        runs = {"policy-500": run}
        table = claims.table(
            {"recorded": {"baseline-500": make_record("baseline-500")}, "this run": runs}
        )
        notes = [line for line in table.splitlines() if line.startswith("- ")]
        assert notes == [
            "- recorded, baseline-500: seed 1, 30 epochs, ended by early stopping.",
            "- this run, policy-500: seed 7, 4 epochs, ended by early stopping; "
            "n_epochs 4 instead of 1000; lam 0.5 instead of 0.0.",
        ]

    def test_another_seed_is_no_deviation(self):
        record = make_record("policy-500")
        record.attributes["experiment"]["seed"] = 2
        assert "instead of" not in claims.table({"recorded": {"policy-500": record}})

    def test_other_data_is_named_without_its_folder(self):
        record = make_record("policy-500", data="/home/someone/digits")
        table = claims.table({"recorded": {"policy-500": record}})
        assert "; data digits instead of mnist." in table and "someone" not in table

    def test_only_a_quick_table_says_so(self):
        assert QUICK_NOTE in claims.table({"recorded": {}, "this run": {}}, quick=True)
        assert QUICK_NOTE not in claims.table({"recorded": {}, "this run": {}})

    def test_is_well_formed_markdown(self):
        table = claims.table(
            {"recorded": {"policy-500": make_record("policy-500")}, "this run": {}}
        )
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1
        assert re.fullmatch(r"\| claim \| paper \| recorded \| this run \|", rows[0])


class TestSpread:
    """Mean and standard deviation over runs with several seeds."""

    def test_by_hand(self):
        runs = [make_record("policy-500", 4, best) for best in (2, 3, 4)]
        for run, error in zip(runs, (0.020, 0.022, 0.021), strict=True):
            run.best_attributes["test_error"] = error
            run.curves["active_fraction"] = np.array([[0.125], [0.30], [0.32], [0.37]])
        rows = cells(claims.table({"recorded": {}, "seeds": {"policy-500": runs}}))
        assert rows["policy-500: test error"][-1] == "2.10 ± 0.10 %"
        assert rows["policy-500: epochs to the best model"][-1] == "3 ± 1"
        active = rows["policy-500: active units, first to best epoch"][-1]
        assert active == "12.5 ± 0.0 to 33.0 ± 3.6 %"
        assert rows["baseline-500: test error"][-1] == "not run"

    def test_one_run_that_is_too_short(self):
        runs = [make_record("policy-800-800", length, 2) for length in (4, 5)]
        rows = cells(claims.table({"seeds": {"policy-800-800": runs}}))
        gain = "policy-800-800: active units of layer 1, gain from epoch 1 to 5"
        assert rows[gain][-1] == "too few epochs"

    def test_runs_are_described_where_they_stand_alone(self):
        run = make_record("policy-500")
        table = claims.table({"recorded": {"policy-500": run}, "seeds": {"policy-500": [run, run]}})
        assert [line for line in table.splitlines() if line.startswith("- ")] == [
            "- recorded, policy-500: seed 1, 30 epochs, ended by early stopping."
        ]


class TestReadByPreset:
    """Records found by the preset they are of."""

    def write(self, folder, *names):
        paths = [folder / f"{i}.hdf5" for i in range(len(names))]
        for path, name in zip(paths, names, strict=True):
            record = make_record("policy-500")
            record.attributes["experiment"]["name"] = name
            records.write(path, record)
        return paths

    def test_names(self, tmp_path):
        found = claims.read_by_preset(self.write(tmp_path, "policy-500", "baseline-500"))
        assert list(found) == ["policy-500", "baseline-500"]
        assert claims.needed(found, "baseline-500") == [found["baseline-500"]]

    def test_refuses_two_of_a_preset(self, tmp_path):
        paths = self.write(tmp_path, "policy-500", "policy-500")
        with pytest.raises(RecordError, match="1.hdf5 is the second record of policy-500"):
            claims.read_by_preset(paths)

    def test_refuses_what_is_no_preset(self, tmp_path):
        with pytest.raises(RecordError, match="experiment 'custom', .* name records of baseline"):
            claims.read_by_preset(self.write(tmp_path, "custom"))

    def test_needed_names_the_missing_one(self):
        with pytest.raises(RecordError, match="no record of policy-500"):
            claims.needed({"baseline-500": None}, "baseline-500", "policy-500")
