"""The figure shows, and the table says, what the records hold."""

import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from reinforce_dropout import records, report
from reinforce_dropout.errors import RecordError, ReinforceDropoutError
from reinforce_dropout.experiment import PRESETS
from reinforce_dropout.records import Record


def make_record(preset, length=30, best=20, seed=0, unfinished=False, data="mnist", **changes):
    """Return a record with random curves, every number of which is different."""
    rng = np.random.default_rng(seed)
    experiment = PRESETS[preset].replace(**changes)
    curves = {"train_nll": rng.random(length), "epoch_seconds": rng.random(length)}
    errors_shape = (length, 3) if experiment.policy else (length,)
    curves |= {f"{part}_error": rng.random(errors_shape) for part in ("valid", "test")}
    if experiment.policy:
        shape = (length, experiment.n_layers)
        curves |= {"active_fraction": rng.random(shape), "policy_entropy": rng.random(shape)}
    attributes = {
        "experiment": experiment.as_dict(),
        "versions": {},
        "seed": experiment.seed,
        "status": "unfinished" if unfinished else "finished",
        "stopped_by": "" if unfinished else "patience",
        "data": data,
        "n_threads": 1,
    }
    attributes |= dict.fromkeys(
        ("data_sha256", "backend", "command", "git_commit", "host_cpu", "started", "ended"), ""
    )
    test_error = float(curves["test_error"][best - 1].flat[0])
    best_attributes = {"epoch": best, "valid_error": 0.5, "test_error": test_error}
    return Record(attributes, curves, {"b_1": np.zeros(2)}, best_attributes)


@pytest.fixture
def policies():
    """Return runs of both networks with policies, of different lengths."""
    return make_record("policy-500", 50, 31, seed=1), make_record("policy-800-800", 40, 7, seed=2)


def curves_of(axes):
    """Return {label: line} of the lines that show a curve."""
    return {line.get_label(): line for line in axes.lines if "policy" in line.get_label()
            or "layer" in line.get_label()}  # fmt: skip


def best_points(axes):
    """Return the set of points (x, y) at which a diamond stands."""
    diamonds = [line for line in axes.lines if line.get_marker() == "D" and len(line.get_xdata())]
    return {(line.get_xdata()[0], line.get_ydata()[0]) for line in diamonds}


def shown(policies):
    """Return for each panel {label: (curve, best epoch)} as the records have them."""
    one, two = policies
    active_1, active_2 = (100 * r.curves["active_fraction"] for r in policies)
    entropy_1, entropy_2 = (r.curves["policy_entropy"] for r in policies)
    best_1, best_2 = (r.best_attributes["epoch"] for r in policies)
    return [
        {"hidden layer": (active_1[:, 0], best_1)},
        {"layer 1": (active_2[:, 0], best_2), "layer 2": (active_2[:, 1], best_2)},
        {
            "first policy of 800-800": (entropy_2[:, 0], best_2),
            "second policy of 800-800": (entropy_2[:, 1], best_2),
            "policy of 500": (entropy_1[:, 0], best_1),
        },
    ]


@pytest.mark.parametrize("panel", range(3))
class TestFigure1Panels:
    """What each panel shows."""

    def test_lines_equal_the_record(self, policies, panel):
        axes = report.figure1(*policies).axes[panel]
        expected = shown(policies)[panel]
        lines = curves_of(axes)
        assert lines.keys() == expected.keys()
        for label, (values, _) in expected.items():
            np.testing.assert_array_equal(lines[label].get_ydata(), values)
            np.testing.assert_array_equal(lines[label].get_xdata(), np.arange(len(values)) + 1)

    def test_best_epoch_is_marked_on_every_line(self, policies, panel):
        axes = report.figure1(*policies).axes[panel]
        expected = {(best, values[best - 1]) for values, best in shown(policies)[panel].values()}
        assert best_points(axes) == expected

    def test_labels_units_and_legend(self, policies, panel):
        axes = report.figure1(*policies).axes[panel]
        assert axes.get_xlabel() == "epoch"
        unit = ["active units (%)", "active units (%)", "entropy (nats per unit)"][panel]
        assert axes.get_ylabel() == unit
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        best = ["lowest validation error (epoch 31)", "lowest validation error (epoch 7)",
                "lowest validation error"][panel]  # fmt: skip
        assert legend == [*shown(policies)[panel], best]

    def test_all_points_lie_inside(self, policies, panel):
        axes = report.figure1(*policies).axes[panel]
        assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0, 0)
        for line in axes.lines:
            assert max(line.get_xdata(), default=0) <= axes.get_xlim()[1]
            assert max(line.get_ydata(), default=0) <= axes.get_ylim()[1]

    def test_readable_without_colour(self, policies, panel):
        lines = curves_of(report.figure1(*policies).axes[panel]).values()
        assert len({str(line._unscaled_dash_pattern) for line in lines}) == len(lines)


