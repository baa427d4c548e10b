"""The training steps of dropout and of straight-through gates, by hand in JAX.

A step is ``step(state, (x, y)) -> state, loss``, for ``lax.scan``. The state is the parameters P by
name, what the step needs beside them, and a key. The loss is the mean negative log-likelihood, in
nats. The constants are those of the presets.
"""

import jax
import jax.numpy as jnp


def limited(W, limit):
    """Scale back the columns whose squared length exceeds the limit."""
    return W * jnp.sqrt(limit / jnp.maximum(limit, (W**2).sum(0)))


def mean_nll(logits, y):
    """Return the mean negative log-likelihood."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def dropout_step(state, batch):
    """Step with dropout at 1/2, momentum 0.5 and a rate of 1; `state` is (P, velocities, key)."""
    (P, V, key), (x, y) = state, batch
    key, *keys = jax.random.split(key, 3)

    def loss(P):
        s = x
        for i, own in enumerate(keys, start=1):
            h = jax.nn.relu(s @ P[f"W_{i}"] + P[f"b_{i}"])
            s = h * (jax.random.uniform(own, h.shape) < 0.5)
        return mean_nll(s @ P["W_out"] + P["b_out"], y)

    value, g = jax.value_and_grad(loss)(P)
    V = {n: 0.5 * V[n] - 0.5 * 1.0 * g[n] for n in P}
    P = {n: P[n] + V[n] for n in P}
    P |= {n: limited(P[n], 15.0) for n in ("W_1", "W_2")}
    return (P, V, key), value


def straight_through_step(state, batch):
    """Step with straight-through gates and the term that holds the target; `state` is (P, key)."""
    (P, key), (x, y) = state, batch
    key, own = jax.random.split(key)

    def loss(P):
        z = jnp.tanh(x @ P["W_gater"] + P["b_gater"]) @ P["W_gates"] + P["b_gates"]
        sigma = jax.nn.sigmoid(z)
        drawn = (jax.random.uniform(own, z.shape) < sigma).astype(z.dtype)
        h = drawn + z - jax.lax.stop_gradient(z)
        value = mean_nll(((x @ P["W_1"] + P["b_1"]) * h) @ P["W_out"] + P["b_out"], y)
        m, tiny = sigma.mean(0), 1e-6
        nats = -(0.1 * jnp.log(m + tiny) + 0.9 * jnp.log(1 - m + tiny)).sum()
        return value + 0.01 * nats, (value, (z > P["threshold"]).mean())

    (_, (value, above)), g = jax.value_and_grad(loss, has_aux=True)(P)
    after = {n: P[n] - 0.1 * g[n] for n in P}
    after["threshold"] = P["threshold"] + 0.1 * (above - 0.1)
    after |= {n: limited(after[n], 4.41) for n in ("W_1", "W_gater", "W_gates")}
    return (after, key), value


def at_rest(P):
    """Return velocities of 0, for `dropout_step`."""
    return [{n: jnp.zeros_like(v) for n, v in P.items()}]


STEPS = {
    "dropout-800-800": (dropout_step, at_rest),
    "straight-through-2000": (straight_through_step, lambda P: []),
}
"""By the name of the preset: the step, and what its state holds beside P and the key."""


class Scan:
    """One scan over all mini-batches a turn, the state donated.

    Parameters
    ----------
    name : str
        Of a preset in `STEPS`.
    parameters : dict of ndarray
    x : ndarray (n_batches, batch_size, n_in) float32
    y : ndarray (n_batches, batch_size) int
    """

    def __init__(self, name, parameters, x, y):
        P = {n: jnp.array(v) for n, v in parameters.items()}
        step, beside = STEPS[name]
        self.state = P, *beside(P), jax.random.key(1)
        self.batches = jnp.array(x), jnp.array(y)
        self.steps = jax.jit(
            lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0
        )

    def turn(self):
        """Make a step for each mini-batch, and return the last loss."""
        self.state, losses = self.steps(self.state, self.batches)
        return float(losses[-1])
