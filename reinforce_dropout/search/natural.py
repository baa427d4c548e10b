r"""The natural gradient (Amari, 1998): the step that changes the policy's distribution evenly.

The Fisher matrix of a Bernoulli policy with logits z(theta) is known without sampling. With the
Jacobian J of the logits of a mini-batch and D = sigma (1 - sigma), entry by entry,

.. math:: F = \frac{1}{N} J^\top D J, \qquad x = (F + d I)^{-1} g.

Its products take the two operators that the paper cites: ``pushforward`` (R) forms J v, and
``pullback`` (L) forms J^T w. The damping d is needed, because border pixels are always 0.

A gradient from N examples has the form g = J^T G / N. So has x = J^T A / N, where

.. math:: (D J J^\top / N + d) A = G.

G and A (N, k) are much smaller than g and x. The conjugate gradients below stay in this small
space. With the inner product <A, J J^T B> their iterates are those in the space of theta.
"""

from functools import partial

import pytensor
import pytensor.tensor as pt
from pytensor.gradient import pullback, pushforward


def fisher_weights(stage):
    """Return D = sigma (1 - sigma), (N, k): the variance of each decision."""
    sigma = stage.gate.family.mean(stage.z)
    return sigma * (1 - sigma)


def kernel(stage):
    """Return ``A -> J J^T A``, (N, k): what a step along J^T A changes in the logits.

    A policy may know a faster way than the two operators, its method ``kernel``. That of an affine
    policy is ``(s s^T + 1) A``, with a matrix (N, N) that all units share.
    """
    policy = stage.gate.policy
    if hasattr(policy, "kernel"):
        return policy.kernel(stage.s)
    return partial(pushed_and_pulled, stage)


def pushed_and_pulled(stage, A):
    """Return J J^T A by the two operators, for any policy."""
    theta = stage.gate.policy.theta
    return pushforward(stage.z, theta, pullback(stage.z, theta, A))


def damped_fisher(stage, KA, A, damping):
    """Return (D J J^T / N + d) A, (N, k), from KA = J J^T A."""
    n = stage.z.shape[0].astype(stage.z.dtype)
    return fisher_weights(stage) * KA / n + pt.constant(damping, dtype=stage.z.dtype) * A


def conjugate_gradients(system, kernel, b, n_steps):
    """Solve ``system(kernel(x), x) = b`` approximately, in a fixed number of steps from 0.

    Parameters
    ----------
    system : callable
        ``system(Kx, x) -> tensor`` is linear, and self-adjoint and positive with the inner product
        of `kernel`.
    kernel : callable
        ``kernel(x) -> Kx`` makes the inner product <x, Ky>. It is called once for each step.
    b : tensor
    n_steps : int

    Returns
    -------
    tensor
        Of the shape of `b`. If the residual vanishes earlier, later steps change nothing.
    """
    x, r, p = pt.zeros_like(b), b, b
    Kr = Kp = kernel(b)
    rKr = (r * Kr).sum()
    for step in range(n_steps):
        q = system(Kp, p)
        alpha = _ratio(rKr, (Kp * q).sum())
        x = x + alpha * p
        if step == n_steps - 1:
            break
        r = r - alpha * q
        Kr = kernel(r)
        before, rKr = rKr, (r * Kr).sum()
        beta = _ratio(rKr, before)
        p, Kp = r + beta * p, Kr + beta * Kp
    return x


def _ratio(a, b):
    """Return a / b, or 0 where b is not positive."""
    positive = b > 0
    return pt.switch(positive, a / pt.switch(positive, b, 1), 0)


def natural_gradient(stage, estimate, direct, product, damping, n_steps):
    """Carry an estimate to theta as `algorithm.to_theta` does, times the inverse Fisher matrix.

    Parameters
    ----------
    stage : Stage
        Of Bernoulli decisions.
    estimate : reinforce.Estimate
    direct : scalar tensor or None
        See `returns`. It must depend on theta by the stage's logits only.
    product : callable
        One of the four in `reinforce`.
    damping : float
        d above; greater than 0.
    n_steps : int
        Of `conjugate_gradients`.

    Returns
    -------
    list of tensor
    """
    N = stage.z.shape[0].astype(stage.z.dtype)
    G = product(estimate.of, [stage.z], estimate.c)[0] * N
    if direct is not None:
        G = G + N * pytensor.grad(direct, stage.z, disconnected_inputs="ignore")
    system = partial(damped_fisher, stage, damping=damping)
    A = conjugate_gradients(system, kernel(stage), G, n_steps)
    return product(stage.z, stage.gate.policy.theta, A)
