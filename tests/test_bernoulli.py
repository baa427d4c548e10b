"""The Bernoulli policy in logits: scipy's values, the right draws, and no overflow anywhere."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from reference import compiled, sigm

from reinforce_dropout import bernoulli

z_in, u_in = pt.dmatrices("z", "u")
LOG_PROB = compiled([z_in, u_in], bernoulli.log_prob(z_in, u_in))
MEAN, MODE = (compiled([z_in], f(z_in)) for f in (bernoulli.mean, bernoulli.mode))
ENTROPY = compiled([z_in], bernoulli.entropy(z_in))
KLS = {q: compiled([z_in], bernoulli.kl(z_in, q)) for q in (0.01, 0.12, 0.5, 0.99)}

Z = hnp.arrays(
    "float64", st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(-9, 9)
)


@settings(deadline=None)
@given(Z, st.randoms(use_true_random=False))
def test_log_prob_is_scipys(z, random):
    """The sum over units of scipy's log-probabilities, an entry an example."""
    u = np.reshape([float(random.random() < 0.5) for _ in range(z.size)], z.shape)
    expected = scipy.stats.bernoulli.logpmf(u, sigm(z)).sum(axis=1)
    np.testing.assert_allclose(LOG_PROB(z, u), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(Z)
def test_entropy_is_scipys(z):
    """The sum over units of scipy's entropies, an entry an example."""
    expected = scipy.stats.bernoulli(sigm(z)).entropy().sum(axis=1)
    np.testing.assert_allclose(ENTROPY(z), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(Z, st.sampled_from(sorted(KLS)))
def test_kl_is_scipys_relative_entropy(z, q):
    """The sum over units and over both outcomes of scipy's ``rel_entr``."""
    sigma = sigm(z)
    expected = scipy.special.rel_entr(sigma, q) + scipy.special.rel_entr(1 - sigma, 1 - q)
    np.testing.assert_allclose(KLS[q](z), expected.sum(axis=1), rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(Z)
def test_mean_is_the_expectation_and_mode_the_most_probable_mask(z):
    """By scipy's expectation, and by the log-probabilities of all masks of the first example."""
    np.testing.assert_allclose(MEAN(z), scipy.stats.bernoulli(sigm(z)).mean(), rtol=1e-9)
    masks = reference.all_masks(z.shape[1])
    first = z[:1].repeat(len(masks), axis=0)
    most_probable = LOG_PROB(z[:1], MODE(z)[:1])
    np.testing.assert_allclose(most_probable, LOG_PROB(first, masks).max(), rtol=1e-9, atol=1e-12)


def test_mode_of_even_odds_is_off():
    """Where both outcomes are as probable, a unit does not take part; masks are zeros and ones."""
    z = np.array([[-3.0, -1e-9, 0.0, 1e-9, 3.0]])
    np.testing.assert_array_equal(MODE(z), [[0, 0, 0, 1, 1]])


def test_probabilities_of_all_masks_sum_to_one():
    """And so the log-probabilities are normalised; entropy is their expectation."""
    masks = reference.all_masks(4)
    z = np.tile([[-2.0, 0.3, 1.0, 5.0]], (len(masks), 1))
    log_pi = LOG_PROB(z, masks)
    np.testing.assert_allclose(np.exp(log_pi).sum(), 1)
    np.testing.assert_allclose(-np.exp(log_pi) @ log_pi, ENTROPY(z[:1])[0])


def test_kl_with_a_rate_for_each_unit():
    """`q` may be an array (n_units,)."""
    z, q = np.array([[0.4, -1.0, 2.0]]), np.array([0.1, 0.5, 0.8])
    np.testing.assert_allclose(compiled([z_in], bernoulli.kl(z_in, q))(z), reference.kl(z, q))


def test_kl_vanishes_at_the_target_rate_only():
    """Zero, and with zero gradient, where every sigma is q."""
    value = bernoulli.kl(z_in, 0.2)
    f = compiled([z_in], [value, pytensor.grad(value.sum(), z_in)])
    at_q = np.full((1, 3), np.log(0.2 / 0.8))
    np.testing.assert_allclose(f(at_q)[0], 0, atol=1e-15)
    np.testing.assert_allclose(f(at_q)[1], 0, atol=1e-15)
    assert f(at_q + 0.1)[0] > 0 and f(at_q - 0.1)[0] > 0
    assert (f(at_q + 0.1)[1] > 0).all() and (f(at_q - 0.1)[1] < 0).all()


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (lambda z, u: bernoulli.log_prob(z, u), reference.log_pi),
        (lambda z, u: bernoulli.entropy(z), lambda z, u: reference.entropy(z)),
        (lambda z, u: bernoulli.kl(z, 0.12), lambda z, u: reference.kl(z, 0.12)),
    ],
    ids=["log_prob", "entropy", "kl"],
)
def test_gradients(value, plain):
    """The symbolic gradients are those of the paper's formulas."""
    rng = np.random.default_rng(1)
    z, u = rng.normal(size=(3, 4)), rng.integers(0, 2, (3, 4)).astype("float64")
    grad = pytensor.grad(value(z_in, u_in).sum(), z_in)
    exact = reference.gradient(lambda P: plain(P["z"], u).sum(), {"z": z}, ["z"])["z"]
    f = compiled([z_in, u_in], grad, on_unused_input="ignore")
    np.testing.assert_allclose(f(z, u), exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_2000_units_with_extreme_logits_in_float32(size):
    """A product of 2000 probabilities would underflow; sums of logits do not, nor gradients."""
    z, u = pt.fmatrices("z", "u")
    quantities = [bernoulli.log_prob(z, u), bernoulli.entropy(z), bernoulli.kl(z, 0.1)]
    grads = [pytensor.grad(value.sum(), z) for value in quantities]
    signs = np.tile([1.0, -1.0], 1000).astype("float32")
    logits = np.stack([size * signs, size * signs])
    masks = np.stack([signs > 0, signs < 0]).astype("float32")
    log_pi, entropy, kl, d_log_pi, d_entropy, d_kl = compiled([z, u], quantities + grads)(
        logits, masks
    )
    np.testing.assert_allclose(log_pi, [0, -2000 * size], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(d_log_pi, masks - (signs > 0), atol=1e-6)
    np.testing.assert_allclose(entropy, 0, atol=1e-4)
    np.testing.assert_allclose(d_entropy, 0, atol=1e-6)
    np.testing.assert_allclose(kl, -1000 * (np.log(0.1) + np.log(0.9)), rtol=1e-5)
    np.testing.assert_allclose(d_kl, 0, atol=1e-6)


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype, floatX):
    """For any default dtype of PyTensor."""
    with pytensor.config.change_flags(floatX=floatX):
        z, u = pt.matrix("z", dtype=dtype), pt.matrix("u", dtype=dtype)
        rng = pytensor.shared(np.random.default_rng(0))
        outputs = [
            bernoulli.log_prob(z, u),
            bernoulli.entropy(z),
            bernoulli.kl(z, 0.1),
            bernoulli.kl(z, np.array([0.1, 0.2, 0.3])),
            bernoulli.sample(z, rng)[0],
            bernoulli.mean(z),
            bernoulli.mode(z),
        ]
        ones = np.ones((2, 3), dtype)
        results = compiled([z, u], outputs)(ones, ones)
    assert [v.dtype for v in outputs] == [dtype] * len(outputs)
    assert [r.dtype for r in results] == [dtype] * len(outputs)
    assert [r.shape for r in results] == [(2,)] * 4 + [(2, 3)] * 3


def sampler(seed):
    """Return a function that draws masks for logits in float32, going on from call to call."""
    z, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(seed))
    u, next_rng = bernoulli.sample(z, rng)
    return compiled([z], u, updates=[(rng, next_rng)])


def test_sample_has_the_probabilities_of_the_policy():
    """Each unit by a binomial test, all masks together by a chi-square test."""
    z = np.array([-3.0, 0.2, 1.5], "float32")
    n = 20_000
    u = sampler(0)(np.tile(z, (n, 1)))
    assert set(np.unique(u)) == {0, 1}
    for k, sigma in enumerate(sigm(z.astype("float64"))):
        assert scipy.stats.binomtest(int(u[:, k].sum()), n, sigma).pvalue > 1e-3
    masks = reference.all_masks(3)
    counts = [(u == mask).all(axis=1).sum() for mask in masks]
    expected = n * np.exp(reference.log_pi(z.astype("float64"), masks))
    assert scipy.stats.chisquare(counts, expected * n / expected.sum()).pvalue > 1e-3


def test_sample_of_certain_units():
    """Units with sigma 1 take part and those with sigma 0 do not, each at its place."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (50, 40)).astype("float32")
    np.testing.assert_array_equal(sampler(0)(1000 * signs), signs > 0)


def test_same_seed_same_masks_and_the_next_draw_differs():
    """The only source of chance is the generator, and its state advances."""
    z = np.zeros((4, 30), "float32")
    first, again, other = sampler(3), sampler(3), sampler(4)
    draws = [first(z), first(z)]
    np.testing.assert_array_equal(draws, [again(z), again(z)])
    assert (draws[0] != draws[1]).any()
    assert (draws[0] != other(z)).any()


def test_two_draws_in_one_graph_differ():
    """The second layer draws from the state that the first returns."""
    z, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(0))
    u_1, next_rng = bernoulli.sample(z, rng)
    u_2, _ = bernoulli.sample(z, next_rng)
    draws = compiled([z], [u_1, u_2])
    first = draws(np.zeros((4, 30), "float32"))
    assert (first[0] != first[1]).any()
    # Without an update the shared state stays as it was.
    np.testing.assert_array_equal(first, draws(np.zeros((4, 30), "float32")))


def test_sample_is_constant_for_back_propagation():
    """No gradient flows through a mask."""
    z, rng = pt.fmatrix("z"), pytensor.shared(np.random.default_rng(0))
    u, _ = bernoulli.sample(z, rng)
    with pytest.raises(pytensor.gradient.DisconnectedInputError):
        pytensor.grad(u.sum(), z)
    grad = compiled([z], pytensor.grad((u * z).sum(), z) - u)
    np.testing.assert_array_equal(grad(np.ones((2, 3), "float32")), 0)
