"""Weights in the layout of steps that touch only what is in use, and their L2 penalty.

The L2 penalty shrinks every weight at every step, including untouched ones. So the matrices hold
the weights divided by a common factor. A step multiplies that factor by 1 - 2 lr l2, which is exact
except for rounding. `StepWeights.store` multiplies the weights by the factor.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytensor

from reinforce_dropout.alignment import aligned
from reinforce_dropout.blocks.lists import panel_lanes
from reinforce_dropout.blocks.panels import in_panels, out_of_panels

LEAST_FACTOR = 1e-3  # below this, weights over the factor lose accuracy, and in the end overflow


class Layout(NamedTuple):
    """How steps lay out a matrix (n_in, n_out).

    Attributes
    ----------
    suffix : str
        Of the names of matrices in this layout.
    lay_out : callable
        ``lay_out(W) -> array``
    restore : callable
        ``restore(array) -> W``, perhaps with more columns.
    """

    suffix: str
    lay_out: Callable
    restore: Callable


TRANSPOSED = Layout("t", np.transpose, np.transpose)
PANELS = Layout("_panels", lambda W: in_panels(W, panel_lanes(W.dtype)), out_of_panels)


class StepWeights:
    """Weights as the steps of an epoch read and change them.

    Parameters
    ----------
    weights : list of shared (n_in, n_out)
    layout : Layout

    Attributes
    ----------
    factor : shared () float32
        The weights are the matrices times this factor.
    matrices : list of shared
        In the layout.
    """

    def __init__(self, weights, layout):
        self.weights, self.layout = weights, layout
        self.factor = pytensor.shared(np.ones((), "float32"), name="factor")
        self.matrices = [
            pytensor.shared(
                aligned(layout.lay_out(W.get_value(borrow=True))),
                name=f"{W.name}{layout.suffix}",
                borrow=True,
            )
            for W in weights
        ]

    def store(self):
        """Write the weights back, and set the factor to 1."""
        for W, matrix in zip(self.weights, self.matrices, strict=True):
            value = matrix.get_value(borrow=True)
            value *= self.factor.get_value()
            n_out = W.get_value(borrow=True).shape[1]
            W.set_value(aligned(self.layout.restore(value)[:, :n_out]), borrow=True)
        self.factor.set_value(np.ones_like(self.factor.get_value()))


def steps_until(factor, shrinkage):
    """Return the number of steps, 1 or more, after which the common factor falls to `factor`."""
    if shrinkage == 1:
        return sys.maxsize
    return max(1, int(np.log(factor) / np.log(shrinkage)))
