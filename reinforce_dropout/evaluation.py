"""Error rates by the three rules for what takes the place of a mask."""

import logging
import numbers
from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import backends, blocks, network
from reinforce_dropout.block_sparse import forward_by
from reinforce_dropout.errors import BackendError, DataError, ExperimentError, RecordError
from reinforce_dropout.experiment import Experiment
from reinforce_dropout.network import MASK_RULES

BATCH_SIZE = 1000
"""Examples propagated at once: large enough for full speed, small enough to stay in cache."""


class Evaluation(NamedTuple):
    """Figures of a network on a set of examples.

    Attributes
    ----------
    errors : ndarray (3,) float64, or () for a network without policies
        Fraction of the examples that are misclassified, in the order of `MASK_RULES`: sampled,
        expected, thresholded.
    active_fraction : ndarray (3, L) float64
        Mean of the masks of each hidden layer under each rule; empty without policies.
    """

    errors: np.ndarray
    active_fraction: np.ndarray


def error_by_rule(errors, experiment):
    """Return the error by the experiment's own rule from `Evaluation.errors` or a curve of them."""
    if not experiment.policy:
        return errors
    return np.asarray(errors)[..., list(MASK_RULES).index(experiment.evaluation_rule)]


def load_evaluation(record, backend=None, instances_per_block=None, execution="dense"):
    """Compile the evaluation of the best model of a run.

    Parameters
    ----------
    record : records.Record
    backend : str, optional
        See `backends.resolve`; by default the one that the run was trained with, see
        `backend_of`.
    instances_per_block : int, optional
        See `load_network`.
    execution : {"dense", "block-sparse"}
        See `compile_evaluation`.

    Returns
    -------
    callable
        See `compile_evaluation`; with the default block size it repeats the recorded errors of the
        best epoch.

    Raises
    ------
    RecordError, ExperimentError
        As for `load_network` and `compile_evaluation`.
    """
    experiment, trained = load_network(record, instances_per_block)
    n_in, n_classes = len(record.best["W_1"]), len(record.best["b_out"])
    evaluate = compile_evaluation(
        trained,
        backends.mode(backend or backend_of(record)),
        experiment.seeds().evaluation,
        execution,
    )

    def evaluate_fitting(examples):
        if examples.images.shape[1] != n_in or examples.labels.max(initial=0) >= n_classes:
            raise DataError(
                f"the model is for images of {n_in} pixels and {n_classes} classes, the data has "
                f"{examples.images.shape[1]} pixels and labels up to {examples.labels.max()}: "
                "give the data it was trained on with --data."
            )
        return evaluate(examples)

    return evaluate_fitting


def backend_of(record):
    """Return the backend of a run, or "auto" with a warning where that does not work here.

    Backends that draw otherwise give other sampled masks, and so other errors.

    Parameters
    ----------
    record : records.Record

    Returns
    -------
    str
        See `backends.resolve`.
    """
    try:
        return backends.resolve(record.attributes["backend"])
    except BackendError as error:
        logging.getLogger(__name__).warning(
            "Another backend is taken than the run's, with other sampled masks perhaps: %s", error
        )
        return "auto"


def load_network(record, instances_per_block=None):
    """Rebuild the best model of a run.

    Parameters
    ----------
    record : records.Record
    instances_per_block : int, optional
        Size of the blocks, by default that of training: a policy decides from one state, whether
        it is of one instance or of a block of any size.

    Returns
    -------
    experiment : Experiment
    trained : MaskedNetwork

    Raises
    ------
    RecordError
        The record holds no model, or one that is not its experiment's.
    ExperimentError
        The block size is no whole number from 1 on, or given for a network without policies.
    """
    experiment = Experiment.from_dict(record.attributes["experiment"])
    try:
        n_in, n_classes = len(record.best["W_1"]), len(record.best["b_out"])
        trained = network.build(experiment, n_in, n_classes)
    except (KeyError, TypeError):
        raise RecordError(
            "the record holds no model of its experiment: train for at least one epoch."
        ) from None
    trained.set_values(record.best)
    if instances_per_block is not None:
        _check_block_size(instances_per_block, experiment)
        trained.instances_per_block = instances_per_block
    return experiment, trained


