"""SNES: its utilities, one generation against NumPy and PINTS, and a rotated quadratic."""

import numpy as np
import pints
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats
from reference import compiled

from reinforce_dropout import backends
from reinforce_dropout.systems import snes

f_in = pt.dvector("fitness")
UTILITIES = compiled([f_in], snes.utilities(f_in))


def numpy_utilities(fitness):
    """By sorting, as printed."""
    P = len(fitness)
    raw = np.maximum(0, np.log(P / 2 + 1) - np.log(1 + np.arange(P)))
    u = np.empty(P)
    u[np.argsort(-fitness, kind="stable")] = raw / raw.sum() - 1 / P
    return u


@pytest.mark.parametrize("P", [2, 3, 7, 27])
def test_utilities(P):
    """By rank alone; their sum is 0; the best has the largest, and the worse half the least."""
    fitness = np.random.default_rng(P).normal(size=P)
    u = UTILITIES(fitness)
    np.testing.assert_allclose(u, numpy_utilities(fitness), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(u.sum(), 0, atol=1e-12)
    np.testing.assert_array_equal(u, UTILITIES(np.exp(5 * fitness) - 3))
    assert u.argmax() == fitness.argmax()
    worse = np.argsort(fitness)[: (P - 1) // 2]
    np.testing.assert_allclose(u[worse], -1 / P)


def test_utilities_of_equal_fitnesses():
    """The earlier one has the better rank, so their sum is 0 then, too."""
    fitness = np.array([1.0, 3.0, 1.0, 3.0, 1.0])
    np.testing.assert_allclose(UTILITIES(fitness), numpy_utilities(fitness), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(UTILITIES(np.ones(6)).sum(), 0, atol=1e-12)


def compile_generation(d, P, mean_rate=1.0, dtype="float64", std=0.5):
    """Return mu, sig, and a function of normal numbers and fitnesses that does a generation."""
    mu, sig = (pytensor.shared(np.full(d, v, dtype)) for v in (0.0, std))
    s, fitness = pt.matrix("s", dtype=dtype), pt.vector("fitness", dtype=dtype)
    updates = snes.snes(mu, sig, s, fitness, mean_rate)
    assert set(updates) == {mu, sig}
    assert all(updates[v].dtype == dtype for v in updates)
    return mu, sig, compiled([s, fitness], [], updates=updates)


@pytest.mark.parametrize("mean_rate", [1.0, 0.3])
def test_generations_are_numpys(mean_rate):
    """The formulas as printed, three times."""
    d, P, rng = 5, 8, np.random.default_rng(0)
    mu, sig, f = compile_generation(d, P, mean_rate)
    m, g = np.zeros(d), np.full(d, 0.5)
    for _ in range(3):
        s, fitness = rng.normal(size=(P, d)), rng.normal(size=P)
        f(s, fitness)
        u = numpy_utilities(fitness)
        m = m + mean_rate * g * (u @ s)
        g = g * np.exp((3 + np.log(d)) / (5 * np.sqrt(d)) / 2 * (u @ (s**2 - 1)))
        np.testing.assert_allclose(mu.get_value(), m, rtol=1e-12)
        np.testing.assert_allclose(sig.get_value(), g, rtol=1e-12)


def rotated_quadratic(d, seed=1):
    """Return the minimum, and a function of points (P, d): curvatures 1 to 30 in rotated axes."""
    R = scipy.stats.ortho_group.rvs(d, random_state=seed)
    minimum = np.linspace(-1, 1, d)
    curvatures = np.geomspace(1, 30, d)

    def f(points):
        return (((points - minimum) @ R) ** 2 * curvatures).sum(axis=1)

    return minimum, f


def test_walks_as_pints_does():
    """The same candidates as the library's, from the same normal numbers, for 20 generations."""
    d = 6
    _, f = rotated_quadratic(d)
    theirs = pints.SNES(np.zeros(d), 0.5)
    P = snes.population_size(d)
    assert theirs.population_size() == P
    mu, sig, generation = compile_generation(d, P)
    state = np.random.get_state()
    try:
        for k in range(20):
            np.random.seed(k)
            points = theirs.ask()
            s = np.random.RandomState(k).normal(size=(P, d))
            ours = mu.get_value() + sig.get_value() * s
            np.testing.assert_allclose(ours, points, rtol=1e-9, atol=1e-12)
            generation(s, -f(ours))
            theirs.tell(f(points))
            np.testing.assert_allclose(mu.get_value(), theirs.x_guessed(), rtol=1e-9, atol=1e-12)
    finally:
        np.random.set_state(state)


def test_finds_the_minimum_of_a_rotated_quadratic():
    """From the origin, in 10 dimensions; the search narrows around it."""
    d, rng = 10, np.random.default_rng(3)
    minimum, f = rotated_quadratic(d)
    mu, sig, generation = compile_generation(d, snes.population_size(d))
    for _ in range(600):
        s = rng.normal(size=(snes.population_size(d), d))
        generation(s, -f(mu.get_value() + sig.get_value() * s))
    np.testing.assert_allclose(mu.get_value(), minimum, atol=1e-3)
    assert sig.get_value().max() < 1e-3


def test_sizes():
    """The recommended numbers, for dasNet's 48 gates and 58 observations."""
    assert snes.population_size(48 * 58) == 27
    np.testing.assert_allclose(snes.step_size_rate(4), (3 + np.log(4)) / 10)


@pytest.mark.parametrize("backend", ["numba", "c", "jax"])
def test_utilities_on_each_backend(backend):
    """In float32."""
    fitness, v = np.random.default_rng(5).normal(size=9).astype("float32"), pt.fvector("fitness")
    f = backends.function([v], snes.utilities(v), mode=backends.mode(backend))
    found = np.asarray(f(fitness))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, numpy_utilities(fitness), rtol=1e-5, atol=1e-7)