@pytest.mark.parametrize(("n_500", "n_800"), [(1, 1), (2, 3), (1000, 1000)])
def test_nothing_overlaps(n_500, n_800):
    figure = report.figure1(
        make_record("policy-500", n_500, n_500), make_record("policy-800-800", n_800, 1), True
    )
    figure.draw_without_rendering()
    boxes = [figure._suptitle.get_window_extent()]
    for axes in figure.axes:
        inside = axes.patch.get_window_extent()
        legend = axes.get_legend().get_window_extent()
        assert not inside.overlaps(legend)
        assert not axes.xaxis.label.get_window_extent().overlaps(legend)
        boxes.append(axes.get_tightbbox())
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


@pytest.mark.parametrize(("n_epochs", "visible"), [(1, True), (3, True), (1000, False)])
def test_few_epochs_are_shown_as_points(n_epochs, visible):
    figure = report.figure1(
        make_record("policy-500", n_epochs, 1), make_record("policy-800-800", n_epochs, 1)
    )
    for axes in figure.axes:
        assert {line.get_markersize() > 0 for line in curves_of(axes).values()} == {visible}
        assert all(tick == int(tick) for tick in axes.get_xticks())


def test_activations_share_a_scale(policies):
    a, b, _ = report.figure1(*policies).axes
    assert a.get_ylim() == b.get_ylim()


def test_only_a_quick_figure_says_so(policies):
    assert report.figure1(*policies)._suptitle is None
    assert report.figure1(*policies, quick=True)._suptitle.get_text() == report.QUICK_NOTE


def test_the_users_matplotlib_settings_do_not_matter(policies, tmp_path):
    report.save_figure(report.figure1(*policies), tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "savefig.dpi": 30}):
        report.save_figure(report.figure1(*policies), tmp_path / "changed")
    for kind in ("png", "pdf"):
        plain, changed = ((tmp_path / f"{s}.{kind}").read_bytes() for s in ("plain", "changed"))
        assert plain == changed


@pytest.mark.parametrize("swapped", [("policy-800-800", "policy-500"),
                                     ("baseline-500", "policy-800-800")])  # fmt: skip
def test_figure1_refuses_the_wrong_network(swapped):
    with pytest.raises(RecordError, match=f"record of {swapped[0]} has [02] policies"):
        report.figure1(*map(make_record, swapped))


