"""Time the training steps of dropout and straight-through gates beside the same steps in JAX.

The JAX step is written by hand and scanned over the mini-batches in one call, with the parameters
and the data on the device. Both take turns on the same mini-batches. They draw other masks, so
their losses agree only roughly. The machine must do nothing else. Results go to
runs/systems_speed.json, the table to runs/figures/. Copy the file to reproduce/results/ to record
it.
"""

import importlib.util
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
import common
from benchmarks import QUICK_TURNS, THREADS
from evidence import systems_speed
from speed.worker import pin

from reinforce_dropout import backends, preset, systems
from reinforce_dropout.errors import ReinforceDropoutError
from reinforce_dropout.results import files, provenance
from reinforce_dropout.running import datasets, threads
from reinforce_dropout.systems.learner import make_learner

PRESETS = {
    # The paper's initial weights are so small that little is learned in a few steps.
    "dropout-800-800": {"activation": "relu", "learning_rate": 1, "initial_std": 0.05},
    "straight-through-2000": {},
}
"""Presets, and the settings that differ from them."""

N_STEPS, TURNS = 50, 21


def run(quick, data, root):
    """Measure each number of threads in a process of its own, write and print."""
    if importlib.util.find_spec("jax") is None:
        raise ReinforceDropoutError("JAX is not installed: pip install 'reinforce-dropout[bench]'")
    facts = provenance.collect(["python", "reproduce/systems_speed.py", *sys.argv[1:]])
    del facts["n_threads"]  # of this process; each row has its own
    n_turns = QUICK_TURNS if quick else TURNS
    rows = []
    for n_threads in THREADS:
        # JAX cannot change the number of its threads after it has started.
        with ProcessPoolExecutor(1, get_context("spawn"), pin, (n_threads,)) as process:
            jobs = [process.submit(measure, name, n_threads, n_turns, data) for name in PRESETS]
            rows += [job.result() for job in jobs]
    results = facts | {"n_steps": N_STEPS, "n_turns": n_turns, "measured": rows}
    apart = "quick" if quick else ""
    path = root / "runs" / apart / "systems_speed.json"
    files.write_whole(path, (json.dumps(results, indent=1) + "\n").encode())
    text = systems_speed.table(results)
    files.write_whole(root / "runs" / "figures" / apart / "systems_speed.md", text.encode())
    print(text, end="")


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help=f"{QUICK_TURNS} turns.")
@click.option("--data", default="mnist", hidden=True)
@click.option("--root", type=Path, default=common.ROOT, hidden=True)
def main(**options):
    """Run, report an error in a sentence, and end with the exit code."""
    sys.exit(common.guard(lambda: run(**options), "Interrupted: nothing is kept."))


def measure(name, n_threads, n_turns, data_name):
    """Return the microseconds a step of both, turn by turn, and their last losses in nats."""
    from speed import jax_systems  # here, so that the process that starts others needs no JAX

    experiment = preset(name).replace(**PRESETS[name])
    data = datasets.load(data_name, experiment.validation_fraction)
    x, y = batches(data.train, experiment.batch_size)
    system = systems.build_for_training(experiment, data.image_shape, data.n_classes)
    with threads.limited(n_threads):
        learner = make_learner(system, experiment, backends.mode("numba"))
        learner.begin(1)
        jax_turn = jax_systems.Scan(name, learner.parameters(), x, y).turn
        turns = {"ours": lambda: turn(learner, x, y), "jax": jax_turn}
        found = {who: [] for who in turns}
        for _ in range(n_turns + 1):  # the first turn compiles
            for who, a_turn in turns.items():
                found[who].append(timed(a_turn))
    row = {"preset": name, "settings": PRESETS[name], "n_threads": n_threads}
    for who, pairs in found.items():
        times, losses = zip(*pairs[1:], strict=True)
        row |= {who: [t / N_STEPS * 1e6 for t in times], f"{who}_loss": losses[-1]}
    return row


def batches(examples, batch_size):
    """Return the first mini-batches: images (N_STEPS, batch_size, n_in), labels without n_in."""
    n = N_STEPS * batch_size
    if len(examples.labels) < n:
        raise ReinforceDropoutError(
            f"{n} training examples are timed, and there are only {len(examples.labels)}."
        )
    shape = N_STEPS, batch_size
    return examples.images[:n].reshape(*shape, -1), examples.labels[:n].reshape(shape)


def turn(learner, x, y):
    """Make a step of this package for each mini-batch, and return the last loss."""
    for images, labels in zip(x, y, strict=True):
        statistics = learner.step(images, labels)
    return float(statistics[0])


def timed(call):
    """Return the seconds of a call, and what it returns."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
