"""Class probabilities of images that are in no data set."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference
from random_models import record_of
from reference import AS_WRITTEN

from reinforce_dropout import backends, load_evaluation, load_prediction
from reinforce_dropout.errors import BackendError, DataError, ExperimentError
from reinforce_dropout.network import RULES
from reinforce_dropout.running.datasets import Examples
from reinforce_dropout.systems import block_policy, plain, policy

EXECUTIONS = ("dense", "block-sparse")


def model(system=policy, **fields):
    """Return a record with a random model of 6 pixels and 3 classes."""
    return record_of(system.Settings(**{"n_units": (7, 5)} | fields))


def policies(**fields):
    """Return a random model with policies."""
    return model(initial_rate=0.4, **fields)


def blocks(B, **fields):
    """Return a random model whose policies decide for B instances."""
    return policies(system=block_policy, instances_per_block=B, **fields)


def images(n, dtype="float32"):
    return np.random.default_rng(2).random((n, 6)).astype(dtype)


@pytest.fixture
def as_written(monkeypatch):
    """Run graphs node by node."""
    monkeypatch.setattr(backends, "mode", lambda backend, **_: AS_WRITTEN)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("record", [policies(), blocks(4)], ids=["single", "blocks"])
def test_predicts_as_the_evaluation_does(as_written, record, rule, execution):
    """The most probable classes have the recorded error, over more images than a batch holds."""
    X, labels = images(2501), np.random.default_rng(3).integers(0, 3, 2501).astype("int32")
    errors = load_evaluation(record)(Examples(X, labels)).errors
    probabilities = load_prediction(record, rule=rule, execution=execution)(X)
    assert probabilities.dtype == "float32" and probabilities.shape == (2501, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert len(np.unique(probabilities.argmax(axis=1))) > 1
    wrong = (probabilities.argmax(axis=1) != labels).mean()
    np.testing.assert_allclose(wrong, errors[rule], rtol=1e-12)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_probabilities_are_the_softmax(as_written, execution):
    """Of a forward pass in plain NumPy, with blocks, also other ones than in training."""
    record = blocks(4, units_per_block=2)
    P, X = {k: v.astype("float64") for k, v in record.best.items()}, images(11)
    for B in (4, 1, 3):
        s = X.astype("float64")
        for i in (1, 2):
            u = reference.block_mean(s, B) @ P[f"Z_{i}"] + P[f"o_{i}"] > 0
            h = np.tanh(s @ P[f"W_{i}"] + P[f"b_{i}"])
            s = h * reference.expand(u, h.shape, B, 2)
        p = np.exp(s @ P["W_out"] + P["b_out"])
        predict = load_prediction(
            record, rule="thresholded", instances_per_block=B, execution=execution
        )
        np.testing.assert_allclose(predict(X), p / p.sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_single_image_no_image_and_other_floats(as_written):
    """A vector gives a vector, no images give no rows; lists and float64 are allowed."""
    predict, X = load_prediction(policies(), rule="expected"), images(3, "float64")
    probabilities = predict(X)
    assert predict(X[0]).shape == (3,)
    np.testing.assert_array_equal(predict(X[0]), predict(X[:1])[0])
    # A product with a single row may be rounded otherwise.
    np.testing.assert_allclose(predict(X[:1]), probabilities[:1], rtol=1e-6)
    np.testing.assert_array_equal(predict(X.tolist()), probabilities)
    np.testing.assert_array_equal(predict(np.asfortranarray(X)), probabilities)
    nothing = predict(X[:0])
    assert nothing.shape == (0, 3) and nothing.dtype == "float32"


@pytest.mark.parametrize(
    ("execution", "rule"),
    [
        pytest.param("block-sparse", "thresholded", marks=pytest.mark.cpu),
        ("block-sparse", "expected"),
        ("dense", "thresholded"),
        ("dense", "expected"),
    ],
)
def test_native_rows_do_not_depend_on_their_number(execution, rule):
    """To the last bit, for any number of rows."""
    predict = load_prediction(policies(n_units=(70, 40)), "numba", rule, execution=execution)
    X = images(301) * (np.random.default_rng(4).random((301, 6)) < 0.5)
    probabilities = predict(X.astype("float32"))
    for n in (1, 2, 20, 100, 300):
        np.testing.assert_array_equal(predict(X[:n]), probabilities[:n])
    np.testing.assert_array_equal(predict(X[300]), probabilities[300])


@pytest.mark.parametrize("how", ["mean", "max"])
def test_no_image_of_a_block(as_written, how):
    """No images have no maximum."""
    record = blocks(4, block_state=how)
    for execution in EXECUTIONS:
        assert load_prediction(record, execution=execution)(images(0)).shape == (0, 3)


def test_draws_are_the_seeds(as_written):
    """By default the experiment's own rule and seed; the same at every call."""
    record, X = policies(), images(50)
    predict = load_prediction(record)
    first = predict(X)
    predict(images(7))
    np.testing.assert_array_equal(predict(X), first)
    np.testing.assert_array_equal(load_prediction(record, rule="sampled", seed=1)(X), first)
    assert (load_prediction(record, seed=2)(X) != first).any()
    by_rule = load_prediction(policies(evaluation_rule="expected"))(X)
    np.testing.assert_array_equal(by_rule, load_prediction(record, rule="expected")(X))


