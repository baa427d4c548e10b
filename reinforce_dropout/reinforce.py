"""The REINFORCE gradient of a layer's policy, eqs. (2) to (4), four ways to the same vector.

``log_pi`` (m_b,) is the vector log pi(U | S), one entry an example, and ``theta = [Z, o]``.
``c`` (m_b,) is the vector of costs minus a baseline, a constant for differentiation. J is the
Jacobian of ``log_pi`` with respect to theta, and N = m_b. All functions return ``(1/N) c^T J``, a
list with the shapes of theta. Another function of theta may stand for ``log_pi``, such as the
logits. Then c has its shape, one row an example.

Training uses `policy_gradient`. The others are for teaching, and for testing it. The cost is in
`reinforce_dropout.returns`, the baseline in `reinforce_dropout.baselines`.
"""

from typing import Any, NamedTuple

import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad, pullback, pushforward


class Estimate(NamedTuple):
    """An estimate of a policy's gradient, before it is carried to theta: ``(1/N) c^T J``.

    Attributes
    ----------
    of : tensor (N,) or (N, k)
        The function of theta whose Jacobian is J.
    c : tensor
        Of the same shape; a constant for differentiation.
    updates : dict from shared variable to tensor
        What a baseline remembers.
    rng : random generator variable, or None
        The state after all draws.
    """

    of: Any
    c: Any
    updates: dict
    rng: Any


def score_function(baseline):
    """Return the paper's estimator, eq. (2): the score, weighted by cost minus baseline.

    Parameters
    ----------
    baseline : callable
        ``baseline(C, stage) -> (b, updates)``, see `reinforce_dropout.baselines`.

    Returns
    -------
    callable
        ``estimator(stage, C, cost_of, rng) -> Estimate``. ``cost_of`` is not used.

    Examples
    --------
    >>> from reinforce_dropout.baselines import batch_mean
    >>> from reinforce_dropout import gates, network
    >>> rng = np.random.default_rng(0)
    >>> net = network.multilayer_perceptron(rng, (3, 2, 2), pt.tanh)
    >>> net = net._replace(gates=[gates.sigmoid_bernoulli(rng, 3, 2, "1")])
    >>> (stage,) = network.forward(net, pt.ones((4, 3)), pytensor.shared(rng)).stages
    >>> estimate = score_function(batch_mean)
    >>> estimate(stage, pt.as_tensor([1.0, 2.0, 6.0, 3.0]), None, None).c.eval()
    array([-2., -1.,  3.,  0.])
    """

    def estimator(stage, C, cost_of, rng):
        b, updates = baseline(C, stage)
        family = stage.gate.family
        if b.ndim == 1:
            return Estimate(family.log_prob(stage.z, stage.u), C - b, updates, rng)
        return Estimate(family.log_probs(stage.z, stage.u), C[:, None] - b, updates, rng)

    return estimator


def _mean_weights(log_pi, c):
    """Return c / N: the cotangent of the empirical mean. Refuse what would broadcast in silence."""
    if c.ndim != log_pi.ndim:
        raise ValueError(
            f"c must have as many dimensions as what it weighs ({log_pi.ndim}), "
            f"one row an example, not {c.ndim}."
        )
    return c / c.shape[0].astype(c.dtype)


def policy_gradient(log_pi, theta, c):
    r"""Left vector-Jacobian product, eq. (4): :math:`\frac{1}{N} R_\theta\{\log \pi\}`.

    The Jacobian is never formed. One backward pass pulls the cotangent c / N back from ``log_pi``
    to theta (Theano's ``Lop``). The paper writes Pearlmutter's R for the operator c^T d/d theta.

    Parameters
    ----------
    log_pi : tensor (m_b,), or another function of theta
    theta : list of shared variables
    c : tensor (m_b,), or of the other function's shape

    Returns
    -------
    list of tensor

    Examples
    --------
    >>> from reinforce_dropout.bernoulli import log_prob
    >>> o = pytensor.shared(np.zeros(2))
    >>> log_pi = log_prob(pt.zeros((3, 2)) + o, np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    >>> (grad,) = policy_gradient(log_pi, [o], pt.as_tensor([1.0, -1.0, 3.0]))
    >>> grad.eval()
    array([-0.5       , -0.83333333])
    """
    return pullback(log_pi, theta, _mean_weights(log_pi, c))


def jacobian_policy_gradient(log_pi, theta, c):
    r"""Form the Jacobian, eq. (3): :math:`\frac{1}{N} c^\top J`.

    J has m_b times as many entries as theta, and takes m_b backward passes. The parameters are
    those of `policy_gradient`.

    Examples
    --------
    >>> o = pytensor.shared(np.zeros(2))
    >>> log_pi = (pt.as_tensor([[1.0, 2.0], [3.0, 4.0]]) * o).sum(axis=1)
    >>> (grad,) = jacobian_policy_gradient(log_pi, [o], pt.as_tensor([1.0, 1.0]))
    >>> grad.eval()
    array([2., 3.])
    """
    J = pytensor.gradient.jacobian(log_pi.ravel(), theta)
    return [pt.tensordot(_mean_weights(log_pi, c).ravel(), J_k, axes=1) for J_k in J]


def pushforward_policy_gradient(log_pi, theta, c):
    """Differentiate twice, by way of the R-operator: the same vector.

    ``J v`` (Theano's ``Rop``, now ``pushforward``) is linear in the tangent v. So the gradient of
    the number ``(1/N) c^T (J v)`` with respect to v is ``(1/N) c^T J`` at every v. The parameters
    are those of `policy_gradient`.

    Examples
    --------
    >>> o = pytensor.shared(np.zeros(2))
    >>> log_pi = (pt.as_tensor([[1.0, 2.0], [3.0, 4.0]]) * o).sum(axis=1)
    >>> (grad,) = pushforward_policy_gradient(log_pi, [o], pt.as_tensor([1.0, 1.0]))
    >>> grad.eval()
    array([2., 3.])
    """
    v = [pt.zeros_like(p) for p in theta]
    Jv = pushforward(log_pi, theta, v)
    return pytensor.grad((_mean_weights(log_pi, c) * Jv).sum(), v, consider_constant=[c])


def surrogate_policy_gradient(log_pi, theta, c):
    """Differentiate a surrogate loss: the mean of ``c * log pi`` with c held constant.

    Users of libraries without a vector-Jacobian product write this. The parameters are those of
    `policy_gradient`.

    Examples
    --------
    >>> o = pytensor.shared(np.zeros(2))
    >>> log_pi = (pt.as_tensor([[1.0, 2.0], [3.0, 4.0]]) * o).sum(axis=1)
    >>> (grad,) = surrogate_policy_gradient(log_pi, [o], pt.as_tensor([1.0, 1.0]))
    >>> grad.eval()
    array([2., 3.])
    """
    return pytensor.grad((disconnected_grad(_mean_weights(log_pi, c)) * log_pi).sum(), theta)
