"""dasNet: its passes against NumPy, the search, the frozen network, and a whole run."""

import dataclasses

import convolutions
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from idx import write_dataset
from reference import AS_WRITTEN, compiled, flat, values_of
from stopping import check_resumes
from test_settings import check_sentence

from reinforce_dropout import backends, load_evaluation, load_prediction, systems, train
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.results import records
from reinforce_dropout.running import datasets
from reinforce_dropout.systems import cnn, dasnet, snes

SHAPE, N_CLASSES, F = (10, 9), 3, 5
D = F * (F + N_CLASSES)
FIELDS = {"n_units": (2, 3), "kernel_size": 2}


def network_and_images(n=6):
    """Return a network with biases that are not 0, its parameters by name, and images."""
    rng = np.random.default_rng(3)
    network = cnn.convolutional_network(cnn.Settings(**FIELDS), SHAPE, N_CLASSES)
    for p in network.params:
        if p.name[0] == "b":
            p.set_value(rng.normal(0, 0.3, p.get_value().shape).astype("float32"))
    P = {p.name: p.get_value().astype("float64") for p in network.params}
    return network, P, rng.uniform(size=(n, SHAPE[0] * SHAPE[1])).astype("float32")


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def numpy_looks(P, x, theta, n_passes):
    """Return logits and gates of each pass by one candidate: the gated maps are convolved."""
    gates, found = np.ones((len(x), F)), []
    for _ in range(n_passes):
        g_1, g_2 = gates[:, :2, None, None], gates[:, 2:, None, None]
        s_1 = g_1 * convolutions.layer(P, "1", x.reshape(-1, 1, *SHAPE), 2)
        s_2 = g_2 * convolutions.layer(P, "2", s_1, 2)
        logits = s_2.reshape(len(x), -1) @ P["W_out"] + P["b_out"]
        found.append((logits, gates))
        o = [s_1.mean(axis=(2, 3)), s_2.mean(axis=(2, 3)), softmax(logits)]
        gates = F * softmax(np.concatenate(o, axis=1) @ theta.T)
    return found


def thetas(n, std=2.0):
    """Return candidates (n, F, n_observations)."""
    return np.random.default_rng(4).normal(0, std, (n, F, F + N_CLASSES)).astype("float32")


def test_passes_are_numpys():
    """Three candidates at once, each as if alone; the gates depend on image and candidate."""
    network, P, images = network_and_images()
    x, theta = pt.fmatrix("x"), pt.ftensor3("theta")
    looks = dasnet.looks(network, x, theta, 3)
    found = compiled([x, theta], [v for look in looks for v in look])(images, thetas(3))
    for k, candidate in enumerate(thetas(3)):
        expected = [v for look in numpy_looks(P, images, candidate, 3) for v in look]
        for value, other in zip(found, expected, strict=True):
            assert value.dtype == "float32"
            np.testing.assert_allclose(value[:, k], other, rtol=1e-3, atol=1e-5)
    last = found[-1]
    assert last.std(axis=0).max() > 0.01 and last.std(axis=1).max() > 0.1


def test_gates_average_1():
    """They are positive, in every pass; those of the first are 1."""
    network, _, images = network_and_images()
    x, theta = pt.fmatrix("x"), pt.ftensor3("theta")
    gates = compiled([x, theta], [look.gates for look in dasnet.looks(network, x, theta, 4)])
    first, *later = gates(images, thetas(2, std=5.0))
    np.testing.assert_array_equal(first, 1)
    for g in later:
        assert (g > 0).all() and g.max() > 2
        np.testing.assert_allclose(g.mean(axis=2), 1, rtol=1e-5)


def compile_rules(system, *rules):
    x = pt.fmatrix("x")
    return compiled([x], [system.predict[rule](x, None).logits for rule in rules])


