"""Estimators: unbiased, and their exact variances, by enumeration of all that they draw."""

from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
import scipy.stats
from enumeration import Enumeration
from reference import compiled, flat

from reinforce_dropout import bernoulli, systems
from reinforce_dropout.systems import policy

OTHERS = [name for name in policy.ESTIMATORS if name != "reinforce"]
BIASED = ["straight-through", "straight-through-with-slope"]
UNBIASED = [name for name in policy.ESTIMATORS if name not in BIASED]
Q = 0.2
TABLE = Path(__file__).parents[2] / "docs" / "policy_search.md"


def check_unbiased(n_units, value, direct=None, **settings):
    """Compare the expectation with the gradient of E[value], less that of E[direct] by layer."""
    enumeration = Enumeration(n_units, q=Q, **settings)
    exact = enumeration.gradient(value)
    for name, mean in enumeration.mean().items():
        expected = exact[name]
        if direct:
            i = int(name[-1]) - 1
            own = enumeration.gradient(lambda *passed, i=i: direct(*passed, i))
            expected = expected - own[name]
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(mean, expected, rtol=1e-8, atol=1e-11, err_msg=name)


def nll(zs, masks, logits):
    """Return the cost of a mask without a penalty."""
    return reference.nll(logits, np.array([1]))


@pytest.mark.parametrize("estimator", UNBIASED)
@pytest.mark.parametrize("n_units", [(3,), (2, 2)], ids=str)
def test_unbiased(n_units, estimator):
    """The expectation is the gradient of the expected nll in every layer."""
    check_unbiased(n_units, nll, estimator=estimator, n_masks=2, baseline="none")


def test_unbiased_with_three_masks():
    """Each of them is compared with the two others."""
    check_unbiased((2,), nll, estimator="leave-one-out", n_masks=3)


def test_unbiased_with_any_product():
    """Also by another way to the product with the Jacobian."""
    for product in policy.PRODUCTS:
        check_unbiased((2,), nll, estimator="disarm", product=product)


@pytest.mark.parametrize("kl_gradient", ["total", "score"])
@pytest.mark.parametrize("estimator", ["leave-one-out", "self-critical", "disarm"])
def test_unbiased_with_a_penalty(estimator, kl_gradient):
    """All but the direct term: later layers' divergences are those of the masks that are tried."""
    lam = 0.7

    def C(zs, masks, logits):
        return nll(zs, masks, logits) + lam * sum(reference.kl(z, Q) for z in zs)

    def own(zs, masks, logits, i):
        return lam * reference.kl(zs[i], Q)

    check_unbiased((2, 2), C, own, estimator=estimator, n_masks=2, lam=lam, kl_gradient=kl_gradient)


@pytest.mark.parametrize("estimator", ["leave-one-out", "disarm"])
def test_unbiased_with_a_price_on_the_units(estimator):
    """The price is that of the masks that are tried."""

    def C(zs, masks, logits):
        return nll(zs, masks, logits) + 0.3 * sum(u.sum(axis=1) for u in masks)

    check_unbiased((2, 2), C, estimator=estimator, n_masks=2, lam=0.3, penalty="active-units")


@pytest.mark.parametrize("estimator", BIASED)
@pytest.mark.parametrize("n_units", [(3,), (2, 2)], ids=str)
def test_straight_through_is_the_derivative_by_the_mask(n_units, estimator):
    """Its expectation is that of dC/du, times the slope; C holds the divergences above."""
    lam = 0.7
    enumeration = Enumeration(n_units, estimator=estimator, lam=lam, kl_gradient="total", q=Q)
    P, x, means = enumeration.P, enumeration.x, enumeration.mean()
    for i, k in enumerate(n_units):
        expected = np.zeros(k)
        for bits in reference.all_masks(sum(n_units)):
            masks = np.split(bits[None], np.cumsum(n_units)[:-1], axis=1)
            zs, _ = reference.forward(P, x, masks)
            pairs = zip(zs, masks, strict=True)
            probability = np.exp(sum(reference.log_pi(z, u) for z, u in pairs))
            sigma = reference.sigm(zs[i][0])
            slope = sigma * (1 - sigma) if estimator.endswith("slope") else 1

            def C(moved, i=i, masks=masks):
                zs, logits = reference.forward(P, x, [*masks[:i], moved["u"], *masks[i + 1 :]])
                above = sum(reference.kl(z, Q) for z in zs[i + 1 :])
                return (reference.nll(logits, enumeration.y) + lam * above)[0]

            (dC,) = reference.gradient(C, {"u": masks[i]}, ["u"])["u"]
            expected += probability * dC * slope
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(means[f"o_{i + 1}"], expected, rtol=1e-8, err_msg=str(i))


def test_straight_through_with_slope_is_right_where_the_cost_is_linear():
    """The price on the units is; the nll is not."""

    def units(zs, masks, logits):
        return 0.3 * sum(u.sum(axis=1) for u in masks)

    def means(lam):
        fields = {"estimator": "straight-through-with-slope", "penalty": "active-units"}
        return Enumeration((3,), lam=lam, **fields).mean()

    enumeration = Enumeration((3,))
    exact_price, exact_nll = enumeration.gradient(units), enumeration.gradient(nll)
    with_price, without = means(0.3), means(0.0)
    for name in exact_price:
        np.testing.assert_allclose(with_price[name] - without[name], exact_price[name], rtol=1e-8)
        assert np.abs(without[name] - exact_nll[name]).max() > 1e-4


BEST_BASELINE = "reinforce, best baseline per unit"


