"""Costs: of the network's predictions, of its weights, and of the decision process."""

import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from reinforce_dropout.blocks import row_numbers


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
    """
    # The softmax is the same for shifted logits, and the largest of these is 0: nothing overflows.
    shifted = logits - disconnected_grad(logits.max(axis=1, keepdims=True))
    return pt.log(pt.exp(shifted).sum(axis=1)) - shifted[row_numbers(y), y]


def l2(weights):
    """Sum of the squares of all entries of the weight matrices (no biases, no policies).

    Parameters
    ----------
    weights : sequence of tensor

    Returns
    -------
    tensor ()
    """
    return sum((W**2).sum() for W in weights)


def mdp_cost(nll, kls, lam):
    r"""Cost of each example in the decision process, eq. (6).

    .. math:: C = -\log P(y \mid x) + \lambda \sum_i \mathrm{KL}_i

    Parameters
    ----------
    nll : tensor (m_b,)
        In nats.
    kls : sequence of tensor (m_b,)
        Divergences of the layers' policies from the target rate, in nats.
    lam : float
        The trade-off lambda between accuracy and parsimony; 0 or more.

    Returns
    -------
    tensor (m_b,)
        In nats.
    """
    lam = pt.constant(lam, dtype=nll.dtype)
    return nll + lam * sum(kls) if kls else nll
