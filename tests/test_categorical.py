"""The categorical family in logits: scipy's values, the right draws, and no overflow anywhere."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import compiled

from reinforce_dropout import backends, categorical

z_in, u_in, q_in = pt.dmatrices("z", "u", "q")
LOG_PROB = compiled([z_in, u_in], categorical.log_prob(z_in, u_in))
MEAN, MODE, ENTROPY = (
    compiled([z_in], f(z_in)) for f in (categorical.mean, categorical.mode, categorical.entropy)
)
TARGET = {1: [1.0], 2: [0.9, 0.1], 3: [0.2, 0.3, 0.5], 4: [0.1, 0.2, 0.3, 0.4]}
KLS = {k: compiled([z_in], categorical.kl(z_in, np.array(q))) for k, q in TARGET.items()}

Z = hnp.arrays(
    "float64", st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(-9, 9)
)


def softmax(z):
    """Probabilities, as printed."""
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


@settings(deadline=None)
@given(Z)
def test_log_prob_of_every_choice_is_scipys(z):
    """Of a multinomial with one draw; the probabilities of all choices sum to 1."""
    p, k = scipy.special.softmax(z, axis=1), z.shape[1]
    found = np.array([LOG_PROB(z, np.tile(row, (len(z), 1))) for row in np.eye(k)])
    expected = [[scipy.stats.multinomial.logpmf(u, 1, row) for row in p] for u in np.eye(k)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.exp(found).sum(axis=0), 1)


@settings(deadline=None)
@given(Z)
def test_mean_entropy_and_kl_are_scipys(z):
    """Softmax, entropy and relative entropy, an entry an example."""
    p, q = scipy.special.softmax(z, axis=1), TARGET[z.shape[1]]
    np.testing.assert_allclose(MEAN(z), p, rtol=1e-9)
    np.testing.assert_allclose(ENTROPY(z), scipy.stats.entropy(p, axis=1), rtol=1e-7, atol=1e-9)
    expected = scipy.stats.entropy(p, np.tile(q, (len(z), 1)), axis=1)
    np.testing.assert_allclose(KLS[z.shape[1]](z), expected, rtol=1e-7, atol=1e-9)


@settings(deadline=None)
@given(Z)
def test_mean_and_entropy_are_expectations_over_all_choices(z):
    """By enumeration; the mode is the most probable choice."""
    choices = np.eye(z.shape[1])
    log_pi = np.array([LOG_PROB(z, np.tile(u, (len(z), 1))) for u in choices]).T
    np.testing.assert_allclose(np.exp(log_pi) @ choices, MEAN(z), rtol=1e-9)
    np.testing.assert_allclose(-(np.exp(log_pi) * log_pi).sum(axis=1), ENTROPY(z), atol=1e-9)
    np.testing.assert_allclose(LOG_PROB(z, MODE(z)), log_pi.max(axis=1), rtol=1e-9, atol=1e-12)


def test_mode_of_equal_probabilities_is_the_first():
    """One-hot also then."""
    z = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 1.0, 2.0]])
    np.testing.assert_array_equal(MODE(z), [[1, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_kl_vanishes_at_the_target_only():
    """Zero, and with zero gradient, where the softmax is q."""
    value = categorical.kl(z_in, np.array(TARGET[3]))
    f = compiled([z_in], [value, pytensor.grad(value.sum(), z_in)])
    at_q = np.log([TARGET[3]]) + 5
    np.testing.assert_allclose(f(at_q)[0], 0, atol=1e-14)
    np.testing.assert_allclose(f(at_q)[1], 0, atol=1e-14)
    for j in range(3):
        moved = at_q + 0.1 * np.eye(3)[j]
        assert f(moved)[0] > 0 and f(moved)[1][0, j] > 0


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (categorical.log_prob, lambda z, u: (u * np.log(softmax(z))).sum(axis=1)),
        (
            lambda z, u: categorical.entropy(z),
            lambda z, u: -(softmax(z) * np.log(softmax(z))).sum(axis=1),
        ),
        (
            lambda z, u: categorical.kl(z, np.array(TARGET[4])),
            lambda z, u: (softmax(z) * np.log(softmax(z) / TARGET[4])).sum(axis=1),
        ),
        (lambda z, u: categorical.mean(z)[:, 1], lambda z, u: softmax(z)[:, 1]),
    ],
    ids=["log_prob", "entropy", "kl", "mean"],
)
def test_gradients(value, plain):
    """The symbolic gradients are those of the formulas as printed."""
    rng = np.random.default_rng(1)
    z, u = rng.normal(size=(3, 4)), np.eye(4)[[2, 0, 3]]
    grad = pytensor.grad(value(z_in, u_in).sum(), z_in)
    exact = reference.gradient(lambda P: plain(P["z"], u).sum(), {"z": z}, ["z"])["z"]
    f = compiled([z_in, u_in], grad, on_unused_input="ignore")
    np.testing.assert_allclose(f(z, u), exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_extreme_logits_in_float32(size):
    """Probabilities underflow; log-probabilities and gradients do not."""
    z, u = pt.fmatrices("z", "u")
    quantities = [
        categorical.log_prob(z, u),
        categorical.entropy(z),
        categorical.kl(z, np.full(3, 1 / 3)),
    ]
    grads = [pytensor.grad(value.sum(), z) for value in quantities]
    logits = np.array([[size, 0, -size], [size, 0, -size]], "float32")
    choices = np.array([[1, 0, 0], [0, 0, 1]], "float32")
    log_pi, entropy, kl, d_log_pi, d_entropy, d_kl = compiled([z, u], quantities + grads)(
        logits, choices
    )
    np.testing.assert_allclose(log_pi, [0, -2 * size], rtol=1e-6)
    np.testing.assert_allclose(d_log_pi, choices - [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(entropy, 0, atol=1e-6)
    np.testing.assert_allclose(d_entropy, 0, atol=1e-6)
    np.testing.assert_allclose(kl, np.log(3), rtol=1e-6)
    np.testing.assert_allclose(d_kl, 0, atol=1e-6)


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, floatX):
    """For any default dtype of PyTensor."""
    with pytensor.config.change_flags(floatX=floatX):
        z, u = pt.matrix("z", dtype=dtype), pt.matrix("u", dtype=dtype)
        outputs = [
            categorical.log_prob(z, u),
            categorical.entropy(z),
            categorical.kl(z, np.array(TARGET[3])),
            categorical.sample(z, pytensor.shared(np.random.default_rng(0)))[0],
            categorical.mean(z),
            categorical.mode(z),
        ]
        results = compiled([z, u], outputs)(np.ones((2, 3), dtype), np.eye(3, dtype=dtype)[:2])
    assert [v.dtype for v in outputs] == [dtype] * len(outputs)
    assert [r.dtype for r in results] == [dtype] * len(outputs)
    assert [r.shape for r in results] == [(2,)] * 3 + [(2, 3)] * 3


def sampler(seed, compile=compiled):
    """Return a function that draws decisions for logits, going on from call to call."""
    z, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(seed))
    u, next_rng = categorical.sample(z, rng)
    return compile([z], u, updates=[(rng, next_rng)])


def check_frequencies(draw):
    """Compare 20 000 draws with the probabilities by a chi-square test; each draw is one-hot."""
    z, n = np.array([-1.0, 0.2, 1.5, 0.0], "float32"), 20_000
    u = np.asarray(draw(np.tile(z, (n, 1))))
    assert u.dtype == "float32" and set(np.unique(u)) == {0, 1} and (u.sum(axis=1) == 1).all()
    expected = n * scipy.special.softmax(z.astype("float64"))
    assert scipy.stats.chisquare(u.sum(axis=0), expected).pvalue > 1e-3
    # Neighbouring examples are drawn independently of each other.
    pairs = u[:-1:2].T @ u[1::2]
    both = np.outer(expected, expected) / n / 2
    assert scipy.stats.chisquare(pairs.ravel(), both.ravel()).pvalue > 1e-3


def test_sample_has_the_probabilities_of_the_policy():
    check_frequencies(sampler(0))


@pytest.mark.parametrize("backend", ["numba", "c", "jax"])
def test_backends_draw_and_agree(backend):
    """Frequencies of the draws; the gradient of their log-probability is u - p."""
    z, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(0))
    u, next_rng = categorical.sample(z, rng)
    grad = pytensor.grad(categorical.log_prob(z, u).sum(), z)
    mode, updates = backends.mode(backend), [(rng, next_rng)]
    f = backends.function([z], [u, grad, categorical.mode(z)], mode=mode, updates=updates)

    def draw(logits):
        u, grad, mode = map(np.asarray, f(logits))
        np.testing.assert_allclose(grad, u - softmax(logits), atol=1e-6)
        np.testing.assert_array_equal(mode, MODE(logits))
        return u

    check_frequencies(draw)


def test_sample_of_certain_choices():
    """A choice of probability 1 is always made, whichever it is; so is the only one."""
    choices = np.random.default_rng(0).integers(0, 5, 300)
    one_hot = np.eye(5, dtype="float32")[choices]
    np.testing.assert_array_equal(sampler(0)(1000 * one_hot), one_hot)
    np.testing.assert_array_equal(sampler(0)(one_hot[:, :1]), 1)


def test_same_seed_same_draws_and_the_next_draw_differs():
    """The only source of chance is the generator, and its state advances."""
    z = np.zeros((30, 4), "float32")
    first, again, other = sampler(3), sampler(3), sampler(4)
    draws = [first(z), first(z)]
    np.testing.assert_array_equal(draws, [again(z), again(z)])
    assert (draws[0] != draws[1]).any()
    assert (draws[0] != other(z)).any()


def test_sample_is_constant_for_back_propagation():
    """No gradient flows through a decision."""
    z, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(0))
    u, _ = categorical.sample(z, rng)
    with pytest.raises(pytensor.gradient.DisconnectedInputError):
        pytensor.grad(u.sum(), z)
