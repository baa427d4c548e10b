"""The experiment: the paper's numbers, and one sentence for every value that cannot be."""

import dataclasses
import inspect
import json
import math
import re

import numpy as np
import pytest

from reinforce_dropout.baselines import BASELINES
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.experiment import PRESETS, Experiment, preset

FIELDS = [field.name for field in dataclasses.fields(Experiment)]


@pytest.mark.parametrize(
    ("name", "n_units", "policy", "lam"),
    [
        ("baseline-500", (500,), False, 0.0),
        ("policy-500", (500,), True, 0.0),
        ("policy-800-800", (800, 800), True, 0.0001),
    ],
)
def test_presets_hold_the_papers_numbers(name, n_units, policy, lam):
    """Section 4, and the readings chosen where it is silent."""
    experiment = preset(name)
    assert (experiment.name, experiment.n_units) == (name, n_units)
    assert (experiment.policy, experiment.lam) == (policy, lam)
    assert experiment.n_layers == len(n_units)
    assert experiment.learning_rate == experiment.policy_learning_rate == 0.01
    assert (experiment.l2, experiment.batch_size, experiment.n_epochs) == (0.001, 20, 1000)
    assert 0.10 <= experiment.initial_rate <= 0.15
    assert (experiment.activation, experiment.loss_reduction) == ("tanh", "sum")
    assert experiment.kl_gradient == ("score" if lam else "total")
    assert experiment.baseline == "batch-mean"
    assert (experiment.patience, experiment.patience_increase) == (10_000, 2)
    assert (experiment.improvement_threshold, experiment.validation_fraction) == (0.995, 1 / 6)


def test_the_presets():
    """Three, under their own names; any other name is refused with the list."""
    assert list(PRESETS) == ["baseline-500", "policy-500", "policy-800-800"]
    assert [e.name for e in PRESETS.values()] == list(PRESETS)
    with pytest.raises(ExperimentError) as error:
        preset("policy-501")
    check_sentence(error, "policy-501", "baseline-500, policy-500, policy-800-800")


def check_sentence(error, *parts):
    """The message is one sentence of one line that holds all `parts`."""
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    assert not re.search(r"[.!?] ", message)
    for part in parts:
        assert part in message


NOT_NEGATIVE = ["learning_rate", "policy_learning_rate", "l2", "lam"]
FRACTIONS = ["q", "initial_rate", "validation_fraction"]
COUNTS = ["batch_size", "n_epochs", "patience", "instances_per_block", "units_per_block"]
BAD = [
    *[(name, value, "0 or more") for name in NOT_NEGATIVE for value in (-1, -5)],
    *[("seed", value, "0 or more and less than 2**64") for value in (-1, 2**64, 2**70)],
    *[(name, -1e-9, "0 or more") for name in NOT_NEGATIVE],
    *[
        (name, value, "between 0 and 1, both excluded")
        for name in FRACTIONS
        for value in (0, 0.0, 1, 1.0, -0.1, 1.5)
    ],
    *[(name, value, "1 or more") for name in [*COUNTS, "patience_increase"] for value in (0, -3)],
    ("patience_increase", 0.99, "1 or more"),
    ("baseline_decay", 1.0, "0 or more and less than 1"),
    ("baseline_decay", -0.1, "0 or more and less than 1"),
    ("improvement_threshold", 0, "greater than 0 and at most 1"),
    ("improvement_threshold", 1.001, "greater than 0 and at most 1"),
    ("n_units", (), "one width or more, each 1 or more (such as 800,800)"),
    ("n_units", (500, 0), "one width or more, each 1 or more (such as 800,800)"),
    ("n_units", (-1,), "one width or more, each 1 or more (such as 800,800)"),
    ("activation", "Tanh", "one of tanh, sigmoid, relu"),
    ("loss_reduction", "max", "one of sum, mean"),
    ("baseline", "median", f"one of {', '.join(BASELINES)}"),
    ("kl_gradient", "", "one of total, score"),
    ("evaluation_rule", "mode", "one of sampled, expected, thresholded"),
    ("block_state", "median", "one of mean, max"),
    # Wrong types.
    *[
        (field.name, value, "a finite number")
        for field in dataclasses.fields(Experiment)
        if field.type is float
        for value in (math.nan, math.inf, -math.inf, True, None, "0.1", [0.1], 1j, 10**400)
    ],
    *[
        (field.name, value, "a whole number")
        for field in dataclasses.fields(Experiment)
        if field.type is int
        for value in (1.5, math.nan, math.inf, True, None, "20", [20])
    ],
    *[
        (field.name, value, "text")
        for field in dataclasses.fields(Experiment)
        if field.type is str
        for value in (None, 1, b"tanh", ["tanh"])
    ],
    *[
        (name, value, "true or false")
        for name in ("policy", "shuffle", "uniform")
        for value in (1, "no", None)
    ],
    *[
        ("n_units", value, "whole numbers with commas between them (such as 800,800)")
        for value in (500, "500", (500.5,), (math.nan,), (math.inf,), (None,), ("500",), (True,))
    ],
]