def test_without_policies(as_written):
    """Dense, by the only rule."""
    record, X = model(plain), images(5)
    P = record.best
    s = np.tanh(np.tanh(X @ P["W_1"] + P["b_1"]) @ P["W_2"] + P["b_2"])
    p = np.exp(s @ P["W_out"] + P["b_out"])
    for rule in (None, "all units"):
        found = load_prediction(record, rule=rule)(X)
        np.testing.assert_allclose(found, p / p.sum(axis=1, keepdims=True), rtol=1e-4)
    with pytest.raises(ExperimentError, match="one of all units for the system plain, not 'expec"):
        load_prediction(record, rule="expected")
    with pytest.raises(ExperimentError, match="no policies that .* and the execution dense"):
        load_prediction(record, execution="block-sparse")
    with pytest.raises(ExperimentError, match="leave instances_per_block out"):
        load_prediction(record, instances_per_block=2)


@pytest.mark.parametrize("backend", ["c", "jax"])
def test_other_backends(backend, caplog):
    """C runs the Ops' NumPy code; JAX takes the dense execution and says so."""
    for name in ("c", backend):
        try:
            backends.resolve(name)
        except BackendError as error:
            pytest.skip(str(error))
    record, X = blocks(4), images(11)
    dense = load_prediction(record, "c", "thresholded")(X)
    assert caplog.records == []
    sparse = load_prediction(record, backend, "thresholded", execution="block-sparse")(X)
    np.testing.assert_allclose(sparse, dense, atol=1e-5)
    said = ["The backend jax has no block-sparse execution: the dense one is taken instead."]
    assert [r.getMessage() for r in caplog.records] == (said if backend == "jax" else [])


def test_jax_evaluates_densely_and_says_so(caplog):
    pytest.importorskip("jax")
    data = Examples(images(11), np.arange(11, dtype="int32") % 3)
    dense = load_evaluation(blocks(4), "jax")(data)
    assert caplog.records == []
    sparse = load_evaluation(blocks(4), "jax", execution="block-sparse")(data)
    assert sparse.errors == dense.errors
    (told,) = (r.getMessage() for r in caplog.records)
    assert told == "The backend jax has no block-sparse execution: the dense one is taken instead."


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (images(3)[:, 1:], r"images must have the shape \(n, 6\), or \(6,\) .*, not \(3, 5\)"),
        (images(3).reshape(3, 2, 3), "write the rows of each image one after the other"),
        (np.float32(1), r"not \(\)"),
        (np.zeros((2, 6), "uint8"), "floating-point numbers from 0 to 1, not uint8: divide"),
        (np.zeros((2, 6), complex), "not complex128"),
        (np.full((2, 6), np.nan), "pixels must be finite"),
        (np.full((2, 6), 1e300), "pixels must be finite"),
    ],
)
def test_other_images_are_refused(as_written, wrong, words):
    """The error is one sentence."""
    predict = load_prediction(policies())
    with pytest.raises(DataError, match=words):
        predict(wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "median"}, "rule must be one of sampled, expected, thresholded .*, not 'median'"),
        ({"execution": "fast"}, "predicts with the execution dense, not 'fast'"),
        ({"seed": -1}, r"seed must be 0 or more and less than 2\*\*64, not -1"),
        ({"instances_per_block": 0}, "instances_per_block must be a whole number, 1 or"),
    ],
)
def test_other_choices_are_refused(as_written, options, words):
    """The error is one sentence."""
    with pytest.raises(ExperimentError, match=words):
        load_prediction(policies(), **options)


def test_only_sampled_masks_make_a_row_depend_on_the_others(as_written):
    """As the docstring says: the draws of the second layer follow all of the first one's."""
    for rule in RULES:
        predict, X = load_prediction(policies(), rule=rule), images(6)
        alone, among_others = predict(X[:1])[0], predict(X)[0]
        if rule == "sampled":
            assert np.abs(alone - among_others).max() > 1e-3
        else:
            np.testing.assert_allclose(alone, among_others, rtol=1e-5)


def test_threads_may_predict_at_the_same_time():
    """Also under Numba's own threads, which end a process with two calls at once."""
    program = """
from concurrent.futures import ThreadPoolExecutor
import numba, numpy as np
from test_prediction import images, policies
from reinforce_dropout import load_prediction
numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
predicts = [load_prediction(policies(n_units=(n, 900))) for n in (800, 900)]
X = images(3000)
alone = [predict(X) for predict in predicts]
with ThreadPoolExecutor(4) as pool:
    together = list(pool.map(lambda k: predicts[k % 2](X), range(60)))
for k, found in enumerate(together):
    np.testing.assert_array_equal(found, alone[k % 2])
assert numba.threading_layer() == "workqueue"
"""
    tests = Path(__file__).parents[1]
    environment = os.environ | {
        "NUMBA_THREADING_LAYER": "workqueue",
        "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests), str(tests / "running")]),
    }
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=600)
