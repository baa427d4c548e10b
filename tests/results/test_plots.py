"""Pictures show what the record holds, in any run."""

import numpy as np
from made_records import make_record

from reinforce_dropout.results import figures, plots


def lines_of(axes):
    """Return {label: values} of the curves of a panel."""
    return {line.get_label(): line.get_ydata() for line in axes.lines if len(line.get_xdata()) > 2}


def test_every_curve_has_a_panel_with_its_unit():
    record = make_record("policy-800-800", 12, 7)
    record.curves["gate_l1"] = np.arange(12.0)
    loss, errors, active, entropy, other = plots.curves(record).axes
    assert [axes.get_ylabel() for axes in (loss, errors, active, entropy, other)] == [
        "nll (nats per example)", "error (%)", "active units (%)", "entropy (nats per unit)",
        "gate_l1",
    ]  # fmt: skip
    for axes in (loss, errors, active, entropy, other):
        assert axes.get_xlabel() == "epoch" and axes.lines[-1].get_xdata()[0] == 7
    np.testing.assert_array_equal(lines_of(loss)["training"], record.curves["train_nll"])
    for word, name in (("validation", "valid_error"), ("test", "test_error")):
        np.testing.assert_array_equal(lines_of(errors)[word], 100 * record.curves[name])
    for i in (0, 1):
        shown = lines_of(active)[f"layer {i + 1}"]
        np.testing.assert_array_equal(shown, 100 * record.curves["active_fraction"][:, i])
        shown = lines_of(entropy)[f"layer {i + 1}"]
        np.testing.assert_array_equal(shown, record.curves["policy_entropy"][:, i])
    (values,) = lines_of(other).values()
    np.testing.assert_array_equal(values, np.arange(12))


def test_a_plain_network_has_two_panels():
    assert len(plots.curves(make_record("baseline-500")).axes) == 2


def test_one_epoch_is_a_point():
    for axes in plots.curves(make_record("policy-500", 1, 1)).axes:
        assert axes.lines[0].get_marker() == "o" and axes.get_ylim()[1] > 0


def test_lines_differ_without_colour():
    record = make_record("policy-800-800")
    for axes in plots.curves(record).axes[1:]:
        dashes = {str(line._dash_pattern) for line in axes.lines[:2]}
        assert len(dashes) == 2 and axes.get_legend()


def test_units_are_ordered_by_their_class_and_there_the_most_first():
    fractions = np.array([[0.1, 0.9, 0.2, 0.7], [0.5, 0.0, 0.8, 0.1]])
    np.testing.assert_array_equal(plots.order(fractions), [1, 3, 2, 0])


def test_masks_show_the_fractions_of_each_layer():
    rng = np.random.default_rng(0)
    layers = [rng.random((3, 8)), rng.random((3, 5))]
    *panels, bar = plots.masks(layers, ("a", "b", "c"), "title").axes
    assert bar.get_ylabel() == "mean participation (%)" and len(panels) == 2
    for axes, fractions in zip(panels, layers, strict=True):
        (image,) = axes.images
        shown = 100 * fractions[:, plots.order(fractions)]
        np.testing.assert_array_equal(image.get_array(), shown)
        assert image.get_clim() == (0, 100)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
        assert f"{fractions.mean():.1%}" in axes.get_title("left")


def test_pictures_of_many_classes_are_no_taller(tmp_path):
    rng = np.random.default_rng(0)
    figure, taller = (plots.masks([rng.random((n, 9))]) for n in (36, 200))
    assert tuple(figure.get_size_inches()) == tuple(taller.get_size_inches())
    assert [label.get_text() for label in taller.axes[0].get_yticklabels()][:2] == ["0", "6"]
    for path in figures.save_figure(figure, tmp_path / "masks"):
        assert path.stat().st_size > 1000
