"""NumPy with its BLAS: a dense reference. All other forward passes are checked against it."""

import numpy as np

from speed import n_layers

TOLERANCE = 1e-5
"""The largest difference between the logits of two ways to compute them."""


class Dense:
    """The forward pass of the network without masks and policies; see the package `speed`."""

    def __init__(self, parameters, x):
        self.batches = x
        names = [*range(1, n_layers(parameters) + 1), "out"]
        self.layers = [
            (W := parameters[f"W_{i}"], parameters[f"b_{i}"],
             np.empty((x.shape[1], W.shape[1]), "float32"))
            for i in names
        ]  # fmt: skip

    def logits(self, x, masks=None):
        """Return the logits (m_b, n_classes); `masks` (m_b, n_units), one a hidden layer."""
        for i, (W, b, out) in enumerate(self.layers):
            if i > 0:
                np.tanh(x, out=x)
                if masks:
                    x *= masks[i - 1]
            x = np.matmul(x, W, out=out)
            x += b
        return x

    def turn(self):
        """Propagate all batches."""
        for x in self.batches:
            self.logits(x)
        return np.empty((len(self.batches), 0))


def check(parameters, x, logits, masks=None):
    """Refuse logits of the batch `x` that differ from NumPy's by more than `TOLERANCE`."""
    difference = np.abs(Dense(parameters, x[None]).logits(x, masks) - logits).max()
    if not difference <= TOLERANCE:
        raise ValueError(f"its logits are {difference:.2g} from NumPy's")
