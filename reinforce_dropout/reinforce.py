"""The REINFORCE gradient of a layer's policy, eqs. (2) to (4), four ways to the same vector.

``log_pi`` (m_b,) is the vector log pi(U | S), one entry an example, and ``theta = [Z, o]``.
``c`` (m_b,) is the vector of costs minus a baseline, a constant for differentiation. J is the
Jacobian of ``log_pi`` with respect to theta, and N = m_b. All functions return ``(1/N) c^T J``, a
list with the shapes of theta.

Training uses `policy_gradient`. The others are for teaching, and for testing it. The cost is in
`reinforce_dropout.returns`, the baseline in `reinforce_dropout.baselines`.
"""

import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad, pullback, pushforward


def _vector(c):
    """Refuse what would broadcast in silence."""
    if c.ndim != 1:
        raise ValueError(f"c must be a vector, one cost an example, not of {c.ndim} dimensions.")
    return c


def _mean_weights(c):
    """Return c / N: the cotangent of the empirical mean."""
    return _vector(c) / c.shape[0].astype(c.dtype)


def policy_gradient(log_pi, theta, c):
    r"""Left vector-Jacobian product, eq. (4): :math:`\frac{1}{N} R_\theta\{\log \pi\}`.

    The Jacobian is never formed. One backward pass pulls the cotangent c / N back from ``log_pi``
    to theta (Theano's ``Lop``). The paper writes Pearlmutter's R for the operator c^T d/d theta.

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

    J has m_b times as many entries as theta, and takes m_b backward passes. The parameters are
    those of `policy_gradient`.
    """
    J = pytensor.gradient.jacobian(log_pi, theta)
    return [pt.tensordot(_mean_weights(c), J_k, axes=1) for J_k in J]


def pushforward_policy_gradient(log_pi, theta, c):
    """Differentiate twice, by way of the R-operator: the same vector.

    ``J v`` (Theano's ``Rop``, now ``pushforward``) is linear in the tangent v. So the gradient of
    the number ``(1/N) c^T (J v)`` with respect to v is ``(1/N) c^T J`` at every v. The parameters
    are those of `policy_gradient`.
    """
    v = [pt.zeros_like(p) for p in theta]
    Jv = pushforward(log_pi, theta, v)
    return pytensor.grad(pt.dot(_mean_weights(c), Jv), v, consider_constant=[c])


def surrogate_policy_gradient(log_pi, theta, c):
    """Differentiate a surrogate loss: the mean of ``c * log pi`` with c held constant.

    Users of libraries without a vector-Jacobian product write this. The parameters are those of
    `policy_gradient`.
    """
    return pytensor.grad((disconnected_grad(_vector(c)) * log_pi).mean(), theta)
