"""Training, resuming and evaluation agree on every backend; a missing backend is reported."""

import os
import subprocess
import sys
import sysconfig
from types import SimpleNamespace

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy
from reference import AS_WRITTEN, flat, given

from reinforce_dropout import backends, costs, systems
from reinforce_dropout.backends import scan
from reinforce_dropout.errors import BackendError
from reinforce_dropout.results import records
from reinforce_dropout.running import datasets, training
from reinforce_dropout.running.evaluation import load_evaluation
from reinforce_dropout.systems import block_policy, passes, policy
from reinforce_dropout.systems.learner import compile_learner, put

QUIET = {"show_progress": False, "n_threads": 1}


@pytest.fixture(scope="module", params=["numba", "c", "jax"])
def backend(request):
    if request.param == "jax":
        pytest.importorskip("jax")
    try:
        return backends.resolve(request.param)
    except BackendError as error:
        if request.param == "c":
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="module")
def stateful(small_experiment):
    """An experiment in which everything that a checkpoint must hold matters."""
    return small_experiment.replace(
        name="stateful", n_epochs=3, shuffle=True, baseline="moving-average"
    )


@pytest.fixture(scope="module")
def dataset(small_data):
    return datasets.load(small_data)


@pytest.fixture(scope="module")
def whole(backend, stateful, small_data, tmp_path_factory):
    """A run that was never stopped."""
    path = tmp_path_factory.mktemp("run") / "whole.hdf5"
    return training.train(stateful, path, data=small_data, backend=backend, **QUIET)


