"""Early stopping by patience, on the validation error only.

The rule of the multilayer-perceptron chapter of the Theano "Deep Learning Tutorials", from which
the paper takes its baseline's settings.
"""

from dataclasses import dataclass
from math import ceil, inf


@dataclass
class Patience:
    """Train for at least `patience` updates, and longer for as long as it pays.

    Whenever the validation error falls below `threshold` times the best so far, the patience is
    raised to `increase` times the number of updates done.

    Parameters
    ----------
    patience : int
        Updates that are always done.
    increase : float
        Factor on the number of updates done at a significant improvement.
    threshold : float
        An error below ``threshold * best`` is a significant improvement.

    Attributes
    ----------
    best : float
        Lowest validation error so far, a fraction; infinite before the first.
    """

    patience: int = 10_000
    increase: float = 2.0
    threshold: float = 0.995
    best: float = inf

    def improved(self, error, n_updates):
        """Take note of a validation error.

        Parameters
        ----------
        error : float
            Validation error after `n_updates` updates, a fraction.
        n_updates : int

        Returns
        -------
        bool
            Whether it is the lowest so far: the model to keep.
        """
        if not error < self.best:
            return False
        if error < self.threshold * self.best:
            # The tutorials count the updates from zero: the last one done is n_updates - 1.
            self.patience = max(self.patience, ceil((n_updates - 1) * self.increase))
        self.best = error
        return True

    def allows(self, n_updates):
        """Whether the training may go on to `n_updates` updates.

        Asked before an epoch with the number at its end. The tutorials break off in the middle of
        the epoch in which the patience runs out; no validation follows, so that epoch is not begun.
        """
        return n_updates - 1 <= self.patience