@pytest.mark.parametrize(("name", "value", "mend"), BAD)
def test_bad_values_are_refused(name, value, mend):
    """The sentence names the field, what it may be, and what was given."""
    with pytest.raises(ExperimentError) as error:
        Experiment(**{name: value})
    check_sentence(error, f"{name} must be {mend}, not ")


def test_every_restricted_field_is_tested():
    """Of all fields, only a name may be anything of its type."""
    out_of_range = {name for name, _, mend in BAD if mend not in ("text", "a finite number")}
    assert set(FIELDS) == out_of_range | {"name"}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_units", "800,800", (800, 800)),
        ("n_units", "500", (500,)),
        ("n_units", "5, 6,7", (5, 6, 7)),
        ("policy", "false", False),
        ("policy", "No", False),
        ("shuffle", "true", True),
        ("shuffle", "YES", True),
        ("batch_size", "100", 100),
        ("seed", "0", 0),
        ("lam", "1e-4", 0.0001),
        ("lam", "0", 0.0),
        ("q", ".25", 0.25),
        ("activation", "relu", "relu"),
        ("name", "mine", "mine"),
    ],
)
def test_values_from_text(name, text, value):
    """As typed on a command line."""
    found = getattr(Experiment().replace(**{name: text}), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "mend"),
    [
        ("n_units", "", "whole numbers with commas between them (such as 800,800)"),
        ("n_units", "800x800", "whole numbers with commas between them (such as 800,800)"),
        ("n_units", "800,", "whole numbers with commas between them (such as 800,800)"),
        ("n_units", "0", "one width or more, each 1 or more"),
        ("policy", "maybe", "true or false"),
        ("policy", "1", "true or false"),
        ("batch_size", "twenty", "a whole number"),
        ("batch_size", "2.5", "a whole number"),
        ("batch_size", "0", "1 or more"),
        ("lam", "", "a finite number"),
        ("lam", "nan", "a finite number"),
        ("lam", "1e999", "a finite number"),
        ("q", "1", "between 0 and 1, both excluded"),
        ("baseline", "mean", "one of none, batch-mean"),
    ],
)
def test_bad_text_is_refused(name, text, mend):
    """With the same sentences."""
    with pytest.raises(ExperimentError) as error:
        Experiment().replace(**{name: text})
    check_sentence(error, f"{name} must be {mend}", ", not ")


@pytest.mark.parametrize("make", [lambda f: Experiment().replace(**f), Experiment.from_dict])
def test_unknown_fields_are_refused(make):
    """The sentence lists the fields there are."""
    with pytest.raises(ExperimentError) as error:
        make({"n_unit": (5,)})
    check_sentence(error, "'n_unit'", ", ".join(FIELDS))


