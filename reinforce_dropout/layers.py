"""Layers of the network. A layer holds its shared variables and maps activations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout.initializers import glorot_uniform, parameter


def identity(x):
    """Return `x`: the output layer has no activation function."""
    return x


def relu(x):
    """Rectified linear unit, ``max(x, 0)``."""
    return pt.maximum(x, 0)


ACTIVATIONS = {"tanh": pt.tanh, "sigmoid": pt.sigmoid, "relu": relu}
"""Activation functions of hidden layers, by their names in settings."""


class Layer(NamedTuple):
    """A layer, ``act(s W + b)``.

    Attributes
    ----------
    W : shared (n_in, n_out) float32
    b : shared (n_out,) float32
    activation : callable
    """

    W: Any
    b: Any
    activation: Callable = identity

    @property
    def params(self):
        """What back-propagation learns: ``[W, b]``."""
        return [self.W, self.b]

    @property
    def weights(self):
        """What the L2 penalty counts: ``[W]``."""
        return [self.W]

    def __call__(self, s):
        """Map activations (m_b, n_in) to (m_b, n_out)."""
        return self.activation(s @ self.W + self.b)


def dense(rng, n_in, n_out, name, activation=identity, initial=glorot_uniform):
    """Return a fully connected `Layer`: weights ``initial(rng, n_in, n_out)``, biases zero.

    The parameters are called ``W_<name>`` and ``b_<name>``.
    """
    W = parameter(initial(rng, n_in, n_out), f"W_{name}")
    return Layer(W, parameter(np.zeros(n_out, "float32"), f"b_{name}"), activation)
