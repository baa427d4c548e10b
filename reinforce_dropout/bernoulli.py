"""The Bernoulli family of decisions, written in its logits.

Here ``z = s Z + o`` and ``sigma = sigm(z)``. The forms below never multiply participation
probabilities and never take their logarithm. So nothing overflows or underflows, with any number of
units. The gradients are cheap: ``d log pi / d z = u - sigma``.

All functions take matrices of shape (m_b, n_units), one row an example, and keep their dtype.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad


def log_prob(z, u):
    r"""Log-probability of the masks ``u``, eq. (1).

    .. math:: \log \pi(u \mid s) = \sum_k [u_k \log \sigma_k + (1 - u_k) \log(1 - \sigma_k)]
                                 = \sum_k [u_k z_k - \mathrm{softplus}(z_k)]

    Parameters
    ----------
    z : tensor (m_b, n_units)
        Logits of the participation probabilities.
    u : tensor (m_b, n_units)
        Masks, 1 where a unit takes part and 0 where it is dropped.

    Returns
    -------
    tensor (m_b,)
        In nats, summed over the units.

    Examples
    --------
    >>> log_prob(pt.as_tensor([[0.0, 2.0]]), np.array([[1.0, 0.0]])).eval().round(3)
    array([-2.82])
    """
    return log_probs(z, u).sum(axis=-1)


def log_probs(z, u):
    """Log-probability of each decision, (m_b, n_units) in nats: the terms of `log_prob`.

    Examples
    --------
    >>> log_probs(pt.as_tensor([[0.0, 2.0]]), np.array([[1.0, 0.0]])).eval().round(3)
    array([[-0.693, -2.127]])
    """
    return u * z - pt.softplus(z)


def entropy(z):
    r"""Entropy of the policy, :math:`\sum_k [\mathrm{softplus}(z_k) - \sigma_k z_k]`.

    Parameters
    ----------
    z : tensor (m_b, n_units)
        Logits.

    Returns
    -------
    tensor (m_b,)
        In nats, summed over the units.

    Examples
    --------
    >>> entropy(pt.as_tensor([[0.0, 0.0], [0.0, 9.0]])).eval().round(3)
    array([1.386, 0.694])
    """
    return (pt.softplus(z) - pt.sigmoid(z) * z).sum(axis=-1)


def kl(z, q):
    r"""Kullback-Leibler divergence from the target rate, eq. (5).

    .. math:: \sum_k [\sigma_k (\log \sigma_k - \log q)
                   + (1 - \sigma_k)(\log(1 - \sigma_k) - \log(1 - q))]

    Parameters
    ----------
    z : tensor (m_b, n_units)
        Logits.
    q : float or array (n_units,)
        Target rate of participation, a fraction in (0, 1).

    Returns
    -------
    tensor (m_b,)
        In nats, summed over the units.

    Examples
    --------
    >>> kl(pt.as_tensor([[0.0], [-2.0]]), 0.5).eval().round(3)
    array([0.   , 0.328])
    """
    sigma = pt.sigmoid(z)
    log_q = np.log(q).astype(z.dtype)
    log_1_q = np.log1p(-np.asarray(q)).astype(z.dtype)
    return (sigma * z - pt.softplus(z) - sigma * log_q - (1 - sigma) * log_1_q).sum(axis=-1)


def sample(z, rng):
    """Draw masks, each unit with probability ``sigm(z)``.

    Parameters
    ----------
    z : tensor (m_b, n_units)
        Logits.
    rng : random generator variable
        The state to draw from.

    Returns
    -------
    u : tensor (m_b, n_units)
        Masks of zeros and ones in the dtype of `z`; a constant for back-propagation.
    next_rng : random generator variable
        The state after the draw.

    Examples
    --------
    >>> rng = pytensor.shared(np.random.default_rng(0))
    >>> u, next_rng = sample(pt.as_tensor([[0.0, 9.0, -9.0]]), rng)
    >>> u.eval()
    array([[0., 1., 0.]])
    """
    next_rng, uniform = pt.random.uniform(
        size=z.shape, rng=rng, dtype=z.dtype, return_next_rng=True
    )
    return disconnected_grad((uniform < pt.sigmoid(z)).astype(z.dtype)), next_rng


def noise(z, u, rng):
    """Draw the uniform noise n that made the decisions ``u = 1[n < sigma]``.

    Given u, n is uniform below sigma or above it. Over the draws of u it is uniform on (0, 1). So a
    pass need not keep its noise.

    Parameters
    ----------
    z, u : tensor (m_b, n_units)
        Logits, and the decisions that were drawn from them.
    rng : random generator variable

    Returns
    -------
    n : tensor (m_b, n_units)
        A constant for back-propagation.
    next_rng : random generator variable

    Examples
    --------
    >>> rng = pytensor.shared(np.random.default_rng(0))
    >>> n, next_rng = noise(pt.as_tensor([[0.0, 0.0]]), pt.as_tensor([[1.0, 0.0]]), rng)
    >>> n.eval() < 0.5
    array([[ True, False]])
    """
    next_rng, v = pt.random.uniform(size=z.shape, rng=rng, dtype=z.dtype, return_next_rng=True)
    sigma = pt.sigmoid(z)
    return disconnected_grad(u * v * sigma + (1 - u) * (sigma + v * (1 - sigma))), next_rng


def antithetic(z, n):
    """Decide by the opposite noise 1 - n: ``1[n > 1 - sigma]``, (m_b, n_units).

    Examples
    --------
    >>> antithetic(pt.as_tensor([[0.0, 0.0]]), pt.as_tensor([[0.2, 0.7]])).eval()
    array([[0., 1.]])
    """
    return disconnected_grad((1 - n < pt.sigmoid(z)).astype(z.dtype))


def mean(z):
    """Return the expectation of the masks, ``sigma = sigm(z)``, (m_b, n_units).

    Examples
    --------
    >>> mean(pt.as_tensor([[0.0, 2.0]])).eval().round(2)
    array([[0.5 , 0.88]])
    """
    return pt.sigmoid(z)


def mode(z):
    """Return the most probable masks, (m_b, n_units): 1 where ``sigma > 1/2``, else 0.

    Examples
    --------
    >>> mode(pt.as_tensor([[0.0, 2.0]])).eval()
    array([[0., 1.]])
    """
    return (z > 0).astype(z.dtype)
