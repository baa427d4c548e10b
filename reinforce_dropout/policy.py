"""The policy of one hidden layer."""

import numpy as np
import pytensor

from reinforce_dropout.alignment import aligned
from reinforce_dropout.initializers import glorot_uniform, logit_of_rate


class SigmoidBernoulliPolicy:
    """Decides from the activations below which units take part, eq. (1).

    In block dropout a row of ``s`` is the state of a block of instances and a unit here a group of
    units, see `reinforce_dropout.blocks`.

    ``sigma = sigm(s Z + o)`` are the participation probabilities of the units; what follows from
    the logits ``s Z + o`` is in `reinforce_dropout.bernoulli`.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the initial ``Z`` (Glorot).
    n_in, n_units : int
        Width of the layer below and of the layer that is gated.
    name : str
        Suffix of the names of the shared variables: ``Z_<name>``, ``o_<name>``.
    initial_rate : float
        Sets ``o`` so that about this fraction of the units takes part at first.
    uniform : bool
        Whether ``Z`` is zero, so that every unit takes part at the same rate whatever the state.

    Attributes
    ----------
    Z : shared (n_in, n_units) float32
    o : shared (n_units,) float32
    theta : list
        ``[Z, o]``
    """

    def __init__(self, rng, n_in, n_units, name, initial_rate=0.12, uniform=False):
        Z = np.zeros((n_in, n_units), "float32") if uniform else glorot_uniform(rng, n_in, n_units)
        self.Z = pytensor.shared(aligned(Z), name=f"Z_{name}", borrow=True)
        self.o = pytensor.shared(logit_of_rate(initial_rate, n_units), name=f"o_{name}")
        self.theta = [self.Z, self.o]

    def logits(self, s):
        """Logits ``z = s Z + o`` (m_b, n_units) for the activations `s` (m_b, n_in)."""
        return s @ self.Z + self.o
