"""Verdicts, intervals, the ledger and the trade-off, from records with known curves."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from made_records import make_record
from scipy import stats

SCRIPTS = Path(__file__).parents[2] / "reproduce"
sys.path.append(str(SCRIPTS))  # behind the tests' own folder, which has names of its own

import random_search as script  # noqa: E402
from evidence import (  # noqa: E402
    drawing,
    ledger,
    policy_search,
    random_search,
    runs,
    spread,
    systems,
    tradeoff,
    verdicts,
)

import figures  # noqa: E402
from reinforce_dropout.results import records  # noqa: E402


def with_errors(name, errors, **changes):
    """Return runs with given test errors, a seed each."""
    made = []
    for seed, error in enumerate(errors, start=1):
        run = make_record(name, seed=seed, **changes)
        run.attributes["seed"] = seed
        made.append(dataclasses.replace(run, best_attributes=run.best_attributes | {
            "test_error": error, "valid_error": error / 2,
        }))  # fmt: skip
    return made


@pytest.fixture
def made():
    """Runs of a preset and of two of its alternatives, three seeds each."""
    return [
        *with_errors("policy-500", [0.020, 0.021, 0.022]),
        *with_errors("policy-500", [0.030, 0.031, 0.032], l2_of="norms"),
        *with_errors("policy-500", [0.020, 0.020, 0.023], baseline="none"),
        *with_errors("block-800-800", [0.05], n_units=(500,), units_per_block=1, q=0.1, lam=0.0,
                     policy_learning_rate=0.01, baseline="batch-mean", instances_per_block=5),
    ]  # fmt: skip


def test_an_interval_over_seeds_is_students():
    values = [1.0, 2.0, 4.0, 5.0]
    mean, low, high = spread.over_seeds(values)
    half = 3.182446 * np.std(values, ddof=1) / 2  # the 97.5 % quantile with 3 degrees of freedom
    np.testing.assert_allclose([mean, low, high], [3, 3 - half, 3 + half], rtol=1e-5)


def test_a_paired_test_looks_at_what_only_one_gets_wrong():
    wrong = np.array([True] * 30 + [True] * 8 + [False] * 62)
    other = np.array([True] * 30 + [False] * 8 + [True] * 2 + [False] * 60)
    only, only_other, p = spread.paired(wrong, other)
    assert (only, only_other) == (8, 2)
    assert p == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # at most 2 of 10 fair coins, both sides
    assert spread.paired(wrong, wrong) == (0, 0, 1.0)


def test_an_interval_of_a_rate_is_wilsons():
    n, rate, z = 10_000, 0.017, stats.norm.ppf(0.975)
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    np.testing.assert_allclose(spread.of_rate(rate, n), [middle - half, middle + half])


def test_an_interval_of_a_difference_is_welchs():
    a, b = [1.0, 2.0, 3.0], [5.0, 9.0, 7.0, 7.0]
    difference, low, high = spread.of_difference(a, b)
    error = np.sqrt(np.var(a, ddof=1) / 3 + np.var(b, ddof=1) / 4)
    assert difference == -5 and low < -5 < high
    half = (high - low) / 2
    assert stats.t.ppf(0.975, 5) * error == pytest.approx(half, rel=0.02)  # 4.97 degrees


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ([0.0165, 0.017, 0.0175], "reproduced"),
        ([0.0182, 0.0183, 0.0184], "partly"),  # the reported rate may itself be 1.97 %
        ([0.0230, 0.0231, 0.0232], "not reproduced"),
    ],
)
def test_an_error_rate_is_judged_by_both_intervals(errors, verdict):
    found = verdicts.error_rate("1.7 %", 0.017, with_errors("baseline-500", errors))
    assert found.verdict == verdict
    assert f"{100 * np.mean(errors):.2f} % over 3 seeds" in found.number
    assert "1.46 to 1.97 %" in found.number


def with_curve(name, curve, values, best=20, **changes):
    """Return a run with ``{row: values}`` of a curve."""
    run = make_record(name, best=best, **changes)
    for row, value in values.items():
        run.curves[curve][row] = value
    return run


def test_units_that_are_recruited():
    def judge(*rates):
        return verdicts.recruited(
            [with_curve("policy-500", "active_fraction", {19: rate}) for rate in rates]
        )

    assert judge(0.3, 0.33).verdict == "reproduced"
    assert judge(0.3, 0.36).verdict == "partly"
    assert judge(0.2, 0.36).verdict == "not reproduced"
    assert "from 30.0 to 33.0 %" in judge(0.3, 0.33).number


def test_epochs_are_compared_seed_by_seed():
    plain = [make_record("baseline-500", best=b) for b in (5, 10, 15)]
    for bests, verdict in (
        ((6, 11, 16), "reproduced"),
        ((6, 9, 16), "partly"),
        ((5, 9, 15), "not"),
    ):
        found = verdicts.more_epochs(plain, [make_record("policy-500", best=b) for b in bests])
        assert found.verdict.startswith(verdict)
    assert "5 / 5, 9 / 10, 15 / 15" in found.number and "0 of 3" in found.number


def test_the_first_layer_is_faster_if_it_gains_twice_as_much():
    def judge(*gains):
        return verdicts.first_layer_faster([
            with_curve("policy-800-800", "active_fraction", {0: (0.1, 0.1), 4: (0.1 + g, 0.15)})
            for g in gains
        ])  # fmt: skip

    assert judge(0.11, 0.2).verdict == "reproduced"
    assert judge(0.09, 0.2).verdict == "partly"
    assert judge(0.09, 0.05).verdict == "not reproduced"
    assert "1.8 to 4.0 times" in judge(0.09, 0.2).number


def test_the_entropy_of_the_first_policy_decides():
    falling = with_curve("policy-800-800", "policy_entropy", {0: (0.4, 0.1), 19: (0.2, 0.3)})
    rising = with_curve("policy-800-800", "policy_entropy", {0: (0.2, 0.4), 19: (0.3, 0.1)})
    assert verdicts.entropy_falls([falling, falling]).verdict == "reproduced"
    assert verdicts.entropy_falls([falling, rising]).verdict == "partly"
    assert verdicts.entropy_falls([rising, rising]).verdict == "not reproduced"


def test_all_claims_are_judged():
    plain = with_errors("baseline-500", [0.017, 0.018])
    policy, deep = (with_errors(name, [0.02, 0.021]) for name in ("policy-500", "policy-800-800"))
    found = verdicts.all_verdicts(plain, policy, deep)
    text = verdicts.table(found)
    assert len(found) == 7 and text.count("\n") == 9
    assert all(verdict.claim in text and verdict.number in text for verdict in found)


def test_no_unit_is_dropped_by_the_expected_rule():
    for run, drops in (
        (make_record("policy-500"), True),
        (make_record("policy-500", evaluation_rule="expected"), False),
        (make_record("dropout-800-800"), False),
        (make_record("baseline-500"), False),
    ):
        assert runs.drops_units(run) == drops


def test_changes_are_named_against_the_preset(made):
    assert runs.changes(made[0], "policy-500") == {}
    assert runs.changes(made[3], "policy-500") == {"l2_of": "norms"}
    assert runs.changes(made[-1], "policy-500") == {"instances_per_block": 5}


def test_the_ledger_has_a_row_for_each_choice(made):
    rows = ledger.rows(made)
    assert [(base, change, len(found)) for base, change, found in rows] == [
        ("policy-500", "", 3),
        ("policy-500", "baseline=none", 3),
        ("policy-500", "instances_per_block=5", 1),
        ("policy-500", "l2_of=norms", 3),
    ]
    text = ledger.table(made)
    norms = next(line for line in text.splitlines() if "l2_of=norms" in line)
    assert "| 1, 2, 3 | 3.10 ± 0.10 % | +1.00 (+0.77 to +1.23) |" in norms
    blocks = next(line for line in text.splitlines() if "instances_per_block" in line)
    assert "| 5.00 % | - |" in blocks
    assert "Trained: policy-500 for at most 30 epochs." in text


def test_figures_name_each_run_at_its_point(made):
    image = drawing.svg(ledger.figure(made), "ledger")
    titles = [runs.describe(run) for run in made]
    assert all(f": {title}</title>" in image for title in titles)
    assert image.count('<g class="point"><title>') == len(made)
    assert image.startswith("<svg") and "#000000" not in image and "currentColor" in image
    assert image == drawing.svg(ledger.figure(made), "ledger")


def test_the_trade_off_has_a_point_for_each_run():
    made = [
        make_record("policy-500", lam=0.01, q=0.2, kl_gradient="score"),
        make_record("policy-500", lam=0.1, q=0.05),
        make_record("policy-500", gate="uniform", initial_rate=0.2),
        make_record("baseline-500", n_units=(50,)),
    ]
    made[2].curves["valid_error_expected"] = made[2].curves["valid_error"]
    assert [tradeoff.kind(run) for run in made] == [
        ("score", 0.2), ("total", 0.05), "uniform", "dense",
    ]  # fmt: skip
    assert tradeoff.active(made[3]) == 10
    assert tradeoff.active(made[0]) == 100 * made[0].curves["active_fraction"][19, 0]
    assert tradeoff.error(made[2]) == 100 * made[2].curves["test_error_expected"][19]
    assert tradeoff.error(made[0]) == 100 * made[0].best_attributes["test_error"]
    text = tradeoff.table(made)
    for cells in ("policy, score, q = 0.2 | lambda 0.01", "dense network | 50 units | 10.0 %",
                  "policy, total, q = 0.05 | lambda 0.1", "at test | rate 0.2 |"):  # fmt: skip
        assert cells in text
    image = drawing.svg(tradeoff.figure(made), "tradeoff")
    assert image.count('<g class="point"><title>') == 4


def used(name, *fractions, **changes):
    """Return a run with given active fractions at its best epoch."""
    return with_curve(name, "active_fraction", {19: fractions}, **changes)


def with_gates_at_test_time(fraction, **changes):
    """Return a run whose threshold leaves another fraction on than was drawn."""
    run = used("straight-through-2000", 0.9, **changes)
    run.curves["active_thresholded"] = np.full((20, 1), fraction)
    return run


def test_multiplications_are_those_of_units_in_use():
    """By hand, in thousands: a weight counts if both its ends are in use."""
    cases = [
        (make_record("baseline-500", n_units=(30, 20)), (784 * 30 + 30 * 20 + 20 * 10, 0)),
        (
            used("policy-800-800", 0.2, 0.5, n_units=(30, 20)),
            (784 * 6 + 6 * 10 + 10 * 10, 784 * 30 + 6 * 20),
        ),
        (
            used("block-800-800", 0.5, n_units=(32,), units_per_block=16),
            (784 * 16 + 16 * 10, 784 * 2),
        ),
        (
            with_gates_at_test_time(0.1, n_units=(50,), gater_units=7),
            (784 * 5 + 5 * 10, 784 * 7 + 7 * 50),
        ),
        # Images of 28, 24, 12, 8 and 4 rows; two passes with one decision between them.
        (
            make_record("dasnet-cnn", n_units=(2, 3)),
            (24**2 * 25 * 2 + 8**2 * 25 * 2 * 3 + 4**2 * 3 * 10, 0),
        ),
        (
            make_record("dasnet", n_units=(2, 3), n_passes=2),
            (
                24**2 * 25 * 2 + 8**2 * 25 * 2 * 3 + 2 * (8**2 * 2 * 3 + 4**2 * 3 + 4**2 * 3 * 10),
                5 * 15,
            ),
        ),
        (
            make_record("dsnn-mnist", n_units=(4, 5), n_mappings=3),
            (784 * 4 + 20 + 50, 784 * 3 + 12),
        ),
        (make_record("dsnn-mnist-uniform", n_units=(4,), n_paths=6), (6 * (784 * 4 + 40), 0)),
        (make_record("dsnn-mnist-one-path", n_units=(4,)), (784 * 4 + 40, 0)),
    ]
    for run, expected in cases:
        np.testing.assert_allclose(systems.multiplications(run), np.divide(expected, 1000))


def test_systems_have_a_row_each_and_a_point_for_each_run():
    made = [*with_errors("baseline-500", [0.017, 0.019]), used("condnet-256", 0.0625)]
    made[-1].attributes["data"] = "mnist-inverted"
    text = systems.table(made)
    assert "| baseline-500 | 1.7 % | 1.80 ± 0.14 % | 1, 2 | all | 397 + 0 |" in text
    assert "| condnet-256, mnist-inverted | - |" in text
    steered = make_record("dasnet", cnn="runs/dasnet-cnn-seed{seed}.hdf5")
    steered.attributes["paired"] = {"only": 3, "only_other": 9, "p": 0.146}
    text = systems.table([steered, make_record("dsnn-mnist", n_mappings=3)])
    assert "| dasnet | - |" in text and "| 1 of 9 paths |" in text
    assert "3 of the test images are wrong only with the policy, 9 only without it" in text
    assert drawing.svg(systems.figure(made), "systems").count("<title>") == 3


def test_systems_of_different_lengths_have_rows_of_their_own():
    made = [make_record("sts-2000", n_epochs=n) for n in (60, 200, 60)]
    groups = systems.by_preset(made)
    assert {name: len(found) for name, found in groups.items()} == {
        "sts-2000, n_epochs=60": 2,
        "sts-2000, n_epochs=200": 1,
    }
    assert list(systems.by_preset(made[::2])) == ["sts-2000"]


def test_systems_stand_beside_the_runs_of_the_paper(tmp_path):
    """And what the sweep still lacks is listed."""
    assert set(figures.BESIDE_THE_PAPER) <= figures.EVIDENCE.keys()
    records.write(tmp_path / "plain-256-seed21.hdf5", make_record("plain-256"))
    stem = tmp_path / "systems"
    figures.draw_evidence(systems, tmp_path, "systems", stem, [make_record("policy-500")])
    text = stem.with_suffix(".md").read_text()
    assert "| plain-256 |" in text and "| policy-500 |" in text
    assert "plain-256 (seed 22, 23);" in text


def searched(errors, step, name="policy-500", **changes):
    """Return a run with these validation errors, whose step takes so many microseconds."""
    run = make_record(name, length=len(errors), best=1, **changes)
    run.curves["valid_error"] = np.array(errors)
    run.attributes["timed"] = {"step": step}
    return run


def test_the_first_epoch_at_reinforces_best_error_is_counted():
    """The goal is the median over seeds of REINFORCE's lowest error: 2 %."""
    curves = [0.05, 0.04, 0.03, 0.02], [0.05, 0.01, 0.03, 0.04], [0.06, 0.05, 0.04, 0.03]
    plain = [searched(curve, 10) for curve in curves]
    fast = [searched([0.05, 0.02, 0.03, 0.03], 15, baseline="none")] * 2
    slow = [searched([0.05, 0.05, 0.05, 0.05], 10, baseline="batch-minimum")]
    deep = [searched([0.05, 0.03], 7, "policy-800-800")]
    found = policy_search.searches([*plain, *fast, *slow, *deep])
    assert {base: list(groups) for base, groups in found.items()} == {
        "policy-500": ["", "baseline=batch-minimum", "baseline=none"], "policy-800-800": [""],
    }  # fmt: skip
    assert policy_search.goal(found["policy-500"]) == pytest.approx(2)
    assert [policy_search.first_epoch(run, 2.0) for run in plain] == [4, 2, np.inf]
    text = policy_search.table([*plain, *fast, *slow, *deep])
    rows = {
        line.split("|")[2].strip(): line for line in text.splitlines() if "policy-500 |" in line
    }
    assert "| 4 | 1.00 | 1.00 | 1.00 |" in rows["REINFORCE, as the preset"]
    assert "| 2 | 0.50 | 1.50 | 0.75 |" in rows["baseline=none"]
    assert "| not reached | not reached | 1.00 | not reached |" in rows["baseline=batch-minimum"]
    assert "2.00 % (median over seeds). At most half of its epochs need: baseline=none." in text
    assert "policy-800-800: at most 2 epochs" in text and "epochs need: none." in text
    for run in plain:
        run.attributes["timed"] = None
    assert "| 2 | 0.50 | - | - |" in policy_search.table([*plain, *fast])


