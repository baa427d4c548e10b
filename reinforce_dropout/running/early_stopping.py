"""Early stopping by patience, on the validation error only.

The rule is that of the multilayer-perceptron chapter of the Theano "Deep Learning Tutorials". The
paper takes its baseline's settings from there.
"""

from dataclasses import dataclass
from math import ceil, inf


@dataclass
class Patience:
    """Train for at least `patience` updates, and longer while it pays.

    If the validation error falls below `threshold` times the best so far, the patience grows to
    `increase` times the number of updates done. It never shrinks.

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

    Examples
    --------
    >>> patience = Patience(patience=100, increase=2.0)
    >>> patience.improved(0.05, n_updates=81), patience.patience
    (True, 160)
    >>> patience.allows(161), patience.allows(162)
    (True, False)
    """

    patience: int = 10_000
    increase: float = 2.0
    threshold: float = 0.995
    best: float = inf

    def improved(self, error: float, n_updates: int) -> bool:
        """Take note of a validation error, a fraction, after `n_updates` updates.

        Returns whether it is the lowest so far: the model to keep.
        """
        if not error < self.best:
            return False
        if error < self.threshold * self.best:
            # The tutorials count the updates from zero: the last one done is n_updates - 1.
            self.patience = max(self.patience, ceil((n_updates - 1) * self.increase))
        self.best = error
        return True

    def allows(self, n_updates: int) -> bool:
        """Whether training may go on to `n_updates` updates, the number at the end of an epoch.

        The tutorials stop in the middle of the epoch in which the patience ends. No validation
        follows there, so such an epoch is not begun here.
        """
        return n_updates - 1 <= self.patience
