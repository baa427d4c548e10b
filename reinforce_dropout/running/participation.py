"""How much each unit takes part in the examples of each class, by the best model of a run."""

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import backends
from reinforce_dropout.errors import DataError, ExperimentError
from reinforce_dropout.results.records import Record
from reinforce_dropout.running.datasets import Examples
from reinforce_dropout.running.evaluation import backend_of, load_model
from reinforce_dropout.systems.passes import compile_passes


def by_class(record: Record, examples: Examples, backend: str | None = None) -> list[np.ndarray]:
    """Return the mean participation of each unit in each class.

    Parameters
    ----------
    record : records.Record
    examples : datasets.Examples
        With one example of each class of the model or more.
    backend : str, optional
        See `backends.resolve`; by default that of the run.

    Returns
    -------
    list of ndarray (n_classes, n_units) float64
        For each gated layer, fractions: means of the expected masks, or of sampled ones if the
        system has no expectation.

    Raises
    ------
    ExperimentError
        The system has no gates.
    DataError
        A class has no example, or the images do not suit the model.
    """
    experiment, system = load_model(record)
    image_shape, n_classes = record.dimensions
    n_in = int(np.prod(image_shape))
    missing = np.setdiff1d(np.arange(n_classes), examples.labels)
    if missing.size or examples.images.shape[1] != n_in:
        raise DataError(
            f"the model is for images of {n_in} pixels and {n_classes} classes, each of which must "
            "have an example: give the data it was trained on with --data."
        )
    x, rng = pt.fmatrix(), pytensor.shared(np.random.default_rng())
    rule = "expected" if "expected" in system.predict else next(iter(system.predict))
    layers = range(len(system.predict[rule](x, rng).stages))
    if not layers:
        raise ExperimentError(
            f"the system {experiment.system} has no gates, so all units take part: "
            "give the record of another system."
        )
    mode = backends.mode(backend or backend_of(record), adaptive=True)
    what = [lambda passed, i=i: _used(passed.stages[i]) for i in layers]
    passes = compile_passes(system, [rule], what, experiment.seeds().evaluation, mode)
    (used,) = passes(examples.images).values()
    return [
        np.array([U[examples.labels == c].mean(axis=0, dtype="float64") for c in range(n_classes)])
        for U in used
    ]


def _used(stage):
    """Return how much each unit takes part, (m_b, n_units)."""
    return stage.gate.active(stage.U)
