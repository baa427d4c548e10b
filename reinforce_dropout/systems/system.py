"""What a system is, once it is built."""

from collections.abc import Callable
from typing import NamedTuple


class System(NamedTuple):
    """A model and how it learns and predicts, as symbolic graphs not yet compiled.

    Attributes
    ----------
    parameters : dict from str to shared variable
        What a trained model consists of.
    step : callable
        ``step(x, y, rng) -> algorithm.Step``: the training step of a mini-batch.
    predict : dict from str to callable
        ``predict(x, rng) -> network.Pass`` for every rule. The first rule is the default.
    together : int
        Neighbouring examples that share decisions. Batches in evaluation hold whole multiples.
    schedule : callable
        ``schedule(epoch)``, called before each epoch, from 1: sets shared variables such as rates.
        They are no part of the state. So what it sets must depend on the epoch only.
    learner : callable, optional
        ``learner(system, experiment, mode) -> learner.Learner``: for a system that does not learn
        by one compiled step for each mini-batch. By default `learner.compile_learner`.
    prepare : callable
        ``prepare(read)``, called before the first epoch of a run: may set parameters from a record
        of another run, ``read(path) -> results.records.Record``.
    """

    parameters: dict
    step: Callable
    predict: dict
    together: int = 1
    schedule: Callable = lambda epoch: None
    learner: Callable | None = None
    prepare: Callable = lambda read: None


def by_name(variables):
    """Return ``{name: variable}``; refuse two variables of one name."""
    named = {v.name: v for v in variables}
    if len(named) < len(list(variables)):
        raise ValueError(f"two parameters have one name: {[v.name for v in variables]}")
    return named
