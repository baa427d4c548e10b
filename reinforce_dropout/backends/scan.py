"""Training steps under JAX in one compiled scan: no return to Python between mini-batches."""

from functools import partial

import numpy as np

AT_ONCE = 250
"""Mini-batches in a scan. In between, the progress is shown and the loss is checked."""


def scanned(function):
    """Return a loop over the mini-batches of an epoch.

    Parameters
    ----------
    function : pytensor.compile.function.types.Function
        ``function(x, y) -> statistics``, compiled by JAX. Its updates are what a step changes.

    Returns
    -------
    callable
        ``steps(images, labels, batch_size)``: makes a step for each mini-batch, and yields its
        statistics. The same arrays, given again, are on the device already.

    Notes
    -----
    The body of the scan is PyTensor's own translation of the graph. Its values are those of single
    steps.
    """
    import jax
    import jax.numpy as jnp

    held = function.vm.inputs  # for each input of the graph a list of one value
    changed_by = function.maker.fgraph.update_mapping  # number of an output: that of an input
    changed = sorted(set(changed_by.values()))

    @partial(jax.jit, static_argnums=0, donate_argnums=1)
    def scan(size, state, fixed, images, labels, starts):
        def step(state, start):
            batch = [jax.lax.dynamic_slice_in_dim(v, start, size) for v in (images, labels)]
            inputs = dict(enumerate(batch)) | fixed | state
            statistics, *others = function.vm.jit_fn(*(inputs[i] for i in range(len(held))))
            outputs = [statistics, *others]
            return {changed_by[k]: outputs[k] for k in changed_by}, statistics

        return jax.lax.scan(step, state, starts)

    on_device = {}

    def put(*arrays):
        if on_device.get("from") is None or any(
            a is not b for a, b in zip(arrays, on_device["from"], strict=True)
        ):
            on_device.update({"from": arrays, "to": [jnp.asarray(a) for a in arrays]})
        return on_device["to"]

    def steps(images, labels, batch_size):
        n_whole = len(labels) // batch_size
        values = put(images, labels)
        fixed = {i: held[i][0] for i in range(2, len(held)) if i not in changed}
        for first in range(0, n_whole, AT_ONCE):
            numbers = np.arange(first, min(first + AT_ONCE, n_whole))
            state = jax.tree.map(jnp.asarray, {i: held[i][0] for i in changed})
            state, statistics = scan(batch_size, state, fixed, *values, numbers * batch_size)
            for i, value in state.items():
                held[i][0] = value
            yield from np.asarray(statistics)
        if n_whole * batch_size < len(labels):
            yield function(images[n_whole * batch_size :], labels[n_whole * batch_size :])

    return steps
