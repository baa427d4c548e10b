"""What the progress bar shows."""

import numpy as np
import pytest

from reinforce_dropout.experiment import preset
from reinforce_dropout.progress import ProgressBar


@pytest.mark.parametrize(
    ("rule", "valid", "test"),
    [("sampled", 1, 4), ("expected", 2, 5), ("thresholded", 3, 6)],
)
def test_errors_are_those_by_the_rule_of_the_run(rule, valid, test, capsys):
    bar = ProgressBar(preset("policy-500").replace(evaluation_rule=rule), "numba")
    curves = {"train_nll": [0.5], "valid_error": np.array([[0.01, 0.02, 0.03]])}
    bar.errors(curves | {"test_error": np.array([[0.04, 0.05, 0.06]])})
    bar.close()
    assert f"nll 0.5000 valid {valid}.00 % test {test}.00 %" in capsys.readouterr().err
