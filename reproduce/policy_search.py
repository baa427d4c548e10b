"""Reproduce the policy search that the conclusion asks for: estimators, baselines, maturation.

It trains the runs of reproduce/sweeps/policy_search.toml into runs/policy_search/, curves only.
Then it times the training step of each search on one thread, in turns, because the time of the runs
says little on a busy machine. Times go to runs/policy_search/times.json, table and figure to
runs/figures/. Copy times.json and the records to reproduce/results/policy_search/ to record them.
The machine must do nothing else while it times.
"""

import time

import again
import numpy as np
from evidence import runs
from tqdm import tqdm

from reinforce_dropout import backends, systems
from reinforce_dropout.running import datasets, threads
from reinforce_dropout.systems.learner import make_learner

N_STEPS, TURNS, QUICK_TURNS = 100, 15, 2


@again.command
def main(options):
    """Train, time and draw."""

    def measure(folder, command):
        data = datasets.load(options.data)
        with threads.limited(1):
            times = step_times(runs.by_name(folder), data, QUICK_TURNS if options.quick else TURNS)
        runs.write_measured(folder, "times", command, times, n_threads=1)

    again.run("policy_search", options, "policy_search.py", measure=measure)


def step_times(records, data, n_turns):
    """Return ``{name: {"step": microseconds}}`` of records by name, medians over the turns.

    Runs that differ by their seeds have one time. Each mini-batch is another one.
    """
    experiments = {name: runs.experiment(run).replace(seed=1) for name, run in records.items()}
    turns = {one: turn_of(one, data) for one in dict.fromkeys(experiments.values())}
    measured = {one: [] for one in turns}
    rng, order = np.random.default_rng(0), list(turns)
    for _ in tqdm(range(n_turns), "timing", disable=None):
        for i in rng.permutation(len(order)):
            measured[order[i]].append(turns[order[i]]())
    return {
        name: {"step": 1e6 * float(np.median(measured[one])) / N_STEPS}
        for name, one in experiments.items()
    }


def turn_of(experiment, data, backend="numba"):
    """Compile ``turn() -> seconds``: `N_STEPS` steps of the last epoch, after one not timed."""
    system = systems.build_for_training(experiment, data.image_shape, data.n_classes)
    learner = make_learner(system, experiment, backends.mode(backend))
    learner.begin(experiment.n_epochs)
    n = N_STEPS * experiment.batch_size
    examples = data.train.images[:n], data.train.labels[:n], experiment.batch_size

    def turn():
        learner.step(*(values[: experiment.batch_size] for values in examples[:2]))
        start = time.perf_counter()
        for _ in learner.steps(*examples):
            pass
        return time.perf_counter() - start

    return turn


if __name__ == "__main__":
    main()
