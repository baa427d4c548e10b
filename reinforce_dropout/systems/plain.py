"""The plain network of section 4: a multilayer perceptron without policies.

The paper takes its settings from the multilayer-perceptron chapter of the Theano "Deep Learning
Tutorials". So we follow these tutorials where the paper leaves something open.
"""

from functools import partial
from typing import ClassVar

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout import costs
from reinforce_dropout.algorithm import backpropagation_updates, training_step
from reinforce_dropout.layers import ACTIVATIONS
from reinforce_dropout.network import forward, multilayer_perceptron
from reinforce_dropout.systems import descent
from reinforce_dropout.systems.settings import (
    Experiment,
    at_least,
    less_than,
    one_of,
    setting,
    settings,
    widths,
)
from reinforce_dropout.systems.system import System, by_name

LOSS_REDUCTIONS = {"sum": pt.sum, "mean": pt.mean}
L2_PENALTIES = {"squares": costs.l2, "norms": costs.l2_norms}


@settings
class Settings(Experiment):
    """Settings of a multilayer perceptron that learns by back-propagation."""

    system: ClassVar[str] = "plain"

    n_units: tuple[int, ...] = setting(
        (500,), widths(), "Widths of the hidden layers. Input and output follow from the data."
    )
    activation: str = setting(
        "tanh",
        one_of(ACTIVATIONS),
        "Of the hidden units. Open in the paper; tanh is what the tutorials use.",
    )
    loss_reduction: str = setting(
        "sum",
        one_of(LOSS_REDUCTIONS),
        "How the network's loss reduces the nll over a mini-batch. The paper does not say. The sum "
        "reproduces its error rates; the mean with the paper's L2 penalty does not come near them.",
    )
    learning_rate: float = setting(
        0.01, at_least(0), "Of the network's parameters; 0.01 (section 4), throughout."
    )
    l2: float = setting(
        0.001, at_least(0), "Coefficient of the L2 penalty on the weights; 0.001 (section 4)."
    )
    l2_of: str = setting(
        "squares",
        one_of(L2_PENALTIES),
        "What the penalty sums: squared weights, or the norms of the weight matrices. Open; "
        "squares are what the tutorials take.",
    )
    optimizer: str = setting(
        "sgd",
        one_of(descent.OPTIMIZERS),
        "How the network's parameters descend, see `updates`. The paper's way is plain gradient "
        "descent.",
    )
    momentum: float = setting(
        0.9,
        less_than(1, "1"),
        "Weight of the past steps with the optimizer momentum, and of the past gradients with "
        "adam. A schedule ends with it.",
    )
    schedule_epochs: int = setting(
        0,
        at_least(0),
        "Length of the schedule of rates and momentum, see `systems.descent`. A run ends with it. "
        "With 0 both are constant.",
    )
    schedule: str = setting(
        "exponential",
        one_of(descent.SCHEDULES),
        "How rates fall in schedule_epochs: exponentially, while momentum grows, as in Hinton et "
        "al. (2012), or along half a cosine.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.schedule_epochs:
            object.__setattr__(self, "n_epochs", min(self.n_epochs, self.schedule_epochs))


def perceptron(settings, image_shape, n_classes, rng):
    """Return the layers of the experiment's network, without gates."""
    all_widths = (int(np.prod(image_shape)), *settings.n_units, n_classes)
    return multilayer_perceptron(rng, all_widths, ACTIVATIONS[settings.activation])


def learn_network(settings, pace=None):
    """Return ``learn(network, passed, nll) -> updates``: back-propagation.

    `pace` is a `descent.Pace`, by default the constant one.
    """
    pace = pace or descent.constant(settings)

    def learn(network, passed, nll):
        return backpropagation_updates(
            network,
            nll,
            reduce=LOSS_REDUCTIONS[settings.loss_reduction],
            l2=settings.l2,
            descend=pace.descend(settings.optimizer, settings.learning_rate),
            penalty=L2_PENALTIES[settings.l2_of],
        )

    return learn


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    network = perceptron(
        settings, image_shape, n_classes, np.random.default_rng(settings.seeds().init)
    )
    pace = descent.pace(settings)
    return System(
        parameters=by_name(network.params),
        step=partial(training_step, network, learn=learn_network(settings, pace)),
        predict={"all units": partial(forward, network)},
        schedule=pace.schedule,
    )


TRAINING = PREDICTION = {"dense": build}

PRESETS = (
    Settings(name="baseline-500"),
    # With what condnet is compared: as many units, and about as many multiplications.
    Settings(name="plain-256", n_units=(256,)),
    Settings(name="plain-32", n_units=(32,)),
)
