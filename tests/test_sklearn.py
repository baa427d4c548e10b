"""The estimator keeps scikit-learn's rules, and trains as `train` does."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_array

from reinforce_dropout import backends, train
from reinforce_dropout.errors import DivergenceError, ExperimentError
from reinforce_dropout.running import datasets
from reinforce_dropout.systems import SYSTEMS, preset

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.estimator_checks import check_estimator

from reinforce_dropout.sklearn import ConditionalMLPClassifier, cheapest

DOES_NOT_APPLY = {
    "check_array_api_input": "scikit-learn runs it only if SCIPY_ARRAY_API is set",
}


def small(**parameters):
    return ConditionalMLPClassifier(
        **{"n_units": (9,), "max_iter": 3, "backend": "python", "random_state": 0} | parameters
    )


@pytest.fixture(scope="module")
def dataset(small_data):
    return datasets.load(small_data)


@pytest.fixture(scope="module")
def examples(dataset):
    """Sixty images, and labels that are words."""
    words = np.array(["ace", "king", "queen", "ten"])
    return dataset.train.images[:60], words[dataset.train.labels[:60]]


def test_scikit_learns_own_checks():
    estimator = ConditionalMLPClassifier(n_units=(9,), learning_rate=0.05, max_iter=8)
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    assert len(results) > 50
    others = {r["check_name"]: r["exception"] for r in results if r["status"] != "passed"}
    assert others.keys() <= DOES_NOT_APPLY.keys(), others


def test_grid_search_of_a_pipeline_in_two_processes():
    X, y = load_digits(return_X_y=True)
    classifier = ConditionalMLPClassifier(n_units=(20,), max_iter=20, random_state=0)
    search = GridSearchCV(
        make_pipeline(MaxAbsScaler(), classifier),
        {"conditionalmlpclassifier__learning_rate": [0.0, 0.05]},
        cv=2,
        n_jobs=2,
        error_score="raise",
    )
    search.fit(X[:400], y[:400])
    assert search.best_params_ == {"conditionalmlpclassifier__learning_rate": 0.05}
    assert search.score(X[400:800], y[400:800]) > 0.8


@pytest.mark.parametrize("early_stopping", [False, True])
def test_trains_as_train_does(early_stopping, dataset, small_data, tmp_path, monkeypatch):
    """The same draws and bits; early stopping keeps the same epoch."""
    fields = {"lam": 0.001, "learning_rate": 0.05, "batch_size": 20, "n_units": (9,)}
    others = {"seed": 7, "patience": 60, "evaluation_rule": "expected"}
    experiment = preset("policy-500").replace(**fields, **others, n_epochs=30, shuffle=True)
    if not early_stopping:
        experiment = experiment.replace(patience=10_000, n_epochs=4)
    record = train(
        experiment, tmp_path / "run.hdf5", data=small_data, backend="python", show_progress=False
    )
    classifier = small(
        **fields, settings=others, early_stopping=early_stopping, max_iter=experiment.n_epochs
    )
    if early_stopping:
        monkeypatch.setattr(classifier, "_split", lambda *_: (dataset.train, dataset.valid))
    classifier.fit(dataset.train.images, dataset.train.labels)

    assert classifier.n_iter_ == record.n_epochs
    np.testing.assert_array_equal(classifier.loss_curve_, record.curves["train_nll"])
    kept = classifier.best_iter_ - 1
    np.testing.assert_array_equal(
        classifier.active_fraction_, record.curves["active_fraction"][kept]
    )
    if early_stopping:
        assert 3 < record.n_epochs < 30 and record.best_epoch < record.n_epochs
        scores = classifier.validation_scores_
        np.testing.assert_array_equal(scores, 1 - record.curves["valid_error"])
        assert kept + 1 == record.best_epoch == 1 + scores.argmax()
        for name, value in record.best.items():
            np.testing.assert_array_equal(classifier.record_.best[name], value)
        assert classifier.score(dataset.valid.images, dataset.valid.labels) == scores.max()
    else:
        assert classifier.validation_scores_ is None and kept == 3


def test_early_stopping_sets_a_part_of_each_class_aside(examples, monkeypatch):
    classifier = small(early_stopping=True, validation_fraction=0.2, max_iter=1)
    images, words = examples
    _, labels = np.unique(words, return_inverse=True)
    train_part, valid = classifier._split(datasets.Examples(images, labels), 0)
    np.testing.assert_array_equal(np.bincount(train_part.labels), [12] * 4)
    np.testing.assert_array_equal(np.bincount(valid.labels), [3] * 4)
    both = np.concatenate([train_part.images, valid.images])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(images, axis=0))
    classifier.fit(*examples)
    assert classifier.validation_scores_.shape == (1,) and classifier.best_iter_ == 1


OF_IMAGES = ("cnn", "dasnet")
"""Systems that need rows and columns, which scikit-learn's features have not."""


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_system_of_images_is_refused_in_a_sentence(name, examples):
    with pytest.raises(ExperimentError):
        small(system=SYSTEMS[name].PRESETS[0].name, n_units=None).fit(*examples)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name not in OF_IMAGES])