def test_replace_leaves_the_original():
    """And every other field."""
    first = preset("policy-800-800")
    second = first.replace(q=0.3, seed="7")
    assert (first.q, first.seed) == (0.1, 1)
    assert first.differences(second) == {"q": (0.1, 0.3), "seed": (1, 7)}
    assert first.differences(first) == {}


def test_frozen():
    """No field changes once chosen; equal experiments are equal, and can be looked up."""
    experiment = Experiment()
    for name in FIELDS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(experiment, name, getattr(experiment, name))
    assert experiment == Experiment() and hash(experiment) == hash(Experiment())
    assert experiment != Experiment(seed=2)


@pytest.mark.parametrize("name", list(PRESETS))
def test_round_trip(name):
    """`as_dict` holds what JSON keeps, to the last digit, and `from_dict` undoes it."""
    experiment = preset(name).replace(lam=0.1 + 0.2, seed=2**40, shuffle=True)
    plain = experiment.as_dict()
    assert list(plain) == FIELDS
    assert plain["n_units"] == list(experiment.n_units)
    assert json.loads(json.dumps(plain)) == plain
    assert Experiment.from_dict(json.loads(json.dumps(plain))) == experiment


def test_values_take_the_type_of_their_field():
    """Whole numbers for floats, NumPy's numbers and lists are taken as what they stand for."""
    experiment = Experiment(
        lam=0, learning_rate=np.float32(0.5), batch_size=np.int64(7), n_units=[np.int64(4), 5.0]
    )
    for name, value in (("lam", 0.0), ("learning_rate", 0.5), ("batch_size", 7)):
        found = getattr(experiment, name)
        assert found == value and type(found) is type(value)
    assert experiment.n_units == (4, 5) and {type(n) for n in experiment.n_units} == {int}
    experiment.as_dict()


def test_every_field_is_documented():
    """In the docstring of the class, as a parameter."""
    entries = re.findall(r"^(\w+) : ", inspect.getdoc(Experiment), flags=re.MULTILINE)
    assert entries == FIELDS


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"instances_per_block": 21}, ["instances_per_block is 21", "20 or less", "batch_size"]),
        ({"policy": False, "instances_per_block": 2}, ["are for policies", "policy to true"]),
        ({"policy": False, "units_per_block": 2}, ["are for policies", "policy to true"]),
        ({"policy": False, "uniform": True}, ["are for policies", "policy to true"]),
        *[
            (
                {"instances_per_block": 20, "baseline": baseline},
                [f"baseline={baseline}", "set baseline=moving-average"],
            )
            for baseline in ("batch-mean", "leave-one-out-mean", "batch-minimum")
        ],
    ],
    ids=str,
)
def test_blocks_that_do_not_go_with_the_rest_are_refused(fields, parts):
    """With one sentence that says which and what to set."""
    with pytest.raises(ExperimentError) as error:
        Experiment(**fields)
    check_sentence(error, *parts)


@pytest.mark.parametrize(
    "fields",
    [
        {"instances_per_block": 19},
        {"instances_per_block": 20, "baseline": "moving-average"},
        {"instances_per_block": 20, "baseline": "none"},
        {"instances_per_block": 20, "uniform": True},
        {"batch_size": 1},
        {"units_per_block": 10_000},
    ],
    ids=str,
)
def test_blocks_that_go_with_the_rest(fields):
    """The same rules refuse no more than they must."""
    assert Experiment(**fields).as_dict().items() >= fields.items()


def test_experiments_of_before_block_dropout_load():
    """A record without the fields is of a per-instance policy."""
    new = ("instances_per_block", "units_per_block", "block_state", "uniform")
    old = {k: v for k, v in preset("policy-500").as_dict().items() if k not in new}
    assert Experiment.from_dict(old) == preset("policy-500")


def test_the_largest_seed_that_a_record_can_hold():
    assert Experiment(seed=2**64 - 1).seed == 2**64 - 1


def test_a_field_named_self_is_unknown_like_any_other():
    with pytest.raises(ExperimentError) as error:
        Experiment().replace(**{"self": "1"})
    check_sentence(error, "there is no field 'self'")
