"""A classifier for scikit-learn that trains any system: `ConditionalMLPClassifier`.

It needs the extra ``sklearn``: ``pip install 'reinforce-dropout[sklearn]'``.
"""

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"reinforce_dropout.sklearn needs scikit-learn 1.6 or newer ({error}): "
        "pip install 'reinforce-dropout[sklearn]'."
    ) from error

from reinforce_dropout import backends, systems
from reinforce_dropout.errors import DivergenceError
from reinforce_dropout.results.records import Record
from reinforce_dropout.running.datasets import Examples
from reinforce_dropout.running.early_stopping import Patience
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.running.evaluation import error_rate
from reinforce_dropout.running.prediction import chosen_rule, load_prediction
from reinforce_dropout.running.training import goes_on
from reinforce_dropout.systems.learner import make_learner

__all__ = ["ConditionalMLPClassifier"]

COMPILE_SECONDS = 5.0
"""What Numba's compilation may save to be worth its time; the first one ever takes longer."""
STEP_SECONDS = 2e-3
"""Of the backend python, for the smallest step with policies."""
MASK_SECONDS = 2e-6
"""Of the backend python, for each unit and example more."""


class ConditionalMLPClassifier(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron that learns which of its units to use, for each input.

    Any preset of the package can be trained. Scale the features, such as by `StandardScaler`: the
    presets' learning rates are for pixels from 0 to 1.

    Parameters
    ----------
    system : str
        A preset; ``reinforce-dropout presets`` lists them.
    n_units : tuple of int, optional
        Widths of the hidden layers. This and the next three are the preset's by default.
    lam : float, optional
        Trade-off lambda of eq. (6), for presets with policies.
    learning_rate : float, optional
    batch_size : int, optional
        Examples in a mini-batch.
    settings : dict, optional
        Further fields of the preset, such as ``{"q": 0.2}``. They are set last.
    max_iter : int
        Epochs at most.
    shuffle : bool
        Whether the examples are put in a new order every epoch.
    early_stopping : bool
        Whether to set validation examples aside, to stop by `Patience`, and to keep the parameters
        of the epoch with the lowest validation error. Otherwise all epochs are run.
    patience : int
        Epochs that are always run with early stopping.
    validation_fraction : float
        Fraction of the examples of each class that early stopping sets aside.
    rule : str, optional
        Where the masks come from in predictions: "expected" by default, if the system has it. With
        "sampled", a prediction depends on the other rows, because all share one random stream.
    backend : str
        See `reinforce_dropout.backends`. "auto" is "python" for small problems, because Numba
        takes seconds to compile.
    random_state : int, RandomState or None
        Seed of all draws.

    Attributes
    ----------
    classes_ : ndarray (n_classes,)
        Labels, sorted.
    n_features_in_ : int
    feature_names_in_ : ndarray (`n_features_in_`,)
        If X has names of columns.
    n_iter_ : int
        Epochs run.
    best_iter_ : int
        The epoch, from 1, whose parameters are kept.
    loss_curve_ : ndarray (`n_iter_`,)
        Mean negative log-likelihood of each epoch's training, in nats an example.
    validation_scores_ : ndarray (`n_iter_`,) or None
        Accuracy on the validation examples, a fraction, with early stopping.
    active_fraction_ : ndarray (L,)
        Fraction of the units that take part in each gated layer, in the training of the epoch that
        is kept. Empty for a system without gates.
    record_ : Record
        Settings, curves and parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from reinforce_dropout.sklearn import ConditionalMLPClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = np.where(X[:, 0] > X[:, 1], "falls", "rises")
    >>> classifier = ConditionalMLPClassifier(n_units=(30,), max_iter=30, random_state=0)
    >>> bool(classifier.fit(X, y).score(X, y) > 0.9)
    True
    """

    def __init__(
        self, system="policy-500", *, n_units=None, lam=None, learning_rate=None, batch_size=None,
        settings=None, max_iter=100, shuffle=True, early_stopping=False, patience=10,
        validation_fraction=0.1, rule=None, backend="auto", random_state=None,
    ):  # fmt: skip
        self.system = system
        self.n_units = n_units
        self.lam = lam
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.settings = settings
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.early_stopping = early_stopping
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.rule = rule
        self.backend = backend
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X, y, **unsupported):
        """Train from new parameters.

        Parameters
        ----------
        X : array or sparse matrix (n, n_features)
            Numbers, used as float32. A sparse matrix is made dense.
        y : array (n,)
            Labels of any kind.
        **unsupported
            Refused: no system weighs its examples.

        Returns
        -------
        ConditionalMLPClassifier
            Itself.

        Raises
        ------
        ReinforceDropoutError
            A setting is wrong, or the training diverged.
        """
        if unsupported:
            raise TypeError(
                f"fit does not take {', '.join(unsupported)}: leave it out, or draw the examples "
                "with the frequencies that you want."
            )
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float32, order="C")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, valid = self._split(Examples(_dense(X), labels.astype(np.int32)), seed)
        experiment = self._experiment(len(train), seed)
        backend = self.backend if self.backend != "auto" else cheapest(experiment, len(train))
        dimensions = X.shape[1:], len(self.classes_)
        system = systems.build_for_training(experiment, *dimensions)
        rule = chosen_rule(self.rule or _fixed_rule(system), experiment, system)
        learner = make_learner(system, experiment, backends.mode(backend, adaptive=True))
        curves, best, epoch = _trained(experiment, learner, train, valid, rule)

        names = "image_shape", "n_classes"
        self.record_ = Record(
            attributes={
                "experiment": experiment.as_dict(),
                "dimensions": dict(zip(names, dimensions, strict=True)),
                "backend": backend,
            },
            curves=curves,
            best=best,
            best_attributes={"epoch": epoch},
        )
        self.n_iter_, self.best_iter_ = self.record_.n_epochs, epoch
        self.loss_curve_ = curves["train_nll"]
        self.validation_scores_ = 1 - curves["valid_error"] if valid else None
        self.active_fraction_ = curves.get("active_fraction", np.empty((epoch, 0)))[epoch - 1]
        self._prediction = _Prediction(self.record_, rule)
        return self

    def predict_proba(self, X):
        """Return the probability of each class, (n, n_classes) float32, for X as in `fit`."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float32, order="C", reset=False)
        return self._prediction(_dense(X))

    def predict(self, X):
        """Return the most probable label of each example, (n,), for X as in `fit`."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _split(self, examples, seed):
        """Return training and validation examples, the latter None without early stopping."""
        if not self.early_stopping:
            return examples, None
        images, valid_images, labels, valid_labels = train_test_split(
            examples.images,
            examples.labels,
            test_size=self.validation_fraction,
            stratify=examples.labels,
            random_state=seed,
        )
        return Examples(images, labels), Examples(valid_images, valid_labels)

    def _experiment(self, n, seed):
        """Return the settings of a run on n examples."""
        names = "n_units", "lam", "learning_rate", "batch_size"
        chosen = {name: getattr(self, name) for name in names}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        chosen |= {"n_epochs": self.max_iter, "shuffle": self.shuffle, "seed": seed}
        experiment = systems.preset(self.system).replace(**chosen | (self.settings or {}))
        patience = self.patience * -(-n // experiment.batch_size)
        return experiment.replace(**{"patience": patience} | (self.settings or {}))


class _Prediction:
    """The passes of a record's model, compiled when they are first needed, and not pickled."""

    def __init__(self, record, rule):
        self.record, self.rule, self.compiled = record, rule, None

    def __call__(self, images):
        if self.compiled is None:
            self.compiled = load_prediction(self.record, rule=self.rule)
        return self.compiled(images)

    def __getstate__(self):
        return {**self.__dict__, "compiled": None}


def _dense(X):
    return X if isinstance(X, np.ndarray) else X.toarray()


def _fixed_rule(system):
    """Return a rule that draws nothing, if the system has one."""
    return "expected" if "expected" in system.predict else next(iter(system.predict))


def cheapest(experiment, n):
    """Return the backend with which a run on n examples ends first, by a rough estimate."""
    n_updates = experiment.n_epochs * -(-n // experiment.batch_size)
    n_masks = min(n, experiment.batch_size) * sum(getattr(experiment, "n_units", ()))
    seconds = n_updates * (STEP_SECONDS + MASK_SECONDS * n_masks)
    return "python" if seconds < COMPILE_SECONDS else backends.resolve("auto")


def _trained(experiment, learner, train, valid, rule):
    """Run all epochs, and return the curves, the parameters that are kept, and their epoch."""
    epochs = Epochs(learner, train, experiment)
    patience = Patience(
        experiment.patience if valid else np.inf,
        experiment.patience_increase,
        experiment.improvement_threshold,
    )
    rows, best, epoch = [], None, 0
    while goes_on(experiment, epochs, patience):
        try:
            row = epochs.run()
        except DivergenceError as error:
            raise DivergenceError(
                f"{error} of epoch {epochs.n_done + 1}: lower learning_rate, or scale the features."
            ) from None
        if valid:
            row["valid_error"] = error_rate(
                learner.predict(valid.images, [rule])[rule], valid.labels
            )
            if patience.improved(row["valid_error"], epochs.n_done * epochs.n_batches):
                best, epoch = learner.parameters(), epochs.n_done
        rows.append(row)
    if not valid:
        best, epoch = learner.parameters(), epochs.n_done
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}, best, epoch
