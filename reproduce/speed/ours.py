"""The package of this repository: the compiled step that its `Trainer` calls."""

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import backends, bernoulli, network
from reinforce_dropout.algorithm import training_step
from reinforce_dropout.experiment import Experiment
from speed import L2, n_layers


class Ours:
    """One of the package's backends; see the package `speed` for the arguments.

    Raises
    ------
    BackendError
        The backend is not installed.
    """

    mask = staticmethod(bernoulli.sample)

    def __init__(self, parameters, x, y, learning_rate):
        mode = backends.mode(self.backend)
        experiment = Experiment(
            name="training-speed",
            n_units=[len(parameters[f"b_{i}"]) for i in range(1, n_layers(parameters) + 1)],
            policy="Z_1" in parameters,
            learning_rate=learning_rate,
            policy_learning_rate=learning_rate,
            l2=L2,
            lam=0.0,
            baseline="batch-mean",
            batch_size=x.shape[1],
        )
        self.network = network.build(experiment, x.shape[2], len(parameters["b_out"]))
        self.network.set_values(parameters)
        self.batches = list(zip(x, y, strict=True))
        images, labels = pt.fmatrix("x"), pt.ivector("y")
        rng = pytensor.shared(np.random.default_rng(1)) if experiment.policy else None
        step = training_step(self.network, images, labels, experiment, rng, self.mask)
        self.step = backends.function(
            [images, labels], step.statistics, updates=step.updates, mode=mode, trust_input=True
        )

    def turn(self):
        """Make one step for each mini-batch."""
        return np.stack([self.step(x, y) for x, y in self.batches])

    def parameters(self):
        """Return the parameters by name."""
        return self.network.values()


class Numba(Ours):
    """Numba with the package's native Ops."""

    backend = "numba"


class C(Ours):
    """PyTensor's C backend."""

    backend = "c"


class Jax(Ours):
    """PyTensor's JAX backend, a call a step."""

    backend = "jax"
