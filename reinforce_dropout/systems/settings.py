"""Settings: the choices of a run, each with its type, default, check and text in one place.

A system declares a dataclass that extends `Experiment`::

    @settings
    class Settings(Experiment):
        '''Settings of the system.'''

        system: ClassVar[str] = "mine"
        lam: float = setting(0.0, at_least(0), "Trade-off lambda of eq. (6).")
"""

import dataclasses
import json
import math
import textwrap
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, dataclass_transform

import numpy as np

from reinforce_dropout.errors import ExperimentError


class Check(NamedTuple):
    """What a field allows: ``test(value) -> bool``, and ``words() -> str`` after "must be"."""

    test: Callable[[Any], bool]
    words: Callable[[], str]


def at_least(least):
    """Allow numbers from `least` on."""
    return Check(lambda v: v >= least, lambda: f"{least} or more")


def positive():
    """Allow numbers above 0."""
    return Check(lambda v: v > 0, lambda: "greater than 0")


def less_than(limit, written):
    """Allow numbers from 0 on, below `limit`, which the message shows as it is `written`."""
    return Check(lambda v: 0 <= v < limit, lambda: f"0 or more and less than {written}")


def positive_at_most(most):
    """Allow positive numbers up to `most`."""
    return Check(lambda v: 0 < v <= most, lambda: f"greater than 0 and at most {most:g}")


def fraction():
    """Allow numbers between 0 and 1, both excluded."""
    return Check(lambda v: 0 < v < 1, lambda: "between 0 and 1, both excluded")


def widths():
    """Allow one positive whole number or more."""
    return Check(
        lambda v: len(v) > 0 and 0 < min(v) and max(v) <= MOST_UNITS,
        lambda: f"one width or more, each from 1 to {MOST_UNITS} (such as 800,800)",
    )


def one_of(choices):
    """Allow the keys of a table, including keys that are added later."""
    return Check(lambda v: v in choices, lambda: f"one of {', '.join(choices)}")


def anything():
    """Allow every value of the type."""
    return Check(lambda v: True, lambda: "anything")


MOST_UNITS = 100_000
"""The widest layer. Its weights for 784 inputs take 300 MB."""


_KINDS: dict[Any, str] = {
    bool: "true or false",
    str: "text",
    int: "a whole number",
    float: "a finite number",
    tuple[int, ...]: "whole numbers with commas between them (such as 800,800)",
}


