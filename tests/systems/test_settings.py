"""Settings: one sentence for every value that is not allowed; what is written can be read."""

import dataclasses
import inspect
import json
import math
import re
from typing import ClassVar

import numpy as np
import pytest

from reinforce_dropout import systems
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.systems import SYSTEMS, block_policy, plain, policy, standout
from reinforce_dropout.systems.settings import (
    MOST_UNITS,
    Experiment,
    at_least,
    one_of,
    setting,
    settings,
)

ALL = [module.Settings for module in SYSTEMS.values()]


def fields_of(cls):
    """Return the names of all fields."""
    return [field.name for field in dataclasses.fields(cls)]


def check_sentence(error, *parts):
    """The message is one sentence of one line that holds all `parts`."""
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    assert not re.search(r"[.!?] ", message)
    for part in parts:
        assert part in message


NOT_NEGATIVE = [
    "learning_rate", "policy_learning_rate", "penalty_learning_rate", "gater_learning_rate", "l2",
    "lam", "lam_s", "lam_v", "max_squared_norm", "initial_std", "sparsity", "noise_std",
    "threshold_rate", "mean_learning_rate", "weight_if_right",
]  # fmt: skip
FRACTIONS = ["q", "initial_rate", "validation_fraction", "test_fraction", "target", "tau"]
COUNTS = [
    "batch_size", "n_epochs", "patience", "instances_per_block", "units_per_block",
    "units_per_group", "gater_units", "cg_steps", "policy_from_epoch", "policy_every",
    "n_mappings", "n_paths", "kernel_size", "n_passes",
]  # fmt: skip
WIDTHS = f"one width or more, each from 1 to {MOST_UNITS} (such as 800,800)"
OUT_OF_RANGE = [
    *[(name, value, "0 or more") for name in NOT_NEGATIVE for value in (-1, -5, -1e-9)],
    *[("seed", value, "0 or more and less than 2**64") for value in (-1, 2**64, 2**70)],
    *[
        (name, value, "between 0 and 1, both excluded")
        for name in FRACTIONS
        for value in (0, 0.0, 1, 1.0, -0.1, 1.5)
    ],
    *[(name, value, "1 or more") for name in [*COUNTS, "patience_increase"] for value in (0, -3)],
    ("patience_increase", 0.99, "1 or more"),
    ("baseline_decay", 1.0, "0 or more and less than 1"),
    ("baseline_decay", -0.1, "0 or more and less than 1"),
    ("schedule_epochs", -1, "0 or more"),
    ("momentum", 1.0, "0 or more and less than 1"),
    ("momentum", -0.1, "0 or more and less than 1"),
    *[
        (name, value, "greater than 0 and at most 1")
        for name in ("hidden_keep", "input_keep", "second_hidden_keep")
        for value in (0, 1.001)
    ],
    ("optimizer", "newton", "one of sgd, momentum, rmsprop, adam"),
    ("policy_optimizer", "", "one of sgd, momentum, rmsprop, adam"),
    ("neuron", "hard", "one of straight-through, straight-through-with-slope, noisy-rectifier"),
    ("improvement_threshold", 0, "greater than 0 and at most 1"),
    ("improvement_threshold", 1.001, "greater than 0 and at most 1"),
    ("n_units", (), WIDTHS),
    ("n_units", (500, 0), WIDTHS),
    ("n_units", (-1,), WIDTHS),
    ("n_units", (500, MOST_UNITS + 1), WIDTHS),
    *[(name, "Tanh", "one of tanh, sigmoid, relu") for name in ("activation", "second_activation")],
    ("second_units", (500, 0), WIDTHS),
    ("l2_of", "cubes", "one of squares, norms"),
    ("schedule", "linear", "one of exponential, cosine"),
    ("loss_reduction", "max", "one of sum, mean"),
    ("gate", "gaussian", "one of sigmoid-bernoulli, uniform"),
    ("penalty", "l1", "one of kl, mean-kl, active-units, compute-time"),
    ("min_rate", 1, "0 or more and less than 1"),
    ("min_rate", -0.1, "0 or more and less than 1"),
    ("estimator", "pullback", "one of reinforce, leave-one-out, self-critical, arm, disarm"),
    ("policy_rank", -1, "0 or more"),
    ("n_masks", 1, "2 or more"),
    ("damping", 0, "greater than 0"),
    ("matures_with", "dropout", "one of all-units, random-masks"),
    ("product", "Lop", "one of pullback, jacobian, pushforward, surrogate"),
    (
        "baseline",
        "median",
        "one of none, batch-mean, leave-one-out-mean",
    ),
    ("baseline_learning_rate", 2, "0 or more and less than 2"),
    ("baseline_learning_rate", -0.1, "0 or more and less than 2"),
    ("kl_gradient", "", "one of total, score"),
    ("evaluation_rule", "mode", "one of "),
    ("block_state", "median", "one of mean, max"),
    ("beta_on", "units", "one of logit, weights"),
    ("routing", "random", "one of gibbs, uniform"),
    ("score", "none", "one of all, policies"),
    ("population", -1, "0 or more"),
    ("search_std", 0, "greater than 0 and at most 10"),
]
WRONG_TYPES = {
    float: ((math.nan, math.inf, -math.inf, True, None, "0.1", [0.1], 1j, 10**400), "a finite"),
    int: ((1.5, math.nan, math.inf, True, None, "20", [20]), "a whole number"),
    str: ((None, 1, b"tanh", ["tanh"]), "text"),
    bool: ((1, "no", None), "true or false"),
    tuple[int, ...]: (
        (500, "500", (500.5,), (math.nan,), (math.inf,), (None,), ("500",), (True,)),
        "whole numbers with commas between them (such as 800,800)",
    ),
}