def after_three_steps(experiment, dataset, mode, block=1, groups=None):
    """Return the variables that three updates with given masks change, and their statistics."""
    system = systems.build_for_training(experiment, dataset.image_shape, dataset.n_classes)
    widths = groups or experiment.n_units
    x, y, masks = pt.fmatrix("x"), pt.ivector("y"), [pt.fmatrix() for _ in widths]
    step = system.step(x, y, None, rule=given(masks))
    # "cxx": otherwise PyTensor compiles parts of some Ops even here.
    with pytensor.config.change_flags(cxx="" if mode is AS_WRITTEN else pytensor.config.cxx):
        run = backends.function(
            [x, y, *masks], flat(step.statistics), updates=list(step.updates.items()), mode=mode
        )
    random = np.random.default_rng(0)
    statistics = []
    for rows in (slice(20), slice(20, 40), slice(240, 250)):  # the last mini-batch is smaller
        images, labels = dataset.train.images[rows], dataset.train.labels[rows]
        drawn = [(random.random((-(-len(labels) // block), n)) < 0.4) for n in widths]
        statistics.append(run(images, labels, *(u.astype("float32") for u in drawn)))
    return list(step.updates), np.asarray(statistics)


@pytest.fixture(scope="module")
def expected(stateful, dataset):
    return after_three_steps(stateful, dataset, AS_WRITTEN)


def test_same_update_for_the_same_masks(backend, stateful, dataset, expected):
    """Results are those of the graph as written, in float32; under JAX they stay on the device."""
    assert_equal_updates(
        after_three_steps(stateful, dataset, backends.mode(backend)), expected, backend
    )


def test_policies_of_low_rank_learn_alike(backend, dataset):
    """Their matrices are learned, too."""
    experiment = policy.Settings(n_units=(12, 9), lam=0.01, policy_rank=3)
    found, right = (
        after_three_steps(experiment, dataset, mode)
        for mode in (backends.mode(backend), AS_WRITTEN)
    )
    shapes = {v.name: v.get_value().shape for v in found[0]}
    assert shapes.items() >= {"A_1": (64, 3), "B_1": (3, 12), "A_2": (12, 3), "B_2": (3, 9)}.items()
    assert "Z_1" not in shapes
    assert_equal_updates(found, right, backend)


def assert_equal_updates(found, expected, backend):
    """Both are what `after_three_steps` returned."""
    variables, statistics = found
    tolerance = {"rtol": 1e-4, "atol": 2e-6}
    np.testing.assert_allclose(statistics, expected[1], **tolerance)
    assert [v.name for v in variables] == [v.name for v in expected[0]]
    for variable, right in zip(variables, expected[0], strict=True):
        value = variable.get_value(borrow=True)
        assert value.dtype == "float32", variable
        np.testing.assert_allclose(value, right.get_value(), **tolerance, err_msg=variable.name)
        if backend == "jax":
            assert isinstance(value, pytest.importorskip("jax").Array), variable


def test_same_evaluation(backend, whole, stateful, dataset, monkeypatch):
    """Results are those of the graph as written; NumPy's generator draws the same masks, too."""
    monkeypatch.setattr(passes, "BATCH_SIZE", 40)  # 90 examples: the last batch has 10
    system = systems.build_for_prediction(stateful, dataset.image_shape, dataset.n_classes)
    put(system.parameters, whole.best)
    what, seed = (passes.logits, passes.activity), stateful.seeds().evaluation
    found, right = (
        passes.compile_passes(system, system.predict, what, seed, mode)(dataset.test.images)
        for mode in (backends.mode(backend), AS_WRITTEN)
    )
    assert list(found) == list(right) == ["sampled", "expected", "thresholded"]
    for rule in list(found)[1 if backend == "jax" else 0 :]:
        for values, expected in zip(found[rule], right[rule], strict=True):
            assert type(values) is np.ndarray and values.dtype == "float32"
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_evaluation_repeats_the_recorded_errors(backend, whole, dataset):
    evaluate, best = load_evaluation(whole, backend), whole.best_epoch - 1
    for part in ("valid", "test", "valid"):
        errors, active = evaluate(getattr(dataset, part))
        for rule, error in errors.items():
            assert type(error) is float and error == whole.curves[f"{part}_error_{rule}"][best]
            assert type(active[rule]) is np.ndarray and active[rule].dtype == "float64"


def test_interrupted_and_resumed_by_another_process_equals_uninterrupted(
    backend, whole, stateful, small_data, tmp_path, monkeypatch
):
    """The resuming command says nothing but its result: no warnings of the backend."""
    path, updates = tmp_path / "run.hdf5", iter(range(1000))

    def interrupt(_bar):
        if next(updates) == 17:  # in the second epoch of 13 mini-batches
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.ProgressBar, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.train(stateful, path, data=small_data, backend=backend, **QUIET)
    assert len(records.read(path).curves["train_nll"]) == 1
    settings = {"n_units": "12,9", "lam": stateful.lam, "shuffle": "true", "name": "stateful"}
    settings |= {"baseline": "moving-average", "batch_size": 20}
    command = [sys.executable, "-m", "reinforce_dropout", "train", "policy-500", "--epochs", "3"]
    for field, value in settings.items():
        command += ["--set", f"{field}={value}"]
    command += ["--data", small_data, "--out", path, "--backend", backend, "--quiet"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "" and result.stdout.count("\n") == 1, result
    resumed = records.read(path)
    assert resumed.best_attributes == whole.best_attributes
    for name, curve in whole.curves.items():
        if name != "epoch_seconds":
            np.testing.assert_array_equal(resumed.curves[name], curve, err_msg=name)
    for name, value in whole.best.items():
        np.testing.assert_array_equal(resumed.best[name], value, err_msg=name)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"instances_per_block": 7, "units_per_block": 5},
        {"instances_per_block": 7, "block_state": "max"},
        {"instances_per_block": 20, "kl_gradient": "score"},
        {"instances_per_block": 50, "batch_size": 50},
        {"gate": "uniform", "instances_per_block": 7},
        {"policy_rank": 3, "instances_per_block": 7, "units_per_block": 5},
    ],
    ids=str,
)
def test_jax_makes_the_steps_of_shared_decisions(fields, dataset):
    """Shapes that PyTensor computes are constants to JAX; a shorter last block is one too."""
    pytest.importorskip("jax")
    experiment = block_policy.Settings(
        n_units=(12, 9), lam=0.001, baseline="moving-average", **fields
    )
    G = experiment.units_per_block
    sizes = experiment.instances_per_block, [-(-n // G) for n in experiment.n_units]
    found, right = (
        after_three_steps(experiment, dataset, mode, *sizes)
        for mode in (backends.mode("jax"), AS_WRITTEN)
    )
    assert_equal_updates(found, right, "jax")


def test_jax_scans_over_the_mini_batches(stateful, dataset, monkeypatch):
    """A scan makes the steps that single calls make, whatever is on the device already."""
    pytest.importorskip("jax")
    monkeypatch.setattr(scan, "AT_ONCE", 5)  # of 12 whole mini-batches; another has 10 examples
    scanned, single = (
        compile_learner(
            systems.build_for_training(stateful, dataset.image_shape, dataset.n_classes),
            stateful,
            backends.mode("jax"),
        )
        for _ in range(2)
    )
    forth = dataset.train.images, dataset.train.labels
    back = tuple(values[::-1] for values in forth)
    for x, y in (forth, forth, back):
        found = list(scanned.steps(x, y, 20))
        right = [single.step(x[i : i + 20], y[i : i + 20]) for i in range(0, len(y), 20)]
        assert len(found) == 13
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=2e-6)
    (arrays, generators), (right_arrays, right_generators) = scanned.state(), single.state()
    assert generators == right_generators
    for name, right in right_arrays.items():
        assert arrays[name].dtype == right.dtype
        np.testing.assert_allclose(arrays[name], right, rtol=1e-4, atol=2e-6, err_msg=name)


def test_jax_counts_the_rows_of_any_mini_batch():
    """The nll picks an entry of each row: its gradient too, in float32."""
    pytest.importorskip("jax")
    x, y = pt.fmatrix("x"), pt.ivector("y")
    W = pytensor.shared(np.ones((5, 3), "float32"), name="W")
    nll = costs.nll(x @ W, y)
    outputs = [nll, pt.grad(nll.sum(), W), pt.arange(x.shape[0]) * 2]
    with pytensor.config.change_flags(cxx=""):
        right = backends.function([x, y], outputs, mode=AS_WRITTEN)
    found = backends.function([x, y], outputs, mode=backends.mode("jax"))
    rng = np.random.default_rng(0)
    for n in (4, 1, 7):
        images, labels = rng.random((n, 5), "float32"), rng.integers(0, 3, n).astype("int32")
        for ours, expected in zip(found(images, labels), right(images, labels), strict=True):
            assert ours.dtype == expected.dtype
            np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["numba", "c", "python"])
def test_block_sparse_is_what_was_asked_for(name, monkeypatch, caplog):
    """Only JAX has no code for it."""
    monkeypatch.setattr(backends._MODULES[name], "check", lambda: None)
    for execution in ("dense", "block-sparse", "fast"):
        assert backends.execution(name, execution) == execution
    monkeypatch.setattr(backends.jax, "check", lambda: None)
    assert backends.execution("jax", "dense") == "dense" and caplog.records == []
    assert backends.execution("jax", "block-sparse") == "dense"
    assert caplog.messages == [
        "The backend jax has no block-sparse execution: the dense one is taken instead."
    ]
    with pytest.raises(BackendError, match="no backend 'fortran'"):
        backends.execution("fortran", "block-sparse")


def test_masks_are_drawn_anew_in_every_epoch(whole):
    fractions = whole.curves["active_fraction"]
    assert ((fractions > 0.02) & (fractions < 0.4)).all()  # they start at 0.12
    assert len(np.unique(fractions)) == fractions.size


def test_auto_takes_the_fastest_that_works(monkeypatch):
    assert backends.resolve("auto") == "numba"
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setattr(backends.c, "check", lambda: None)
    assert backends.resolve("auto") == "c"


def test_python_needs_neither_numba_nor_a_compiler(stateful, dataset, expected, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytensor.config.change_flags(cxx=""):
        found = after_three_steps(stateful, dataset, backends.mode("python"))
    assert_equal_updates(found, expected, "python")


def assert_one_sentence(error, *words):
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and ". " not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("name", ["numba", "jax"])
def test_a_package_that_is_not_installed_or_broken(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError) as error:
        backends.mode(name)
    assert_one_sentence(error, f"the backend {name} does not work here", "install")

    def broken(name):
        raise RuntimeError("built for another NumPy.\nSee its page.")

    monkeypatch.setattr(backends.packages.importlib, "import_module", broken)
    with pytest.raises(BackendError) as error:
        backends.mode(name)
    assert "(built for another NumPy. See its page)" in str(error.value)


def test_without_a_compiler_or_headers(monkeypatch, tmp_path):
    with pytensor.config.change_flags(cxx=""), pytest.raises(BackendError) as error:
        backends.mode("c")
    assert_one_sentence(error, "install g++", "--backend")
    with monkeypatch.context() as patch:
        patch.setattr(backends.c.shutil, "which", lambda name: None)
        with pytest.raises(BackendError, match="install g\\+\\+"):
            backends.mode("c")
    monkeypatch.setattr(backends.c.shutil, "which", lambda name: "/bin/g++")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(BackendError) as error:
        backends.mode("c")
    assert_one_sentence(error, "headers", "python3-dev")


def test_no_backend_at_all(monkeypatch):
    def missing():
        raise BackendError("it is missing: install it.")

    nothing = dict.fromkeys(backends.AUTO, SimpleNamespace(check=missing))
    monkeypatch.setattr(backends, "_MODULES", nothing)
    with pytest.raises(BackendError) as error:
        backends.resolve("auto")
    assert_one_sentence(error, "no backend works here")


@pytest.fixture
def c_backend():
    """Skip without a compiler; restore PyTensor's settings afterwards."""
    try:
        backends.resolve("c")
    except BackendError as error:
        pytest.skip(str(error))
    with pytensor.config.change_flags(blas__ldflags=pytensor.config.blas__ldflags):
        yield


def test_c_calls_scipys_openblas_or_another(c_backend):
    if not sys.platform.startswith("linux"):
        pytest.skip("the libraries of a process are read from Linux's /proc")
    backends.mode("c")
    x = pt.fmatrix()
    gemm = backends.function([x], x @ x, mode=backends.mode("c"))
    np.testing.assert_array_equal(gemm(np.full((2, 2), 2, "float32")), np.full((2, 2), 8))
    flags = pytensor.config.blas__ldflags
    assert flags, "a pip install has SciPy's, other systems their own"
    (name, *_) = [f[2:] for f in flags.split() if f.startswith("-l")]
    with open("/proc/self/maps") as maps:
        assert name in maps.read()


def test_a_users_own_blas_stays(c_backend):
    pytensor.config.blas__ldflags = "-lmy_blas"
    backends.mode("c")
    assert pytensor.config.blas__ldflags == "-lmy_blas"


def test_a_blas_that_does_not_link_gets_one_sentence(c_backend, capsys):
    pytensor.config.blas__ldflags = "-lno_such_blas"
    x = pt.fmatrix()
    with pytest.raises(BackendError) as error:
        backends.function([x], x @ x, mode=backends.mode("c"))
    assert_one_sentence(error, "C++ compiler failed", "no_such_blas", "blas__ldflags")
    assert capsys.readouterr() == ("", "")


def test_no_blas_is_said_in_one_line(c_backend, monkeypatch, tmp_path, caplog):
    pytensor.config.blas__ldflags = ""
    monkeypatch.setattr(scipy, "__file__", os.fspath(tmp_path / "scipy" / "__init__.py"))
    backends.mode("c")
    assert pytensor.config.blas__ldflags == ""
    (message,) = caplog.messages
    assert "install OpenBLAS" in message and "\n" not in message
