"""Error rates by every rule for where the masks come from."""

import logging
import numbers
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from reinforce_dropout import backends, systems
from reinforce_dropout.errors import BackendError, DataError, ExperimentError, RecordError
from reinforce_dropout.results.records import Record
from reinforce_dropout.running.datasets import Examples
from reinforce_dropout.systems.learner import put
from reinforce_dropout.systems.passes import activity, compile_passes, logits


class Evaluation(NamedTuple):
    """Figures of a model on a set of examples.

    Attributes
    ----------
    errors : dict from str to float
        For every rule, the fraction of the examples that are misclassified.
    active_fraction : dict from str to ndarray (L,)
        For every rule, the fraction of the units that take part in each gated layer.
    """

    errors: dict[str, float]
    active_fraction: dict[str, np.ndarray]


def error_rate(logits, labels):
    """Return the fraction of the examples that are misclassified."""
    return float((np.argmax(logits, axis=1) != labels).mean())


def error_rates(learner, examples, rules):
    """Return the error rate of a `learner.Learner` by each of some rules; there may be none."""
    if not rules:
        return {}
    results = learner.predict(examples.images, rules)
    return {rule: error_rate(logits, examples.labels) for rule, logits in results.items()}


def decisive_rule(experiment, rules):
    """Return the rule that decides early stopping, the best model, and the tables.

    It is the experiment's ``evaluation_rule``, or the only rule there is.
    """
    (first, *_) = rules
    return getattr(experiment, "evaluation_rule", first)


def load_model(record, execution="dense", instances_per_block=None):
    """Rebuild the best model of a run.

    Parameters
    ----------
    record : records.Record
    execution : str
        "dense" or "block-sparse". The latter skips dropped units, if the system can. The draws are
        the same, and the logits are the same except for rounding.
    instances_per_block : int, optional
        Neighbouring examples that share a mask, by default as in training.

    Returns
    -------
    experiment : Experiment
    system : System

    Raises
    ------
    RecordError
        The record holds no model, or one that is not its experiment's.
    ExperimentError
        The system is unknown, or has no such execution or no blocks.
    """
    if not record.best:
        raise RecordError(
            "the record holds no model of its experiment: train for at least one epoch, and not "
            "with --curves-only."
        )
    experiment = systems.from_dict(record.attributes["experiment"])
    if instances_per_block is not None and (
        not isinstance(instances_per_block, numbers.Integral) or instances_per_block < 1
    ):
        raise ExperimentError(
            f"instances_per_block must be a whole number, 1 or more, not {instances_per_block!r}."
        )
    system = systems.build_for_prediction(
        experiment, *record.dimensions, execution, instances_per_block
    )
    put(system.parameters, record.best)
    return experiment, system


def backend_of(record):
    """Return the backend of a run, or "auto" with a warning if that does not work here.

    Another backend may draw other masks, and then has other errors.
    """
    try:
        return backends.resolve(record.attributes["backend"])
    except BackendError as error:
        logging.getLogger(__name__).warning(
            "Another backend is taken than the run's, with other sampled masks perhaps: %s", error
        )
        return "auto"


def load_evaluation(
    record: Record,
    backend: str | None = None,
    instances_per_block: int | None = None,
    execution: str = "dense",
) -> Callable[[Examples], Evaluation]:
    """Compile the evaluation of the best model of a run.

    Parameters
    ----------
    record : records.Record
    backend : str, optional
        See `backends.resolve`. By default that of the run, see `backend_of`.
    instances_per_block, execution
        See `load_model`.

    Returns
    -------
    callable
        ``evaluate(examples) -> Evaluation``, exact over any number of examples. With the default
        blocks it repeats the recorded errors of the best epoch. It raises `DataError` if there are
        no examples, or if they do not suit the model.

    Raises
    ------
    RecordError, ExperimentError
        As for `load_model`.

    Examples
    --------
    >>> from reinforce_dropout.running import datasets
    >>> from reinforce_dropout import preset, train
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.random((60, 4)), np.arange(60) % 2
    >>> experiment = preset("policy-500").replace(n_units=(5,), n_epochs=2)
    >>> quick = {"backend": "python", "show_progress": False}
    >>> record = train(experiment, "run.hdf5", data=(X, y), **quick)
    >>> evaluation = load_evaluation(record)(datasets.load((X, y)).test)
    >>> list(evaluation.errors), evaluation.active_fraction["expected"].shape
    (['sampled', 'expected', 'thresholded'], (1,))
    """
    backend = backend or backend_of(record)
    execution = backends.execution(backend, execution)
    experiment, system = load_model(record, execution, instances_per_block)
    mode = backends.mode(backend, adaptive=True)
    seed = experiment.seeds().evaluation
    passes = compile_passes(system, system.predict, (logits, activity), seed, mode)
    image_shape, n_classes = record.dimensions
    n_in = int(np.prod(image_shape))

    def evaluate(examples):
        if len(examples) == 0:
            raise DataError("there are no examples to evaluate: give one or more.")
        if examples.images.shape[1] != n_in or examples.labels.max() >= n_classes:
            raise DataError(
                f"the model is for images of {n_in} pixels and {n_classes} classes, the data has "
                f"{examples.images.shape[1]} pixels and labels up to {examples.labels.max()}: "
                "give the data it was trained on with --data."
            )
        results = passes(examples.images)
        return Evaluation(
            {rule: error_rate(values, examples.labels) for rule, (values, _) in results.items()},
            {rule: active.mean(axis=0, dtype="float64") for rule, (_, active) in results.items()},
        )

    return evaluate
