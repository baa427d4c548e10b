"""Everything that is chosen in a run, in one frozen dataclass, and the paper's presets."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reinforce_dropout.baselines import BASELINES
from reinforce_dropout.blocks import BLOCK_STATES
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.layers import ACTIVATIONS
from reinforce_dropout.network import MASK_RULES

# What a field may be, beside its type: (test, in words).
_POSITIVE = (lambda v: v > 0, "greater than 0")
_NOT_NEGATIVE = (lambda v: v >= 0, "0 or more")
_FRACTION = (lambda v: 0 < v < 1, "between 0 and 1, both excluded")
_AT_LEAST_1 = (lambda v: v >= 1, "1 or more")
_RANGES = {
    "learning_rate": _NOT_NEGATIVE,
    "policy_learning_rate": _NOT_NEGATIVE,
    "l2": _NOT_NEGATIVE,
    "lam": _NOT_NEGATIVE,
    "q": _FRACTION,
    "initial_rate": _FRACTION,
    "baseline_decay": (lambda v: 0 <= v < 1, "0 or more and less than 1"),
    "batch_size": _AT_LEAST_1,
    "instances_per_block": _AT_LEAST_1,
    "units_per_block": _AT_LEAST_1,
    "n_epochs": _AT_LEAST_1,
    "patience": _AT_LEAST_1,
    "patience_increase": _AT_LEAST_1,
    "improvement_threshold": (lambda v: 0 < v <= 1, "greater than 0 and at most 1"),
    "validation_fraction": _FRACTION,
    "seed": (lambda v: 0 <= v < 2**64, "0 or more and less than 2**64"),
    "n_units": (
        lambda v: len(v) > 0 and min(v) > 0,
        "one width or more, each 1 or more (such as 800,800)",
    ),
}
_CHOICES = {
    "activation": tuple(ACTIVATIONS),
    "loss_reduction": ("sum", "mean"),
    "baseline": BASELINES,
    "kl_gradient": ("total", "score"),
    "evaluation_rule": tuple(MASK_RULES),
    "block_state": BLOCK_STATES,
}

_OVER_THE_BATCH = ("batch-mean", "leave-one-out-mean", "batch-minimum")


class Seeds(NamedTuple):
    """One seed a purpose, so that no purpose's draws move another's.

    Attributes
    ----------
    init, masks, order, evaluation : numpy.random.SeedSequence
        Of the initial parameters, the masks in training, the order of the examples, and the
        masks in evaluation.
    """

    init: np.random.SeedSequence
    masks: np.random.SeedSequence
    order: np.random.SeedSequence
    evaluation: np.random.SeedSequence


@dataclass(frozen=True)
class Experiment:
    """Every choice of a run; what the paper leaves open has its reason here.

    Parameters
    ----------
    name : str
        Name of the preset, or of one's own experiment.
    n_units : tuple of int
        Widths of the hidden layers. Input and output follow from the data.
    activation : {"tanh", "sigmoid", "relu"}
        Of the hidden units. Open in the paper; tanh is what the Deep Learning Tutorials use, from
        whose multilayer perceptron the paper's other settings come.
    policy : bool
        Whether the hidden layers have policies; without, it is the plain network of section 4.
    loss_reduction : {"sum", "mean"}
        How the network's loss reduces the nll over a mini-batch. The paper does not say; the sum
        reproduces its error rates, the mean with the paper's L2 penalty does not come near them.
    learning_rate : float
        Of the network's parameters; 0.01 (section 4), throughout.
    policy_learning_rate : float
        Of the policies' parameters. Open; "the same learning rates" suggests 0.01.
    l2 : float
        Coefficient of the sum of squared weights; 0.001 (section 4).
    lam : float
        Trade-off lambda of eq. (6). The paper gives 0.0001 for 800-800; for 500 units it says that
        the likelihood "should completely dominate", which 0 makes exact.
    q : float
        Target rate of eq. (5), a fraction. Open; 0.1 is the sparse end of the paper's rates.
    initial_rate : float
        Fraction of the units that take part at first; the paper says 10-15 %, the default is 12 %.
    baseline : str
        Baseline b of eq. (2), one of ``none``, ``batch-mean``, ``leave-one-out-mean``,
        ``batch-minimum``, ``moving-average``. Open; the mean of the mini-batch is the simplest that
        needs no state.
    baseline_decay : float
        Weight of the past in the moving average.
    kl_gradient : {"total", "score"}
        "total" follows the true gradient of the expected cost; "score" reads eqs. (2) and (6)
        literally, by which no layer learns from its own divergence (see `reinforce.score_cost`).
        The paper's own update is the literal one, which its preset with lambda > 0 takes.
    batch_size : int
        Examples in a mini-batch; 20 (section 4).
    shuffle : bool
        Whether the training examples are put in a new order every epoch. The tutorials keep the
        order of the file; choose true for data that is sorted by class.
    n_epochs : int
        At most; 1000 (section 4).
    patience : int
    patience_increase : float
    improvement_threshold : float
        Early stopping, in updates (mini-batches); see `early_stopping.Patience`. The paper says
        "early stopping" only; the rule and its numbers are the tutorials'.
    evaluation_rule : {"sampled", "expected", "thresholded"}
        What takes the place of the mask where a validation error decides early stopping and the
        best model, and in the tables. Open; sampled masks are what the paper trains with.
    validation_fraction : float
        Part of the training examples, from the end, that is kept for validation. Open; 1/6 gives
        the tutorials' 50 000 / 10 000 / 10 000 split of MNIST.
    seed : int
        Of all random draws: initial parameters, masks, order of the examples, evaluation.
    instances_per_block : int
        Neighbouring instances of a mini-batch that share their masks, at most `batch_size`; the
        last block of a mini-batch may be shorter. 1 is the per-instance policy of section 3, more
        is section 4's "block dropout", timed there with 32.
    units_per_block : int
        Neighbouring units of a layer that share a decision; the last group may be shorter. 1
        decides for single units, more for groups, as in the authors' follow-up (arXiv 1511.06297).
    block_state : {"mean", "max"}
        What a policy sees of a block's instances. Open in the paper; logits being affine, the
        logits of the mean state are the mean of the instances' logits, so that a policy trained
        for one block size has a meaning for any other. The maximum keeps a feature that a single
        instance of the block shows.
    uniform : bool
        Policies that neither look nor learn: ``Z`` is zero, ``o`` is set for `initial_rate`, and
        neither is updated. Ordinary (block) dropout at that rate, which learned policies have to
        beat; fields that say how policies learn then have no effect.

    Raises
    ------
    ExperimentError
        A value is out of range, or does not go with another one: blocks or uniform rates without
        policies, blocks longer than the mini-batch, a baseline that one block a mini-batch makes
        the cost itself; the message names the field and what it may be.
    """

    name: str = "custom"
    n_units: tuple[int, ...] = (500,)
    activation: str = "tanh"
    policy: bool = True
    loss_reduction: str = "sum"
    learning_rate: float = 0.01
    policy_learning_rate: float = 0.01
    l2: float = 0.001
    lam: float = 0.0
    q: float = 0.1
    initial_rate: float = 0.12
    baseline: str = "batch-mean"
    baseline_decay: float = 0.9
    kl_gradient: str = "total"
    batch_size: int = 20
    shuffle: bool = False
    n_epochs: int = 1000
    patience: int = 10_000
    patience_increase: float = 2.0
    improvement_threshold: float = 0.995
    evaluation_rule: str = "sampled"
    validation_fraction: float = 1 / 6
    seed: int = 1
    instances_per_block: int = 1
    units_per_block: int = 1
    block_state: str = "mean"
    uniform: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = _typed(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            test, words = _RANGES.get(field.name, (lambda v: True, ""))
            if not test(value):
                raise ExperimentError(f"{field.name} must be {words}, not {value!r}.")
            choices = _CHOICES.get(field.name, (value,))
            if value not in choices:
                raise ExperimentError(
                    f"{field.name} must be one of {', '.join(choices)}, not {value!r}."
                )
        _check_blocks(self)

    @property
    def n_layers(self):
        """Number of hidden layers, the paper's L."""
        return len(self.n_units)

    def seeds(self):
        """Return the seeds of the independent streams of random draws."""
        return Seeds(*np.random.SeedSequence(self.seed).spawn(len(Seeds._fields)))

    def replace(self, /, **changes):
        """Return the experiment with some fields changed.

        Values may also be given as text, as on the command line.

        Raises
        ------
        ExperimentError
            A field is unknown or a value out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(self)}
        for name in changes.keys() - fields.keys():
            raise ExperimentError(
                f"there is no field {name!r}; the fields are {', '.join(fields)}."
            )
        parsed = {
            name: _parsed(fields[name], value) if isinstance(value, str) else value
            for name, value in changes.items()
        }
        return dataclasses.replace(self, **parsed)

    def as_dict(self):
        """Return all fields as plain values that JSON keeps."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, fields):
        """Return the experiment that `as_dict` gave.

        Raises
        ------
        ExperimentError
            A field is unknown or a value out of range.
        """
        return cls().replace(**fields)

    def differences(self, other):
        """Return ``{field: (own value, other's value)}`` where two experiments differ."""
        own, others = self.as_dict(), other.as_dict()
        return {k: (own[k], others[k]) for k in own if own[k] != others[k]}


