"""Class probabilities of one's own images, by the best model of a run."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from reinforce_dropout import backends
from reinforce_dropout.errors import DataError, ExperimentError
from reinforce_dropout.results.records import Record
from reinforce_dropout.running.evaluation import backend_of, decisive_rule, load_model
from reinforce_dropout.systems.passes import compile_passes, logits


def load_prediction(
    record: Record,
    backend: str | None = None,
    rule: str | None = None,
    instances_per_block: int | None = None,
    execution: str = "dense",
    seed: int | None = None,
) -> Callable[[ArrayLike], np.ndarray]:
    """Compile the best model of a run for images of one's own.

    Parameters
    ----------
    record : records.Record
        As `records.read` returns it.
    backend : str, optional
        See `backends.resolve`; by default that of the run, see `evaluation.backend_of`.
    rule : {"sampled", "expected", "thresholded"}, optional
        What is used as the mask; by default the experiment's `evaluation_rule`.
    instances_per_block : int, optional
        Neighbouring images that share a mask, by default as in training. With more than 1, a
        prediction depends on the other images of its block.
    execution : {"dense", "block-sparse"}
        Block-sparse skips dropped units. The probabilities are the same except for rounding.
    seed : int, optional
        Seed of the sampled masks, by default the experiment's own. Every call draws the same masks.
        With the default seed the test images have the recorded test error.

    Returns
    -------
    callable
        ``predict(images) -> probabilities``: images are floats (n, n_in) with pixels from 0 to 1,
        as in training. Probabilities are float32 (n, n_classes); each row has the sum 1. A single
        image (n_in,) gives (n_classes,). With the rule "sampled" a row depends on its place and on
        the number of rows, because all rows share one random stream. The other rules draw nothing.
        It raises `DataError` for images of another width, of integers, or with pixels that are
        not finite.

    Raises
    ------
    RecordError, ExperimentError
        As for `evaluation.load_model`; or the seed is negative, or the system has no such rule.

    Notes
    -----
    Several Python threads may call it; one waits for the other. Do not fork after the first call:
    GNU OpenMP, which Numba uses on Linux, ends a forked process that calls it again. Start
    processes with the method "spawn" or "forkserver" of `multiprocessing`.

    Examples
    --------
    >>> from reinforce_dropout import preset, train
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.random((60, 4)), np.arange(60) % 2
    >>> experiment = preset("policy-500").replace(n_units=(5,), n_epochs=2)
    >>> quick = {"backend": "python", "show_progress": False}
    >>> record = train(experiment, "run.hdf5", data=(X, y), **quick)
    >>> predict = load_prediction(record, rule="expected")
    >>> predict(X).shape
    (60, 2)
    """
    backend = backend or backend_of(record)
    execution = backends.execution(backend, execution)
    experiment, system = load_model(record, execution, instances_per_block)
    image_shape, n_classes = record.dimensions
    n_in = int(np.prod(image_shape))
    seeds = (experiment if seed is None else experiment.replace(seed=seed)).seeds()
    rule = chosen_rule(rule, experiment, system)
    mode = backends.mode(backend, adaptive=True)
    passes = compile_passes(system, [rule], (logits,), seeds.evaluation, mode)

    def predict(images):
        images = _checked(images, n_in)
        rows = np.atleast_2d(images)
        if len(rows) == 0:
            return np.empty((0, n_classes), "float32")
        ((values,),) = passes(rows).values()
        return softmax(values, axis=1).reshape(*images.shape[:-1], n_classes)

    return predict


def chosen_rule(rule, experiment, system):
    """Return a key of ``system.predict``: the rule, or the experiment's own if it is None."""
    if rule is not None and rule not in system.predict:
        raise ExperimentError(
            f"rule must be one of {', '.join(system.predict)} for the system "
            f"{experiment.system}, not {rule!r}."
        )
    return rule or decisive_rule(experiment, system.predict)


def _checked(images, n_in):
    """Return images as float32, refusing what the network was not trained on."""
    images = np.asarray(images)
    if images.ndim not in (1, 2) or images.shape[-1] != n_in:
        raise DataError(
            f"images must have the shape (n, {n_in}), or ({n_in},) for a single one, not "
            f"{images.shape}: write the rows of each image one after the other."
        )
    if images.dtype.kind != "f":
        raise DataError(
            f"pixels must be floating-point numbers from 0 to 1, not {images.dtype}: divide them "
            "by their largest possible value, such as 255."
        )
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        images = np.asarray(images, "float32")
    if not np.isfinite(images).all():
        raise DataError("pixels must be finite float32 numbers: replace the others, such as by 0.")
    return images
