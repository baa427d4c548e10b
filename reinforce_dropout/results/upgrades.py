"""Upgrades of older records to today's form.

The first version had one flat dictionary of settings for all systems. It kept the errors by three
rules in the columns of one curve. Early records of the second version call the setting `product`
``estimator``.
"""

_RULES = ("sampled", "expected", "thresholded")
_BLOCKS = ("instances_per_block", "units_per_block", "block_state")
_POLICIES = (
    "policy_learning_rate", "lam", "q", "initial_rate", "baseline", "baseline_decay",
    "kl_gradient", "evaluation_rule",
)  # fmt: skip
_PRODUCTS = ("pullback", "jacobian", "pushforward", "surrogate")


def upgrade(record):
    """Change a `records.Record` of the first version in place."""
    old = record.attributes["experiment"]
    uniform = old.get("uniform", False)
    record.attributes["experiment"] = settings(old)
    record.attributes["dimensions"] = _dimensions(record.best)
    record.attributes.setdefault("execution", "dense")
    for part in ("valid", "test"):
        errors = record.curves[f"{part}_error"]
        if errors.ndim == 2:
            record.curves |= {f"{part}_error_{rule}": errors[:, i] for i, rule in enumerate(_RULES)}
            record.curves[f"{part}_error"] = errors[:, _RULES.index(old["evaluation_rule"])]
    if uniform:  # its policies were matrices of zeros and a constant bias
        record.best = {k: v for k, v in record.best.items() if k[0] not in "Zo"}


def rename(experiment):
    """Change the settings of a record, a dict, to their names of today in place."""
    if experiment.get("estimator") in _PRODUCTS:
        experiment["product"] = experiment.pop("estimator")


def settings(old):
    """Return the settings of a system from the flat dictionary of all systems."""
    new = dict(old)
    uniform = new.pop("uniform", False)
    if not new.pop("policy"):
        return {"system": "plain"} | {k: v for k, v in new.items() if k not in _BLOCKS + _POLICIES}
    blocks = {k: new.pop(k) for k in _BLOCKS if k in new}
    if not (uniform or any(blocks.get(k, 1) > 1 for k in _BLOCKS[:2])):
        return {"system": "policy"} | new
    return {"system": "block_policy"} | new | blocks | ({"gate": "uniform"} if uniform else {})


def _dimensions(best):
    """Return the dimensions of the data from the parameters; zeros if there are none."""
    if "W_1" not in best:
        return {"image_shape": [0], "n_classes": 0}
    return {"image_shape": [len(best["W_1"])], "n_classes": len(best["b_out"])}
