"""The speed-up of block dropout: what is compared is alike, and the numbers say what they mean."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from reinforce_dropout import datasets
from reinforce_dropout.errors import RecordError, ReinforceDropoutError

SCRIPTS = Path(__file__).parents[1] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own

import block_speedup  # noqa: E402
from block_speed import forward, training  # noqa: E402
from block_speed import results as files  # noqa: E402
from block_speed.results import ALWAYS, NEVER, Forward, Results, Setting, Training  # noqa: E402

RATES = np.array([0.05, 0.15, 0.5, 1.0])


def made_forward(setting, given=(20, 8, 2, 0.5), counted=(8, 4, 0.5, 0.25)):
    """Return one setting's times whose medians are in the ratios `given` and `counted`."""
    turns = np.array([0.9, 1, 1.2])
    given, counted = ((1e-3 / np.array(v))[:, None] * turns for v in (given, counted))
    return Forward(setting, RATES, 1.05 * RATES, 1e-3 * turns[::-1], given, counted)


@pytest.fixture
def results():
    attributes = {
        "backend": "numba", "versions": {"python": "3"}, "command": "python x", "git_commit": "",
        "host_cpu": "a CPU", "n_threads": 2, "started": "2020-01-01T00:00:00+00:00", "ended": "",
    }  # fmt: skip
    kinds = ((256, 1), (1024, 32), (1, 1))
    nets = ((500,), (800, 800))
    found = [made_forward(Setting(t, net, *kind)) for t in (1, 2) for net in nets for kind in kinds]
    turns = np.array([0.9, 1, 1.2])
    steps = [Training(t, (800, 800), 0.15, 6 * turns, turns, 2 * turns) for t in (1, 2)]
    return Results(attributes, found, steps)


def test_speedups_are_ratios_within_a_turn():
    """The machine slows down after two turns; the ratio of the medians would be 2.5."""
    setting, rates = Setting(2, (500,), 1024, 32), np.array([0.15])
    dense, sparse = np.array([1.0, 1, 5, 6, 7]), np.array([0.5, 0.5, 2.5, 2, 14])
    found = Forward(setting, rates, rates, dense, sparse[None], 2 * sparse[None])
    assert (found.speedups(False), found.speedups(True)) == (2, 1)
    step = Training(2, (500,), 0.15, dense, sparse, 2 * sparse)
    assert (step.speedup(False), step.speedup(True)) == (2, 1)


def test_speedups_by_rate(results):
    (found, *_) = results.forward
    np.testing.assert_allclose(found.speedups(False), [20, 8, 2, 0.5])
    np.testing.assert_allclose(found.speedups(True), [8, 4, 0.5, 0.25])
    assert found.speedup(0.15, True) == pytest.approx(4)
    assert found.speedup(0.25, True) is None
    # Quartiles of 0.9, 1 and 1.2 are 0.95 and 1.1.
    np.testing.assert_allclose(found.spread(), [0.1] * 9)


@pytest.mark.parametrize(
    "speedups, rate",
    [
        ([8, 4, 0.5, 0.25], 0.15 * (0.5 / 0.15) ** (2 / 3)),  # 4 is 2 / 3 of the way down to 1 / 2
        ([8, 4, 2, 0.5], 0.5 * 2**0.5),
        ([8, 4, 1, 0.5], 0.5),
        ([0.9, 2, 0.5, 0.4], 0.15 * (0.5 / 0.15) ** 0.5),  # the highest crossing
        ([8, 4, 2, 1], ALWAYS),
        ([0.9, 0.8, 0.5, 0.4], NEVER),
    ],
)
def test_break_even_lies_on_a_power_law_between_two_rates(speedups, rate):
    assert files.break_even(RATES, np.array(speedups)) == pytest.approx(rate)


def test_break_even_in_words():
    words = [files.describe_break_even(r) for r in (NEVER, 0.0123, 0.333, ALWAYS)]
    assert words == ["never", "1.23%", "33%", "always"]


@pytest.mark.parametrize(
    "n_units, bound", [((500,), 6.67), ((800,) * 2, 11.63), ((4096,) * 2, 23.1)]
)
def test_flop_bound_is_that_of_both_sides(n_units, bound):
    assert files.flop_bound(n_units, [0.15, 1.0]) == pytest.approx([bound, 1], rel=0.005)
    wide, narrow = 784 * 500 + 500 * 10, 784 * 50 + 50 * 10
    assert files.flop_bound((500,), [0.1]) == pytest.approx([wide / narrow])


def test_table_says_targets_and_break_even(results):
    text = block_speedup.table(results)
    assert "| 784-500-10 | 1024 | 15% | counted | 6.7 | 4 | 4.0, met |" in text
    assert "| 784-800-800-10 | 1024 | 15% | counted | 11.6 | 7 | 4.0, not met |" in text
    assert "| 784-800-800-10 | 1 | 15% | not counted | 11.6 | 5 | 8.0, met |" in text
    row = (
        "| 2 | 784-500-10 | blocks of 32 | 1024 | 0.977 | 8.00 | 4.00 | 20.00 | 8.00 | 71% | 33% |"
    )
    assert row in text
    assert "| 2 | 784-800-800-10 | 6000000 | 6.0 | 3.0 |" in text
    assert "4096" not in text  # not measured
    assert "within 5% of it" in text and "commit none" in text


