"""A learner: all that running knows of a system.

`compile_learner` makes one from a symbolic `System`. A system that does not learn by one compiled
step can make its own, see `System.learner`.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import backends
from reinforce_dropout.alignment import aligned
from reinforce_dropout.errors import RecordError
from reinforce_dropout.systems.passes import compile_passes, logits
from reinforce_dropout.systems.system import by_name


class Learner(NamedTuple):
    """Functions of arrays.

    Attributes
    ----------
    step : callable
        ``step(images, labels) -> statistics``: learns from a mini-batch, images (m_b, n_in) float32
        and labels (m_b,) int32. Returns a vector.
    steps : callable
        ``steps(images, labels, batch_size)``: such a step for one mini-batch after another, and a
        generator of what it returns.
    curves : callable
        ``curves(statistics) -> dict``: names the entries of that vector for the record.
    rules : tuple of str
        Where masks may come from in evaluation; the first is the default.
    predict : callable
        ``predict(images, rules=None) -> {rule: logits}``, (n, n_classes) for some rules, by default
        all of them. What a rule gives does not depend on the others.
    parameters : callable
        ``parameters() -> {name: array}``: a copy of the model.
    state : callable
        ``state() -> ({name: array}, generators)``: a copy of all that steps change. JSON can hold
        the dict ``generators``.
    restore : callable
        ``restore(arrays, generators)``: goes back to where `state` was taken.
    begin : callable
        ``begin(epoch)``: called before each epoch, from 1.
    """

    step: Callable
    steps: Callable
    curves: Callable
    rules: tuple
    predict: Callable
    parameters: Callable
    state: Callable
    restore: Callable
    begin: Callable = lambda epoch: None


def make_learner(system, experiment, mode):
    """Let a system make its learner, or compile it. For the parameters see `compile_learner`."""
    return (system.learner or compile_learner)(system, experiment, mode)


def compile_learner(system, experiment, mode, stream=0):
    """Compile the step and the passes of a system.

    Parameters
    ----------
    system : System
    experiment : Experiment
        Gives the seeds.
    mode : pytensor.compile.mode.Mode
    stream : int
        The masks of learners with other numbers are independent of each other.

    Returns
    -------
    Learner
    """
    seeds = experiment.seeds()
    masks = [seeds.masks, *seeds.masks.spawn(stream)][stream]
    rng = pytensor.shared(np.random.default_rng(masks), name="mask_rng")
    x, y = pt.fmatrix("x"), pt.ivector("y")
    step = system.step(x, y, rng)
    function = backends.function(
        [x, y],
        pt.stack(list(_flat(step.statistics))),
        updates=list(step.updates.items()),
        mode=mode,
        trust_input=True,
    )
    changed = [v for v in step.updates if v is not rng]
    variables = by_name(dict.fromkeys([*system.parameters.values(), *changed]))
    n_steps = 0

    def take_step(images, labels):
        nonlocal n_steps
        statistics = function(images, labels)
        n_steps += 1
        if n_steps == step.settle_every:
            settle()
        return statistics

    def settle():
        # A resumed run must settle at the same steps as a run that was never stopped.
        nonlocal n_steps
        if n_steps:
            step.settle()
            n_steps = 0

    def state():
        settle()
        return copies(variables), {"masks": backends.generator_state(function, rng)}

    def restore(arrays, generators):
        settle()
        put(variables, arrays)
        backends.set_generator_state(function, rng, generators["masks"])

    def parameters():
        settle()
        return copies(system.parameters)

    @cache
    def passes(rules):
        return compile_passes(system, rules, (logits,), seeds.evaluation, mode)

    def predict(images, rules=None):
        settle()
        results = passes(tuple(rules or system.predict))(images)
        return {rule: values for rule, (values,) in results.items()}

    return Learner(
        take_step,
        backends.steps(function, take_step),
        lambda statistics: _named(step.statistics, statistics),
        tuple(system.predict),
        predict,
        parameters,
        state,
        restore,
        system.schedule,
    )


def copies(variables):
    """Return copies of the values of shared variables, by name."""
    return {name: np.array(v.get_value(borrow=True)) for name, v in variables.items()}


def put(variables, arrays):
    """Set shared variables from arrays, by name: all of them or none.

    Raises
    ------
    RecordError
        An array is missing, or has another shape or dtype than its variable. Compiled kernels
        trust the shapes.
    """
    for name, variable in variables.items():
        own, value = variable.get_value(borrow=True), arrays.get(name)
        if value is None or (value.shape, value.dtype) != (own.shape, own.dtype):
            found = "missing" if value is None else f"{value.dtype} {value.shape}"
            raise RecordError(
                f"{name} must be {own.dtype} {own.shape} and is {found}, so the record "
                "is not of its experiment: train the experiment into another file."
            )
    for name, variable in variables.items():
        variable.set_value(aligned(arrays[name]), borrow=True)


def _flat(statistics):
    """Yield the expressions one by one."""
    for value in statistics.values():
        yield from value if isinstance(value, list) else [value]


def _named(statistics, vector):
    """Return the entries of a vector by the names of `statistics`; nothing for empty lists."""
    named, entries = {}, iter(vector)
    for name, value in statistics.items():
        if not isinstance(value, list):
            named[name] = next(entries)
        elif value:
            named[name] = np.array([next(entries) for _ in value])
    return named