@pytest.mark.parametrize(
    ("cls", "name", "value", "mend"),
    [(cls, *row) for cls in ALL for row in OUT_OF_RANGE if row[0] in fields_of(cls)],
)
def test_values_out_of_range_are_refused(cls, name, value, mend):
    """The sentence names the field, what it may be, and what was given."""
    with pytest.raises(ExperimentError) as error:
        cls(**{name: value})
    check_sentence(error, f"{name} must be {mend}", ", not ")


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.system)
def test_values_of_another_type_are_refused(cls):
    """Every field of every system, with the same kind of sentence."""
    for field in dataclasses.fields(cls):
        values, mend = WRONG_TYPES[field.type]
        for value in values:
            with pytest.raises(ExperimentError) as error:
                cls(**{field.name: value})
            check_sentence(error, f"{field.name} must be {mend}", f", not {value!r}")


@pytest.mark.parametrize("module", SYSTEMS.values(), ids=SYSTEMS)
def test_every_restricted_field_is_tested(module):
    """Only names, booleans, the shift and factor of standout, and dasNet's file may be anything."""
    restricted = {
        field.name for field in dataclasses.fields(module.Settings) if field.type is not bool
    } - {"name", "alpha", "beta", "cnn"}
    assert restricted <= {name for name, _, _ in OUT_OF_RANGE}


def unspaced(text):
    """Return the text without spaces: lines may break at hyphens too."""
    return "".join(text.split())


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.system)
def test_fields_are_documented_where_they_are_declared(cls):
    """And the docstring lists them all, each with its default and its text, in order."""
    text = inspect.getdoc(cls)
    entries = re.findall(r"^(\w+) : (.*), default (.*)$", text, flags=re.MULTILINE)
    assert [name for name, _, _ in entries] == fields_of(cls)
    for field, (_, kind, default) in zip(dataclasses.fields(cls), entries, strict=True):
        assert field.metadata["text"] and unspaced(field.metadata["text"]) in unspaced(text)
        assert kind and cls().replace(**{field.name: default}) == cls()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_units", "800,800", (800, 800)),
        ("n_units", "500", (500,)),
        ("n_units", "5, 6,7", (5, 6, 7)),
        ("shuffle", "false", False),
        ("shuffle", "No", False),
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
    found = getattr(policy.Settings().replace(**{name: text}), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "mend"),
    [
        ("n_units", "", "whole numbers with commas between them (such as 800,800)"),
        ("n_units", "800x800", "whole numbers with commas between them (such as 800,800)"),
        ("n_units", "800,", "whole numbers with commas between them (such as 800,800)"),
        ("n_units", "0", "one width or more, each from 1 to"),
        ("shuffle", "maybe", "true or false"),
        ("shuffle", "1", "true or false"),
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
        policy.Settings().replace(**{name: text})
    check_sentence(error, f"{name} must be {mend}", ", not ")


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.system)
@pytest.mark.parametrize("name", ["n_unit", "self", "policy"])
def test_unknown_fields_are_refused(cls, name):
    """The sentence names the system and lists its fields."""
    for make in (
        lambda fields: cls().replace(**fields),
        lambda fields: systems.from_dict({"system": cls.system} | fields),
    ):
        with pytest.raises(ExperimentError) as error:
            make({name: "1"})
        check_sentence(error, f"the system {cls.system} has no field {name!r}")
        check_sentence(error, ", ".join(fields_of(cls)))


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (plain.Settings, "lam"),
        (plain.Settings, "evaluation_rule"),
        (policy.Settings, "instances_per_block"),
        (policy.Settings, "alpha"),
        (standout.Settings, "q"),
    ],
)
def test_a_field_of_another_system_is_unknown(cls, name):
    """No preset sets a field that has no effect."""
    with pytest.raises(ExperimentError) as error:
        cls().replace(**{name: "1"})
    check_sentence(error, f"the system {cls.system} has no field '{name}'; its fields are name, ")


