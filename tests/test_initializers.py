"""Initial values of the parameters."""

import numpy as np
import pytensor.tensor as pt
import pytest
import scipy.special
import scipy.stats
from reference import compiled, gated_network

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.initializers import glorot_uniform, logit_of_rate, parameter
from reinforce_dropout.network import RULES, forward


def test_glorot_uniform():
    """Uniform on +-sqrt(6 / (n_in + n_out)), by a Kolmogorov-Smirnov test."""
    W = glorot_uniform(np.random.default_rng(0), 100, 50)
    limit = np.sqrt(6 / 150)
    assert W.shape == (100, 50) and W.dtype == "float32"
    assert np.abs(W).max() <= np.float32(limit)
    uniform = scipy.stats.uniform(-limit, 2 * limit)
    assert scipy.stats.kstest(W.ravel(), uniform.cdf).pvalue > 1e-3
    assert glorot_uniform(np.random.default_rng(0), 2, 3, "float64").dtype == "float64"


@pytest.mark.parametrize("rate", [0.001, 0.12, 0.5, 0.9])
def test_logit_of_rate(rate):
    """The sigmoid of the bias is the rate, for each unit."""
    o = logit_of_rate(rate, 7)
    assert o.shape == (7,) and o.dtype == "float32"
    np.testing.assert_allclose(scipy.special.expit(o), rate, rtol=1e-5)


def test_initial_rate_on_images():
    """The paper's 10 to 15 % of the units are active before training, on inputs like MNIST's."""
    network = gated_network(np.random.default_rng(0), (784, 500, 10))
    images = np.random.default_rng(1).random((50, 784), "float32")
    images *= np.random.default_rng(2).random((50, 784)) < 0.2
    x = pt.fmatrix("x")
    sigma = forward(network, x, rule=RULES["expected"]).stages[0].U
    assert 0.10 < compiled([x], sigma.mean())(images) < 0.15


def test_a_parameter_is_a_named_copy_that_begins_a_line():
    """Later changes of the array do not reach it."""
    value = np.arange(6, dtype="float32").reshape(2, 3)
    p = parameter(value, "p")
    value[:] = 9
    np.testing.assert_array_equal(p.get_value(), [[0, 1, 2], [3, 4, 5]])
    assert p.name == "p" and p.get_value(borrow=True).ctypes.data % LINE_BYTES == 0