def test_one_pass_is_the_plain_network():
    """Whatever theta is; and with theta = 0, where the search starts, so are all passes."""
    e = dasnet.Settings(n_passes=3, **FIELDS)
    system = systems.build_for_training(e, SHAPE, N_CLASSES)
    plain = systems.build_for_training(cnn.Settings(**FIELDS), SHAPE, N_CLASSES)
    (expected,) = compile_rules(plain, "all units")(network_and_images()[2])
    look = compile_rules(system, "last-pass", "first-pass")
    for logits in look(network_and_images()[2]):
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    system.parameters["theta"].set_value(thetas(1).ravel())
    last, first = look(network_and_images()[2])
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(last - expected).max() > 0.01
    once = systems.build_for_training(e.replace(n_passes=1), SHAPE, N_CLASSES)
    once.parameters["theta"].set_value(thetas(1).ravel())
    for logits in compile_rules(once, "last-pass", "first-pass")(network_and_images()[2]):
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("population", [0, 5])
def test_a_generation_is_numpys(population):
    """The fitness of each candidate, the statistics, and both updates; the network stays."""
    e = dasnet.Settings(
        population=population, n_passes=2, search_std=1.5, mean_learning_rate=0.5, **FIELDS
    )
    system = systems.build_for_training(e, SHAPE, N_CLASSES)
    P = values_of(system)
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(6))
    step = system.step(x, y, rng)
    f = compiled([x, y], flat(step.statistics), updates=step.updates)
    (sig,) = (v for v in step.updates if v.name == "search_std")
    assert set(step.updates) == {system.parameters["theta"], sig, rng}
    images, n = network_and_images(12)[2], population or snes.population_size(D)
    labels = np.random.default_rng(1).integers(0, N_CLASSES, 12).astype("int32")
    found = dict(zip(step.statistics, f(images, labels), strict=True))

    s = np.random.default_rng(6).normal(size=(n, D))
    last = [numpy_looks(P, images, 1.5 * k.reshape(F, -1), 2)[-1] for k in s]
    nll = np.array([reference.nll(logits, labels) for logits, _ in last])
    wrong = np.array([logits.argmax(axis=1) != labels for logits, _ in last])
    assert 0 < wrong.mean() < 1
    fitness = -(np.where(wrong, 1, 0.005) * nll).mean(axis=1) - 0.005 * ((1.5 * s) ** 2).sum(axis=1)
    gates = np.array([gates for _, gates in last])
    expected = {
        "train_nll": nll.mean(), "train_error": wrong.mean(), "best_fitness": fitness.max(),
        "search_std": 1.5, "gate_spread": gates.std(),
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, err_msg=name)

    rank = (-fitness).argsort().argsort() + 1
    u = np.maximum(0, np.log(n / 2 + 1) - np.log(rank))
    u = u / u.sum() - 1 / n
    eta = (3 + np.log(D)) / (5 * np.sqrt(D))
    theta = system.parameters["theta"].get_value()
    np.testing.assert_allclose(theta, 0.5 * 1.5 * (u @ s), rtol=1e-3, atol=1e-4)
    sigmas = 1.5 * np.exp(eta / 2 * (u @ (s**2 - 1)))
    np.testing.assert_allclose(sig.get_value(), sigmas, rtol=1e-3)


def test_other_numbers_of_convolutions_are_refused():
    with pytest.raises(ExperimentError) as error:
        dasnet.Settings(n_units=(4, 4, 4))
    check_sentence(error, "two convolution layers", "(4, 4, 4)")


# ---- whole runs ----


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of IDX files of 16 x 16 pixels."""
    return write_dataset(tmp_path_factory.mktemp("idx"), n_train=300, n_test=90, shape=(16, 16))


@pytest.fixture(autouse=True)
def as_written(monkeypatch):
    """Run graphs node by node."""
    monkeypatch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
    with pytensor.config.change_flags(cxx=""):
        yield


SMALL = {"n_units": (3, 4), "kernel_size": 3}


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Path of the record of a network that still makes errors."""
    path = tmp_path_factory.mktemp("cnn") / "cnn-seed1.hdf5"
    e = cnn.Settings(n_epochs=1, batch_size=25, loss_reduction="mean", learning_rate=0.02, **SMALL)
    with pytest.MonkeyPatch.context() as patch, pytensor.config.change_flags(cxx=""):
        patch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
        train(e, path, data=data, show_progress=False, n_threads=1)
    return path


