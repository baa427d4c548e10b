"""The benchmarks: every column does the same work and takes its turn; the numbers are right."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from reinforce_dropout import network
from reinforce_dropout.errors import RecordError, ReinforceDropoutError
from reinforce_dropout.running import datasets

SCRIPTS = Path(__file__).parents[2] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own

import benchmarks  # noqa: E402
from speed import blas, drawing, forward, notes, ours, training, turns, worker  # noqa: E402
from speed import table as files  # noqa: E402
from speed.table import Column, Measurement, Results, Setting  # noqa: E402

PEERS = {"eager": "pytorch.Eager", "compile": "pytorch.Compiled", "scan": "jax_scan.Scan"}


@pytest.fixture(scope="module")
def data():
    return datasets.load()


def begin(data, policy, n_steps=5, n_units=(30, 20)):
    """Return the arguments of a column that trains: parameters, x, y, learning rate."""
    rate = training.INITIAL_RATE if policy else None
    parameters = training.inputs(Setting("step", 1, n_units, 20, policy), data, n_steps, rate)
    if policy:  # both values of the masks that are given below
        rng = np.random.default_rng(0)
        for i in (1, 2):
            parameters[f"o_{i}"] = rng.normal(size=n_units[i - 1]).astype("float32")
    return parameters, parameters.pop("x"), parameters.pop("y"), 0.01


def peer(name):
    """Return the module and the class of a peer, or skip."""
    module, kind = PEERS[name].split(".")
    pytest.importorskip({"pytorch": "torch", "jax_scan": "jax"}[module])
    module = __import__(f"speed.{module}", fromlist=["_"])
    return module, getattr(module, kind)


def give_masks(module, monkeypatch):
    """Let the units with sigma > 1/2 take part, in a peer as in `network.thresholded`."""
    if module.__name__.endswith("pytorch"):
        monkeypatch.setattr(module, "draw", lambda sigma: (sigma > 0.5).float())
    else:
        monkeypatch.setattr(module, "draw", lambda key, sigma: (sigma > 0.5).astype("float32"))


@pytest.fixture(scope="module")
def our_result(data):
    """Statistics and parameters of five steps with given masks, with policies and without."""
    result = {}
    for policy in (False, True):
        column = type("Given", (ours.Numba,), {"rule": staticmethod(network.thresholded)})
        made = column(*begin(data, policy))
        result[policy] = made.turn(), made.parameters()
    return result


@pytest.mark.parametrize("policy", [False, True], ids=["plain", "policies"])
@pytest.mark.parametrize("name", PEERS)
def test_every_training_column_does_the_same_work(name, policy, our_result, data, monkeypatch):
    module, kind = peer(name)
    give_masks(module, monkeypatch)
    arguments = begin(data, policy)
    made = kind(*arguments)
    start = arguments[0]
    for key, value in made.parameters().items():
        np.testing.assert_array_equal(value, start[key], err_msg=key)
    statistics = made.turn()
    ours_statistics, ours_parameters = our_result[policy]
    np.testing.assert_allclose(statistics, ours_statistics, rtol=1e-4)
    theirs = made.parameters()
    assert theirs.keys() == ours_parameters.keys()
    for key, value in ours_parameters.items():
        moved = np.abs(value - start[key]).max()
        assert moved > 1e-4, key
        # Finer than the effect of the L2 penalty in these steps, which is 1e-5.
        np.testing.assert_allclose(theirs[key], value, rtol=0, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", ["ours", *PEERS])
def test_masks_are_sampled_anew_at_the_policies_rates(name, data):
    kind = ours.Numba if name == "ours" else peer(name)[1]
    parameters, x, y, _ = begin(data, True, n_units=(300, 300))
    x[:], y[:] = x[0], y[0]
    # At rate 0 nothing changes but the masks.
    statistics = kind(parameters, x, y, 0.0).turn()
    assert len({*statistics[:, 0]}) == len(x)
    sigma = 1 / (1 + np.exp(-(x[0] @ parameters["Z_1"] + parameters["o_1"])))
    deviation = np.sqrt((sigma * (1 - sigma)).sum()) / sigma.size
    assert np.abs(statistics[:, 1] - sigma.mean()).max() < 5 * deviation
    entropy = -(sigma * np.log(sigma) + (1 - sigma) * np.log(1 - sigma)).mean()
    np.testing.assert_allclose(statistics[:, 3], entropy, rtol=1e-4)


@pytest.fixture(scope="module")
def passes(data):
    """Passes by blocks of 32 with the arrays they are made from: two batches of 70 images."""
    parameters = ours.initial_parameters((40, 30), data.n_in, data.n_classes, 0.15)
    x = data.test.images[:140].reshape(2, 70, -1)
    return parameters, x, ours.Forward(parameters, x, instances_per_block=32)


def masked_logits(parameters, x, masks):
    """The masked network in NumPy, in float64."""
    for i, mask in enumerate(masks, start=1):
        h = np.tanh(x @ parameters[f"W_{i}"].astype(float) + parameters[f"b_{i}"])
        x = h * mask.repeat(32, axis=0)[: len(x)]
    return x @ parameters["W_out"].astype(float) + parameters["b_out"]


def test_given_masks_leave_out_what_they_say(passes):
    parameters, x, made = passes
    made.set(0.3, counted=False)
    (images, *masks), (others, *other_masks) = made.calls
    assert (images == x[0]).all() and (others == x[1]).all()
    assert any((a != b).any() for a, b in zip(masks, other_masks, strict=True))
    logits = masked_logits(parameters, images, masks)
    assert np.abs(made.function(images, *masks) - logits).max() < 1e-5
    dense = blas.Dense(parameters, x).logits(images)
    everything = [np.ones((3, n)) for n in (40, 30)]
    assert np.abs(dense - masked_logits(parameters, images, everything)).max() < 1e-5
    assert np.abs(dense - logits).max() > 0.01


def test_a_column_whose_logits_differ_is_refused(passes):
    parameters, x, made = passes
    logits = made.given(x[0], *(np.ones((3, n), "float32") for n in (40, 30)))
    blas.check(parameters, x[0], logits)
    logits[0, 0] += 1e-4
    with pytest.raises(ValueError, match="its logits are 0.0001 from NumPy's"):
        blas.check(parameters, x[0], logits)


def test_dense_passes_are_checked_against_numpy(passes, monkeypatch):
    parameters, x, _ = passes
    seen = []
    monkeypatch.setattr(ours.blas, "check", lambda *arguments: seen.append(arguments))
    made = ours.Dense(parameters, x)
    ((used, images, logits),) = seen
    assert used is parameters and (images == x[0]).all()
    np.testing.assert_allclose(logits, blas.Dense(parameters, x).logits(x[0]), atol=1e-5)
    assert made.turn().shape == (2, 0) == blas.Dense(parameters, x).turn().shape


@pytest.mark.parametrize("kind", [(32,), (1, 1, 4), (1, 16)], ids=["blocks", "low rank", "groups"])
def test_policies_draw_at_the_rate_that_is_set(kind, data):
    parameters = ours.initial_parameters((400, 300), data.n_in, data.n_classes)
    x = data.test.images[:512].reshape(2, 256, -1)
    made = ours.Forward(parameters, x, *kind)
    for rate in (0.05, 0.5):
        made.set(rate, counted=True)
        # Many decisions, and what Z spreads.
        assert made.turn() == pytest.approx(np.full((2, 1), rate), rel=0.15)
    made.set(1.0, counted=True)
    assert (made.turn() == 1).all()
    logits = blas.Dense(parameters, x).logits(x[0])
    np.testing.assert_allclose(made.function(x[0]), logits, atol=1e-5)
    made.set(1.0, counted=False)
    assert made.turn().shape == (2, 0)


@pytest.mark.parametrize("name", forward.STEPS)
def test_sparse_steps_learn_the_same_as_dense_ones_with_the_same_masks(name, data):
    """With all units in use a step by blocks or by instances is the plain dense one."""
    plan = forward.plan(Setting("step", 1, (30, 20), **forward.STEPS[name]), data)
    assert plan.workers.keys() == {name, *forward.DENSE["step"]}
    parameters = dict(plan.inputs)
    arguments = parameters, parameters.pop("x"), parameters.pop("y"), 0.01
    _, kind = worker.COLUMNS[name].split(".")
    dense, made = ours.Numba(*arguments), getattr(ours, kind)(*arguments)
    made.set(1.0, counted=False)
    np.testing.assert_allclose(made.turn()[:, 0], dense.turn()[:, 0], rtol=1e-4)
    for counted in (False, True):
        made.set(0.15, counted)
        losses = [made.turn().mean() for _ in range(20)]
        assert losses[-1] < losses[0]


def test_the_work_is_counted():
    plain, policies = (Setting("step", 2, (3, 5), 7, policy) for policy in (False, True))
    # Forward; to the weights; to the inputs, except the image's. Then the policies' first two.
    network_flops = 2 * 7 * ((784 * 3 + 15 + 50) + (784 * 3 + 15 + 50) + (15 + 50))
    assert plain.flops() == network_flops
    assert policies.flops() == network_flops + 2 * 7 * 2 * (784 * 3 + 15)
    assert plain.n_bytes() == 12 * (784 * 3 + 15 + 50)
    assert policies.n_bytes() == 12 * (2 * (784 * 3 + 15) + 50)
    once = Setting("forward", 2, (3, 5), 7, instances_per_block=4)
    assert once.flops() == 2 * 7 * (784 * 3 + 15 + 50)
    assert once.n_bytes() == 4 * (784 * 3 + 15 + 50)


def test_initial_rate_is_that_of_the_paper_late_in_training(data):
    setting = Setting("step", 1, (200,), 20, True)
    parameters = training.plan(setting, data).inputs
    sigma = 1 / (1 + np.exp(-(parameters["x"][0] @ parameters["Z_1"] + parameters["o_1"])))
    assert sigma.mean() == pytest.approx(0.3, abs=0.02)


def test_every_call_has_other_images(data):
    plan = forward.plan(Setting("forward", 1, (40,), 1), data)
    assert plan.inputs["x"].shape == (100, 1, 784)
    assert (plan.inputs["x"][:, 0] == data.test.images[:100]).all()
    plan = forward.plan(Setting("forward", 1, (500,), 1024, instances_per_block=8), data)
    assert plan.inputs["x"].shape == (9, 1024, 784)
    own = {"instances_per_block": 8, "units_per_block": 1, "policy_rank": 0}
    assert plan.workers["blocks"] == own


def column(microseconds, first=(2.0, 0.3), last=(1.0, 0.3), process="a library"):
    return Column(np.array(microseconds, float), first, last, 10, process)


def measured(setting, **microseconds):
    """Return a measurement, all columns with the same noise; the machine's take a microsecond."""
    times = microseconds | {"copy": 1.0, "product": 1.0}
    noise = np.array([1.1, 0.9, 1, 1, 3])
    return Measurement(setting, {name: column(time * noise) for name, time in times.items()})


