"""Dropout (Hinton et al., 2012): units are dropped at random, with the paper's own update.

In training each hidden unit takes part with probability 0.5 and, in the nets "with input dropout",
each pixel with 0.8. Nothing is rescaled. At test time the "mean network" decides: all units, their
outgoing weights times the probability. That is the rule "expected" here, because a factor on the
unit is a factor on its outgoing weights. The columns of ``active_fraction`` and ``policy_entropy``
are one for each layer that drops, the pixels first.

The update is `updates.momentum` of the mean loss over 100 images, with the schedule of
`systems.descent`. After it, incoming weights of a hidden unit whose squared length exceeds 15 are
scaled back (`updates.max_norm`). Biases are free, and there is no weight decay.

The paper leaves the hidden units' function open. The first rate of 10 suits logistic units;
rectified linear ones need about 1 (``--set activation=relu --set learning_rate=1``).

Two things differ from the paper. It trains on all 60 000 images for 3000 epochs and takes the last
model. Here a sixth is kept for validation, and the model with the lowest validation error of all
epochs is taken. The patience is so large that no run stops early.

The schedule is the paper's in any number of epochs: ``--set schedule_epochs=300`` trains for 300,
with the same rates and momenta at the same part of the run.
"""

from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np

from reinforce_dropout.algorithm import training_step
from reinforce_dropout.gates import uniform
from reinforce_dropout.initializers import gaussian, parameter
from reinforce_dropout.layers import ACTIVATIONS
from reinforce_dropout.network import Network, expected, forward, multilayer_perceptron, sampled
from reinforce_dropout.systems import descent, plain
from reinforce_dropout.systems.settings import (
    at_least,
    one_of,
    positive_at_most,
    setting,
    settings,
)
from reinforce_dropout.systems.system import System, by_name
from reinforce_dropout.updates import max_norm

PASSES = {"expected": expected, "sampled": sampled}
"""Rules by name. The most probable masks would say nothing, because all units have one rate."""


class Pixels(NamedTuple):
    """The images as they are: a layer without parameters, whose gate drops pixels."""

    params = ()
    weights = ()

    def __call__(self, x):
        """Return the images `x` (m_b, n_in)."""
        return x


@settings
class Settings(plain.Settings):
    """Settings of a network with dropout."""

    system: ClassVar[str] = "dropout"

    hidden_keep: float = setting(
        0.5, positive_at_most(1), "Probability that a hidden unit takes part; 0.5 in the paper."
    )
    input_keep: float = setting(
        1.0, positive_at_most(1), "Probability that a pixel takes part; 0.8 with input dropout."
    )
    max_squared_norm: float = setting(
        15.0,
        at_least(0),
        "Largest squared length of a hidden unit's incoming weights; 15 in the paper, 0 for none.",
    )
    initial_std: float = setting(
        0.01, at_least(0), "Standard deviation of the initial weights; 0.01 in the paper."
    )
    evaluation_rule: str = setting(
        "expected", one_of(PASSES), "Where the masks come from when a model is judged."
    )


def keeping(rate, n_units, name):
    """Return a gate that lets every unit take part at a rate, or None at 1."""
    return None if rate == 1 else uniform(None, None, n_units, name, rate)


def perceptron(settings, image_shape, n_classes, rng):
    """Return the network: its lowest layer are the pixels, and all have gates where units drop."""
    n_in = int(np.prod(image_shape))
    all_widths = (n_in, *settings.n_units, n_classes)
    network = multilayer_perceptron(
        rng, all_widths, ACTIVATIONS[settings.activation], gaussian(settings.initial_std)
    )
    hidden = enumerate(settings.n_units, start=1)
    return network._replace(
        layers=[Pixels(), *network.layers],
        gates=[
            keeping(settings.input_keep, n_in, "in"),
            *(keeping(settings.hidden_keep, n_units, str(i)) for i, n_units in hidden),
        ],
    )


def learn_network(settings, pace):
    """Return ``learn(network, passed, nll) -> updates``: a step, and the limit on the weights."""
    descend = plain.learn_network(settings, pace)

    def learn(network, passed, nll):
        updates = descend(network, passed, nll)
        if settings.max_squared_norm == 0:
            return updates
        hidden = [W for layer in network.layers for W in layer.weights]
        return max_norm(updates, hidden, settings.max_squared_norm)

    return learn


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    return _built(settings, image_shape, n_classes)[0]


def _built(settings, image_shape, n_classes):
    """Return the system, and its network."""
    rng = np.random.default_rng(settings.seeds().init)
    network, pace = perceptron(settings, image_shape, n_classes, rng), descent.pace(settings)
    system = System(
        parameters=by_name(network.params),
        step=partial(training_step, network, learn=learn_network(settings, pace)),
        predict={name: partial(forward, network, rule=rule) for name, rule in PASSES.items()},
        schedule=pace.schedule,
    )
    return system, network


def folded(network):
    """Return a copy of the mean network without gates: rates are factors of the next weights.

    Later changes of the network's parameters have no effect on it.
    """
    layers, rate = [], 1.0
    for layer, gate in zip([*network.layers, network.output], [*network.gates, None], strict=True):
        if layer.params:
            W, b = (p.get_value(borrow=True) for p in layer.params)
            W = (W.T * np.float32(rate)).T
            layers.append(
                layer._replace(W=parameter(W, layer.W.name), b=parameter(b, layer.b.name))
            )
        rate = 1.0 if gate is None else gate.family.mean(gate.policy.o).eval()
    return Network(layers[:-1], [None] * (len(layers) - 1), layers[-1])


def build_folded(settings, image_shape, n_classes):
    """Build the system whose only pass is that of the mean network, without a factor on units."""
    system, network = _built(settings, image_shape, n_classes)
    return system._replace(predict={"expected": lambda x, rng: forward(folded(network), x, rng)})


TRAINING = {"dense": build}
PREDICTION = TRAINING | {"folded": build_folded}

_CHOSEN = {
    "n_units": (800, 800),
    "loss_reduction": "mean",
    "l2": 0.0,
    "batch_size": 100,
    "shuffle": True,
    "patience": 10**9,
}
_PAPER = _CHOSEN | {
    "activation": "sigmoid",
    "learning_rate": 10.0,
    "optimizer": "momentum",
    "momentum": 0.99,
    "n_epochs": descent.EPOCHS,
    "schedule_epochs": descent.EPOCHS,
}
#: Not from the paper: a small plain network, trained as well as we can. Pixels drop, hidden units
#: do not. Of the rates 0.1, 0.3, 1 and 3, the one with the lowest validation error of 60 epochs.
SMALL = _CHOSEN | {
    "n_units": (112, 48),
    "input_keep": 0.8,
    "hidden_keep": 1.0,
    "activation": "tanh",
    "initial_std": 0.05,
    "max_squared_norm": 4.0,
    "learning_rate": 1.0,
    "optimizer": "momentum",
    "momentum": 0.9,
    "schedule": "cosine",
    "n_epochs": 60,
    "schedule_epochs": 60,
}

PRESETS = (
    # Plain gradient descent, with which the same network makes about 160 errors.
    Settings(
        name="plain-sgd-800-800",
        hidden_keep=1.0,
        max_squared_norm=0.0,
        activation="relu",
        learning_rate=0.1,
        n_epochs=100,
        **_CHOSEN,
    ),
    Settings(name="dropout-800-800", **_PAPER),
    Settings(name="dropout-input-800-800", input_keep=0.8, **_PAPER),
    Settings(name="pixel-dropout-112-48", **SMALL),
)
