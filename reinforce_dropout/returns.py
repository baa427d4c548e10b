"""The cost C that weighs the score of one stage in eq. (2): two readings.

KL_i of eq. (5) depends on s_i, the input of layer i's policy. It does not depend on the mask u_i.
Its product with the score of layer i has expectation zero. So the score alone tells a layer nothing
about its own divergence. The gradient of E[C] has a second term, because C depends on theta_i
directly, too.

A reading has the signature ``returns(nll, paid, lam, i) -> (C_i, direct)``. Here nll (n_decisions,)
is in nats, paid a list of `costs.Paid`, lam the lambda of eq. (6), and i the stage, from 0. C_i
(n_decisions,) is in nats. ``direct`` is a scalar whose gradient in theta_i is added, or None.
"""

import pytensor
import pytensor.tensor as pt

from reinforce_dropout.costs import mdp_cost


def literal(nll, paid, lam, i):
    """Read eqs. (2) and (6) as they stand: every cost weighs every score.

    The expectation is that of `to_go` without its direct term. The noise is larger. A layer learns
    nothing about its own divergence.

    Examples
    --------
    >>> from reinforce_dropout.costs import Paid
    >>> nll, kl = pt.as_tensor([1.0, 2.0]), pt.as_tensor([3.0, 0.0])
    >>> C, direct = literal(nll, [Paid(for_policy=kl)], lam=0.1, i=0)
    >>> C.eval(), direct
    (array([1.3, 2. ]), None)
    """
    return mdp_cost(nll, [p.for_decision + p.for_policy for p in paid], lam), None


def to_go(nll, paid, lam, i):
    """Follow the true gradient: what u_i changes weighs the score; the direct term is added.

    C_i leaves out what the decision u_i cannot change: the costs of earlier stages, and what the
    stage's own policy pays. The latter is differentiated directly.

    Examples
    --------
    >>> from reinforce_dropout.costs import Paid
    >>> nll, kl = pt.as_tensor([1.0, 2.0]), pt.as_tensor([3.0, 0.0])
    >>> C, direct = to_go(nll, [Paid(for_policy=kl)], lam=0.1, i=0)
    >>> C.eval(), float(direct.eval().round(2))
    (array([1., 2.]), 0.15)
    """
    later = [p.for_decision for p in paid[i:]] + [p.for_policy for p in paid[i + 1 :]]
    own = pt.as_tensor(paid[i].for_policy)
    return mdp_cost(nll, later, lam), pt.constant(lam, dtype=nll.dtype) * own.mean()


def plus_direct(grads, direct, theta):
    """Return `grads`, one for each entry of `theta`, plus the gradient of `direct` if any.

    Examples
    --------
    >>> o = pytensor.shared(np.array([1.0, 2.0]))
    >>> (grad,) = plus_direct([np.array([5.0, 5.0])], (o**2).sum(), [o])
    >>> grad.eval()
    array([7., 9.])
    """
    if direct is None:
        return grads
    own = pytensor.grad(direct, theta, disconnected_inputs="ignore")
    return [score + d for score, d in zip(grads, own, strict=True)]
