"""Training steps, dense and touching only the units in use, that take turns."""

import time

import numpy as np
import pytensor
import pytensor.tensor as pt
from speed.measure import FEWEST_TURNS, SECONDS_BETWEEN_TURNS
from tqdm import tqdm

from block_speed.forward import SECONDS_A_SETTING
from block_speed.results import Training
from reinforce_dropout import algorithm, backends, block_training, network, threads
from reinforce_dropout.experiment import Experiment
from reinforce_dropout.initializers import logit_of_rate

BATCH_SIZE = 20
RATE = 0.15
STEPS_A_TURN = 100
POLICY_LEARNING_RATE = 1e-9
"""So small that the rate stays, but not 0, which would leave the policies' updates out."""


class Steps:
    """The compiled training steps of one network, for mini-batches of one block.

    Attributes
    ----------
    columns : dict from str to callable
        ``dense``, the network without policies; ``given``, block-sparse with masks drawn
        beforehand; ``counted``, block-sparse with policies that draw them and learn.
    """

    def __init__(self, n_units, n_in, n_classes):
        learned = Experiment(
            name="block-speedup",
            n_units=n_units,
            batch_size=BATCH_SIZE,
            instances_per_block=BATCH_SIZE,
            baseline="moving-average",
            policy_learning_rate=POLICY_LEARNING_RATE,
        )
        self.sizes, self.mode = (n_in, n_classes), backends.mode("auto")
        self.masks = [pytensor.shared(np.ones((1, n), "float32")) for n in n_units]
        rng, masks = pytensor.shared(np.random.default_rng(1)), iter(self.masks)

        def given(z, rng):
            return next(masks), rng

        plain = learned.replace(policy=False, instances_per_block=1)
        self.columns = {
            "dense": self._compile(plain, algorithm),
            "given": self._compile(learned.replace(uniform=True), block_training, mask=given),
            "counted": self._compile(learned, block_training, rng=rng),
        }

    def _compile(self, experiment, build, **draws):
        net = network.build(experiment, *self.sizes)
        for policy in net.policies:
            policy.o.set_value(logit_of_rate(RATE, len(policy.o.get_value())))
        x, y = pt.fmatrix("x"), pt.ivector("y")
        step = build.training_step(net, x, y, experiment, **draws)
        return backends.function(
            [x, y], step.statistics[0], updates=step.updates, mode=self.mode, trust_input=True
        )

    def take_turn(self, step, examples, seed):
        """Return the seconds of a step, the mean over `STEPS_A_TURN` mini-batches."""
        rng, seconds = np.random.default_rng(seed), 0.0
        for k in range(STEPS_A_TURN):
            for mask in self.masks:
                mask.set_value((rng.random(mask.get_value().shape) < RATE).astype("float32"))
            rows = slice(k * BATCH_SIZE, (k + 1) * BATCH_SIZE)
            start = time.perf_counter()
            step(examples.images[rows], examples.labels[rows])
            seconds += time.perf_counter() - start
        return seconds / STEPS_A_TURN


def measure(data, nets, n_threads, n_turns):
    """Time the steps of all networks.

    Parameters
    ----------
    data : datasets.Dataset
    nets : sequence of tuple of int
    n_threads : sequence of int
    n_turns : int
        At most.

    Returns
    -------
    list of Training
    """
    found = []
    for n_units in tqdm(nets, desc="training steps", unit="network", disable=None):
        steps = Steps(n_units, data.n_in, data.n_classes)
        for n in n_threads:
            with threads.limited(n):
                turns = measure_setting(steps, data.train, n_turns)
            found.append(Training(n, n_units, RATE, **turns))
    return found


def measure_setting(steps, examples, n_turns):
    """Return the seconds of a step by column, an array (n_turns,) each."""
    turns = {name: [] for name in steps.columns}
    for step in steps.columns.values():
        steps.take_turn(step, examples, seed=0)  # finds the caches cold
    end = time.monotonic() + SECONDS_A_SETTING
    n = 0
    while n < n_turns and (n < FEWEST_TURNS or time.monotonic() < end):
        n += 1
        for name, step in steps.columns.items():
            time.sleep(SECONDS_BETWEEN_TURNS)
            turns[name].append(steps.take_turn(step, examples, seed=n))
    return {name: np.array(seconds) for name, seconds in turns.items()}
