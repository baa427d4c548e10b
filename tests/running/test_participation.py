"""Participation by class and unit is the mean of the masks, in NumPy too."""

import numpy as np
import pytest
import reference
from random_models import record_of

from reinforce_dropout.errors import DataError, ExperimentError
from reinforce_dropout.running import participation
from reinforce_dropout.running.datasets import Examples
from reinforce_dropout.systems import block_policy, plain, policy


def examples(n=2500, n_classes=3):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, n_classes, n).astype("int32")
    return Examples(rng.random((n, 6)).astype("float32"), labels)


def test_is_the_mean_of_sigma_in_each_class():
    record, given = record_of(policy.Settings(n_units=(7, 5))), examples()
    found = participation.by_class(record, given, "python")
    sigma_1 = reference.sigm(given.images @ record.best["Z_1"] + record.best["o_1"])
    hidden = np.tanh(given.images @ record.best["W_1"] + record.best["b_1"]) * sigma_1
    sigma_2 = reference.sigm(hidden @ record.best["Z_2"] + record.best["o_2"])
    for fractions, sigma in zip(found, (sigma_1, sigma_2), strict=True):
        assert fractions.shape == (3, sigma.shape[1]) and fractions.dtype == "float64"
        for c in range(3):
            right = sigma[given.labels == c].mean(axis=0)
            np.testing.assert_allclose(fractions[c], right, rtol=1e-4)


def test_shared_decisions_count_for_each_unit():
    record = record_of(
        block_policy.Settings(n_units=(6,), instances_per_block=4, units_per_block=3)
    )
    (fractions,) = participation.by_class(record, examples(), "python")
    assert fractions.shape == (3, 6)
    np.testing.assert_array_equal(fractions[:, 0], fractions[:, 2])
    assert (fractions[:, 0] != fractions[:, 3]).all()


def test_refuses_what_has_no_masks_or_other_data():
    with pytest.raises(ExperimentError, match="plain has no gates.*another system"):
        participation.by_class(record_of(plain.Settings(n_units=(7,))), examples(), "python")
    record = record_of(policy.Settings(n_units=(7,)))
    other = Examples(np.ones((9, 5), "float32"), np.arange(9, dtype="int32") % 3)
    for wrong in (examples(n_classes=2), other):
        with pytest.raises(DataError, match="6 pixels and 3 classes.*with --data"):
            participation.by_class(record, wrong, "python")