def _check_blocks(experiment):
    """Refuse fields of block dropout that do not go with the others."""
    size = experiment.instances_per_block
    if not experiment.policy and (size > 1 or experiment.units_per_block > 1 or experiment.uniform):
        raise ExperimentError(
            "instances_per_block, units_per_block and uniform are for policies: leave them out or "
            "set policy to true."
        )
    if size > experiment.batch_size:
        raise ExperimentError(
            f"instances_per_block is {size} but a mini-batch has {experiment.batch_size} examples: "
            f"set it to {experiment.batch_size} or less, or raise batch_size."
        )
    one_block = 1 < size == experiment.batch_size
    if one_block and not experiment.uniform and experiment.baseline in _OVER_THE_BATCH:
        raise ExperimentError(
            f"with one block a mini-batch, baseline={experiment.baseline} is the block's own cost, "
            "of which nothing is learned: set baseline=moving-average or raise batch_size."
        )


def _typed(field, value):
    """Return `value` in the field's type, refusing what would lose something."""
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


_KINDS = {
    bool: "true or false",
    str: "text",
    int: "a whole number",
    float: "a finite number",
    tuple[int, ...]: "whole numbers with commas between them (such as 800,800)",
}

_PRESETS = (
    Experiment(name="baseline-500", n_units=(500,), policy=False),
    Experiment(name="policy-500", n_units=(500,), lam=0.0),
    # lambda matters here, and the paper's update is (4) with C of (6): the literal reading.
    Experiment(name="policy-800-800", n_units=(800, 800), lam=0.0001, kl_gradient="score"),
)

PRESETS = {experiment.name: experiment for experiment in _PRESETS}
"""The experiments of section 4, by name."""

_BLOCK_PRESETS = (
    # Chosen on validation data, in runs of 30 epochs with another seed. Groups of units and a
    # faster policy, since a mini-batch gives one decision to learn from instead of twenty; and a
    # low q, to which a policy drifts where nothing speaks for a unit: it is off then, not on at
    # random.
    Experiment(
        name="block-800-800",
        n_units=(800, 800),
        instances_per_block=20,
        units_per_block=16,
        baseline="moving-average",
        policy_learning_rate=0.1,
        lam=0.0025,
        q=0.02,
    ),
)

BLOCK_PRESETS = {experiment.name: experiment for experiment in _BLOCK_PRESETS}
"""Block dropout, by name: the paper gives neither settings nor error rates for it."""


def preset(name):
    """Return the preset called `name`.

    Raises
    ------
    ExperimentError
        There is none of that name.
    """
    presets = PRESETS | BLOCK_PRESETS
    if name not in presets:
        raise ExperimentError(f"there is no preset {name!r}; the presets are {', '.join(presets)}.")
    return presets[name]