ATTRIBUTES = {
    "left_out": {"c": "no compiler"}, "versions": {"python": "3"}, "command": "python x",
    "git_commit": "", "host_cpu": "a CPU", "started": "2020-01-01", "ended": "2020-01-02",
}  # fmt: skip


def training_results(**microseconds):
    """Results of all targets' settings; a product and a copy take 1 microsecond."""
    kinds = [(n, net) for n in (1, 2) for net in ((500,), (800, 800))]
    settings = [Setting("step", *kind, 20, policy) for kind in kinds for policy in (False, True)]
    return Results(ATTRIBUTES, [measured(s, **microseconds) for s in settings])


RATES = np.array([0.05, 0.15, 0.5, 1.0])


def measured_blocks(setting, given=(20, 8, 2, 0.5), counted=(8, 4, 0.5, 0.25)):
    """Return a measurement with these speed-ups over the faster one of the dense ways."""
    names = forward.DENSE[setting.work]
    times = dict(zip(names, (1200.0, 1000.0), strict=True))
    for speedups, policy in ((given, False), (counted, True)):
        rates = RATES if setting.work == "forward" else [forward.STEP_RATE]
        times |= {forward.column(r, policy): 1e3 / s for r, s in zip(rates, speedups, strict=False)}
    found = measured(setting, **times)
    for rate in RATES:
        if (name := forward.column(rate, True)) in found.columns:
            found.columns[name].last = (1.05 * rate,)
    return found


