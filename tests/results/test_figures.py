"""The figure shows what the records hold."""

import matplotlib
import numpy as np
import pytest
from made_records import make_record
from PIL import Image

from reinforce_dropout.errors import RecordError, ReinforceDropoutError
from reinforce_dropout.results import figures, files
from reinforce_dropout.results.claims import QUICK_NOTE


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
        axes = figures.figure1(*policies).axes[panel]
        expected = shown(policies)[panel]
        lines = curves_of(axes)
        assert lines.keys() == expected.keys()
        for label, (values, _) in expected.items():
            np.testing.assert_array_equal(lines[label].get_ydata(), values)
            np.testing.assert_array_equal(lines[label].get_xdata(), np.arange(len(values)) + 1)

    def test_best_epoch_is_marked_on_every_line(self, policies, panel):
        axes = figures.figure1(*policies).axes[panel]
        expected = {(best, values[best - 1]) for values, best in shown(policies)[panel].values()}
        assert best_points(axes) == expected

    def test_labels_units_and_legend(self, policies, panel):
        axes = figures.figure1(*policies).axes[panel]
        assert axes.get_xlabel() == "epoch"
        unit = ["active units (%)", "active units (%)", "entropy (nats per unit)"][panel]
        assert axes.get_ylabel() == unit
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        best = ["lowest validation error (epoch 31)", "lowest validation error (epoch 7)",
                "lowest validation error"][panel]  # fmt: skip
        assert legend == [*shown(policies)[panel], best]

    def test_all_points_lie_inside(self, policies, panel):
        axes = figures.figure1(*policies).axes[panel]
        assert (axes.get_xlim()[0], axes.get_ylim()[0]) == (0, 0)
        for line in axes.lines:
            assert max(line.get_xdata(), default=0) <= axes.get_xlim()[1]
            assert max(line.get_ydata(), default=0) <= axes.get_ylim()[1]

    def test_readable_without_colour(self, policies, panel):
        lines = curves_of(figures.figure1(*policies).axes[panel]).values()
        assert len({str(line._unscaled_dash_pattern) for line in lines}) == len(lines)


@pytest.mark.parametrize(("n_500", "n_800"), [(1, 1), (2, 3), (1000, 1000)])
def test_nothing_overlaps(n_500, n_800):
    figure = figures.figure1(
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
    figure = figures.figure1(
        make_record("policy-500", n_epochs, 1), make_record("policy-800-800", n_epochs, 1)
    )
    for axes in figure.axes:
        assert {line.get_markersize() > 0 for line in curves_of(axes).values()} == {visible}
        assert all(tick == int(tick) for tick in axes.get_xticks())


def test_activations_share_a_scale(policies):
    a, b, _ = figures.figure1(*policies).axes
    assert a.get_ylim() == b.get_ylim()


def test_only_a_quick_figure_says_so(policies):
    assert figures.figure1(*policies)._suptitle is None
    assert figures.figure1(*policies, quick=True)._suptitle.get_text() == QUICK_NOTE


def test_best_epochs_beyond_the_lines_are_named(policies):
    """The lines of three runs end with the second longest one."""
    runs = [make_record("policy-500", n, best, seed=n) for n, best in ((20, 9), (50, 31), (90, 70))]
    a, b, _ = figures.figure1(runs, policies[1]).axes
    assert {x for x, _ in best_points(a)} == {9, 31}
    labels = [text.get_text() for axes in (a, b) for text in axes.get_legend().get_texts()]
    assert "lowest validation error of 3 seeds (also at 70)" in labels
    assert "lowest validation error (epoch 7)" in labels


def test_the_users_matplotlib_settings_do_not_matter(policies, tmp_path):
    figures.save_figure(figures.figure1(*policies), tmp_path / "plain")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "savefig.dpi": 30}):
        figures.save_figure(figures.figure1(*policies), tmp_path / "changed")
    for kind in ("png", "pdf"):
        plain, changed = ((tmp_path / f"{s}.{kind}").read_bytes() for s in ("plain", "changed"))
        assert plain == changed


@pytest.mark.parametrize("swapped", [("policy-800-800", "policy-500"),
                                     ("baseline-500", "policy-800-800")])  # fmt: skip
def test_figure1_refuses_the_wrong_network(swapped):
    with pytest.raises(RecordError, match=f"record of {swapped[0]} has [02] policies"):
        figures.figure1(*map(make_record, swapped))


class TestSaveFigure:
    """The files of a figure."""

    def test_writes_both_and_nothing_else(self, policies, tmp_path):
        stem = tmp_path / "new" / "figure1"
        paths = figures.save_figure(figures.figure1(*policies), stem)
        assert sorted(p.name for p in stem.parent.iterdir()) == ["figure1.pdf", "figure1.png"]
        assert {p.name for p in paths} == {"figure1.pdf", "figure1.png"}
        with Image.open(stem.with_suffix(".png")) as image:
            assert image.size == (2000, 740)
            assert "Software" not in image.info
        pdf = stem.with_suffix(".pdf").read_bytes()
        assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf

    def test_equal_bytes_at_any_time(self, policies, tmp_path, monkeypatch):
        figures.save_figure(figures.figure1(*policies), tmp_path / "now")
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
        figures.save_figure(figures.figure1(*policies), tmp_path / "1970")
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
            files.write_whole(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_in_the_place_of_the_folder(self, tmp_path):
        (tmp_path / "figures").write_text("")
        with pytest.raises(ReinforceDropoutError, match="cannot write .*table.md"):
            files.write_whole(tmp_path / "figures" / "table.md", b"")
