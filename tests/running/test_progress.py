"""What the progress bar shows."""

from types import SimpleNamespace

import numpy as np
import pytest

from reinforce_dropout.running import training
from reinforce_dropout.running.early_stopping import Patience
from reinforce_dropout.running.progress import ProgressBar
from reinforce_dropout.systems import preset

RULES = ("sampled", "expected", "thresholded")


def evaluated(rule, improved, **changes):
    """Return the errors of `training._errors` after epoch 1 of 2, and what was predicted."""
    labels = np.zeros(4, int)
    logits = {r: np.eye(2)[(np.arange(4) < i).astype(int)] for i, r in enumerate(RULES, start=1)}
    asked = []

    def predict(images, rules):
        asked.append((images, *rules))
        return {r: logits[r] for r in rules}

    dataset = SimpleNamespace(
        **{part: SimpleNamespace(images=part, labels=labels) for part in ("valid", "test")}
    )
    learner = SimpleNamespace(rules=RULES, predict=predict)
    epochs = SimpleNamespace(learner=learner, n_done=1, n_batches=13)
    experiment = preset("policy-500").replace(evaluation_rule=rule, **{"n_epochs": 2} | changes)
    patience = Patience(patience=changes.get("patience", 100), best=1 if improved else 0)
    row, best = training._errors(experiment, dataset, epochs, patience)
    assert best is improved
    return row, asked


@pytest.mark.parametrize("rule", RULES)
def test_errors_are_those_by_the_rule_of_the_run(rule, capsys):
    """The curves without a rule in their name are what decides, and what the bar shows."""
    row, _ = evaluated(rule, improved=True)
    expected = (RULES.index(rule) + 1) / 4
    assert row["valid_error"] == row["test_error"] == row[f"test_error_{rule}"] == expected
    for i, other in enumerate(RULES, start=1):
        assert row[f"valid_error_{other}"] == row[f"test_error_{other}"] == i / 4
    bar = ProgressBar("policy-500", "numba")
    curves = {name: np.array([value]) for name, value in row.items()}
    bar.errors(curves | {"train_nll": np.array([0.5])})
    bar.close()
    assert f"nll 0.5000 valid {expected:.2%} test {expected:.2%}" in capsys.readouterr().err


@pytest.mark.parametrize("rule", RULES)
def test_an_epoch_that_is_not_the_best_is_evaluated_by_what_decides_alone(rule):
    row, asked = evaluated(rule, improved=False)
    assert asked == [("valid", rule)]
    error = (RULES.index(rule) + 1) / 4
    np.testing.assert_equal(
        row, {"valid_error": error, f"valid_error_{rule}": error, "test_error": np.nan}
    )


@pytest.mark.parametrize(
    ("improved", "changes"),
    [
        (True, {}),
        (False, {"evaluate_all": True}),
        (False, {"n_epochs": 1}),  # the last one that is allowed
        (False, {"patience": 20}),  # a second one would end after 26 updates
    ],
)
def test_all_is_evaluated_for_the_best_model_at_the_end_and_if_it_is_wanted(improved, changes):
    row, asked = evaluated("expected", improved, **changes)
    assert len(row) == 8 and not np.isnan(list(row.values())).any()
    pairs = [(part, rule) for part, *rules in asked for rule in rules]
    assert sorted(pairs) == sorted((part, rule) for part in ("valid", "test") for rule in RULES)


def test_the_bar_shows_the_last_known_test_error(capsys):
    bar = ProgressBar("policy-500", "numba")
    nothing = np.array([np.nan])
    curves = {"train_nll": np.array([0.5]), "valid_error": np.array([0.3])}
    bar.errors(curves | {"test_error": nothing})
    bar.update(0)
    bar.bar.refresh()
    assert "test" not in capsys.readouterr().err
    bar.errors(
        {
            "train_nll": np.array([0.5, 0.4, 0.25]),
            "valid_error": np.array([0.3, 0.1, 0.2]),
            "test_error": np.array([0.5, 0.125, np.nan]),
            "active_fraction": np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
        }
    )
    bar.close()
    expected = "nll 0.2500 valid 20.00% test 12.50% active 50% 60%"
    assert expected in capsys.readouterr().err