def forward_results():
    kinds = (forward.BLOCKS_OF_32, *forward.INSTANCES, *forward.ONE)
    nets = [(n, net) for n in (1, 2) for net in ((500,), (800, 800))]
    settings = [Setting("forward", *net, **kind) for net in nets for kind in kinds]
    steps = forward.STEPS.values()
    settings += [Setting("step", n, (800, 800), **kind) for n in (1, 2) for kind in steps]
    return Results(ATTRIBUTES, [measured_blocks(s) for s in sorted(settings)])


RESULTS = {
    "training": lambda: training_results(numba=10.0, eager=41.0, scan=12.0),
    "forward": forward_results,
}


def test_ratios_are_taken_round_by_round():
    """The machine has slow spells. By the medians of the times, 5, 2 and 1.9, scan came closer."""
    times = {"numba": [0.5, 1, 5, 6, 7], "eager": [1, 2, 10, 2, 14], "scan": [1.9, 2.2, 11, 1, 1]}
    setting = Setting("step", 2, (500,), 20, True)
    found = Measurement(setting, {c: column(t) for c, t in times.items()})
    results = Results(ATTRIBUTES, [found])
    assert found.fastest(("eager", "scan")) == "eager" and found.fastest(("compile",)) is None
    for to in ("best peer", "PyTorch eager"):
        np.testing.assert_array_equal(training.ratios(results, found, to), [0.5, 0.5, 0.5, 3, 0.5])
    del found.columns["eager"]
    assert np.median(training.ratios(results, found, "best peer")) == 1 / 2.2
    del found.columns["scan"]
    assert training.ratios(results, found, "best peer") is None