def test_table_without_the_targets_settings_has_no_targets(results):
    results.forward = [f for f in results.forward if f.setting.n_threads == 1]
    text = block_speedup.table(results)
    assert text.startswith("All block sizes") and "met |" not in text


def test_results_are_read_as_written_and_drawn_alike(results, tmp_path):
    path = tmp_path / "speedup.hdf5"
    files.write(path, results)
    again = files.read(path)
    assert again.attributes == results.attributes
    for a, b in zip(results.forward, again.forward, strict=True):
        assert a.setting == b.setting
        for name in ("rates", "active", "dense", "given", "counted"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for a, b in zip(results.training, again.training, strict=True):
        assert (a.n_threads, a.n_units, a.rate) == (b.n_threads, b.n_units, b.rate)
        for name in ("dense", "given", "counted"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    text = block_speedup.redraw(path, tmp_path / "a")
    assert block_speedup.redraw(path, tmp_path / "b") == text == block_speedup.table(results)
    names = {"block_speedup.md", "block_speedup.png", "block_speedup.pdf"}
    assert {p.name for p in (tmp_path / "a").iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_figure_shows_most_threads_and_marks_the_break_even_rate(results):
    drawing = block_speedup.figure(results)
    assert drawing.get_suptitle() == "Forward pass, 2 threads"
    above, _, single, _ = drawing.axes
    assert [t.get_text() for t in single.get_xticklabels()] == ["5", "15", "50", "100"]
    assert [t.get_text() for t in above.texts] == ["break-even: 33%"]
    (star,) = (line for line in above.lines if line.get_marker() == "*")
    assert star.get_xdata()[0] == pytest.approx(33.5, abs=0.1) and list(star.get_ydata()) == [1]
    assert not single.texts
    assert sum(line.get_marker() == "v" for line in single.lines) == 2


@pytest.mark.parametrize("rate, text", [(0.4, "never"), (9, "always")])
def test_figure_says_when_there_is_no_break_even_rate(rate, text, results):
    for found in results.forward:
        found.counted[:] = np.median(found.dense) / rate
    above = block_speedup.figure(results).axes[0]
    assert [t.get_text() for t in above.texts] == [f"break-even: {text}"]
    assert not [line for line in above.lines if line.get_marker() == "*"]


def replace(root, name, value):
    del root[name]
    root[name] = value


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.__delitem__("forward"),
        lambda root: [root["forward"].__delitem__(name) for name in list(root["forward"])],
        lambda root: root.attrs.__delitem__("versions"),
        lambda root: root.attrs.modify("versions", "{"),
        lambda root: root.attrs.modify("versions", "[1]"),
        lambda root: root.attrs.__delitem__("backend"),
        lambda root: root["forward/000"].__delitem__("given"),
        lambda root: root["forward/000"].attrs.__delitem__("n_images"),
        lambda root: root.create_dataset("forward/000/extra", data=1),
        lambda root: replace(root, "forward/000/dense", np.ones(7)),
        lambda root: replace(root, "forward/000/given", np.full((4, 3), np.nan)),
        lambda root: replace(root, "forward/000/counted", np.zeros((4, 3))),
        lambda root: replace(root, "forward/000/rates", RATES[::-1]),
        lambda root: replace(root, "forward/000/active", np.ones(2)),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_in_a_sentence(change, results, tmp_path):
    path = tmp_path / "speedup.hdf5"
    files.write(path, results)
    with h5py.File(path, "r+") as root:
        change(root)
    with pytest.raises(RecordError, match="speedup.hdf5 is missing or damaged: run"):
        files.read(path)


def test_another_file_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "speedup.hdf5"
    with pytest.raises(RecordError, match="missing or damaged: run"):
        files.read(path)
    path.write_text("no HDF5")
    with pytest.raises(RecordError, match="missing or damaged: run"):
        files.read(path)
    with h5py.File(path, "w") as root:
        root.attrs["format"] = "reinforce-dropout training speed, version 1"
    with pytest.raises(RecordError, match="is no file of block speed-ups: name one"):
        files.read(path)


@pytest.fixture(scope="module")
def passes():
    return forward.Passes((40, 30), 784, 10)


@pytest.fixture(scope="module")
def images():
    return datasets.load().test.images


def test_given_masks_are_those_of_the_masked_dense_graph(passes, images):
    setting = Setting(1, (40, 30), 70, 32)
    given, _, _ = passes.compile(32)
    cases = [(images[:70], passes.draw(0.3, 3))]
    forward.check_agreement(setting, passes, given, cases)
    passes.give(cases[0][1])
    assert np.abs(given(images[:70]) - passes.dense(images[:70])).max() > 0.01
    with pytest.raises(ReinforceDropoutError, match="784-40-30-10 with blocks of 32 are .* from"):
        forward.check_agreement(setting, passes, passes.dense, cases)


def test_policies_draw_at_the_rate_that_is_set(passes, images):
    _, counted, active = passes.compile(8)
    for rate in (0.05, 0.5):
        passes.set_rate(rate)
        # 128 blocks of 70 decisions, and what Z spreads.
        assert active(images[:1024]) == pytest.approx(rate, rel=0.15)
    passes.set_rate(1.0)
    assert active(images[:1024]) == 1
    np.testing.assert_allclose(counted(images[:64]), passes.dense(images[:64]), atol=1e-5)


def test_every_call_for_a_single_image_has_another_image_and_masks(passes, images):
    cases = forward.cases_for(Setting(1, (40, 30), 1, 1), passes, images, 0.5)
    assert len(cases) == forward.MOST_CALLS
    seen = []
    forward.take_turn(lambda x: seen.append((x, passes.masks[0].get_value())), passes, cases)
    assert len(seen) == 1 + forward.MOST_CALLS
    for (x, mask), (image, masks) in zip(seen[1:], cases, strict=True):
        assert x is image and (mask == masks[0]).all()
    assert (seen[1][0] != seen[2][0]).any() and (seen[1][1] != seen[2][1]).any()


def test_a_turn_is_the_median_call_without_the_first(passes, images, monkeypatch):
    clock = iter([0, 0.04, 1, 1.03, 2, 2.01, 3, 3.02])  # calls of 40, 30, 10 and 20 ms
    monkeypatch.setattr(forward.time, "perf_counter", lambda: next(clock))
    case = (images[:32], passes.draw(0.5, 1))
    assert forward.take_turn(lambda x: None, passes, [case]) == pytest.approx(0.02)
    clock = iter([0, 0.3])
    assert forward.take_turn(lambda x: None, passes, [case]) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "arguments, quick",
    [
        ([], False),
        (["--threads", "1", "2", "4"], False),
        (["--quick"], True),
        (["--nets", "500"], True),
        (["--blocks", "32"], True),
        (["--rates", "15"], True),
        (["--threads", "1"], True),
    ],
)
def test_less_than_the_full_run_is_quick(arguments, quick):
    assert block_speedup.parse(arguments).quick == quick


@pytest.mark.parametrize(
    "option, value",
    [("--rates", "0"), ("--rates", "101"), ("--rates", "nan"), ("--blocks", "0"),
     ("--nets", "500-x"), ("--threads", "-1"), ("--turns", "few")],
)  # fmt: skip
def test_options_out_of_range_are_refused(option, value, capsys):
    with pytest.raises(SystemExit) as refused:
        block_speedup.parse([option, value])
    assert refused.value.code == 2
    assert f"argument {option}: invalid" in capsys.readouterr().err.splitlines()[-1]


def script(root, *options):
    return subprocess.run(
        [sys.executable, SCRIPTS / "block_speedup.py", "--root", root, *options],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def test_a_tiny_run_is_timed_and_redrawn_alike(tmp_path):
    options = ["--nets", "20", "--blocks", "32", "--rates", "100", "15", "--threads", "1"]
    timed = script(tmp_path, *options, "--turns", "3")
    assert timed.returncode == 0, timed.stderr
    path = tmp_path / "runs" / "quick" / "block_speedup.hdf5"
    results = files.read(path)
    assert [f.setting for f in results.forward] == [
        Setting(1, (20,), 1024, 32),
        Setting(1, (20,), 1, 1),
    ]
    for found in results.forward:
        assert found.rates.tolist() == [0.15, 1] and found.active[1] == 1
        assert found.given.shape == found.counted.shape == (2, 3)
        assert 1e-7 < found.dense.min() and found.dense.max() < 10
    assert results.attributes["command"].startswith("python reproduce/block_speedup.py --root")
    figures = tmp_path / "runs" / "figures" / "quick"
    before = {p.name: p.read_bytes() for p in figures.iterdir()}
    assert before["block_speedup.md"].decode() == timed.stdout and len(before) == 3
    again = script(tmp_path, "--quick", "--redraw")
    assert again.returncode == 0 and again.stdout == timed.stdout
    assert before == {p.name: p.read_bytes() for p in figures.iterdir()}


def test_too_many_threads_are_refused_in_a_sentence(tmp_path):
    process = script(tmp_path, "--threads", "100000")
    assert process.returncode == 1 and process.stdout == ""
    assert "100000 threads would share" in process.stderr and process.stderr.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_nothing_to_redraw_is_told_in_a_sentence(tmp_path):
    process = script(tmp_path, "--redraw")
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "reproduce/results/block_speedup.hdf5 is missing" in process.stderr


def test_training_steps_are_timed_for_every_number_of_threads():
    data = datasets.load()
    found = training.measure(data, [(48,)], n_threads=(1,), n_turns=1)
    assert [(t.n_threads, t.n_units, t.rate) for t in found] == [(1, (48,), 0.15)]
    assert found[0].speedup(False) > 0 and len(found[0].counted) == 1
