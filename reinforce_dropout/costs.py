"""Costs of the network's predictions, of its weights, and of the decision process."""

from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad


def nll(logits, y):
    """Negative log-likelihood of the labels under the softmax, ``-log P(y | x)``.

    Parameters
    ----------
    logits : tensor (m_b, n_classes)
        Of the softmax.
    y : integer tensor (m_b,)
        Labels.

    Returns
    -------
    tensor (m_b,)
        In nats, one for each example.

    Examples
    --------
    >>> nll(pt.as_tensor([[0.0, 0.0], [9.0, 0.0]]), pt.as_tensor([0, 1])).eval().round(3)
    array([0.693, 9.   ])
    """
    # Shifted logits have the same softmax. The largest of them is 0, so nothing overflows.
    shifted = logits - disconnected_grad(logits.max(axis=1, keepdims=True))
    return pt.log(pt.exp(shifted).sum(axis=1)) - shifted[pt.arange(y.shape[0]), y]


def l2(weights):
    """Sum of the squares of all entries of the weight matrices (no biases, no policies).

    Examples
    --------
    >>> float(l2([pt.as_tensor([[3.0, 4.0]]), pt.as_tensor([[2.0]])]).eval())
    29.0
    """
    return sum((W**2).sum() for W in weights)


def l2_norms(weights):
    """Sum of the Euclidean norms of the weight matrices: another reading of an "L2 penalty".

    Examples
    --------
    >>> float(l2_norms([pt.as_tensor([[3.0, 4.0]]), pt.as_tensor([[2.0]])]).eval())
    7.0
    """
    return sum(pt.sqrt((W**2).sum()) for W in weights)


class Paid(NamedTuple):
    """What is paid at one stage, apart from the nll.

    The two must be kept apart. The first reaches the policy through its score only; the second has
    a gradient of its own. See `reinforce_dropout.returns`.

    Attributes
    ----------
    for_decision : tensor (n_decisions,) or 0
        Depends on the decision u.
    for_policy : tensor (n_decisions,) or 0
        Depends on the logits z alone.
    """

    for_decision: Any = 0
    for_policy: Any = 0


def kl_to_rate(q):
    """Return the paper's penalty: each policy pays its divergence from the rate q, eq. (5).

    Parameters
    ----------
    q : float
        Target rate of participation, a fraction in (0, 1).

    Returns
    -------
    callable
        ``cost(stages, i) -> Paid`` in nats, for a list of `Stage` and the number of one of them.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from reinforce_dropout.gates import Gate
    >>> stage = SimpleNamespace(gate=Gate(policy=None), z=pt.as_tensor([[0.0]]))
    >>> kl_to_rate(0.1)([stage], 0).for_policy.eval().round(3)
    array([0.511])
    """

    def cost(stages, i):
        return Paid(for_policy=stages[i].gate.family.kl(stages[i].z, q))

    return cost


def active_units(stages, i):
    """Pay for each unit that takes part: their number, as L0 or L1 of the mask (section 3.2).

    It depends on the decision, so it reaches the policy through its score.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from reinforce_dropout.gates import Gate
    >>> stage = SimpleNamespace(gate=Gate(policy=None), U=pt.as_tensor([[1.0, 0.0, 1.0]]))
    >>> active_units([stage], 0).for_decision.eval()
    array([2.])
    """
    gate, U = stages[i].gate, stages[i].U
    return Paid(for_decision=gate.pool(U.sum(axis=1)))


def kl_of_mean(q):
    r"""Return a penalty on the mini-batch mean of each unit's rate, after Lee et al. (2008).

    .. math:: L = \sum_k \mathrm{KL}\Bigl(\frac{1}{N} \sum_n \sigma_{nk}, q\Bigr)

    A unit may be sure of itself, if it is rarely on. L belongs to a whole mini-batch. What an
    example pays is N times its own part: L minus that of the others alone. So the scores of the
    policies below have the right expectation. The gradient of the mean is that of L.

    Parameters
    ----------
    q : float
        Target rate of participation, a fraction in (0, 1).

    Returns
    -------
    callable
        ``cost(stages, i) -> Paid`` in nats.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from reinforce_dropout.gates import Gate
    >>> stage = SimpleNamespace(gate=Gate(policy=None), z=pt.as_tensor([[9.0], [-9.0]]))
    >>> float(kl_of_mean(0.5)([stage], 0).for_policy.mean().eval().round(3))
    -1.384
    """

    def cost(stages, i):
        sigma = stages[i].gate.family.mean(stages[i].z)
        n = sigma.shape[0].astype(sigma.dtype)
        L = _divergence(sigma.mean(axis=0), q)
        others = (sigma.sum(axis=0) - sigma) / pt.maximum(n - 1, 1)
        share = n * (L - _divergence(others, q))
        return Paid(for_policy=L + disconnected_grad(share - L))

    return cost


def _divergence(rate, q):
    """Sum over the units of the divergence of rates from q, in nats."""
    rate = pt.clip(rate, _LEAST_RATE, 1 - _LEAST_RATE)
    on, off = (pt.constant(np.log(p), dtype=rate.dtype) for p in (q, 1 - q))
    return (rate * (pt.log(rate) - on) + (1 - rate) * (pt.log1p(-rate) - off)).sum(axis=-1)


_LEAST_RATE = np.float32(1e-6)
"""Rates are kept so far from 0 and 1, because their logarithms must be finite."""


def mdp_cost(nll, paid, lam):
    r"""Cost of each example in the decision process, eq. (6).

    .. math:: C = -\log P(y \mid x) + \lambda \sum_i \mathrm{KL}_i

    Parameters
    ----------
    nll : tensor (m_b,)
        In nats.
    paid : sequence of tensor (m_b,)
        What each stage pays, in nats; in the paper the divergence of the layer's policy.
    lam : float
        The trade-off lambda between accuracy and parsimony; 0 or more.

    Returns
    -------
    tensor (m_b,)
        In nats.

    Examples
    --------
    >>> mdp_cost(pt.as_tensor([1.0, 2.0]), [pt.as_tensor([3.0, 0.0])], lam=0.1).eval()
    array([1.3, 2. ])
    """
    return nll + pt.constant(lam, dtype=nll.dtype) * sum(paid)
