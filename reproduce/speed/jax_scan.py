"""JAX: one jitted ``lax.scan`` over all mini-batches, the parameters donated."""

import jax
import jax.numpy as jnp
import numpy as np

from speed import L2, n_layers


def draw(key, sigma):
    """Sample masks; no gradient passes."""
    return (jax.random.uniform(key, sigma.shape) < sigma).astype(sigma.dtype)


def loss(parameters, x, y, key):
    """Return the loss whose gradient is that of network and policies, and the statistics."""
    s, log_pi, rates, entropies = x, 0.0, [], []
    for i in range(1, n_layers(parameters) + 1):
        h = jnp.tanh(s @ parameters[f"W_{i}"] + parameters[f"b_{i}"])
        if "Z_1" in parameters:
            # A policy learns from its own log pi alone: nothing flows to the layers below.
            z = jax.lax.stop_gradient(s) @ parameters[f"Z_{i}"] + parameters[f"o_{i}"]
            sigma, softplus = jax.nn.sigmoid(z), jax.nn.softplus(z)
            u = draw(jax.random.fold_in(key, i), sigma)
            log_pi = log_pi + (u * z - softplus).sum(1)
            rates.append(u.mean())
            entropies.append((softplus - sigma * z).mean())
            h = h * u
        s = h
    log_p = jax.nn.log_softmax(s @ parameters["W_out"] + parameters["b_out"])
    nll = -jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]
    c = jax.lax.stop_gradient(nll)
    # Without policies log_pi is a constant, which XLA removes.
    total = nll.sum() + ((c - c.mean()) * log_pi).mean()
    return total, jnp.stack([nll.mean(), *rates, *entropies])


class Scan:
    """Plain JAX; see the package `speed` for the arguments."""

    def __init__(self, parameters, x, y, learning_rate):
        values = {name: jnp.array(value) for name, value in parameters.items()}
        self.state = values, jax.random.key(1)
        self.batches = jnp.array(x), jnp.array(y)

        def step(state, batch):
            values, key = state
            key, key_of_masks = jax.random.split(key)
            gradients, statistics = jax.grad(loss, has_aux=True)(values, *batch, key_of_masks)
            for name, value in values.items():
                decay = 2 * L2 * value if name.startswith("W_") else 0.0
                values = values | {name: value - learning_rate * (gradients[name] + decay)}
            return (values, key), statistics

        self.steps = jax.jit(
            lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0
        )

    def turn(self):
        """Make one step for each mini-batch."""
        self.state, statistics = self.steps(self.state, self.batches)
        return np.asarray(statistics)

    def parameters(self):
        """Return the parameters by name."""
        return {name: np.asarray(value) for name, value in self.state[0].items()}
