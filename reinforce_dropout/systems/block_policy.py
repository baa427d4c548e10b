"""Block dropout, section 4: policies that decide for blocks of instances and groups of units.

The paper gives neither settings nor error rates for it. A dense pass multiplies by the masks. A
block-sparse pass reads no weight of a dropped unit.
"""

import dataclasses
from functools import cache, partial
from typing import ClassVar

import numpy as np

from reinforce_dropout.blocks import by_instance, training_by_instance
from reinforce_dropout.blocks import forward as block_forward
from reinforce_dropout.blocks import training as block_training
from reinforce_dropout.blocks.lists import panel_lanes
from reinforce_dropout.blocks.sharing import BLOCK_STATES, Sharing, n_groups, shared
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.network import RULES
from reinforce_dropout.systems import plain, policy
from reinforce_dropout.systems.settings import at_least, one_of, setting, settings

_OVER_THE_BATCH = ("batch-mean", "leave-one-out-mean", "batch-minimum")


@settings
class Settings(policy.Settings):
    """Settings of a network whose policies decide for blocks and groups."""

    system: ClassVar[str] = "block_policy"

    instances_per_block: int = setting(
        1,
        at_least(1),
        "Neighbouring instances of a mini-batch that share their masks, at most batch_size. The "
        "last block of a mini-batch may be shorter. The paper's speed-up is for 32.",
    )
    units_per_block: int = setting(
        1,
        at_least(1),
        "Neighbouring units of a layer that share a decision; the last group may be shorter. The "
        "authors' follow-up (arXiv 1511.06297) decides for groups.",
    )
    block_state: str = setting(
        "mean",
        one_of(BLOCK_STATES),
        "What a policy sees of a block's instances. Open in the paper. The logits of the mean "
        "state are the mean of the instances' logits, so a policy that was trained for one "
        "block size has a meaning for any other. The maximum keeps a feature of one instance.",
    )

    def check(self):
        """Refuse blocks that do not fit the mini-batch or the baseline."""
        super().check()
        size = self.instances_per_block
        if size > self.batch_size:
            raise ExperimentError(
                f"instances_per_block is {size} but a mini-batch has {self.batch_size} examples: "
                f"set it to {self.batch_size} or less, or raise batch_size."
            )
        one_block = 1 < size == self.batch_size
        if one_block and self.gate != "uniform" and self.baseline in _OVER_THE_BATCH:
            raise ExperimentError(
                f"with one block a mini-batch, baseline={self.baseline} is the block's own cost, "
                "of which nothing is learned: set baseline=moving-average or raise batch_size."
            )


def in_blocks(experiment, instances):
    """Return `Settings` with blocks of so many instances, or of the size of training if None.

    A policy decides from one state: that of an instance, or of a block of any size.

    Raises
    ------
    ExperimentError
        The experiment's system has no policies that could decide for blocks.
    """
    if not isinstance(experiment, policy.Settings):
        dense = " and the execution dense" if instances is None else ""
        raise ExperimentError(
            f"the system {experiment.system} has no policies that decide for blocks: leave "
            f"instances_per_block out{dense}."
        )
    fields = dataclasses.asdict(experiment)
    if instances is not None:
        # Settings that matter only in training must not refuse the size.
        fields |= {"instances_per_block": instances, "batch_size": instances, "baseline": "none"}
    return Settings(**fields)


def _network(settings, image_shape, n_classes):
    """Return the network with gates for single states, and the `Sharing` of their decisions."""
    rng = np.random.default_rng(settings.seeds().init)
    units = settings.units_per_block
    sharing = Sharing(settings.instances_per_block, units, settings.block_state)
    network = plain.perceptron(settings, image_shape, n_classes, rng)
    return policy.with_gates(network, settings, rng, lambda n: n_groups(n, units)), sharing


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    return _system(*_network(settings, image_shape, n_classes), settings)


def _system(single, sharing, settings):
    """Return the system whose masks are factors, from gates for single states."""
    gates = zip(single.gates, settings.n_units, strict=True)
    network = single._replace(gates=[shared(gate, sharing, n) for gate, n in gates])
    return policy.dense(network, settings)._replace(together=settings.instances_per_block)


def build_training(settings, image_shape, n_classes):
    """Build the system with a training step that touches only the units in use.

    Raises
    ------
    ExperimentError
        A mini-batch is not one block, and instances have no masks over whole lines of the cache;
        steps depend on earlier ones or on the epoch; or the L2 penalty would reverse the sign of
        weights.
    """
    _check_steps(settings)
    single, sharing = _network(settings, image_shape, n_classes)
    if 1 < settings.instances_per_block == settings.batch_size:
        training_step = block_training.training_step
    else:
        _check_groups(settings, training_by_instance.suits(single, sharing))
        training_step = training_by_instance.training_step
    step = partial(
        training_step,
        single,
        sharing,
        learn=policy.learn_both(settings),
        shrinkage=_shrinkage(settings),
    )
    return _system(single, sharing, settings)._replace(step=step)


def _shrinkage(settings):
    """Return what the L2 penalty multiplies every weight by in a step."""
    return 1 - 2 * settings.learning_rate * settings.l2


