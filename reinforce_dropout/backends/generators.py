"""The state of a random generator as a compiled function left it, and back."""

import numpy as np


def generator_state(function, rng):
    """Return the state of a random generator as a compiled function left it, a dict for JSON.

    Under JAX every function compiled with `rng` holds a copy of its state, and never updates `rng`.
    So two functions of one generator draw the same numbers, and ``rng.set_value`` changes neither.
    On the other backends the functions advance `rng` itself and continue one stream.
    """
    held = _storage(function, rng)[0]
    if isinstance(held, dict):
        # The rest of the dict comes from NumPy's state, and never changes.
        return {"jax_state": np.asarray(held["jax_state"]).tolist()}
    return rng.get_value(borrow=True).bit_generator.state


def set_generator_state(function, rng, state):
    """Restore the result of `generator_state` for the same graph on the same backend."""
    storage = _storage(function, rng)
    if isinstance(storage[0], dict):
        storage[0] = storage[0] | {"jax_state": np.asarray(state["jax_state"], "uint32")}
    else:
        rng.get_value(borrow=True).bit_generator.state = state


def _storage(function, shared):
    """Return the list of one element in which a function holds a shared variable's value."""
    containers = zip(function.maker.inputs, function.input_storage, strict=True)
    # A function without draws does not have the variable among its inputs.
    return next((c for i, c in containers if i.variable is shared), shared.container).storage
