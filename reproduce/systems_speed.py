"""Time the training steps of dropout and straight-through beside the same steps in JAX.

The JAX step is written by hand and scanned over the mini-batches in one call, with the parameters
and the data on the device. Both take turns on the same mini-batches. They draw other masks, so
their losses agree only roughly. The machine must do nothing else. Both use all cores that the
process may use; for one core, start it with ``taskset -c 0``.
"""

import os
import time

import click
import jax
import jax.numpy as jnp
import numpy as np

from reinforce_dropout import backends, preset, systems
from reinforce_dropout.running import datasets, threads
from reinforce_dropout.systems.learner import make_learner

N_STEPS, N_TURNS = 50, 21


def limited(W, limit):
    """Scale back the columns whose squared length exceeds the limit."""
    return W * jnp.sqrt(limit / jnp.maximum(limit, (W**2).sum(0)))


def mean_nll(logits, y):
    """Return the mean negative log-likelihood."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def dropout_step(state, batch):
    """Step with dropout at 1/2, momentum 0.5 and a rate of 1; `state` is (P, V, key)."""
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


# The paper's initial weights are so small that little is learned in a few steps.
LARGER = {"activation": "relu", "learning_rate": 1, "initial_std": 0.05}
CASES = {
    "dropout-800-800": (LARGER, dropout_step, at_rest),
    "straight-through-2000": ({}, straight_through_step, lambda P: []),
}
"""For each preset its changed fields, the step in JAX, and what its state holds beside P."""


def ours(learner, x, y):
    """Return a turn of this package: a call for each mini-batch."""

    def turn():
        for images, labels in zip(x, y, strict=True):
            statistics = learner.step(images, labels)
        return float(statistics[0])

    return turn


def in_jax(name, parameters, x, y):
    """Return a turn of JAX: one scan over all mini-batches."""
    P, (_, step, beside) = {n: jnp.array(v) for n, v in parameters.items()}, CASES[name]
    state = [(P, *beside(P), jax.random.key(1))]
    scan = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0)
    batches = jnp.array(x), jnp.array(y)

    def turn():
        state[0], losses = scan(state[0], batches)
        return float(losses[-1])

    return turn


def measure(name, n_threads):
    """Return the microseconds a step of both, (n_turns,) each, and their last losses."""
    experiment = preset(name).replace(**CASES[name][0])
    data = datasets.load("mnist", experiment.validation_fraction)
    shape = N_STEPS, experiment.batch_size
    x, y = (a[: np.prod(shape)] for a in (data.train.images, data.train.labels))
    x, y = x.reshape(*shape, -1), y.reshape(shape)
    system = systems.build_for_training(experiment, data.image_shape, data.n_classes)
    with threads.limited(n_threads):
        learner = make_learner(system, experiment, backends.mode("numba"))
        learner.begin(1)
        turns = {"ours": ours(learner, x, y), "JAX": in_jax(name, learner.parameters(), x, y)}
        times, losses = {who: [] for who in turns}, {}
        for _ in range(N_TURNS + 1):
            for who, turn in turns.items():
                began = time.perf_counter()
                losses[who] = turn()
                times[who].append((time.perf_counter() - began) / N_STEPS * 1e6)
    return {who: np.array(found[1:]) for who, found in times.items()}, losses


@click.command(help=__doc__)
def main():
    """Print the medians of both, and of their ratio turn by turn."""
    n_threads = len(os.sched_getaffinity(0))
    for name in CASES:
        times, losses = measure(name, n_threads)
        low, median, high = np.percentile(times["ours"] / times["JAX"], (25, 50, 75))
        click.echo(
            f"{name}, {n_threads} threads: ours {np.median(times['ours']):.0f}, JAX "
            f"{np.median(times['JAX']):.0f} microseconds a step; ours / JAX {median:.2f} "
            f"({low:.2f} to {high:.2f}); losses {losses['ours']:.3f} and {losses['JAX']:.3f}"
        )


if __name__ == "__main__":
    main()
