"""The table of the runs in a folder."""

import csv

import numpy as np
import pytest
from click.testing import CliRunner
from made_records import make_record

from reinforce_dropout.cli import main
from reinforce_dropout.results import records, summary


@pytest.fixture
def folder(tmp_path):
    """Two settings with seeds 1 and 2, one run unfinished, and one of a plain network."""
    for lam, seed, status in (
        (0.0, 1, "finished"),
        (0.0, 2, "finished"),
        (0.5, 1, "finished"),
        (0.5, 2, "unfinished"),
    ):
        record = make_record("policy-500", length=5, best=3)
        record.attributes["experiment"] |= {"lam": lam, "seed": seed}
        record.attributes |= {"seed": seed, "status": status}
        record.best_attributes |= {"test_error": 0.01 * seed, "valid_error": 0.02}
        record.curves["active_fraction"][2] = 0.1 * seed
        records.write(tmp_path / f"policy-{lam}-{seed}.hdf5", record)
    plain = make_record("baseline-500", length=5, best=3)
    records.write(tmp_path / "plain.hdf5", plain)
    return tmp_path


def summarize(*arguments):
    return CliRunner().invoke(main, ["summarize", *map(str, arguments)])


def test_markdown_has_a_row_for_each_setting(folder):
    result = summarize(folder)
    assert result.exit_code == 0
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in result.output.splitlines()
    ]
    at = header.index("seeds")
    assert header[0] == "preset" and "lam" in header[:at] and "seed" not in header
    by_setting = {(row[0], row[header.index("lam")], row[at]): row[at + 1 :] for row in rows}
    spread = f"1.50 ± {100 * np.std([0.01, 0.02], ddof=1):.2f} %"
    assert by_setting["policy-500", "0.0", "1, 2"] == ["3 ± 0", "2.00 ± 0.00 %", spread] + [
        f"15.0 ± {100 * np.std([0.1, 0.2], ddof=1):.1f} %"
    ]
    assert by_setting["policy-500", "0.5", "1"] == ["3", "2.00 %", "1.00 %", "10.0 %"]
    assert by_setting["policy-500", "0.5", "2 (unfinished)"][2:] == ["2.00 %", "20.0 %"]
    assert by_setting["baseline-500", "", "1"][-1] == "all"
    assert len(by_setting) == 4


def test_csv_has_a_row_for_each_run(folder):
    result = summarize(folder, "--format", "csv")
    assert result.exit_code == 0
    rows = {row["file"]: row for row in csv.DictReader(result.output.splitlines())}
    assert rows.keys() == {path.name for path in folder.glob("*.hdf5")}
    row = rows["policy-0.5-2.hdf5"]
    wanted = {"lam": "0.5", "seed": "2", "status": "unfinished", "epochs": "5", "best_epoch": "3"}
    assert wanted.items() <= row.items()
    assert float(row["test_error"]) == 0.02 and float(row["active_fraction_1"]) == 0.2
    assert rows["plain.hdf5"]["active_fraction_1"] == ""


def test_a_damaged_file_is_told_and_hides_no_other(folder):
    (folder / "damaged.hdf5").write_bytes(b"no")
    result = summarize(folder)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 6
    assert result.stderr.count("\n") == 1 and "damaged.hdf5" in result.stderr


def test_a_folder_without_records(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        result = summarize(folder)
        assert result.exit_code == 1 and result.stdout == ""
        assert result.stderr.count("\n") == 1 and "there are no records" in result.stderr


def test_a_record_with_curves_only_is_summarized_alike(folder):
    before = summarize(folder).output
    for path in folder.glob("*.hdf5"):
        record = records.read(path)
        if record.attributes["status"] == "finished":
            records.write(path, record.curves_only())
    assert summarize(folder).output == before


def test_read_leaves_out_a_run_without_epochs(folder):
    record = make_record("policy-500", length=5, best=3)
    empty = records.Record(
        record.attributes | {"status": "unfinished"},
        {name: curve[:0] for name, curve in record.curves.items()},
        {}, {}, {}, {},
    )  # fmt: skip
    records.write(folder / "empty.hdf5", empty)
    runs, troubles = summary.read(folder)
    assert "empty.hdf5" not in runs and not troubles
