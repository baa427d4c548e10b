"""Parameters and their initial values."""

import numpy as np
import pytensor

from reinforce_dropout.alignment import aligned


def glorot_uniform(rng, n_in, n_out, dtype="float32"):
    r"""Weights uniform on :math:`\pm\sqrt{6 / (n_{in} + n_{out})}`.

    This is the heuristic of Glorot and Bengio (2010, eq. 16), which section 4 names. The result is
    an array (n_in, n_out).
    """
    limit = np.sqrt(6.0 / (n_in + n_out))
    return rng.uniform(-limit, limit, (n_in, n_out)).astype(dtype)


def gaussian(std):
    """Return ``initial(rng, n_in, n_out)``: weights from N(0, std^2), float32 (n_in, n_out)."""

    def initial(rng, n_in, n_out):
        return rng.normal(0, std, (n_in, n_out)).astype("float32")

    return initial


def logit_of_rate(rate, n_units, dtype="float32"):
    """Policy biases ``o`` (n_units,) for which every unit takes part at `rate`, given zero input.

    Section 4 starts with about 10 to 15 % of the units active. ``s Z`` spreads the logits around
    ``o``. That moves the mean rate towards 1/2 by a fraction of a point.
    """
    return np.full(n_units, np.log(rate) - np.log1p(-rate), dtype)


def parameter(value, name):
    """Return a shared variable that begins where a cache line begins; see `alignment`."""
    return pytensor.shared(aligned(value), name=name, borrow=True)
