"""Initial values of the parameters, as NumPy arrays."""

import numpy as np


def glorot_uniform(rng, n_in, n_out, dtype="float32"):
    r"""Weights uniform on :math:`\pm\sqrt{6 / (n_{in} + n_{out})}`.

    The heuristic of Glorot and Bengio (2010, eq. 16), which section 4 names.

    Parameters
    ----------
    rng : numpy.random.Generator
    n_in, n_out : int
    dtype : str

    Returns
    -------
    ndarray (n_in, n_out)
    """
    limit = np.sqrt(6.0 / (n_in + n_out))
    return rng.uniform(-limit, limit, (n_in, n_out)).astype(dtype)


def logit_of_rate(rate, n_units, dtype="float32"):
    """Policy biases ``o`` with which every unit takes part at `rate`, given zero input.

    Section 4 starts with about 10 to 15 % of the units active. ``s Z`` spreads the logits around
    ``o``, which moves the mean rate towards 1/2 by a fraction of a point.

    Parameters
    ----------
    rate : float
        Initial rate of participation, a fraction in (0, 1).
    n_units : int
    dtype : str

    Returns
    -------
    ndarray (n_units,)
    """
    return np.full(n_units, np.log(rate) - np.log1p(-rate), dtype)
