"""Gates: who decides which units of a layer take part, and what a decision does.

A `Gate` joins a policy to a family of distributions. The policy looks at the activations below; the
decisions are drawn from the family. The paper's gate is `sigmoid_bernoulli`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout import bernoulli
from reinforce_dropout.initializers import glorot_uniform, logit_of_rate, parameter


def multiply(h, U):
    """Let the units take part where `U` is 1: ``h * U``, both (m_b, n_units).

    Examples
    --------
    >>> multiply(np.array([3.0, 4.0]), np.array([1.0, 0.0]))
    array([3., 0.])
    """
    return h * U


def unchanged(value, *_):
    """Return `value`: every example has a decision of its own.

    Examples
    --------
    >>> unchanged("u", "s")
    'u'
    """
    return value


class Gate(NamedTuple):
    """Decides on the units of one layer. All fields are functions, except the family.

    Attributes
    ----------
    policy : callable
        ``policy(s) -> z``: activations below (m_b, n_in) to logits (n_decisions, k). Its attribute
        ``theta`` lists the parameters that learn; the list may be empty.
    family : module
        Six functions of the logits, as in `reinforce_dropout.bernoulli`: ``sample``, ``mean``,
        ``mode``, ``log_prob``, ``entropy`` and ``kl``.
    act : callable
        ``act(h, U) -> next state``: what the decisions do to the layer's output h.
    expand : callable
        ``expand(u, s) -> U``: repeats decisions for every example, (n_decisions, k) to (m_b, ...).
    pool : callable
        ``pool(v) -> (n_decisions,)``: makes the cost of a decision from the costs of its examples.
    active : callable
        ``active(U) -> (m_b, n_units)``: how much each unit takes part, a fraction. By default that
        is U itself.
    """

    policy: Callable
    family: Any = bernoulli
    act: Callable = multiply
    expand: Callable = unchanged
    pool: Callable = unchanged
    active: Callable = unchanged


class Stage(NamedTuple):
    """What one pass did at one gate: one stage of the Markov decision process.

    Attributes
    ----------
    gate : Gate
    name : str
        Of the layer, from "1".
    s : tensor (m_b, n_in)
        State: the activations of the layer below.
    z, u : tensor (n_decisions, k)
        Logits and decisions.
    U : tensor (m_b, n_units)
        The decisions for every example: the mask.
    """

    gate: Gate
    name: str
    s: Any
    z: Any
    u: Any
    U: Any


class AffinePolicy(NamedTuple):
    """``z = s Z + o``, the policy of eq. (1) in its logits.

    Attributes
    ----------
    Z : shared (n_in, n_units) float32
    o : shared (n_units,) float32
    """

    Z: Any
    o: Any

    @property
    def theta(self):
        """What the policy learns: ``[Z, o]``."""
        return [self.Z, self.o]

    def __call__(self, s):
        """Logits (m_b, n_units) for the activations `s` (m_b, n_in)."""
        return s @ self.Z + self.o

    def kernel(self, s):
        """Return ``A -> J J^T A``, see `search.natural.kernel`: ``(s s^T + 1) A`` for each unit."""
        K = s @ s.T + 1
        return lambda A: K @ A


class BoundedPolicy(NamedTuple):
    """A policy whose participation probabilities never fall below a least rate r.

    ``sigma = r + (1 - r) sigm(z')`` with the other policy's logits z'. Its logit is
    ``logit(r) + softplus(z' - log r)``, so a gradient always remains.

    Attributes
    ----------
    policy : callable
    least : float
        r, a fraction between 0 and 1.
    """

    policy: Any
    least: float

    @property
    def theta(self):
        """What the policy learns."""
        return self.policy.theta

    def __call__(self, s):
        """Logits (m_b, n_units) for the activations `s` (m_b, n_in)."""
        return self.bound(self.policy(s))

    def bound(self, z):
        """Logits (m_b, n_units) for those of the other policy."""
        logit = np.log(self.least) - np.log1p(-self.least)
        return pt.constant(logit, dtype=z.dtype) + pt.softplus(self._above(z))

    def kernel(self, s):
        """Return ``A -> J J^T A`` from that of the other policy, by the chain rule."""
        kernel, slope = self.policy.kernel(s), pt.sigmoid(self._above(self.policy(s)))
        return lambda A: slope * kernel(slope * A)

    def _above(self, z):
        """Return z' - log r."""
        return z - pt.constant(np.log(self.least), dtype=z.dtype)


class LowRankPolicy(NamedTuple):
    """``z = (s A) B + o``: an affine policy whose matrix ``Z = A B`` has a low rank r.

    With ``r (n_in + n_units)`` parameters instead of ``n_in n_units`` a decision takes less time.

    Attributes
    ----------
    A : shared (n_in, r) float32
    B : shared (r, n_units) float32
    o : shared (n_units,) float32
    """

    A: Any
    B: Any
    o: Any

    @property
    def theta(self):
        """What the policy learns: ``[A, B, o]``."""
        return [self.A, self.B, self.o]

    def __call__(self, s):
        """Logits (m_b, n_units) for the activations `s` (m_b, n_in)."""
        return s @ self.A @ self.B + self.o

    def kernel(self, s):
        """Return ``C -> J J^T C``, see `search.natural.kernel`."""
        h = s @ self.A
        K, K_h, BB = s @ s.T, h @ h.T + 1, self.B.T @ self.B
        return lambda C: K @ C @ BB + K_h @ C


class UniformPolicy(NamedTuple):
    """The same logits ``o`` for every state. It does not learn: ordinary dropout.

    Attributes
    ----------
    o : shared (n_units,) float32
    """

    o: Any

    @property
    def theta(self):
        """Nothing that learns."""
        return []

    def __call__(self, s):
        """Logits (m_b, n_units), the same for all activations `s` (m_b, n_in)."""
        return pt.zeros((s.shape[0], 1), dtype=s.dtype) + self.o


def sigmoid_bernoulli(rng, n_in, n_units, name, initial_rate=0.12):
    """Return the paper's gate, eq. (1): ``u ~ Bernoulli(sigm(s Z + o))``.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the initial ``Z`` (Glorot).
    n_in, n_units : int
        Widths of the layer below and of the gated layer.
    name : str
        Suffix of the parameters' names: ``Z_<name>``, ``o_<name>``.
    initial_rate : float
        About this fraction of the units takes part at first; it sets ``o``.

    Returns
    -------
    Gate

    Examples
    --------
    >>> gate = sigmoid_bernoulli(np.random.default_rng(0), 3, 2, "1")
    >>> [(p.name, p.get_value().shape) for p in gate.policy.theta]
    [('Z_1', (3, 2)), ('o_1', (2,))]
    >>> pt.sigmoid(gate.policy(pt.zeros((1, 3)))).eval().round(2)
    array([[0.12, 0.12]])
    """
    Z = parameter(glorot_uniform(rng, n_in, n_units), f"Z_{name}")
    return Gate(AffinePolicy(Z, parameter(logit_of_rate(initial_rate, n_units), f"o_{name}")))


def low_rank(rank):
    """Return a function like `sigmoid_bernoulli`, for policies ``z = (s A) B + o`` of a rank.

    `rng` draws A and then B, both by Glorot. They are called ``A_<name>`` and ``B_<name>``.

    Examples
    --------
    >>> gate = low_rank(1)(np.random.default_rng(0), 3, 2, "1")
    >>> [(p.name, p.get_value().shape) for p in gate.policy.theta]
    [('A_1', (3, 1)), ('B_1', (1, 2)), ('o_1', (2,))]
    """

    def low_rank_gate(rng, n_in, n_units, name, initial_rate=0.12):
        A = parameter(glorot_uniform(rng, n_in, rank), f"A_{name}")
        B = parameter(glorot_uniform(rng, rank, n_units), f"B_{name}")
        o = parameter(logit_of_rate(initial_rate, n_units), f"o_{name}")
        return Gate(LowRankPolicy(A, B, o))

    return low_rank_gate


def uniform(rng, n_in, n_units, name, initial_rate=0.12):
    """Return a gate that lets every unit take part at `initial_rate`, in every state.

    The parameters are those of `sigmoid_bernoulli`; nothing is drawn from `rng`.

    Examples
    --------
    >>> gate = uniform(np.random.default_rng(0), 3, 2, "1", initial_rate=0.5)
    >>> pt.sigmoid(gate.policy(pt.ones((1, 3)))).eval(), gate.policy.theta
    (array([[0.5, 0.5]]), [])
    """
    return Gate(UniformPolicy(parameter(logit_of_rate(initial_rate, n_units), f"o_{name}")))


def bounded(gate, least):
    """Return a function like `gate` of this module, for policies that keep a least rate.

    Without it, a cost of the units in use can turn all of them off, and then nothing is learned. A
    `least` of 0 changes nothing.

    Examples
    --------
    >>> gate = bounded(uniform, 0.05)(np.random.default_rng(0), 3, 2, "1", initial_rate=0.12)
    >>> pt.sigmoid(gate.policy(pt.zeros((1, 3)))).eval().round(2)
    array([[0.12, 0.12]])
    """
    if least == 0:
        return gate

    def bounded_gate(rng, n_in, n_units, name, initial_rate=0.12):
        made = gate(rng, n_in, n_units, name, (initial_rate - least) / (1 - least))
        return made._replace(policy=BoundedPolicy(made.policy, least))

    return bounded_gate
