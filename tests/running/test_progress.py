"""What the progress bar shows."""

from types import SimpleNamespace

import numpy as np
import pytest

from reinforce_dropout.running import training
from reinforce_dropout.running.progress import ProgressBar
from reinforce_dropout.systems import preset

RULES = ("sampled", "expected", "thresholded")


@pytest.mark.parametrize("rule", RULES)
def test_errors_are_those_by_the_rule_of_the_run(rule, capsys):
    """The curves without a rule in their name are what decides, and what the bar shows."""
    labels = np.zeros(4, int)
    logits = {r: np.eye(2)[(np.arange(4) < i).astype(int)] for i, r in enumerate(RULES, start=1)}
    learner = SimpleNamespace(predict=lambda images: logits)
    examples = SimpleNamespace(images=None, labels=labels)
    dataset = SimpleNamespace(valid=examples, test=examples)
    experiment = preset("policy-500").replace(evaluation_rule=rule)
    row = training._errors(experiment, learner, dataset)
    expected = (RULES.index(rule) + 1) / 4
    assert row["valid_error"] == row["test_error"] == row[f"test_error_{rule}"] == expected
    bar = ProgressBar("policy-500", "numba")
    bar.errors({name: np.array([value]) for name, value in row.items()} | {"train_nll": [0.5]})
    bar.close()
    assert f"nll 0.5000 valid {expected:.2%} test {expected:.2%}" in capsys.readouterr().err
