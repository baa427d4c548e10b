"""Class probabilities of images that no data set holds."""

import numpy as np
import pytest
import reference
from reference import AS_WRITTEN

from reinforce_dropout import backends, datasets, load_evaluation, load_prediction, network, records
from reinforce_dropout.block_sparse import EXECUTIONS
from reinforce_dropout.errors import DataError, ExperimentError
from reinforce_dropout.experiment import Experiment
from reinforce_dropout.network import MASK_RULES


def record_of(**fields):
    """Return a record with a model of 6 pixels and 3 classes, its parameters drawn at random."""
    experiment = Experiment(**{"n_units": (7, 5), "initial_rate": 0.4} | fields)
    rng = np.random.default_rng(1)
    best = {
        name: rng.normal(size=value.shape).astype("float32")
        for name, value in network.build(experiment, 6, 3).values().items()
    }
    attributes = {"experiment": experiment.as_dict(), "backend": "numba"}
    return records.Record(attributes, curves={}, best=best, best_attributes={})


def images(n, dtype="float32"):
    return np.random.default_rng(2).random((n, 6)).astype(dtype)


@pytest.fixture
def as_written(monkeypatch):
    """Run graphs node by node."""
    monkeypatch.setattr(backends, "mode", lambda backend: AS_WRITTEN)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("rule", MASK_RULES)
@pytest.mark.parametrize("B", [1, 4])
def test_predicts_as_the_evaluation_does(as_written, B, rule, execution):
    """The most probable classes have its error, over more images than a batch holds."""
    record = record_of(instances_per_block=B)
    X, labels = images(2501), np.random.default_rng(3).integers(0, 3, 2501).astype("int32")
    errors, _ = load_evaluation(record)(datasets.Examples(X, labels))
    probabilities = load_prediction(record, rule=rule, execution=execution)(X)
    assert probabilities.dtype == "float32" and probabilities.shape == (2501, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert len(np.unique(probabilities.argmax(axis=1))) > 1
    wrong = (probabilities.argmax(axis=1) != labels).mean()
    np.testing.assert_allclose(wrong, errors[list(MASK_RULES).index(rule)], rtol=1e-12)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_probabilities_are_the_softmax(as_written, execution):
    """Of a forward pass in plain NumPy, with blocks, also other ones than in training."""
    record = record_of(instances_per_block=4, units_per_block=2)
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
    """A vector gives a vector, nothing gives nothing; lists and float64 are welcome."""
    predict, X = load_prediction(record_of(), rule="expected"), images(3, "float64")
    probabilities = predict(X)
    assert predict(X[0]).shape == (3,)
    # BLAS may round a product of one row otherwise than a row of a larger product.
    np.testing.assert_allclose(predict(X[0]), probabilities[0], rtol=1e-6)
    np.testing.assert_allclose(predict(X[:1]), probabilities[:1], rtol=1e-6)
    np.testing.assert_array_equal(predict(X.tolist()), probabilities)
    np.testing.assert_array_equal(predict(np.asfortranarray(X)), probabilities)
    nothing = predict(X[:0])
    assert nothing.shape == (0, 3) and nothing.dtype == "float32"


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("rule", ["expected", pytest.param("thresholded", marks=pytest.mark.cpu)])
def test_native_rows_do_not_depend_on_their_number(rule, execution):
    """To the last bit, whichever way the kernels take for so many rows."""
    predict = load_prediction(record_of(n_units=(70, 40)), "numba", rule, execution=execution)
    X = images(301) * (np.random.default_rng(4).random((301, 6)) < 0.5)
    probabilities = predict(X.astype("float32"))
    for n in (1, 2, 20, 100, 300):
        np.testing.assert_array_equal(predict(X[:n]), probabilities[:n])
    np.testing.assert_array_equal(predict(X[300]), probabilities[300])


@pytest.mark.parametrize("how", ["mean", "max"])
def test_no_image_of_a_block(as_written, how):
    """There is no maximum of nothing to take."""
    record = record_of(instances_per_block=4, block_state=how)
    for execution in EXECUTIONS:
        assert load_prediction(record, execution=execution)(images(0)).shape == (0, 3)


def test_draws_are_the_seeds(as_written):
    """By default the experiment's own rule and seed; the same at every call."""
    record, X = record_of(), images(50)
    predict = load_prediction(record)
    first = predict(X)
    predict(images(7))
    np.testing.assert_array_equal(predict(X), first)
    np.testing.assert_array_equal(load_prediction(record, rule="sampled", seed=1)(X), first)
    assert (load_prediction(record, seed=2)(X) != first).any()
    by_rule = load_prediction(record_of(evaluation_rule="expected"))(X)
    np.testing.assert_array_equal(by_rule, load_prediction(record, rule="expected")(X))


def test_without_policies(as_written):
    """Dense, by no rule."""
    record, X = record_of(policy=False), images(5)
    P = record.best
    s = np.tanh(np.tanh(X @ P["W_1"] + P["b_1"]) @ P["W_2"] + P["b_2"])
    p = np.exp(s @ P["W_out"] + P["b_out"])
    found = load_prediction(record)(X)
    np.testing.assert_allclose(found, p / p.sum(axis=1, keepdims=True), rtol=1e-4)
    with pytest.raises(ExperimentError, match="no policies, so there is no mask .* leave rule out"):
        load_prediction(record, rule="expected")
    with pytest.raises(ExperimentError, match="no policies, so nothing is dropped"):
        load_prediction(record, execution="block-sparse")
    with pytest.raises(ExperimentError, match="leave instances_per_block out"):
        load_prediction(record, instances_per_block=2)


@pytest.mark.parametrize("backend", ["c", "jax"])
def test_other_backends(backend, caplog):
    """C runs the Ops' NumPy code; JAX takes the dense execution and says so."""
    if backend == "jax":
        pytest.importorskip("jax")
    record, X = record_of(instances_per_block=4), images(11)
    dense = load_prediction(record, "c", "thresholded")(X)
    assert caplog.records == []
    sparse = load_prediction(record, backend, "thresholded", execution="block-sparse")(X)
    np.testing.assert_allclose(sparse, dense, atol=1e-5)
    assert [r.getMessage() for r in caplog.records] == (
        ["The backend jax has no block-sparse execution: the dense one is taken instead."]
        if backend == "jax"
        else []
    )


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
    """With one sentence."""
    predict = load_prediction(record_of())
    with pytest.raises(DataError, match=words):
        predict(wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "median"}, "rule must be one of sampled, expected, thresholded, not 'median'"),
        ({"execution": "fast"}, "execution must be one of dense, block-sparse, not 'fast'"),
        ({"seed": -1}, "seed must be 0 or more and less than .*, not -1"),
        ({"instances_per_block": 0}, "instances_per_block must be a whole number, 1 or"),
    ],
)
def test_other_choices_are_refused(as_written, options, words):
    """With one sentence."""
    with pytest.raises(ExperimentError, match=words):
        load_prediction(record_of(), **options)


def test_only_sampled_masks_make_a_row_depend_on_the_others(as_written):
    """As the docstring says: the draws of the second layer follow all of the first one's."""
    for rule in MASK_RULES:
        predict, X = load_prediction(record_of(), rule=rule), images(6)
        alone, among_others = predict(X[:1])[0], predict(X)[0]
        if rule == "sampled":
            assert np.abs(alone - among_others).max() > 1e-3
        else:
            np.testing.assert_allclose(alone, among_others, rtol=1e-5)