def variances(i, n_units, **settings):
    """Return the exact variances of the estimates for stage i, by name."""
    found = {}
    for name in UNBIASED:
        enumeration = Enumeration(n_units, seed=3, baseline="none", estimator=name, **settings)
        found[name] = enumeration.variance(i)
        if name == "reinforce":
            found[BEST_BASELINE] = enumeration.variance_with_best_baseline(i)
    return found


def test_variances_are_ordered():
    """DisARM is the mean of ARM over the noise of a pair; more masks never hurt."""
    found = variances(0, (3,), n_masks=2)
    assert 0 < found["disarm"] < found["arm"] < found["reinforce"]
    assert 0 < found[BEST_BASELINE] < found["reinforce"]
    more = variances(0, (2,), n_masks=3)["leave-one-out"]
    assert 0 < more < variances(0, (2,), n_masks=2)["leave-one-out"]


def variance_table():
    """Return the lines of the table in the documentation."""
    columns = [variances(0, (3,), n_masks=2), *(variances(i, (2, 2), n_masks=2) for i in (0, 1))]
    return [
        f"| {name} | " + " | ".join(f"{column[name]:.4f}" for column in columns) + " |"
        for name in columns[0]
    ]


def test_the_table_of_variances_holds():
    """It is computed again."""
    lines = TABLE.read_text().splitlines()
    start = lines.index("<!-- variances: checked by tests/search/test_estimators.py -->")
    assert lines[start + 4 : lines.index("<!-- /variances -->")] == variance_table()


# ---- the noise of antithetic pairs ----


def test_noise_fits_the_decisions_and_is_uniform():
    """Given u it lies on the right side of sigma; over the draws of u it is uniform."""
    z = np.tile([-3.0, -0.4, 0.0, 2.5], (20_000, 1))
    rng = pytensor.shared(np.random.default_rng(0))
    u, after = bernoulli.sample(pt.constant(z), rng)
    n, last = bernoulli.noise(pt.constant(z), u, after)
    decisions, noise = compiled([], [u, n], updates={rng: last})()
    np.testing.assert_array_equal(decisions, noise < reference.sigm(z))
    for column in noise.T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 0.01
    # The same state draws decisions and noise that do not depend on each other.
    assert rng.get_value().bit_generator.state != np.random.default_rng(0).bit_generator.state


def test_antithetic_decisions():
    """``1[n > 1 - sigma]``: likely with a high rate, and never together with a low one."""
    z, n = np.array([[-2.0, 2.0, 2.0, -2.0]]), np.array([[0.05, 0.05, 0.5, 0.95]])
    found = compiled([], bernoulli.antithetic(pt.constant(z), pt.constant(n)))()
    np.testing.assert_array_equal(found, [[0, 0, 1, 1]])


# ---- in training ----


def step_of(experiment):
    """Return a system, its generator, and a function that makes its step."""
    system = systems.build_for_training(experiment, (6,), 3)
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(4))
    step = system.step(x, y, rng)
    return system, rng, compiled([x, y], flat(step.statistics), updates=step.updates)


X = np.random.default_rng(2).normal(size=(24, 6)).astype("float32")
Y = np.random.default_rng(3).integers(0, 3, 24).astype("int32")


@pytest.mark.parametrize("estimator", OTHERS)
def test_the_network_learns_from_the_same_masks(estimator):
    """Further masks are drawn after those of the pass, and reach the policies only."""
    e = policy.Settings(n_units=(5, 4), policy_learning_rate=0.1, initial_rate=0.5)
    (system, rng, step), (other, other_rng, other_step) = (
        step_of(e), step_of(e.replace(estimator=estimator))
    )  # fmt: skip
    np.testing.assert_array_equal(step(X, Y), other_step(X, Y))
    for name, p in system.parameters.items():
        same = np.array_equal(p.get_value(), other.parameters[name].get_value())
        assert same == (name[0] in "Wb"), name
    drawn = rng.get_value().bit_generator.state != other_rng.get_value().bit_generator.state
    assert drawn == (estimator not in ["self-critical", *BIASED])


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("fields", [
    *({"estimator": name} for name in OTHERS),
    {"baseline": "per-unit"}, {"baseline": "learned"}, {"natural_gradient": True},
    {"penalty": "mean-kl"}, {"penalty": "active-units"}, {"penalty": "compute-time"},
    {"min_rate": 0.02},
], ids=str)  # fmt: skip
def test_everything_stays_in_float32(fields, floatX):
    """For any default of PyTensor."""
    with pytensor.config.change_flags(floatX=floatX):
        e = policy.Settings(n_units=(5, 4), lam=0.1, **fields)
        system = systems.build_for_training(e, (6,), 3)
        rng = pytensor.shared(np.random.default_rng(0))
        step = system.step(pt.fmatrix("x"), pt.ivector("y"), rng)
    assert all(new.type.dtype == "float32" for p, new in step.updates.items() if p is not rng)


@pytest.mark.parametrize("estimator", OTHERS)
@pytest.mark.parametrize("fields", [{}, {"instances_per_block": 4, "units_per_block": 2}], ids=str)
def test_learns_for_blocks_and_groups(estimator, fields):
    """Every policy moves, and a whole step keeps its shapes."""
    e = systems.block_policy.Settings(
        n_units=(5, 4),
        estimator=estimator,
        lam=0.1,
        policy_learning_rate=0.1,
        initial_rate=0.5,
        batch_size=24,
        **fields,
    )
    system, _, step = step_of(e)
    before = {name: p.get_value() for name, p in system.parameters.items()}
    assert np.isfinite(step(X, Y)).all()
    for name, p in system.parameters.items():
        assert p.get_value().shape == before[name].shape
        assert (p.get_value() != before[name]).any(), name