def test_the_figure_of_the_search_has_a_row_for_each_network():
    plain, fast = searched([0.05, 0.02], 10), searched([0.05, 0.01], 15, baseline="none")
    figure = policy_search.figure([plain, fast, searched([0.05, 0.03], 7, "policy-800-800")])
    labels = figure.legends[0].get_texts()
    assert [label.get_text() for label in labels] == ["REINFORCE, as the preset", "baseline=none"]
    _, by_time, _, deep, _, _ = figure.axes
    np.testing.assert_allclose([line.get_xdata()[1] for line in by_time.lines[:2]], [2, 3])
    assert deep.get_title(loc="left") == "policy-800-800, by epochs"


def test_what_a_sweep_has_not_run_is_listed(tmp_path):
    sweep = tmp_path / "sweep.toml"
    sweep.write_text('[[runs]]\npreset = "policy-500"\nseeds = "1-2"\ngrid = { q = [0.1, 0.2] }\n')
    for name in ("q=0.1-seed1", "q=0.1-seed2", "q=0.2-seed1"):
        (tmp_path / f"policy-500-{name}.hdf5").touch()
    assert runs.not_run(tmp_path, sweep) == "\nNot run yet: policy-500-q=0.2 (seed 2).\n"
    (tmp_path / "policy-500-q=0.2-seed2.hdf5").touch()
    assert runs.not_run(tmp_path, sweep) == ""


