"""Forward passes, dense and by blocks, that take turns."""

import itertools
import time

import numpy as np
import pytensor
import pytensor.tensor as pt
from speed.measure import FEWEST_TURNS, SECONDS_BETWEEN_TURNS
from tqdm import tqdm

from block_speed.results import Forward, Setting
from reinforce_dropout import backends, network, threads
from reinforce_dropout.block_sparse import BlockSparseNetwork
from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.experiment import Experiment
from reinforce_dropout.initializers import logit_of_rate

N_IMAGES = 1024
N_IMAGES_SINGLY = 256
"""For blocks of 1, which take longest: they read the weights anew for every image."""

SECONDS_A_SETTING = 8.0
"""After this time a setting gets no further turn, so that a full run ends in time."""
SECONDS_A_TURN = 0.02
FEWEST_CALLS, MOST_CALLS = 3, 100
"""In a turn a pass is called for about so long, but so many times; the median call is the turn."""
SECONDS_OF_A_LONG_CALL = 0.05
"""From here on one call is a turn."""

TOLERANCE = 1e-5
"""Between the logits by blocks and those of the masked dense graph."""

RATE_FOR_ALL = 1 - 1e-9
"""The policies' rate that draws every unit in float32; at 1 itself the logits would be infinite."""


class Passes:
    """The compiled forward passes of one network with its initial parameters.

    Parameters
    ----------
    n_units : tuple of int
    n_in, n_classes : int

    Attributes
    ----------
    dense, masked : callable
        ``f(x) -> logits`` without policies, and with given masks (m_b, n_units) after the dense
        products.
    """

    def __init__(self, n_units, n_in, n_classes):
        experiment = Experiment(name="block-speedup", n_units=n_units)
        self.n_units = n_units
        self.network = network.build(experiment, n_in, n_classes)
        self.sparse = BlockSparseNetwork(self.network)
        self.mode = backends.mode("auto")
        self.x = pt.fmatrix("x")
        self.rng = pytensor.shared(np.random.default_rng(1))
        self.masks = [pytensor.shared(np.ones((1, n), "float32")) for n in n_units]
        without_policies = network.build(experiment.replace(policy=False), n_in, n_classes)
        self.dense = self._compile(without_policies.forward(self.x).logits)
        self.masked = self._compile(self.network.forward(self.x, mask=self._given()).logits)

    def compile(self, instances_per_block):
        """Compile the passes by blocks.

        Returns
        -------
        given, counted : callable
            ``f(x) -> logits`` with the masks of `give`, and with masks that the policies draw.
        active : callable
            ``f(x)`` returns the fraction of the units that the policies let take part.
        """
        self.network.instances_per_block = instances_per_block
        given = self._compile(self.sparse.forward(self.x, mask=self._given()).logits)
        drawn = self.sparse.forward(self.x, self.rng)
        updates = [(self.rng, drawn.rng)]
        active = sum(u.mean() for u in drawn.u) / len(drawn.u)
        return given, self._compile(drawn.logits, updates), self._compile(active, updates)

    def _compile(self, output, updates=()):
        return backends.function(
            [self.x], output, updates=list(updates), mode=self.mode, trust_input=True
        )

    def _given(self):
        """Return a rule that takes the shared masks one after the other, and computes no policy."""
        masks = iter(self.masks)
        return lambda z, rng: (next(masks), rng)

    def draw(self, rate, n_blocks, seed=0):
        """Return masks at a rate, a float32 array (n_blocks, n_units) for each layer."""
        rng = np.random.default_rng(seed)
        return [(rng.random((n_blocks, n)) < rate).astype("float32") for n in self.n_units]

    def give(self, masks):
        """Set the masks of the passes that are given some."""
        for shared, mask in zip(self.masks, masks, strict=True):
            shared.set_value(mask, borrow=True)

    def set_rate(self, rate):
        """Let the policies draw about this fraction of the units; ``Z`` stays."""
        for policy, n in zip(self.network.policies, self.n_units, strict=True):
            policy.o.set_value(logit_of_rate(min(rate, RATE_FOR_ALL), n))