def as_text(value):
    """Write a field's value as ``--set`` takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def setting(default: Any, check: Check, text: str) -> Any:
    """Declare a field: default value, `Check`, and what it means."""
    return dataclasses.field(default=default, metadata={"check": check, "text": text})


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type) -> type:
    """Make a frozen dataclass of a class, and list its fields in its docstring."""
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    lines = ["", "", "Parameters", "----------"]
    for field in dataclasses.fields(cls):
        lines.append(f"{field.name} : {_KINDS[field.type]}, default {as_text(field.default)}")
        lines += textwrap.wrap(
            field.metadata["text"], 92, initial_indent="    ", subsequent_indent="    "
        )
    cls.__doc__ = "\n".join([(cls.__doc__ or "").strip(), *lines[1:]])
    return cls


class Seeds(NamedTuple):
    """One seed for each purpose, so the draws for one purpose do not change those for another.

    The purposes are the initial parameters, the masks in training, the order of the examples, and
    the masks in evaluation.
    """

    init: np.random.SeedSequence
    masks: np.random.SeedSequence
    order: np.random.SeedSequence
    evaluation: np.random.SeedSequence


@settings
class Experiment:
    """Settings of every system: data, length, early stopping and seed.

    Raises `ExperimentError` if a value is not allowed, or does not fit another one.

    Examples
    --------
    >>> from reinforce_dropout import preset
    >>> experiment = preset("policy-500").replace(lam=0.001, n_units="300,300")
    >>> experiment.n_units, experiment.differences(preset("policy-500"))["lam"]
    ((300, 300), (0.001, 0.0))
    """

    system: ClassVar[str]

    name: str = setting("custom", anything(), "Name of the preset, or of one's own experiment.")
    batch_size: int = setting(20, at_least(1), "Examples in a mini-batch; 20 (section 4).")
    shuffle: bool = setting(
        False,
        anything(),
        "Whether the training examples are put in a new order every epoch. The tutorials keep the "
        "order of the file. Choose true for data that is sorted by class.",
    )
    n_epochs: int = setting(1000, at_least(1), "At most so many epochs; 1000 (section 4).")
    patience: int = setting(
        10_000,
        at_least(1),
        "Updates that are always done, see `early_stopping.Patience`. The paper says 'early "
        "stopping' only; the rule and its numbers are the tutorials'.",
    )
    patience_increase: float = setting(
        2.0, at_least(1), "Factor on the updates done at a significant improvement."
    )
    improvement_threshold: float = setting(
        0.995, positive_at_most(1), "An error below this part of the best is significant."
    )
    validation_fraction: float = setting(
        1 / 6,
        fraction(),
        "Part of the training examples, from the end, that is kept for validation. Open; 1/6 gives "
        "the tutorials' split of MNIST: 50 000, 10 000 and 10 000.",
    )
    evaluate_all: bool = setting(
        False,
        anything(),
        "Whether the test set and all evaluation rules are evaluated after every epoch. Otherwise "
        "they are where the validation error is the lowest so far, and after the last epoch.",
    )
    test_fraction: float = setting(
        1 / 7,
        fraction(),
        "Part of all examples, from the end, that is kept for testing if the data has no test set. "
        "1/7 is MNIST's.",
    )
    split_at_random: bool = setting(
        False,
        anything(),
        "Whether validation and test examples are drawn at random instead of taken from the end. "
        "The draw is the same for every seed. Choose true for data that is sorted by class.",
    )
    seed: int = setting(
        1,
        less_than(2**64, "2**64"),
        "Of all random draws: initial parameters, masks, order of the examples, evaluation.",
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _typed(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            check = field.metadata["check"]
            if not check.test(value):
                raise ExperimentError(f"{field.name} must be {check.words()}, not {value!r}.")
        self.check()

    def check(self) -> None:
        """Raise ExperimentError if fields do not fit each other."""

    @property
    def first_counted_epoch(self) -> int:
        """The epoch from which validation errors count, for early stopping and the best model."""
        return 1

    def seeds(self) -> Seeds:
        """Return the seeds of the independent streams of random draws."""
        return Seeds(*np.random.SeedSequence(self.seed).spawn(len(Seeds._fields)))

    def replace(self, /, **changes: Any) -> Self:
        """Return the experiment with some fields changed.

        Values may also be text, as on the command line.

        Raises
        ------
        ExperimentError
            The system has no such field, or a value is not allowed.
        """
        fields = {f.name: f for f in dataclasses.fields(self)}
        for name in changes.keys() - fields.keys():
            raise ExperimentError(
                f"the system {self.system} has no field {name!r}; its fields are "
                f"{', '.join(fields)}."
            )
        parsed = {
            name: _parsed(fields[name], value) if isinstance(value, str) else value
            for name, value in changes.items()
        }
        return dataclasses.replace(self, **parsed)

    def as_dict(self) -> dict[str, Any]:
        """Return the system's name and all fields as plain values that JSON keeps."""
        return {"system": self.system, **json.loads(json.dumps(dataclasses.asdict(self)))}

    def differences(self, other: "Experiment") -> dict[str, tuple]:
        """Return ``{field: (own value, other's value)}`` where two experiments differ.

        A field that an experiment lacks counts as None.
        """
        own, others = self.as_dict(), other.as_dict()
        names = own | others
        return {k: (own.get(k), others.get(k)) for k in names if own.get(k) != others.get(k)}


def _typed(field, value):
    """Return `value` in the field's type; refuse a conversion that would lose something."""
    kind = field.type
    try:
        if kind is bool and isinstance(value, bool):
            return value
        if kind is str and isinstance(value, str):
            return value
        if kind is int and not isinstance(value, bool) and int(value) == value:
            return int(value)
        if kind is float and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if kind == tuple[int, ...] and all(not isinstance(v, bool) and int(v) == v for v in value):
            return tuple(int(v) for v in value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ExperimentError(f"{field.name} must be {_KINDS[kind]}, not {value!r}.")


def _parsed(field, text):
    """Read the value of a field from text, as typed on a command line."""
    kind = field.type
    try:
        if kind is bool:
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        if kind == tuple[int, ...]:
            return tuple(int(part) for part in text.split(","))
        return kind(text)
    except (KeyError, ValueError):
        raise ExperimentError(f"{field.name} must be {_KINDS[kind]}, not {text!r}.") from None