def test_speedups_are_ratios_within_a_round_over_the_fastest_dense_way():
    dense, sparse = np.array([1.0, 1, 5, 6, 7]), np.array([0.5, 0.5, 2.5, 2, 14])
    times = {"dense": dense, "blas": dense * [0.9, 0.9, 0.9, 2, 2], "given 0.15": sparse}
    setting = Setting("forward", 2, (500,), 1024, False, 32)
    found = Measurement(setting, {c: column(t) for c, t in times.items()})
    assert forward.reference(found) == "blas"
    assert forward.speedup(found, 0.15, False) == pytest.approx(1.8)
    found.columns["blas"] = column(1.1 * dense)
    assert forward.reference(found) == "dense" and forward.speedup(found, 0.15, False) == 2


def test_targets_of_training():
    results = training_results(numba=10.0, eager=41.0, scan=12.0, compile=13.0, jax=1.0)
    lines = training.describe_targets(results)
    assert len(lines) == 8  # of 2 threads only
    start = "784-500-10, plain: this package / best peer ="
    assert f"{start} 0.83 (0.83 to 0.83), target 0.8: not met" in lines
    start = "784-500-10, policies: this package / PyTorch eager ="
    assert f"{start} 0.24 (0.24 to 0.24), target 0.25: met" in lines
    (bound,) = (line for line in lines if "800-800-10, policies" in line and "bound" in line)
    setting = Setting("step", 2, (800, 800), 20, True)
    flops = 2 * 20 * (5 * (784 * 800 + 800 * 800) - 784 * 800 + 3 * 8000)
    assert results.bound(setting) == pytest.approx(
        max(flops / (2 * 2048**3 / 0.9), 12 * (2 * 800 * 1584 + 8000) / (2 * 2**28 / 0.9))
    )
    assert f"= {10 / results.bound(setting):.2f} (" in bound and "target 2.5" in bound


def test_a_peer_that_is_not_there_leaves_no_ratio():
    results = training_results(numba=10.0)
    lines = training.describe_targets(results)
    assert len(lines) == 2 and all("bound" in line for line in lines)
    results.measurements[0].columns["eager"] = column(np.ones(5))
    text = training.table(results)
    assert "PyTorch eager |" in text and "| - |" in text
    assert "- this package, C is left out: no compiler." in text


