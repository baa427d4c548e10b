"""Computation time as a cost: the model, what each stage pays, and the fit that is used."""

import json
from pathlib import Path

import numpy as np
import pytensor.tensor as pt
import pytest
import reference
import scipy.optimize
from enumeration import Enumeration
from reference import compiled

import reinforce_dropout
from reinforce_dropout.blocks.sharing import Sharing
from reinforce_dropout.gates import Gate, Stage
from reinforce_dropout.network import forward
from reinforce_dropout.search import compute_time
from reinforce_dropout.search.compute_time import Coefficients, features

RECORDED = Path(reinforce_dropout.__file__).parents[1] / "reproduce" / "results"
MADE_UP = Coefficients(1000.0, 0.5, 7.0, 0.25, 3.0)


def nanoseconds(n_inputs, n_active, n_decisions):
    """Return the time of the model, layer by layer as the module's docstring has it."""
    a, b, c, p, d = MADE_UP
    total, below = a, n_inputs
    for n, k in zip(n_active, n_decisions, strict=True):
        total = total + b * below * n + c * n + p * below * k + d * k
        below = n
    return total


def test_features_are_those_of_the_model():
    """Bilinear in active inputs and units, the policies' products for all their decisions."""
    counts = 30, [4, 9], [10, 20]
    np.testing.assert_allclose(np.dot(features(*counts), MADE_UP), nanoseconds(*counts))


class Passed:
    """Two layers, their masks given, three images with zeros."""

    widths = (4, 3)

    def __init__(self, sharing):
        rng = np.random.default_rng(0)
        network = reference.double_network((6, *self.widths, 2), sharing=sharing)
        self.x = rng.normal(size=(3, 6)) * rng.integers(0, 2, (3, 6))
        blocks = -(-3 // sharing.instances)
        self.decisions = [-(-n // sharing.units) for n in self.widths]
        self.masks = [rng.integers(0, 2, (blocks, k)).astype("float64") for k in self.decisions]
        x, U = pt.dmatrix("x"), [pt.dmatrix() for _ in self.widths]
        stages = forward(network, x, rule=reference.given(U)).stages
        cost = compute_time.fraction_of_time(MADE_UP)
        paid = [cost(stages, i).for_decision for i in range(2)]
        self.paid = compiled([x, *U], paid)(self.x, *self.masks)

    def active(self, sharing):
        """Return the number of active units of each layer, an entry an example."""
        for u, n in zip(self.masks, self.widths, strict=True):
            U = reference.expand(u, (3, n), sharing.instances, sharing.units)
            yield U.sum(axis=1)


@pytest.mark.parametrize("sharing", [Sharing(), Sharing(1, 2), Sharing(2, 2)], ids=str)
def test_the_stages_pay_the_time_of_the_pass(sharing):
    """Together t(u) / t(all) of each example, for a block the mean of its examples."""
    passed = Passed(sharing)
    n_inputs = (passed.x != 0).sum(axis=1)
    used = nanoseconds(n_inputs, list(passed.active(sharing)), passed.decisions)
    every = nanoseconds(n_inputs, passed.widths, passed.decisions)
    expected = reference.block_mean(used / every, sharing.instances)
    np.testing.assert_allclose(sum(passed.paid), expected, rtol=1e-10)
    assert np.ptp(expected) > 0.01 and expected.min() < 0.99


def test_a_stage_pays_for_what_its_decision_changes():
    """The second stage: its products with the units below, and its units."""
    passed = Passed(Sharing())
    first, second = passed.active(Sharing())
    n_inputs = (passed.x != 0).sum(axis=1)
    every = nanoseconds(n_inputs, passed.widths, passed.widths)
    own = MADE_UP.per_product * first * second + MADE_UP.per_unit * second
    np.testing.assert_allclose(passed.paid[1], own / every, rtol=1e-10)


def test_nothing_is_paid_for_the_policy():
    """The time depends on the decisions, so it reaches the policy by its score."""
    s, z, U = pt.dmatrices("s", "z", "U")
    stage = Stage(Gate(None), "1", s, z, U, U)
    assert compute_time.fraction_of_time(MADE_UP)([stage], 0).for_policy == 0


@pytest.mark.parametrize("estimator", ["reinforce", "disarm"])
def test_estimates_follow_the_time(estimator):
    """The expectation is the gradient of the expected nll plus lambda t(u) / t(all)."""
    lam, n_units = 3.0, (2, 2)
    enumeration = Enumeration(
        n_units, estimator=estimator, baseline="none", penalty="compute-time", lam=lam
    )
    coefficients = compute_time.read()

    def C(zs, masks, logits):
        active = [u.sum(axis=1) for u in masks]
        t = np.dot(np.array(features(3, active, n_units), dtype=object), coefficients)
        return reference.nll(logits, enumeration.y) + lam * t / np.dot(
            features(3, n_units, n_units), coefficients
        )

    exact = enumeration.gradient(C)
    for name, mean in enumeration.mean().items():
        np.testing.assert_allclose(mean, exact[name], rtol=1e-7, atol=1e-10, err_msg=name)


# ---- the recorded fit ----


@pytest.fixture(scope="module")
def record():
    """Return what ``reproduce/compute_time.py`` has written."""
    return json.loads((RECORDED / "compute_time.json").read_text())


def test_the_packaged_fit_is_the_recorded_one(record):
    assert compute_time.read() == Coefficients(**record["nanoseconds"])
    assert compute_time.PACKAGED.read_text() == (RECORDED / "compute_time.json").read_text()


def test_the_recorded_coefficients_fit_the_recorded_times(record):
    """The least squares of the relative errors, none negative; the errors are small."""
    rows = record["measured"]
    times = np.array([row["ns"] for row in rows])
    X = np.array([row["features"] for row in rows]) / times[:, None]
    best, _ = scipy.optimize.nnls(X, np.ones(len(rows)))
    np.testing.assert_allclose(compute_time.read(), best, rtol=1e-6, atol=1e-9)
    error = np.median(abs(X @ best - 1))
    assert error == pytest.approx(record["median_relative_error"])
    assert error < 0.25
    assert compute_time.read().per_product > 0