class TestSaveFigure:
    """The files of a figure."""

    def test_writes_both_and_nothing_else(self, policies, tmp_path):
        stem = tmp_path / "new" / "figure1"
        paths = report.save_figure(report.figure1(*policies), stem)
        assert sorted(p.name for p in stem.parent.iterdir()) == ["figure1.pdf", "figure1.png"]
        assert {p.name for p in paths} == {"figure1.pdf", "figure1.png"}
        with Image.open(stem.with_suffix(".png")) as image:
            assert image.size == (2000, 740)
            assert "Software" not in image.info
        pdf = stem.with_suffix(".pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf

    def test_equal_bytes_at_any_time(self, policies, tmp_path, monkeypatch):
        report.save_figure(report.figure1(*policies), tmp_path / "now")
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
        report.save_figure(report.figure1(*policies), tmp_path / "1970")
        for kind in ("png", "pdf"):
            now, then = ((tmp_path / f"{stem}.{kind}").read_bytes() for stem in ("now", "1970"))
            assert now == then

    def test_a_failure_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "table.md"
        path.write_bytes(b"old")

        def full_disk(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", full_disk)
        with pytest.raises(ReinforceDropoutError, match="No space left on device"):
            report.write_whole(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_in_the_place_of_the_folder(self, tmp_path):
        (tmp_path / "figures").write_text("")
        with pytest.raises(ReinforceDropoutError, match="cannot write .*table.md"):
            report.write_whole(tmp_path / "figures" / "table.md", b"")


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
            ("policy-800-800: active units of layer 1, first to best epoch",
             "layer 1 increases much faster than layer 2", "12.0 to 30.1 %"),
            ("policy-800-800: active units of layer 2, first to best epoch",
             "layer 1 increases much faster than layer 2", "12.1 to 21.4 %"),
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
            "policy-800-800": make_record("policy-800-800", 3, 2),
        }
        runs["baseline-500"].best_attributes["test_error"] = 0.0166
        runs["policy-500"].best_attributes["test_error"] = 0.0205
        runs["policy-800-800"].best_attributes["test_error"] = 0.025
        runs["policy-500"].curves |= {
            "test_error": np.array([[1, 1, 1], [1, 1, 1], [0.0205, 0.0198, 0.12], [1, 1, 1]]),
            "active_fraction": np.array([[0.1216], [0.9], [0.3262], [0.8]]),
            "policy_entropy": np.array([[0.4], [0.9], [0.19], [0.8]]),
        }
        runs["policy-800-800"].curves |= {
            "active_fraction": np.array([[0.12, 0.121], [0.3011, 0.2139], [0.9, 0.8]]),
            "policy_entropy": np.array([[0.38, 0.37], [0.21, 0.355], [0.9, 0.8]]),
        }
        assert cells(report.table(runs))[claim] == [paper, ours]
        assert cells(report.table({}, runs))[claim] == [paper, "not run", ours]

    def test_missing_presets_are_not_run(self):
        table = cells(report.table({"policy-500": make_record("policy-500")}, {}))
        assert {row[-1] for row in table.values()} == {"not run"}
        recorded = {claim: row[1] == "not run" for claim, row in table.items()}
        assert recorded == {claim: not claim.startswith("policy-500:") for claim in table}

    def test_every_claim_has_its_row_unless_left_out(self):
        assert len(cells(report.table({}))) == len(report.CLAIMS)
        some = cells(report.table({}, presets=("policy-500",)))
        assert some.keys() == {c for c in cells(report.table({})) if c.startswith("policy-500:")}

    def test_unfinished_runs_are_marked_in_every_cell(self):
        table = report.table({"policy-500": make_record("policy-500", 12, 5, unfinished=True)})
        for claim, (_, ours) in cells(table).items():
            assert ours.endswith("(unfinished, epoch 12)") == claim.startswith("policy-500:")
        assert "- recorded, policy-500: seed 1, 12 epochs, unfinished.\n" in table

    def test_seed_length_and_deviations_are_named(self):
        run = make_record("policy-500", 4, 3, n_epochs=4, lam=0.5)
        run.attributes["seed"] = run.attributes["experiment"]["seed"] = 7
        runs = {"policy-500": run}
        table = report.table({"baseline-500": make_record("baseline-500")}, runs)
        notes = [line for line in table.splitlines() if line.startswith("- ")]
        assert notes == [
            "- recorded, baseline-500: seed 1, 30 epochs, ended by early stopping.",
            "- this run, policy-500: seed 7, 4 epochs, ended by early stopping; "
            "lam 0.5 instead of 0.0; n_epochs 4 instead of 1000.",
        ]

    def test_another_seed_is_no_deviation(self):
        record = make_record("policy-500")
        record.attributes["experiment"]["seed"] = 2
        assert "instead of" not in report.table({"policy-500": record})

    def test_other_data_is_named_without_its_folder(self):
        record = make_record("policy-500", data="/home/someone/digits")
        table = report.table({"policy-500": record})
        assert "; data digits instead of mnist." in table and "someone" not in table

    def test_only_a_quick_table_says_so(self):
        assert report.QUICK_NOTE in report.table({}, {}, quick=True)
        assert report.QUICK_NOTE not in report.table({}, {})

    def test_is_well_formed_markdown(self):
        table = report.table({"policy-500": make_record("policy-500")}, {})
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1
        assert re.fullmatch(r"\| claim \| paper \| recorded \| this run \|", rows[0])


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
        found = report.read_by_preset(self.write(tmp_path, "policy-500", "baseline-500"))
        assert list(found) == ["policy-500", "baseline-500"]
        assert report.needed(found, "baseline-500") == [found["baseline-500"]]

    def test_refuses_two_of_a_preset(self, tmp_path):
        paths = self.write(tmp_path, "policy-500", "policy-500")
        with pytest.raises(RecordError, match="1.hdf5 is the second record of policy-500"):
            report.read_by_preset(paths)

    def test_refuses_what_is_no_preset(self, tmp_path):
        with pytest.raises(RecordError, match="experiment 'custom', .* name records of baseline"):
            report.read_by_preset(self.write(tmp_path, "custom"))

    def test_needed_names_the_missing_one(self):
        with pytest.raises(RecordError, match="no record of policy-500"):
            report.needed({"baseline-500": None}, "baseline-500", "policy-500")
