"""Layers of the network: each owns its shared variables ``W`` and ``b``."""

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout.alignment import aligned
from reinforce_dropout.initializers import glorot_uniform


def relu(x):
    """Rectified linear unit, ``max(x, 0)``."""
    return pt.maximum(x, 0)


ACTIVATIONS = {"tanh": pt.tanh, "sigmoid": pt.sigmoid, "relu": relu}


class AffineLayer:
    """``s W + b``; the output layer, whose values are the logits of the softmax.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the initial weights (Glorot); biases start at zero.
    n_in, n_out : int
    name : str
        Suffix of the names of the shared variables: ``W_<name>``, ``b_<name>``.

    Attributes
    ----------
    W : shared (n_in, n_out) float32
    b : shared (n_out,) float32
    params : list
        ``[W, b]``
    """

    def __init__(self, rng, n_in, n_out, name):
        W = aligned(glorot_uniform(rng, n_in, n_out))
        self.W = pytensor.shared(W, name=f"W_{name}", borrow=True)
        self.b = pytensor.shared(np.zeros(n_out, "float32"), name=f"b_{name}")
        self.params = [self.W, self.b]

    def __call__(self, s):
        """Map activations (m_b, n_in) to (m_b, n_out)."""
        return s @ self.W + self.b


class DenseLayer(AffineLayer):
    """A hidden layer, ``act(s W + b)``.

    Parameters
    ----------
    rng, n_in, n_out, name
        As for `AffineLayer`.
    activation : {"tanh", "sigmoid", "relu"}
    """

    def __init__(self, rng, n_in, n_out, name, activation="tanh"):
        super().__init__(rng, n_in, n_out, name)
        self.activation = ACTIVATIONS[activation]

    def __call__(self, s):
        """Map activations (m_b, n_in) to (m_b, n_out)."""
        return self.activation(super().__call__(s))