def test_table_of_block_dropout_says_targets_and_break_even():
    text = forward.table(forward_results())
    row = "| 2 | 784-800-800-10 | blocks of 32 | 1024 | 11.6 |"
    assert f"{row} 8.0 of 9, not met | 4.0 of 7, not met | 20.0 of 18, met | 8.0 |" in text
    row = "| 1 | 784-800-800-10 | groups of 16 | 1024 | 11.6 |"
    assert f"{row} 8.0 of 7, met | 4.0 of 5, not met | 20.0 of 18, met | 8.0 of 10" in text
    row = "| 2 | 784-800-800-10 | single units | 1 | 11.6 | 8.0 of 5, met | 4.0 | 20.0 | 8.0 |"
    assert row in text
    row = "| 2 | 784-500-10 | blocks of 32 | 1024 | 0.977 | NumPy |"
    (line,) = (line for line in text.splitlines() if line.startswith(row))
    assert line.endswith("| 8.00 | 4.00 | 20.00 | 8.00 | 71% | 33% |")
    assert "| 1 | 784-500-10 | single units, policies of rank 16 | 1024 | 0.977 |" in text
    for masks in ("blocks of 20", "groups of 16"):
        row = f"| 2 | 784-800-800-10 | {masks} | 1000 | JAX lax.scan | 20.00 | 8.00 |"
        assert row in text
    assert "4096" not in text  # not measured
    assert "within 5% of it" in text and "commit none" in text


def test_notes_say_machine_and_kernels():
    results = training_results(numba=10.0, scan=20.0)
    for found in results.measurements:
        threads = found.setting.n_threads
        found.columns["product"].process = f"openblas Zen kernels, {threads} threads"
        found.columns["numba"].process = f"numba, {threads} threads (omp)"
    lines = notes.describe(results)
    assert "product: openblas Zen kernels, 2 threads." in lines
    assert "this package, Numba: numba, 2 threads (omp)." in lines
    assert not any("1 threads" in line for line in lines)
    assert any(line.startswith("Peaks with 1 thread: 19088744 GFLOP/s") for line in lines)


@pytest.mark.parametrize(
    "speedups, rate",
    [
        ([8, 4, 0.5, 0.25], 0.15 * (0.5 / 0.15) ** (2 / 3)),  # 4 is 2 / 3 of the way down to 1 / 2
        ([8, 4, 2, 0.5], 0.5 * 2**0.5),
        ([8, 4, 1, 0.5], 0.5),
        ([0.9, 2, 0.5, 0.4], 0.15 * (0.5 / 0.15) ** 0.5),  # the highest crossing
        ([8, 4, 2, 1], forward.ALWAYS),
        ([0.9, 0.8, 0.5, 0.4], forward.NEVER),
    ],
)
def test_break_even_lies_on_a_power_law_between_two_rates(speedups, rate):
    assert forward.break_even(RATES, np.array(speedups)) == pytest.approx(rate)


def test_break_even_in_words():
    rates = (forward.NEVER, 0.0123, 0.333, forward.ALWAYS)
    words = [forward.describe_break_even(rate) for rate in rates]
    assert words == ["never", "1.23%", "33%", "always"]


