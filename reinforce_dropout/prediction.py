"""Class probabilities of one's own images, by the best model of a run."""

import numpy as np
import pytensor
import pytensor.tensor as pt
from scipy.special import softmax

from reinforce_dropout import backends
from reinforce_dropout.block_sparse import forward_by
from reinforce_dropout.errors import DataError, ExperimentError
from reinforce_dropout.evaluation import backend_of, load_network, over_batches
from reinforce_dropout.network import MASK_RULES


def load_prediction(
    record, backend=None, rule=None, instances_per_block=None, execution="dense", seed=None
):
    """Compile the best model of a run for images of one's own.

    Parameters
    ----------
    record : records.Record
        As `records.read` returns it.
    backend : str, optional
        See `backends.resolve`; by default that of the run, see `evaluation.backend_of`.
    rule : {"sampled", "expected", "thresholded"}, optional
        What takes the place of the mask, by default the experiment's `evaluation_rule`.
    instances_per_block : int, optional
        Neighbouring images that share a mask, by default as in training. With more than 1, a
        prediction depends on the other images of its block.
    execution : {"dense", "block-sparse"}
        Block-sparse skips what is dropped, with the same probabilities but for rounding; see
        `evaluation.compile_evaluation`.
    seed : int, optional
        In the place of the experiment's own. From it the sampled masks are drawn, at every call the
        same: by default those with which the test images have the recorded test error.

    Returns
    -------
    callable
        ``predict(images) -> probabilities``: floats (n, n_in), pixels from 0 to 1 as in training,
        give float32 (n, n_classes), each row with the sum 1; a single image (n_in,) gives
        (n_classes,). With the rule "sampled" a row depends on its place and on the number of rows,
        as all rows are drawn from one stream, layer after layer; the other rules draw nothing. It
        raises `DataError` for images of another width, of integers, or with
        pixels that are not finite.

    Raises
    ------
    RecordError, ExperimentError
        As for `evaluation.load_network` and `block_sparse.forward_by`; or the seed is
        negative, or the rule unknown or given for a network without policies.
    """
    experiment, trained = load_network(record, instances_per_block)
    n_in, n_classes = len(record.best["W_1"]), len(record.best["b_out"])
    seeds = (experiment if seed is None else experiment.replace(seed=seed)).seeds()
    mode, x = backends.mode(backend or backend_of(record)), pt.fmatrix("x")
    rng = pytensor.shared(np.random.default_rng(seeds.evaluation), name="prediction_rng")
    forward = forward_by(execution, trained, mode)(x, rng, _mask_rule(rule, experiment))
    updates = [] if forward.rng is rng else [(rng, forward.rng)]
    logits = over_batches([x], forward.logits, rng, updates, trained, mode)

    def predict(images):
        images = _checked(images, n_in)
        rows = np.atleast_2d(images)
        nothing = np.empty((0, n_classes), "float32")
        probabilities = softmax(np.concatenate([nothing, *logits(rows)]), axis=1)
        return probabilities.reshape(*images.shape[:-1], n_classes)

    return predict


def _mask_rule(rule, experiment):
    """Return the entry of `MASK_RULES` that is meant."""
    if rule is not None and rule not in MASK_RULES:
        raise ExperimentError(f"rule must be one of {', '.join(MASK_RULES)}, not {rule!r}.")
    if rule is not None and not experiment.policy:
        raise ExperimentError(
            "the network has no policies, so there is no mask to replace: leave rule out."
        )
    return MASK_RULES[rule or experiment.evaluation_rule]


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