def test_every_system(name, examples):
    """With its first preset, made small where it has `n_units`."""
    first = SYSTEMS[name].PRESETS[0]
    n_units = (32,) if hasattr(first, "n_units") else None
    classifier = small(system=first.name, n_units=n_units, max_iter=1)
    probabilities = classifier.fit(*examples).predict_proba(examples[0])
    assert probabilities.shape == (60, 4) and probabilities.dtype == "float32"
    n_gates = classifier.record_.curves.get("active_fraction", np.empty((1, 0))).shape[1]
    assert classifier.active_fraction_.shape == (n_gates,)


def test_sparse_input_is_the_same_input(examples):
    images, words = examples
    sparse = csr_array(images)
    one, other = small().fit(images, words), small().fit(sparse, words)
    np.testing.assert_array_equal(one.predict_proba(images), other.predict_proba(sparse))


def test_random_state(examples):
    """A number repeats a fit; a generator goes on."""
    images = examples[0]
    once, again = (small(random_state=3).fit(*examples).predict_proba(images) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    generator = np.random.RandomState(3)
    first, second = (
        clone(small()).set_params(random_state=generator).fit(*examples).predict_proba(images)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, once)
    assert (first != second).any()


def test_pickled_after_a_prediction_it_predicts_the_same(examples):
    classifier = small(rule="sampled").fit(*examples)
    before = classifier.predict_proba(examples[0])
    loaded = pickle.loads(pickle.dumps(classifier))
    assert loaded._prediction.compiled is None
    np.testing.assert_array_equal(loaded.predict_proba(examples[0]), before)


def test_rules_of_prediction(examples):
    expected, thresholded = (small(rule=rule).fit(*examples) for rule in (None, "thresholded"))
    images = examples[0]
    np.testing.assert_array_equal(
        expected.predict_proba(images), small(rule="expected").fit(*examples).predict_proba(images)
    )
    assert (expected.predict_proba(images) != thresholded.predict_proba(images)).any()
    with pytest.raises(ExperimentError, match="rule must be one of sampled, expected"):
        small(rule="best").fit(*examples)


def test_weights_of_examples_are_refused_with_a_word(examples):
    with pytest.raises(TypeError, match="does not take sample_weight: leave it out"):
        small().fit(*examples, sample_weight=np.ones(60))


def test_settings_are_refused_as_elsewhere(examples):
    with pytest.raises(ExperimentError, match="no preset 'policy'"):
        small(system="policy").fit(*examples)
    with pytest.raises(ExperimentError, match="plain has no field 'lam'"):
        small(system="baseline-500", lam=0.1).fit(*examples)
    with pytest.raises(ExperimentError, match="q must be"):
        small(settings={"q": 2}).fit(*examples)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_run_that_diverges_names_what_to_change(examples):
    with pytest.raises(DivergenceError, match="of epoch 1: lower learning_rate, or scale"):
        small(settings={"activation": "relu"}, learning_rate=1e30).fit(*examples)


def test_auto_compiles_where_that_pays(examples, monkeypatch):
    monkeypatch.setattr(backends, "resolve", lambda backend: {"auto": "numba"}[backend])
    experiment = preset("policy-500").replace(n_units=(20,), n_epochs=10)
    assert cheapest(experiment, 100) == "python"
    assert cheapest(experiment, 10_000) == "numba"
    assert cheapest(experiment.replace(n_epochs=1000), 100) == "numba"
    assert cheapest(experiment.replace(n_units=(5000,)), 1000) == "numba"
    monkeypatch.undo()
    assert small(backend="auto").fit(*examples).record_.attributes["backend"] == "python"


def test_without_scikit_learn_it_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import reinforce_dropout.sklearn"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: reinforce_dropout.sklearn needs scikit-learn" in result.stderr
    assert "pip install 'reinforce-dropout[sklearn]'" in result.stderr