def _check_steps(settings):
    """Refuse steps that touch more than the units in use, or that depend on earlier steps."""
    if settings.l2_of != "squares":
        raise ExperimentError(
            f"block-sparse training shrinks the weights by a factor, which l2_of={settings.l2_of} "
            "does not do: set l2_of=squares, or leave the execution dense."
        )
    if settings.optimizer != "sgd" or settings.schedule_epochs:
        raise ExperimentError(
            "block-sparse training takes plain steps at one rate: set optimizer=sgd and "
            "schedule_epochs=0, or leave the execution dense."
        )
    if settings.estimator != "reinforce" or settings.baseline == "learned":
        raise ExperimentError(
            "block-sparse training knows only the units in use: set estimator=reinforce and a "
            "baseline that is not learned, or leave the execution dense."
        )
    if settings.policy_from_epoch > 1 or settings.policy_every > 1 or settings.freeze_network:
        raise ExperimentError(
            "block-sparse training knows no maturation: leave policy_from_epoch, policy_every and "
            "freeze_network out, or the execution dense."
        )
    if _shrinkage(settings) <= 0:
        raise ExperimentError(
            "block-sparse training needs 2 * learning_rate * l2 below 1: lower learning_rate or l2."
        )


def _check_groups(settings, suits):
    """Refuse masks for every instance that `training_by_instance` cannot learn."""
    size, lanes = settings.batch_size, panel_lanes("float32")
    if settings.instances_per_block > 1 or settings.units_per_block % lanes:
        raise ExperimentError(
            "block-sparse training needs mini-batches of one block, or groups of units for every "
            f"instance: set instances_per_block to batch_size ({size}), or to 1 with "
            f"units_per_block a multiple of {lanes}, or leave the execution dense."
        )
    if not suits:
        raise ExperimentError(
            "block-sparse training with masks for every instance needs policies that begin with a "
            "product: set gate=sigmoid-bernoulli, or leave the execution dense."
        )
    if settings.policy_optimizer != "sgd" or settings.natural_gradient:
        raise ExperimentError(
            "block-sparse training with masks for every instance moves the policies by plain "
            "steps: set policy_optimizer=sgd and natural_gradient=false, or leave the execution "
            "dense."
        )


def build_prediction(settings, image_shape, n_classes):
    """Build the system with passes that read no weight of a dropped unit.

    Groups of single instances have a faster way than blocks, see `blocks.by_instance`.
    The expected rule drops nothing, so its pass stays dense. The first pass that is built copies
    the weights, and later changes have no effect.
    """
    single, sharing = _network(settings, image_shape, n_classes)
    dense = _system(single, sharing, settings)
    if by_instance.suits(single, sharing):
        copy, walk = by_instance.listed, by_instance.forward
    else:
        copy, walk = block_forward.block_sparse, block_forward.forward
    sparse = cache(partial(copy, single, sharing))

    def predict(x, rng, rule):
        return walk(sparse(), x, rng, rule)

    skipping = {name: partial(predict, rule=RULES[name]) for name in ("sampled", "thresholded")}
    return dense._replace(predict=dense.predict | skipping)


TRAINING = {"dense": build, "block-sparse": build_training}
PREDICTION = {"dense": build, "block-sparse": build_prediction}

_CHOSEN = {
    # Chosen on validation data, in runs of 30 epochs with another seed. A mini-batch gives one
    # decision to learn from instead of twenty. So units form groups, and the policy learns faster.
    # Without a signal a policy drifts to q. With a low q such a unit is off instead of random.
    "n_units": (800, 800),
    "instances_per_block": 20,
    "units_per_block": 16,
    "baseline": "moving-average",
    "policy_learning_rate": 0.1,
    "lam": 0.0025,
    "q": 0.02,
}

PRESETS = (
    Settings(name="block-800-800", **_CHOSEN),
    # What the policy has to beat: dropout at about the same rate, which does not look at the image.
    Settings(name="uniform-block-800-800", gate="uniform", initial_rate=0.13, **_CHOSEN),
    # Masks for every instance over groups that fill a line of the cache: trained and run with
    # `--execution block-sparse`, they are faster than the dense network. Six pairs of lambda and
    # policy rate were tried for 60 epochs. This one used a tenth of the units, with a validation
    # error near the lowest.
    Settings(
        name="group-800-800",
        kl_gradient="total",
        **_CHOSEN | {"instances_per_block": 1, "lam": 0.003, "q": 0.1},
    ),
    # The same masks learn straight through, and pay for the time. The network descends as that of
    # the preset pixel-dropout-112-48. Two settings were tried for 40 epochs.
    Settings(
        name="straight-through-group-800-800",
        n_units=(800, 800),
        units_per_block=16,
        estimator="straight-through-with-slope",
        penalty="compute-time",
        lam=0.3,
        min_rate=0.01,
        policy_learning_rate=0.3,
        learning_rate=1.0,
        loss_reduction="mean",
        l2=0.0,
        batch_size=100,
        shuffle=True,
        optimizer="momentum",
        policy_optimizer="momentum",
        schedule="cosine",
        schedule_epochs=40,
        n_epochs=40,
        patience=10**9,
        evaluation_rule="thresholded",
    ),
)
