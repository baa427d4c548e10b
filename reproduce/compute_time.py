"""Fit the time of a forward pass to what takes part, for the penalty compute-time.

It times block-sparse passes with a mask for each image, on one thread. The networks have several
widths and many rates of active units. The masks are given, or the policies draw them. The model
with its five coefficients is in `reinforce_dropout.search.compute_time`. The fit minimises the
relative error. Results go to runs/compute_time.json. Copy that file to reproduce/results/ and to
reinforce_dropout/data/ to use it.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import click
import common
import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy.optimize
from speed import ours
from tqdm import tqdm

from reinforce_dropout.blocks import forward as block_forward
from reinforce_dropout.blocks.sharing import Sharing
from reinforce_dropout.initializers import logit_of_rate
from reinforce_dropout.results import files, provenance
from reinforce_dropout.running import datasets, threads
from reinforce_dropout.search import compute_time

NETS = ((500,), (800, 800), (400, 1200), (1200, 400))
RATES = (0.02, 0.05, 0.15, 0.4, 1.0)
N_IMAGES = 256
TURNS, QUICK_TURNS = 21, 3


class Passes:
    """Compiled passes of one network.

    Parameters
    ----------
    n_units : tuple of int
    images : ndarray (n, n_in) float32
    n_classes : int
    """

    def __init__(self, n_units, images, n_classes):
        self.n_units, self.images = n_units, images
        parameters = ours.initial_parameters(n_units, images.shape[1], n_classes, 0.15)
        self.network, *_ = ours.network_of(parameters)
        sparse = block_forward.block_sparse(self.network, Sharing(1))
        x, masks, rule = pt.fmatrix("x"), *ours.masks_given(n_units)
        passed = block_forward.forward(sparse, x, rule=rule)
        self.given = ours.compile_graph([x, *masks], passed.logits)
        rng = pytensor.shared(np.random.default_rng(1))
        drawn = block_forward.forward(sparse, x, rng)
        updates = {rng: drawn.rng}
        self.drawn = ours.compile_graph([x], drawn.logits, updates)
        self.count = ours.compile_graph([x], [s.U.sum(axis=1) for s in drawn.stages], updates)

    def cases(self):
        """Yield for each choice of rates: what is called, and the features of its model."""
        n_inputs = (self.images != 0).sum(axis=1)
        nothing = [0] * len(self.n_units)
        rng = np.random.default_rng(0)
        for rates in itertools.product(RATES, repeat=len(self.n_units)):
            masks = [
                (rng.random((len(self.images), n)) < rate).astype("float32")
                for rate, n in zip(rates, self.n_units, strict=True)
            ]
            active = [mask.sum(axis=1) for mask in masks]
            yield rates, False, means(n_inputs, active, nothing), self._call(self.given, masks)
            self.set(rates)
            active = self.count(self.images)
            found = means(n_inputs, active, list(self.n_units))
            yield rates, True, found, self._call(self.drawn, [], rates)

    def set(self, rates):
        """Let the policies draw at about these rates."""
        gates = zip(self.network.gates, rates, self.n_units, strict=True)
        for gate, rate, n in gates:
            gate.policy.o.set_value(logit_of_rate(min(rate, ours.RATE_FOR_ALL), n))

    def _call(self, function, masks, rates=None):
        def call():
            if rates:
                self.set(rates)
            began = time.perf_counter()
            function(self.images, *masks)
            return (time.perf_counter() - began) / len(self.images)

        return call


def means(*counts):
    """Return the features of the model, the mean over the images of each."""
    return [float(np.mean(feature)) for feature in compute_time.features(*counts)]


def measure(nets, data, turns):
    """Return one row for each case, its time in nanoseconds an image: the least of the turns.

    The cases take turns. So a disturbance does not fall on one of them alone.
    """
    images = data.test.images[:N_IMAGES]
    cases = [(net, *case) for net in nets for case in Passes(net, images, data.n_classes).cases()]
    times = [[call() for *_, call in cases] for _ in tqdm(range(turns + 1), disable=None)]
    least = 1e9 * np.min(times[1:], axis=0)  # the first turn compiles
    return [
        {"n_units": net, "rates": rates, "policies": drawn, "features": features, "ns": float(t)}
        for (net, rates, drawn, features, _), t in zip(cases, least, strict=True)
    ]


def fit(rows):
    """Return the coefficients, none negative, that minimise the squared relative error."""
    times = np.array([row["ns"] for row in rows])
    features = np.array([row["features"] for row in rows])
    coefficients, _ = scipy.optimize.nnls(features / times[:, None], np.ones(len(rows)))
    return compute_time.Coefficients(*map(float, coefficients))


def errors(rows, coefficients):
    """Return the relative error of each row's modelled time."""
    return [np.dot(row["features"], coefficients) / row["ns"] - 1 for row in rows]


def run(quick, turns, data, root):
    """Measure, fit, write and print."""
    facts = provenance.collect(["python", "reproduce/compute_time.py", *sys.argv[1:]])
    with threads.limited(1):
        rows = measure(
            NETS[:2] if quick else NETS,
            datasets.load(data),
            turns or (QUICK_TURNS if quick else TURNS),
        )
    coefficients = fit(rows)
    off = np.abs(errors(rows, coefficients))
    facts |= {"n_threads": 1, "median_relative_error": float(np.median(off))}
    result = {"nanoseconds": coefficients._asdict(), **facts, "measured": rows}
    path = root / "runs" / ("quick" if quick else "") / "compute_time.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, (json.dumps(result, indent=1) + "\n").encode())
    for name, value in coefficients._asdict().items():
        print(f"{name}: {value:.4g} ns")
    print(f"relative error: median {np.median(off):.0%}, largest {off.max():.0%}")
    print(f"Written: {path}", file=sys.stderr)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help=f"Two networks, {QUICK_TURNS} turns.")
@click.option("--turns", type=click.IntRange(1), help=f"By default {TURNS}.")
@click.option("--data", default="mnist", hidden=True)
@click.option("--root", type=Path, default=common.ROOT, hidden=True)
def main(**options):
    """Run, report an error in a sentence, and end with the exit code."""
    sys.exit(common.guard(lambda: run(**options), "Interrupted: nothing is kept."))


if __name__ == "__main__":
    main()
