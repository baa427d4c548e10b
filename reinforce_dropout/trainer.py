"""One experiment on one data set: the compiled functions, and all state that training changes."""

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import algorithm, backends, block_training, blocks, network
from reinforce_dropout.errors import DivergenceError
from reinforce_dropout.evaluation import compile_evaluation
from reinforce_dropout.network import set_arrays


class Trainer:
    """The network of one experiment, its compiled functions, and all state that training changes.

    Parameters
    ----------
    experiment : Experiment
    dataset : datasets.Dataset
    mode : pytensor.compile.mode.Mode
    execution : {"dense", "block-sparse"}
        Of the training step: the masked network, or only what is in use of it, for mini-batches of
        one block; see `block_training`.

    Attributes
    ----------
    network : MaskedNetwork
        Its weight matrices are right after every epoch, not within one.
    evaluate : callable
        See `evaluation.compile_evaluation`.
    n_batches : int
        Mini-batches in an epoch; the last may be smaller.
    """

    def __init__(self, experiment, dataset, mode, execution="dense"):
        seeds = experiment.seeds()
        self.experiment, self.train_set = experiment, dataset.train
        self.n_batches = -(-len(dataset.train) // experiment.batch_size)
        self.network = network.build(experiment, dataset.n_in, dataset.n_classes)
        self.order = np.random.default_rng(seeds.order)
        self.rng = pytensor.shared(np.random.default_rng(seeds.masks), name="mask_rng")
        mode = blocks.compilation_mode(mode, self.network.instances_per_block)
        x, y = pt.fmatrix("x"), pt.ivector("y")
        build = algorithm if execution == "dense" else block_training
        step = build.training_step(self.network, x, y, experiment, self.rng)
        self.averages, self.weights = step.averages, step.weights
        self.step = backends.function(
            [x, y], step.statistics, updates=step.updates, mode=mode, trust_input=True
        )
        self.evaluate = compile_evaluation(self.network, mode, seeds.evaluation)

    def run_epoch(self, on_update=lambda: None):
        """Pass once through the training set.

        Parameters
        ----------
        on_update : callable
            Called after every mini-batch.

        Returns
        -------
        ndarray (1 + 2 L,) float64
            Mean over the examples of `algorithm.TrainingStep.statistics`.

        Raises
        ------
        DivergenceError
            A statistic or, at the end, a parameter is not finite.
        """
        images, labels, size = *self._ordered(), self.experiment.batch_size
        total = 0.0
        for k, start in enumerate(range(0, len(labels), size), start=1):
            y = labels[start : start + size]
            statistics = np.asarray(self.step(images[start : start + size], y), "float64")
            if self.weights is not None:
                self.weights.settle()
            total = total + len(y) * statistics
            if not np.isfinite(statistics).all():
                raise DivergenceError(f"the loss is not finite at mini-batch {k} of epoch")
            on_update()
        if self.weights is not None:
            self.weights.store()
        if not all(np.isfinite(value).all() for value in self.state().values()):
            raise DivergenceError(f"a parameter is not finite after mini-batch {k} of epoch")
        return total / len(labels)

    def _ordered(self):
        if not self.experiment.shuffle:
            return self.train_set.images, self.train_set.labels
        order = self.order.permutation(len(self.train_set))
        return self.train_set.images[order], self.train_set.labels[order]

    def state(self):
        """Copy every array that training changes, by name: parameters and moving averages."""
        averages = {v.name: np.array(v.get_value(borrow=True)) for v in self.averages}
        return self.network.values() | averages

    def generator_states(self):
        """Return the states of the generators of the masks and of the order of the examples."""
        masks = backends.generator_state(self.step, self.rng)
        return {"masks": masks, "order": self.order.bit_generator.state}

    def restore(self, state, generator_states):
        """Go back to where `state` and `generator_states` were taken.

        Raises
        ------
        RecordError
            An array is missing, or is not of the network's shape and dtype.
        """
        set_arrays([*self.network.all_parameters, *self.averages], state)
        if self.weights is not None:
            self.weights.load()
        self.order.bit_generator.state = generator_states["order"]
        backends.set_generator_state(self.step, self.rng, generator_states["masks"])
