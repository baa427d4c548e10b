"""The REINFORCE gradient of a layer's policy, eqs. (2) to (4), four ways to the same vector.

``log_pi`` is the vector log pi(U | S) of shape (m_b,), one entry an example; ``theta = [Z, o]``;
``c`` the vector of costs less a baseline, (m_b,), a constant for differentiation. With J the
Jacobian of ``log_pi`` with respect to theta and N = m_b, all return ``(1/N) c^T J``, a list with
the shapes of theta.

Training uses `policy_gradient`. The others are for teaching, and for testing it. The baselines are
in `reinforce_dropout.baselines`, also found as ``reinforce.baselines``.
"""

import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad, pullback, pushforward

from reinforce_dropout import baselines  # noqa: F401 - part of this module's public names
from reinforce_dropout.costs import mdp_cost


def _mean_weights(c):
    """Return c / N: the cotangent of the empirical mean."""
    return c / c.shape[0].astype(c.dtype)


def policy_gradient(log_pi, theta, c):
    r"""Left vector-Jacobian product, eq. (4): :math:`\frac{1}{N} R_\theta\{\log \pi\}`.

    The Jacobian is never formed: one backward pass pulls the cotangent c / N back from ``log_pi``
    to theta. (Theano's ``Lop``; the paper writes Pearlmutter's R for the operator c^T d/d theta.)

    Parameters
    ----------
    log_pi : tensor (m_b,)
    theta : list of shared variables
    c : tensor (m_b,)

    Returns
    -------
    list of tensor
    """
    return pullback(log_pi, theta, _mean_weights(c))


def jacobian_policy_gradient(log_pi, theta, c):
    r"""Form the Jacobian, eq. (3): :math:`\frac{1}{N} c^\top J`.

    J has m_b times as many entries as theta, and takes m_b backward passes.

    Parameters
    ----------
    log_pi, theta, c
        As for `policy_gradient`.

    Returns
    -------
    list of tensor
    """
    J = pytensor.gradient.jacobian(log_pi, theta)
    return [pt.tensordot(_mean_weights(c), J_k, axes=1) for J_k in J]


def pushforward_policy_gradient(log_pi, theta, c):
    """Differentiate the R-operator's number: the same vector by differentiating twice.

    ``J v`` (Theano's ``Rop``, now ``pushforward``) is linear in the tangent v, so that the gradient
    of the number ``(1/N) c^T (J v)`` with respect to v is ``(1/N) c^T J``, whatever v.

    Parameters
    ----------
    log_pi, theta, c
        As for `policy_gradient`.

    Returns
    -------
    list of tensor
    """
    v = [pt.zeros_like(p) for p in theta]
    Jv = pushforward(log_pi, theta, v)
    return pytensor.grad(pt.dot(_mean_weights(c), Jv), v, consider_constant=[c])


def surrogate_policy_gradient(log_pi, theta, c):
    """Differentiate a surrogate, the mean of ``c * log pi`` with c held constant.

    What users of libraries without a vector-Jacobian product write.

    Parameters
    ----------
    log_pi, theta, c
        As for `policy_gradient`.

    Returns
    -------
    list of tensor
    """
    return pytensor.grad((disconnected_grad(c) * log_pi).mean(), theta)


def score_cost(nll, kls, lam, i, kl_gradient="total"):
    """Cost C that weighs the score of layer i in eq. (2).

    KL_i depends on s_i and not on the mask u_i, nor do the divergences of the layers before it:
    their products with the score of layer i have expectation zero. ``"total"`` leaves them out;
    ``"score"`` is the literal reading of (2) with (6), which keeps them: the same expectation with
    more noise, and no way for layer i to learn of its own divergence.

    Parameters
    ----------
    nll : tensor (m_b,)
        In nats.
    kls : list of tensor (m_b,)
        Divergences of all layers' policies, in nats.
    lam : float
        lambda of eq. (6).
    i : int
        The layer, counted from 0.
    kl_gradient : {"total", "score"}

    Returns
    -------
    tensor (m_b,)
        In nats.
    """
    return mdp_cost(nll, kls if kl_gradient == "score" else kls[i + 1 :], lam)


def kl_penalty_gradient(kl_i, theta, lam):
    """Gradient of the mean of ``lam * KL_i``: the part of grad E[C] that the score leaves out.

    C of eq. (6) depends on theta_i not only through the masks drawn but directly, through KL_i.
    With ``kl_gradient="total"`` it is added to eq. (2), which makes the sum the true gradient.

    Parameters
    ----------
    kl_i : tensor (m_b,)
        Divergence of the layer's policy from the target rate, in nats.
    theta : list of shared variables
    lam : float

    Returns
    -------
    list of tensor
    """
    return pytensor.grad(pt.constant(lam, dtype=kl_i.dtype) * kl_i.mean(), theta)