@pytest.mark.parametrize(
    "n_units, bound", [((500,), 6.67), ((800,) * 2, 11.63), ((4096,) * 2, 23.1)]
)
def test_flop_bound_is_that_of_both_sides(n_units, bound):
    setting = Setting("forward", 1, n_units, 1)
    assert forward.flop_bound(setting, [0.15, 1.0]) == pytest.approx([bound, 1], rel=0.005)
    wide, narrow = 784 * 500 + 500 * 10, 784 * 50 + 50 * 10
    setting = Setting("forward", 1, (500,), 1)
    assert forward.flop_bound(setting, [0.1]) == pytest.approx([wide / narrow])


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_read_as_written_and_drawn_alike(name, tmp_path):
    results, path = RESULTS[name](), tmp_path / "speed.hdf5"
    files.write(path, results)
    again = files.read(path)
    assert again.attributes == results.attributes
    for a, b in zip(results.measurements, again.measurements, strict=True):
        assert a.setting == b.setting and a.columns.keys() == b.columns.keys()
        for key, column in a.columns.items():
            assert vars(column).keys() == vars(b.columns[key]).keys()
            for field, value in vars(column).items():
                np.testing.assert_array_equal(value, getattr(b.columns[key], field))
    text = benchmarks.draw(name, path, tmp_path / "a")
    assert benchmarks.draw(name, path, tmp_path / "b") == text
    assert text == benchmarks.BENCHMARKS[name][0].table(results)
    written = sorted((tmp_path / "a").iterdir())
    assert [p.suffix for p in written] == [".md", ".pdf", ".png"]
    for p in written:
        assert p.read_bytes() == (tmp_path / "b" / p.name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda root: root.__delitem__("settings"),
        lambda root: root.attrs.__delitem__("versions"),
        lambda root: root.attrs.modify("versions", "{"),
        lambda root: root.attrs.modify("versions", "[1]"),
        lambda root: root["settings/000"].attrs.__delitem__("batch_size"),
        lambda root: root["settings/000/blas"].attrs.__delitem__("process"),
        lambda root: root["settings/000/blas"].write_direct(np.full(5, np.nan)),
        lambda root: root["settings/000/blas"].write_direct(np.zeros(5)),
        lambda root: root.create_dataset("settings/000/extra", data=np.ones(5)),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_in_a_sentence(change, tmp_path):
    path = tmp_path / "speed.hdf5"
    files.write(path, forward_results())
    with h5py.File(path, "r+") as root:
        change(root)
    with pytest.raises(RecordError, match="speed.hdf5 is missing or damaged: delete it"):
        files.read(path)


def test_another_file_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "speed.hdf5"
    with pytest.raises(RecordError, match="missing or damaged: delete it"):
        files.read(path)
    path.write_text("no HDF5")
    with pytest.raises(RecordError, match="missing or damaged: delete it"):
        files.read(path)
    with h5py.File(path, "w") as root:
        root.attrs["format"] = "something else"
    with pytest.raises(RecordError, match="holds no benchmark: delete it"):
        files.read(path)


def test_figure_shows_most_threads_and_marks_the_break_even_rate():
    figure = drawing.speedups(forward_results())
    assert figure.get_suptitle() == "Forward pass, 2 threads"
    above, _, own, _, single, _ = figure.axes
    assert [t.get_text() for t in single.get_xticklabels()] == ["5", "15", "50", "100"]
    assert [t.get_text() for t in above.texts] == ["break-even: 33%"]
    (star,) = (line for line in above.lines if line.get_marker() == "*")
    assert star.get_xdata()[0] == pytest.approx(33.5, abs=0.1) and list(star.get_ydata()) == [1]
    assert not own.texts and not single.texts
    for axes, kinds in ((above, 1), (own, 3), (single, 2)):
        assert sum(line.get_marker() not in ("*", "None") for line in axes.lines) == 2 * kinds
    names = ["single units", "single units, policies of rank 16", "groups of 16"]
    assert [text.get_text() for text in own.get_legend().get_texts()] == names


@pytest.mark.parametrize("counted, text", [([0.4] * 4, "never"), ([9] * 4, "always")])
def test_figure_says_when_there_is_no_break_even_rate(counted, text):
    setting = Setting("forward", 1, (500,), **forward.BLOCKS_OF_32)
    results = Results(ATTRIBUTES, [measured_blocks(setting, counted=counted)])
    above = drawing.speedups(results).axes[0]
    assert [t.get_text() for t in above.texts] == [f"break-even: {text}"]
    assert not [line for line in above.lines if line.get_marker() == "*"]


class FakeWorker:
    """A process that answers at once, and remembers in `log` whose turn it was."""

    log = []
    broken = ()
    loss = 3.0

    def __init__(self, column, n_threads):
        self.column, self.answers = column, []

    def tell(self, what, **arguments):
        FakeWorker.log.append((what, self.column, arguments))
        FakeWorker.loss -= 0.001
        answer = {"microseconds": 1.0, "statistics": [self.loss], "peak_bytes": 1, "process": ""}
        self.answers.append({} if what == "make" else answer)

    def answer(self):
        if self.column in self.broken:
            raise worker.LeftOut("it is not installed")
        return self.answers.pop(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def company(monkeypatch):
    """Processes that do nothing; returns the log of what they were told."""
    monkeypatch.setattr(turns, "Worker", FakeWorker)
    monkeypatch.setattr(turns, "SECONDS_BETWEEN_TURNS", 0)
    for name, value in (("log", []), ("broken", ()), ("loss", 3.0)):
        monkeypatch.setattr(FakeWorker, name, value)
    return FakeWorker.log


def plan_of(*names):
    """Return the plan of columns with a process each."""
    return turns.Plan(dict.fromkeys(names, {}), {c: (c, {}) for c in names}, {}, learns=True)


def measure_one(*names, n_turns=4):
    results = Results({"left_out": {}}, [])
    saved = []
    setting = Setting("step", 1, (5,), 20)
    turns.measure(results, [setting], lambda _: plan_of(*names), n_turns, lambda: saved.append(1))
    assert len(saved) == 1 and results.attributes["ended"]
    return results


def test_columns_take_turns_each_time_another_one_first(company):
    results = measure_one("numba", "eager")
    order = [name for what, name, _ in company if what == "turn"]
    assert order[:4] == ["numba", "eager", "product", "copy"]  # compiles; not timed
    assert order[4:12] == ["eager", "product", "copy", "numba", "product", "copy", "numba", "eager"]
    assert len(results.measurements[0].columns["numba"].microseconds) == 4 == len(order) / 4 - 1


def test_a_peer_that_fails_is_left_out_and_ours_must_not(company, monkeypatch, capsys):
    monkeypatch.setattr(FakeWorker, "broken", ("eager",))
    results = measure_one("numba", "eager")
    assert results.attributes["left_out"] == {"eager": "it is not installed"}
    assert results.measurements[0].columns.keys() == {"numba", "product", "copy"}
    assert capsys.readouterr().err.count("PyTorch eager is left out: it is not installed\n") == 1
    monkeypatch.setattr(FakeWorker, "broken", ("numba",))
    with pytest.raises(ReinforceDropoutError, match="numba cannot be measured"):
        measure_one("numba", "eager")


def test_a_column_that_does_not_learn_is_not_timed(company, monkeypatch):
    monkeypatch.setattr(FakeWorker, "loss", float("nan"))
    with pytest.raises(ReinforceDropoutError, match="784-5-10, plain: it does not learn"):
        measure_one("numba")


def test_what_has_been_measured_is_not_measured_again(company):
    results = measure_one("numba")
    settings = [Setting("step", 1, (n,), 20) for n in (7, 5)]
    company.clear()
    turns.measure(results, settings, lambda _: plan_of("numba"), 3, lambda: None)
    assert [m.setting.n_units for m in results.measurements] == [(5,), (7,)]
    assert sum(what == "make" for what, _, _ in company) == 3


def test_processes_use_so_many_threads_and_the_processors_own_kernels(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "256")
    found = worker.environment(3)
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & found.keys()
    assert found["OPENBLAS_NUM_THREADS"] == found["NUMBA_NUM_THREADS"] == "3"


def test_no_garbage_is_collected_while_a_turn_is_timed():
    _, enabled = worker.timed(gc.isenabled)
    assert not enabled and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        worker.timed(lambda: 1 / 0)
    assert gc.isenabled()


def test_only_the_second_turn_is_timed_unless_the_first_was_long(monkeypatch):
    class Made:
        arguments = None

        def set(self, **arguments):
            self.arguments = arguments

        def turn(self):
            return np.array([[1.0], [3.0]])

    made, clock = Made(), iter([0, 0.04, 1, 1.02])
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(clock))
    answer = worker.take_turn(made, rate=0.5)
    assert answer["microseconds"] == pytest.approx(1e4) and answer["statistics"] == [2.0]
    assert made.arguments == {"rate": 0.5}
    clock = iter([0, 0.5])
    assert worker.take_turn(made)["microseconds"] == pytest.approx(2.5e5)


def script(root, *options, **environment):
    return subprocess.run(
        [sys.executable, SCRIPTS / "benchmarks.py", "--root", root, *options],
        capture_output=True, text=True, timeout=900, env=os.environ | environment,
    )  # fmt: skip


def in_process(root, *options):
    """Do what the script does, without a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["benchmarks.py", "--root", str(root), *options])
        return CliRunner().invoke(benchmarks.main, sys.argv[1:])


@pytest.fixture(scope="module", params=["training", "forward"])
def timed(request, tmp_path_factory):
    """A root in which a tiny run was timed, its arguments, and what it printed.

    Peers that are not installed, or broken, are left out.
    """
    root = tmp_path_factory.mktemp("timed")
    (root / "broken").mkdir()
    (root / "broken" / "jax.py").write_text("raise ModuleNotFoundError(name='jax')")
    (root / "broken" / "torch.py").write_text("raise ImportError('torch is\\nbroken.')")
    path = os.pathsep.join([str(root / "broken"), *sys.path])
    options = [request.param, "--quick", "--net", "40", "--threads", "1", "--turns", "3"]
    process = script(root, *options, PYTHONPATH=path)
    assert process.returncode == 0, process.stderr
    return root, options, path, process


def test_a_tiny_run_is_timed(timed):
    root, (name, *_), _, process = timed
    results = files.read(root / "runs" / "quick" / "speed" / f"{name}.hdf5")
    benchmark, _ = benchmarks.BENCHMARKS[name]
    settings = [m.setting for m in results.measurements]
    assert settings == sorted(benchmark.settings([(40,)], [1], quick=True))
    for measurement in results.measurements:
        for column in measurement.columns.values():
            assert len(column.microseconds) == 3 and 1e7 < column.peak_bytes < 1e10
        names = measurement.columns.keys()
        assert names >= {*files.MACHINE} and not names & {"eager", "compile", "scan", "jax"}
        assert "openblas" in measurement.columns["product"].process or sys.platform == "darwin"
        assert "1 threads" in measurement.columns["product"].process
    left_out = results.attributes["left_out"]
    assert left_out["scan"] == "jax is not installed"
    assert left_out.get("eager", "torch is") == "torch is"
    assert process.stderr.count("JAX lax.scan is left out: jax is not installed\n") == 1
    assert results.attributes["started"] <= results.attributes["ended"]
    assert results.attributes["command"].startswith("python reproduce/benchmarks.py --root")


def test_the_same_command_times_nothing_again(timed):
    root, options, path, process = timed
    before = {p: p.read_bytes() for p in root.rglob("*.*") if p.suffix != ".pyc"}
    again = in_process(root, *options)
    assert again.exit_code == 0 and again.stdout == process.stdout, again.stderr
    assert before == {p: p.read_bytes() for p in before}
    figures = root / "runs" / "figures" / "quick"
    assert (figures / f"{benchmarks.BENCHMARKS[options[0]][0].FIGURES}.md").read_text() == (
        process.stdout
    )


def test_results_of_other_code_are_not_added_to(tmp_path):
    path = tmp_path / "runs" / "speed" / "forward.hdf5"
    files.write(path, forward_results())
    before = path.read_bytes()
    process = in_process(tmp_path, "forward")
    assert process.exit_code == 1 and process.stdout == ""
    assert "forward.hdf5 was measured with other code or versions: delete it" in process.stderr
    assert process.stderr.count("\n") == 1 and path.read_bytes() == before


@pytest.mark.parametrize(
    "option, value",
    [("--net", "500-x"), ("--net", "0"), ("--threads", "100000"), ("--threads", "0"),
     ("--turns", "few")],
)  # fmt: skip
def test_options_out_of_range_are_refused(option, value, tmp_path):
    process = in_process(tmp_path, "forward", option, value)
    assert process.exit_code == 2 and not [*tmp_path.iterdir()]
    assert f"Invalid value for '{option}'" in process.stderr.splitlines()[-1]
