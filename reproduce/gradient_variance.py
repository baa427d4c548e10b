"""Reproduce the comparison of estimators by the variance of the policy gradient.

It trains policy-500 and policy-800-800 as their presets say. At three points of training it keeps
the parameters, and repeats the draws for one mini-batch with each estimator. Only the draws differ.
Baselines with a memory see many mini-batches first. Results go to runs/gradient_variance.json, the
table to runs/figures/. Copy the file to reproduce/results/ to record it.
"""

import json
import sys

import common
import numpy as np
import pytensor
import pytensor.tensor as pt
from evidence import variance

from reinforce_dropout import backends, preset, systems
from reinforce_dropout.results import files, provenance
from reinforce_dropout.running import datasets
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems.learner import compile_learner, put

PRESETS = ("policy-500", "policy-800-800")
POINTS = (0, 5, 50)
"""Epochs after which the variance is measured."""

VARIANTS = {
    "reinforce, as the preset": {},
    "reinforce, no baseline": {"baseline": "none"},
    "reinforce, leave-one-out mean of the mini-batch": {"baseline": "leave-one-out-mean"},
    "reinforce, baseline per unit": {"baseline": "per-unit"},
    "reinforce, learned baseline": {"baseline": "learned"},
    "self-critical": {"estimator": "self-critical"},
    "leave-one-out, 4 masks": {"estimator": "leave-one-out"},
    "arm": {"estimator": "arm"},
    "disarm": {"estimator": "disarm"},
}

SEED = 31
N_BEFORE, N_DRAWS = 500, 400
"""Mini-batches that baselines see first, and draws."""


@common.command
def main(options):
    """Train, measure and write."""
    points = (0, 1) if options.quick else POINTS
    n_draws = 10 if options.quick else N_DRAWS
    data = datasets.load(options.data)
    facts = provenance.collect(["python", "reproduce/gradient_variance.py", *sys.argv[1:]])
    results = facts | {"seed": SEED, "n_draws": n_draws, "measured": []}
    for name in PRESETS:
        experiment = preset(name).replace(seed=SEED)
        for epoch, parameters in trained(experiment, data, points):
            for variant, changes in VARIANTS.items():
                gradients = draws(experiment.replace(**changes), data, parameters, n_draws)
                for layer, drawn in gradients.items():
                    results["measured"].append(
                        {"preset": name, "epoch": epoch, "variant": variant, "layer": layer}
                        | moments(drawn)
                    )
    files.write_whole(
        common.folder(options, "runs") / "gradient_variance.json",
        json.dumps(results, indent=1).encode(),
    )
    text = variance.table(results)
    files.write_whole(
        common.folder(options, "runs/figures") / "gradient_variance.md", text.encode()
    )
    print(text, end="")


def trained(experiment, data, points):
    """Yield the epoch and the parameters by name, at the points of training."""
    system = systems.build_for_training(experiment, data.image_shape, data.n_classes)
    learner = compile_learner(system, experiment, backends.mode("numba", adaptive=True))
    epochs = Epochs(learner, data.train, experiment)
    for epoch in points:
        while epochs.n_done < epoch:
            epochs.run()
        yield epoch, learner.parameters()


def draws(experiment, data, parameters, n_draws, backend="numba"):
    """Return gradients drawn again and again for one mini-batch, by layer: (n_draws, n_theta)."""
    mode = backends.mode(backend, adaptive=True)
    step = compile_step(experiment, data, parameters, mode)
    size = experiment.batch_size
    images, labels = data.train.images, data.train.labels
    for start in np.arange(N_BEFORE) * size % (len(labels) - size):
        step(images[start : start + size], labels[start : start + size])
    one = [step(images[:size], labels[:size]) for _ in range(n_draws)]
    return {i: np.stack(layer) for i, layer in enumerate(zip(*one, strict=True), start=1)}


def compile_step(experiment, data, parameters, mode):
    """Compile ``step(x, y) -> gradients``, one for each layer; only baselines learn."""
    experiment = experiment.replace(policy_learning_rate=1.0)
    system = systems.build_for_training(experiment, data.image_shape, data.n_classes)
    put(system.parameters, parameters)
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(SEED))
    updates = system.step(x, y, rng).updates
    gradients = [
        pt.concatenate([
            (v - updates[v]).ravel()
            for name, v in system.parameters.items()
            if name in (f"Z_{layer}", f"o_{layer}")
        ])
        for layer in range(1, 1 + len(experiment.n_units))
    ]  # fmt: skip
    learned = list(system.parameters.values())
    memory = [(v, new) for v, new in updates.items() if v not in learned]
    return backends.function([x, y], gradients, updates=memory, mode=mode)


def moments(drawn):
    """Return the total variance of draws (n, n_theta), and the squared length of their mean.

    Both are free of bias: the mean of n draws has a share 1/n of the variance.
    """
    drawn = drawn.astype("float64")
    total = float(drawn.var(axis=0, ddof=1).sum())
    return {
        "variance": total,
        "squared_mean": float((drawn.mean(0) ** 2).sum()) - total / len(drawn),
    }


if __name__ == "__main__":
    main()
