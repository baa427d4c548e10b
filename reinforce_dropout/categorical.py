"""The categorical family of decisions, written in its logits: one of k choices.

Here ``p = softmax(z)`` are the probabilities of the choices, and a decision u is one-hot: 1 at the
choice, 0 elsewhere. The forms below never multiply probabilities and never take the logarithm of
one. So nothing overflows or underflows. The gradients are cheap: ``d log pi / d z = u - p``.

All functions take matrices of shape (m_b, k), one row an example, and keep their dtype.
"""

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad


def _log_normalizer(z):
    """``log sum_j exp z_j``, (m_b, 1)."""
    # Shifted logits have the same softmax. The largest of them is 0, so nothing overflows.
    largest = disconnected_grad(z.max(axis=-1, keepdims=True))
    return pt.log(pt.exp(z - largest).sum(axis=-1, keepdims=True)) + largest


def _one_hot(choice, z):
    """Return 1 at the choice (m_b,) and 0 elsewhere, in the shape and dtype of `z`."""
    return pt.eq(pt.arange(z.shape[1]), choice[:, None]).astype(z.dtype)


def log_prob(z, u):
    r"""Log-probability of the decisions ``u``.

    .. math:: \log \pi(u \mid s) = \sum_j u_j \log p_j = \sum_j u_j z_j - \log \sum_j e^{z_j}

    Parameters
    ----------
    z : tensor (m_b, k)
        Logits.
    u : tensor (m_b, k)
        Decisions, one-hot.

    Returns
    -------
    tensor (m_b,)
        In nats.
    """
    return (u * (z - _log_normalizer(z))).sum(axis=-1)


def entropy(z):
    r"""Entropy of the policy, :math:`-\sum_j p_j \log p_j`.

    Parameters
    ----------
    z : tensor (m_b, k)
        Logits.

    Returns
    -------
    tensor (m_b,)
        In nats, between 0 and log k.
    """
    return -log_prob(z, mean(z))


def kl(z, q):
    r"""Kullback-Leibler divergence from target probabilities, :math:`\sum_j p_j \log (p_j / q_j)`.

    Parameters
    ----------
    z : tensor (m_b, k)
        Logits.
    q : array (k,)
        Target probabilities, greater than 0, with the sum 1.

    Returns
    -------
    tensor (m_b,)
        In nats.
    """
    return (mean(z) * (z - _log_normalizer(z) - np.log(q).astype(z.dtype))).sum(axis=-1)


def sample(z, rng):
    """Draw decisions: one choice an example, j with probability ``p_j``.

    A uniform number chooses. The choice is the number of cumulative sums ``p_0 + ... + p_j`` that
    it reaches. The last sum is left out, so rounding cannot lead past the last choice.

    Parameters
    ----------
    z : tensor (m_b, k)
        Logits.
    rng : random generator variable
        The state to draw from.

    Returns
    -------
    u : tensor (m_b, k)
        Decisions, one-hot, in the dtype of `z`; a constant for back-propagation.
    next_rng : random generator variable
        The state after the draw.
    """
    next_rng, uniform = pt.random.uniform(
        size=(z.shape[0], 1), rng=rng, dtype=z.dtype, return_next_rng=True
    )
    reached = uniform >= pt.cumsum(mean(z), axis=1)[:, :-1]
    return disconnected_grad(_one_hot(reached.sum(axis=1), z)), next_rng


def mean(z):
    """Return the expectation of the decisions, ``p = softmax(z)``, (m_b, k)."""
    return pt.exp(z - _log_normalizer(z))


def mode(z):
    """Return the most probable decisions, (m_b, k), one-hot: the first of equally probable ones."""
    return _one_hot(pt.argmax(z, axis=1), z)
