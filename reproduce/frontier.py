"""Reproduce the frontier: test error against the time of a forward pass on one thread.

It trains the networks of reproduce/sweeps/frontier.toml into runs/frontier/, and keeps the models.
Then it times the best model of each run, its policies counted: 1024 images at once, and one image.
Learned policies are timed with masks that are drawn, and with the most probable ones, which need no
draws. The fastest execution that a network has counts. All networks take turns.
Times go to runs/frontier/times.json, table and figure to runs/figures/. Copy times.json and the
records to reproduce/results/frontier/ to record them. The machine must do nothing else while it
times.
"""

import time
from itertools import product

import again
import numpy as np
import pytensor
import pytensor.tensor as pt
from evidence import runs
from tqdm import tqdm

from reinforce_dropout import backends
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.results import records
from reinforce_dropout.running import datasets, threads
from reinforce_dropout.running.evaluation import decisive_rule, load_model

BATCH, N_SINGLE = 1024, 200
TURNS, QUICK_TURNS = 21, 3
EXECUTIONS = ("dense", "block-sparse", "folded")
MODE = "thresholded"


@again.command
def main(options):
    """Train, time and draw."""

    def measure(folder, command):
        images = datasets.load(options.data).test.images
        with threads.limited(1):
            times = microseconds(folder, images, QUICK_TURNS if options.quick else TURNS)
        runs.write_measured(folder, "times", command, times, n_threads=1)

    again.run("frontier", options, "frontier.py", curves_only=False, measure=measure)


def microseconds(folder, images, n_turns):
    """Return ``{name: {rule: {"batch", "single", "execution_batch", "execution_single"}}}``.

    Times are in microseconds an image, medians over the turns, of the fastest execution.
    """
    ways = {}
    for path in sorted(folder.glob("*.hdf5")):
        run = records.read(path)
        for rule, execution in product(rules(run), EXECUTIONS):
            if passed := compile_pass(run, rule, execution):
                ways[path.stem, rule, execution] = passed
    batch, singles = images[:BATCH], [images[i : i + 1] for i in range(N_SINGLE)]
    measured = {way: [] for way in ways}
    rng = np.random.default_rng(0)
    for _ in tqdm(range(n_turns), "timing", disable=None):
        for way in rng.permutation(np.array(list(ways), object)):
            one = ways[tuple(way)]
            measured[tuple(way)].append((seconds(one, [batch]), seconds(one, singles)))
    times = {}
    for kind, column, n in (("batch", 0, len(batch)), ("single", 1, N_SINGLE)):
        for (name, rule, execution), turns in measured.items():
            value = 1e6 * float(np.median([turn[column] for turn in turns])) / n
            best = times.setdefault(name, {}).setdefault(rule, {})
            if value < best.get(kind, np.inf):
                best |= {kind: value, f"execution_{kind}": execution}
    return times


def rules(run):
    """Return the rule that decides a run's errors, and `MODE` too if its policies have learned."""
    experiment = runs.experiment(run)
    decisive = decisive_rule(experiment, [runs.ONLY_RULE])
    learned = getattr(experiment, "gate", "uniform") != "uniform"
    return [decisive, MODE] if learned and decisive != MODE else [decisive]


def compile_pass(run, rule, execution):
    """Compile a pass of a run's best model; None if its system has no such execution."""
    try:
        experiment, system = load_model(run, execution)
    except ExperimentError:
        return None
    x = pt.fmatrix("x")
    rng = pytensor.shared(np.random.default_rng(experiment.seeds().evaluation))
    passed = system.predict[rule](x, rng)
    updates = [(rng, passed.rng)] if passed.rng is not rng else []
    return backends.function(
        [x], passed.logits, updates=updates, mode=backends.mode("numba"), trust_input=True
    )


def seconds(function, batches):
    """Return the seconds of a call for each batch, after one that is not timed."""
    function(batches[0])
    start = time.perf_counter()
    for x in batches:
        function(x)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