def small(trained, **fields):
    """Return the preset with few candidates."""
    chosen = {"cnn": str(trained), "batch_size": 125, "population": 12, "n_passes": 3, **SMALL}
    chosen["mean_learning_rate"] = 1.0
    return systems.preset("dasnet").replace(**chosen | fields)


def test_searches_resumes_and_evaluates(trained, data, tmp_path):
    """End to end: the network stays as it was, the search finds better gates, errors repeat."""
    e = small(trained, n_epochs=6, search_std=0.5, l2=0.0, weight_if_right=1.0)
    record, before = check_resumes(e, tmp_path, data=data), records.read(trained)
    for name, value in before.best.items():
        np.testing.assert_array_equal(record.best[name], value)
    assert record.best.keys() - before.best.keys() == {"theta"}
    curves, best = record.curves, record.best_attributes
    np.testing.assert_array_equal(curves["valid_error"], curves["valid_error_last-pass"])
    first = curves["test_error_first-pass"]  # known where a new best model was found
    assert set(first[np.isfinite(first)]) == {before.best_attributes["test_error"]}
    assert curves["train_nll"][-1] < curves["train_nll"][0]
    assert 0 < best["test_error"] < before.best_attributes["test_error"]

    # Without the network's record a model goes on to work.
    test = datasets.load(data).test
    errors = load_evaluation(record)(test).errors
    assert errors["last-pass"] == best["test_error"]
    assert errors["first-pass"] == before.best_attributes["test_error"]
    predicted = load_prediction(record)(test.images).argmax(axis=1)
    assert (predicted != test.labels).mean() == best["test_error"]


def test_the_name_of_the_record_may_hold_the_seed(trained, data, tmp_path):
    pattern = str(trained).replace("seed1", "seed{seed}")
    e = small(trained, cnn=pattern, n_epochs=1)
    assert train(e, tmp_path / "run.hdf5", data=data, show_progress=False).n_epochs == 1
    with pytest.raises(ExperimentError) as error:
        train(e.replace(seed=2), tmp_path / "other.hdf5", data=data, show_progress=False)
    check_sentence(error, "no record", "cnn-seed2.hdf5", "train dasnet-cnn --seed 2", "--set cnn=")
    assert not (tmp_path / "other.hdf5").exists()


@pytest.mark.parametrize(
    ("change", "fields", "words"),
    [
        ({"status": "unfinished"}, {}, ["holds no finished model", "train the network to its end"]),
        ({}, {"kernel_size": 4}, ["has kernel_size=3, not 4", "--set kernel_size=3"]),
        ({}, {"n_units": (4, 4)}, ["has n_units=3,4, not 4,4", "--set n_units=3,4"]),
        ({}, {"activation": "tanh"}, ["has activation=relu, not tanh"]),
        ({"dimensions": {"image_shape": [8, 8], "n_classes": 4}}, {}, ["other images or classes"]),
        ({"experiment": systems.preset("baseline-500").as_dict()}, {}, ["system plain, not cnn"]),
    ],
)
def test_records_that_do_not_fit_are_refused(trained, data, tmp_path, change, fields, words):
    """Before the first epoch; nothing is written."""
    record = records.read(trained)
    other = tmp_path / "other.hdf5"
    records.write(other, dataclasses.replace(record, attributes=record.attributes | change))
    e = small(other, n_epochs=1, **fields)
    with pytest.raises(ExperimentError) as error:
        train(e, tmp_path / "run.hdf5", data=data, show_progress=False)
    check_sentence(error, "other.hdf5", *words)
    assert not (tmp_path / "run.hdf5").exists()
