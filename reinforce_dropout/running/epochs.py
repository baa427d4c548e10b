"""One pass after another through the training examples."""

import numpy as np

from reinforce_dropout.errors import DivergenceError


class Epochs:
    """A learner, the training examples, and the order in which they come.

    Parameters
    ----------
    learner : learner.Learner
    examples : datasets.Examples
    experiment : Experiment

    Attributes
    ----------
    n_batches : int
        Mini-batches in an epoch; the last may be smaller.
    n_done : int
        Epochs done.
    """

    def __init__(self, learner, examples, experiment):
        self.learner, self.examples = learner, examples
        self.batch_size, self.shuffle = experiment.batch_size, experiment.shuffle
        self.order = np.random.default_rng(experiment.seeds().order)
        self.n_batches = -(-len(examples) // experiment.batch_size)
        self.n_done = 0

    def run(self, on_update=lambda: None):
        """Pass once through the examples.

        Parameters
        ----------
        on_update : callable
            Called after every mini-batch.

        Returns
        -------
        dict from str to float or ndarray, float64
            Means over the examples of the learner's statistics.

        Raises
        ------
        DivergenceError
            A statistic or, at the end, a parameter is not finite.
        """
        self.learner.begin(self.n_done + 1)
        images, labels = self._ordered()
        steps, total = self.learner.steps(images, labels, self.batch_size), 0.0
        for k, statistics in enumerate(steps, start=1):
            n = min(self.batch_size, len(labels) - (k - 1) * self.batch_size)
            statistics = np.asarray(statistics, "float64")
            total = total + n * statistics
            if not np.isfinite(statistics).all():
                raise DivergenceError(f"the loss is not finite at mini-batch {k}")
            on_update()
        arrays, _ = self.learner.state()
        if not all(np.isfinite(value).all() for value in arrays.values()):
            raise DivergenceError(f"a parameter is not finite after mini-batch {k}")
        self.n_done += 1
        return self.learner.curves(total / len(labels))

    def _ordered(self):
        if not self.shuffle:
            return self.examples.images, self.examples.labels
        order = self.order.permutation(len(self.examples))
        return self.examples.images[order], self.examples.labels[order]

    def state(self):
        """Return arrays and states of generators, as `learner.Learner.state` does."""
        arrays, generators = self.learner.state()
        return arrays, generators | {"order": self.order.bit_generator.state}

    def restore(self, arrays, generators):
        """Go back to where `state` was taken, except for `n_done`."""
        self.learner.restore(arrays, generators)
        self.order.bit_generator.state = generators["order"]