def measure(data, nets, blocks, rates, n_threads, n_turns):
    """Time the passes in all settings.

    Parameters
    ----------
    data : datasets.Dataset
        Its test images are propagated.
    nets : sequence of tuple of int
        Widths of the hidden layers.
    blocks : sequence of int
        Instances that share a mask.
    rates : sequence of float
        Fractions of active units.
    n_threads : sequence of int
    n_turns : int
        At most; see `SECONDS_A_SETTING`.

    Returns
    -------
    list of Forward
        For each network: the blocks, then a single image, each for every number of threads.

    Raises
    ------
    ReinforceDropoutError
        The logits by blocks are not those of the masked dense graph.
    """
    kinds = [(N_IMAGES if block > 1 else N_IMAGES_SINGLY, block) for block in blocks] + [(1, 1)]
    found = []
    with tqdm(total=len(nets) * len(kinds) * len(n_threads), unit="setting", disable=None) as bar:
        for n_units in nets:
            passes = Passes(n_units, data.n_in, data.n_classes)
            for n_images, block in kinds:
                bar.set_description(f"{'-'.join(map(str, n_units))}, blocks of {block}")
                functions = passes.compile(block)
                for n in n_threads:
                    setting = Setting(n, n_units, n_images, block)
                    with threads.limited(n):
                        found.append(
                            measure_setting(
                                setting, passes, functions, data.test.images, rates, n_turns
                            )
                        )
                    bar.update()
    return found


def measure_setting(setting, passes, functions, images, rates, n_turns):
    """Time the passes of one setting, and return the `Forward`."""
    given, counted, active = functions
    rates = np.unique(rates)
    cases = {rate: cases_for(setting, passes, images, rate) for rate in rates}
    check_agreement(setting, passes, given, cases[rates[len(rates) // 2]])
    columns = [(passes.dense, rates[0])] + [(f, rate) for f in (given, counted) for rate in rates]
    turns = []
    end = time.monotonic() + SECONDS_A_SETTING
    while len(turns) < n_turns and (len(turns) < FEWEST_TURNS or time.monotonic() < end):
        seconds = np.empty(len(columns))
        for i in np.roll(np.arange(len(columns)), -len(turns)):  # each time another one first
            function, rate = columns[i]
            passes.set_rate(rate)
            time.sleep(SECONDS_BETWEEN_TURNS)
            seconds[i] = take_turn(function, passes, cases[rate])
        turns.append(seconds)
    dense, *sparse = np.transpose(turns)
    n = len(rates)
    drawn = [_active(active, passes, rate, cases[rate]) for rate in rates]
    return Forward(
        setting, rates, np.array(drawn), dense, np.array(sparse[:n]), np.array(sparse[n:])
    )


def take_turn(function, passes, cases):
    """Return the median of the seconds of some calls, each with the next one of the cases."""

    def call(x, masks):
        passes.give(masks)
        start = time.perf_counter()
        function(x)
        return time.perf_counter() - start

    first = call(*cases[0])
    if first > SECONDS_OF_A_LONG_CALL:
        return first
    # The first call finds the caches cold and is left out.
    n_calls = int(np.clip(SECONDS_A_TURN / first, FEWEST_CALLS, MOST_CALLS))
    return np.median([call(*case) for case in itertools.islice(itertools.cycle(cases), n_calls)])


def check_agreement(setting, passes, given, cases):
    """Compare the logits by blocks with those of the masked dense graph.

    Raises
    ------
    ReinforceDropoutError
        They differ by more than `TOLERANCE`.
    """
    x, masks = cases[0]
    passes.give(masks)
    logits = given(x)
    passes.give([m.repeat(setting.instances_per_block, axis=0)[: len(x)] for m in masks])
    difference = np.abs(logits - passes.masked(x)).max()
    if not difference <= TOLERANCE:
        raise ReinforceDropoutError(
            f"the logits of {setting.net} with {setting.blocks} are {difference:.2g} from those of "
            "the masked dense network: mend that before timing it."
        )


def cases_for(setting, passes, images, rate):
    """Return images and masks for the calls of a turn, a list of (x, masks).

    A single image would find the same few rows of the weights in the caches at every call, so every
    call has another image, and other masks.
    """
    n_blocks = -(-setting.n_images // setting.instances_per_block)
    return [
        (images[i : i + setting.n_images], passes.draw(rate, n_blocks, seed=i))
        for i in range(MOST_CALLS if setting.n_images == 1 else 1)
    ]


def _active(active, passes, rate, cases):
    passes.set_rate(rate)
    return np.mean([active(x) for x, _ in cases])
