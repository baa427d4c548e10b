"""Records with random curves, for what is drawn from records."""

import numpy as np

from reinforce_dropout.results.records import Record
from reinforce_dropout.systems import preset

RULES = ("sampled", "expected", "thresholded")


def make_record(name, length=30, best=20, seed=0, unfinished=False, data="mnist", **changes):
    """Return a record with random curves, every number of which is different."""
    rng = np.random.default_rng(seed)
    experiment = preset(name).replace(**changes)
    curves = {"train_nll": rng.random(length), "epoch_seconds": rng.random(length)}
    curves |= {f"{part}_error": rng.random(length) for part in ("valid", "test")}
    if experiment.system != "plain":
        curves |= {f"test_error_{rule}": rng.random(length) for rule in RULES}
        shape = (length, len(experiment.n_units))
        curves |= {"active_fraction": rng.random(shape), "policy_entropy": rng.random(shape)}
        curves |= {f"valid_error_{rule}": rng.random(length) for rule in RULES}
    attributes = {
        "experiment": experiment.as_dict(),
        "dimensions": {"image_shape": [28, 28], "n_classes": 10},
        "versions": {},
        "seed": experiment.seed,
        "status": "unfinished" if unfinished else "finished",
        "stopped_by": "" if unfinished else "patience",
        "data": data,
        "n_threads": 1,
    }
    attributes |= dict.fromkeys(
        ("data_sha256", "backend", "command", "git_commit", "host_cpu", "started", "ended"), ""
    )
    test_error = float(curves["test_error"][best - 1])
    best_attributes = {"epoch": best, "valid_error": 0.5, "test_error": test_error}
    return Record(attributes, curves, {"b_1": np.zeros(2)}, best_attributes)
