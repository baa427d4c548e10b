"""Forward passes over any number of examples, batch by batch."""

import threading

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import backends

BATCH_SIZE = 1000
"""Examples in one call: enough for full speed, few enough to stay in the cache."""


def logits(passed):
    """Return the logits of a pass, (m_b, n_classes)."""
    return passed.logits


def activity(passed):
    """Return the fraction of the units that take part, (m_b, L): by example and stage."""
    used = [stage.gate.active(stage.U) for stage in passed.stages]
    columns = [U.mean(axis=1, keepdims=True) for U in used]
    return pt.concatenate([passed.logits[:, :0], *columns], axis=1)  # L may be 0


def compile_passes(system, rules, what, seed, mode):
    """Compile the passes of a system into a function of any number of examples.

    Every call starts its draws from the same state (common random numbers). So epochs are compared
    under the same luck, and a recorded error can be repeated exactly.

    Parameters
    ----------
    system : System
    rules : iterable of str
        Keys of ``system.predict``.
    what : sequence of callable
        ``what(passed) -> tensor (m_b, ...)``: such as `logits` and `activity`.
    seed : int or numpy.random.SeedSequence
        Of the draws.
    mode : pytensor.compile.mode.Mode

    Returns
    -------
    callable
        ``passes(images) -> {rule: [ndarray (n, ...), ...]}`` for one or more images, (n, n_in)
        float32. Blocks are counted from the first image; only the last may be shorter. Later
        changes of the parameters take effect, except in block-sparse execution, which copies the
        weights. Several Python threads may call it; one waits for the other.
    """
    x = pt.fmatrix("x")
    # With a generator for each rule, what one rule draws does not depend on the others.
    rngs = {
        rule: pytensor.shared(np.random.default_rng(seed), name=f"rng_{rule}") for rule in rules
    }
    passes = {rule: system.predict[rule](x, rng) for rule, rng in rngs.items()}
    after = {rngs[rule]: passed.rng for rule, passed in passes.items()}
    function = backends.function(
        [x],
        [one(passed) for passed in passes.values() for one in what],
        updates=[(rng, state) for rng, state in after.items() if state is not rng],
        mode=mode,
    )
    start = {rng: backends.generator_state(function, rng) for rng in after}
    size = system.together * max(1, BATCH_SIZE // system.together)

    one_call = threading.Lock()  # the function holds its inputs and the generator's state

    def over_batches(images):
        with one_call:
            for rng, state in start.items():
                backends.set_generator_state(function, rng, state)
            batches = [function(images[i : i + size]) for i in range(0, len(images), size)]
        parts = [np.concatenate(part) for part in zip(*batches, strict=True)]
        return {rule: parts[i * len(what) :][: len(what)] for i, rule in enumerate(passes)}

    return over_batches