def _check_block_size(instances_per_block, experiment):
    if not isinstance(instances_per_block, numbers.Integral) or instances_per_block < 1:
        raise ExperimentError(
            f"instances_per_block must be a whole number, 1 or more, not {instances_per_block!r}."
        )
    if not experiment.policy:
        raise ExperimentError(
            "the network has no policies, so nothing is decided for blocks: leave "
            "instances_per_block out."
        )


def compile_evaluation(trained, mode, seed, execution="dense"):
    """Compile the evaluation of a network.

    The draws start from the same state at every call (common random numbers), so that epochs are
    compared under the same luck and a recorded error can be repeated to the last digit.

    Parameters
    ----------
    trained : MaskedNetwork
    mode : pytensor.compile.mode.Mode
    seed : int or numpy.random.SeedSequence
        Of the sampled masks.
    execution : {"dense", "block-sparse"}
        How the passes with sampled and thresholded masks are computed: block-sparse skips what is
        dropped, with the same draws and, but for rounding, the same logits. The expected rule drops
        nothing and stays dense, and so does everything under JAX. See `block_sparse.forward_by`.

    Returns
    -------
    callable
        ``evaluate(examples) -> Evaluation``, exact over all examples, whatever their number, which
        raises `DataError` when there are none. Blocks are counted from the first example; only the
        last of all may be shorter. It sees later changes of the network's parameters, but for
        weights that a block-sparse execution reads.

    Raises
    ------
    ExperimentError
        The execution is unknown, or block-sparse for a network without policies.
    """
    propagate = forward_by(execution, trained, mode)
    x, y = pt.fmatrix("x"), pt.ivector("y")
    rng = pytensor.shared(np.random.default_rng(seed), name="evaluation_rng")
    errors, active, updates = [], [], []
    for mask in MASK_RULES.values() if trained.policies else [None]:
        forward = propagate(x, rng, mask)
        errors.append(pt.neq(pt.argmax(forward.logits, axis=1), y).sum())
        active.append(
            [
                blocks.active_units(u, x, n, trained.instances_per_block, trained.units_per_block)
                for u, n in zip(forward.u, trained.n_units, strict=False)  # no u without policies
            ]
        )
        if forward.rng is not rng:
            updates = [(rng, forward.rng)]
    outputs = [pt.stack(errors)] + ([pt.stack([pt.stack(a) for a in active])] if active[0] else [])
    totals = over_batches([x, y], outputs, rng, updates, trained, mode)

    def evaluate(examples):
        n = len(examples)
        if n == 0:
            raise DataError("there are no examples to evaluate: give one or more.")
        batches = totals(examples.images, examples.labels)
        sums = [np.sum(parts, axis=0) / n for parts in zip(*batches, strict=True)]
        if not trained.policies:
            return Evaluation(sums[0][0], np.empty((0, 0)))
        return Evaluation(*sums)

    return evaluate


def over_batches(inputs, outputs, rng, updates, trained, mode):
    """Compile a function of a batch into one of any number of examples.

    Parameters
    ----------
    inputs, outputs : list of tensor
    rng : shared random generator
        It starts from the same state at every call.
    updates : list of tuple
    trained : MaskedNetwork
    mode : pytensor.compile.mode.Mode

    Returns
    -------
    callable
        ``batches(*arrays) -> list``, the outputs for each batch of the examples. A batch holds
        whole blocks; only the last one may be shorter.
    """
    block = trained.instances_per_block
    size = block * max(1, BATCH_SIZE // block)
    mode = blocks.compilation_mode(mode, block)
    function = backends.function(inputs, outputs, updates=updates, mode=mode)
    start = backends.generator_state(function, rng)

    def batches(*arrays):
        backends.set_generator_state(function, rng, start)
        firsts = range(0, len(arrays[0]), size)
        return [function(*(values[i : i + size] for values in arrays)) for i in firsts]

    return batches