def test_replace_leaves_the_original():
    """And every other field."""
    first = systems.preset("policy-800-800")
    second = first.replace(q=0.3, seed="7")
    assert (first.q, first.seed) == (0.1, 1)
    assert first.differences(second) == {"q": (0.1, 0.3), "seed": (1, 7)}
    assert first.differences(first) == {}


def test_differences_of_two_systems():
    """A field of only one of them is None in the other, and the system is named."""
    found = plain.Settings().differences(standout.Settings(alpha=2))
    assert found == {
        "system": ("plain", "standout"),
        "alpha": (None, 2.0),
        "beta": (None, 1.0),
        "beta_on": (None, "logit"),
        "evaluation_rule": (None, "expected"),
    }


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.system)
def test_frozen(cls):
    """No field changes once chosen; equal experiments are equal, and can be looked up."""
    experiment = cls()
    for name in fields_of(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(experiment, name, getattr(experiment, name))
    assert experiment == cls() and hash(experiment) == hash(cls())
    assert experiment != cls(seed=2)


@pytest.mark.parametrize("name", list(systems.PRESETS))
def test_round_trip(name):
    """`as_dict` holds what JSON keeps, to the last digit, and `from_dict` undoes it."""
    experiment = systems.preset(name).replace(l2=0.1 + 0.2, seed=2**40, shuffle=True)
    written = experiment.as_dict()
    assert list(written) == ["system", *fields_of(type(experiment))]
    assert written["n_units"] == list(experiment.n_units)
    assert json.loads(json.dumps(written)) == written
    again = systems.from_dict(json.loads(json.dumps(written)))
    assert again == experiment and type(again) is type(experiment)


def test_values_take_the_type_of_their_field():
    """Whole numbers for floats, NumPy's numbers and lists are converted."""
    experiment = policy.Settings(
        lam=0, learning_rate=np.float32(0.5), batch_size=np.int64(7), n_units=[np.int64(4), 5.0]
    )
    for name, value in (("lam", 0.0), ("learning_rate", 0.5), ("batch_size", 7)):
        found = getattr(experiment, name)
        assert found == value and type(found) is type(value)
    assert experiment.n_units == (4, 5) and {type(n) for n in experiment.n_units} == {int}
    experiment.as_dict()


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"instances_per_block": 21}, ["instances_per_block is 21", "20 or less", "batch_size"]),
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
    """One sentence says which fields, and what to set."""
    with pytest.raises(ExperimentError) as error:
        block_policy.Settings(**fields)
    check_sentence(error, *parts)


@pytest.mark.parametrize(
    "fields",
    [
        {"instances_per_block": 19},
        {"instances_per_block": 20, "baseline": "moving-average"},
        {"instances_per_block": 20, "baseline": "none"},
        {"instances_per_block": 20, "gate": "uniform"},
        {"batch_size": 1},
        {"units_per_block": 10_000},
    ],
    ids=str,
)
def test_blocks_that_go_with_the_rest(fields):
    """The same rules refuse nothing else."""
    assert block_policy.Settings(**fields).as_dict().items() >= fields.items()


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.system)
def test_the_largest_seed_that_a_record_can_hold(cls):
    assert cls(seed=2**64 - 1).seed == 2**64 - 1


def test_seeds_are_independent_and_depend_on_the_seed_alone():
    """One stream a purpose, the same in every system."""
    states = [
        [np.random.default_rng(seed).random() for seed in cls(seed=s).seeds()]
        for s in (1, 2)
        for cls in ALL
    ]
    assert len({tuple(draws) for draws in states}) == 2
    assert len({draw for draws in states for draw in draws}) == 2 * len(states[0])


def test_settings_of_ones_own():
    """A field is declared once: type, default, check and text in one place."""
    table = {"a": 1}

    @settings
    class Own(Experiment):
        """Settings of my own."""

        system: ClassVar[str] = "own"
        depth: int = setting(3, at_least(2), "How deep it is.")
        kind: str = setting("a", one_of(table), "Which kind it is.")

    assert Own().replace(depth="4").as_dict() == {**Own().as_dict(), "depth": 4}
    assert "depth : a whole number, default 3\n    How deep it is." in inspect.getdoc(Own)
    assert inspect.getdoc(Own).startswith("Settings of my own.\n\nParameters\n")
    with pytest.raises(ExperimentError) as error:
        Own(depth=1)
    check_sentence(error, "depth must be 2 or more, not 1")
    with pytest.raises(ExperimentError) as error:
        Own(kind="b")
    check_sentence(error, "kind must be one of a, not 'b'")
    table["b"] = 2  # a row added later counts
    assert Own(kind="b").kind == "b"
    with pytest.raises(TypeError):
        Own("custom")  # by name only: a later field may come before another