@pytest.mark.parametrize("sweep", sorted((SCRIPTS / "sweeps").glob("*.toml")), ids=lambda p: p.stem)
def test_the_sweeps_of_the_repository_can_be_read(sweep):
    planned = runs.grid.read(sweep, None, {})
    assert len(planned) > 2 and all(run.experiment() for run in planned)


def trial(valid, rate, seed, test=0.5, **changes):
    """Return a run of a random search with this lowest validation error."""
    run = make_record("policy-500", length=2, best=1, policy_learning_rate=rate, **changes)
    run.attributes["seed"] = seed
    run.curves["valid_error"] = np.array([0.5, valid])
    run.best_attributes["test_error"] = test
    return run


def test_the_choice_is_the_trial_of_the_lowest_validation_error():
    """The test error plays no part, nor do runs with fresh seeds."""
    searched = [trial(0.04, 0.5, 7, test=0.01), trial(0.02, 0.2, 7), trial(0.03, 0.3, 7)]
    fresh = [trial(0.01, 0.2, 8, test=0.02), trial(0.02, 0.01, 8, test=0.04)]
    assert random_search.trials([*fresh, *searched]) == [searched[1], searched[2], searched[0]]
    assert random_search.choice(random_search.trials([*fresh, *searched])) is searched[1]
    text = random_search.table([*fresh, *searched]).splitlines()
    assert text[2].startswith("| the preset | 8 | 2.00 % | 4.00 % |")
    assert text[3].startswith("| policy_learning_rate=0.2 | 8 | 1.00 % | 2.00 % |")
    assert "All 3 trials, seed 7, 1000 epochs at most." in text[5]
    assert [line.split("|")[1:3] for line in text[9:]] == [
        [" 0.2 ", " 2.00 % "], [" 0.3 ", " 3.00 % "], [" 0.5 ", " 4.00 % "],
    ]  # fmt: skip
    figure = drawing.svg(random_search.figure([*fresh, *searched]), "search")
    assert figure.count("<title>") == 3


def test_the_choice_and_the_preset_are_trained_again_with_fresh_seeds():
    planned = script.fresh_runs([trial(0.04, 0.5, 7), trial(0.02, 0.2, 7)])
    assert [run.name for run in planned] == [
        *(f"policy-500-seed{seed}" for seed in (71, 72, 73)),
        *(f"policy-500-policy_learning_rate=0.2-seed{seed}" for seed in (71, 72, 73)),
    ]
    assert {run.experiment().n_epochs for run in planned} == {1000}
