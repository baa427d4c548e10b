"""Records of models that nobody trained: their parameters are drawn at random."""

import numpy as np

from reinforce_dropout import systems
from reinforce_dropout.results import records


def record_of(experiment, n_in=6, n_classes=3, seed=1):
    """Return a record whose model has units that take part at all kinds of rates."""
    rng = np.random.default_rng(seed)
    system = systems.build_for_training(experiment, (n_in,), n_classes)
    best = {
        name: rng.normal(size=p.get_value().shape).astype("float32")
        for name, p in system.parameters.items()
    }
    attributes = {
        "experiment": experiment.as_dict(),
        "dimensions": {"image_shape": [n_in], "n_classes": n_classes},
        "backend": "numba",
    }
    return records.Record(attributes, curves={}, best=best, best_attributes={})
