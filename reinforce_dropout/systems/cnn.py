"""A small convolutional network that learns by back-propagation: what dasNet then steers.

Each hidden layer is a convolution, 2 x 2 max-pooling, a bias and rectified linear units. The last
layer, to the classes, is fully connected. On MNIST it makes about half the errors of the
multilayer perceptrons here.
"""

from functools import partial
from typing import ClassVar

import numpy as np

from reinforce_dropout.algorithm import training_step
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.layers import ACTIVATIONS, dense
from reinforce_dropout.network import Network, forward
from reinforce_dropout.systems import descent, plain
from reinforce_dropout.systems.conv import convolution
from reinforce_dropout.systems.settings import (
    Experiment,
    at_least,
    one_of,
    setting,
    settings,
    widths,
)
from reinforce_dropout.systems.system import System, by_name


@settings
class Shape(Experiment):
    """Settings of the layers."""

    n_units: tuple[int, ...] = setting(
        (16, 32), widths(), "Maps of the convolutions. Their sizes follow from the data."
    )
    kernel_size: int = setting(5, at_least(1), "Rows and columns of the patches of a convolution.")
    activation: str = setting("relu", one_of(ACTIVATIONS), "Of the maps.")


@settings
class Settings(Shape, plain.Settings):
    """Settings of a convolutional network that learns by back-propagation."""

    system: ClassVar[str] = "cnn"


def convolutional_network(settings, image_shape, n_classes):
    """Return the `Network` of `Shape` settings, without gates.

    Raises
    ------
    ExperimentError
        The examples are no images, or too small for so many convolutions.
    """
    if len(image_shape) != 2:
        raise ExperimentError(
            f"the system {settings.system} convolves images with rows and columns, and the "
            f"examples have {int(np.prod(image_shape))} features without: choose another system."
        )
    rng, shape, layers = np.random.default_rng(settings.seeds().init), (1, *image_shape), []
    for i, n_maps in enumerate(settings.n_units, start=1):
        activation = ACTIVATIONS[settings.activation]
        layer = convolution(rng, shape, n_maps, settings.kernel_size, str(i), activation)
        layers.append(layer)
        shape = layer.next_shape
        if 0 in shape:
            raise ExperimentError(
                f"nothing is left of images of {' x '.join(map(str, image_shape))} pixels after "
                f"{i} convolutions with pooling: lower kernel_size or the number of n_units."
            )
    output = dense(rng, int(np.prod(shape)), n_classes, "out")
    return Network(layers, [None] * len(layers), output)


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    network = convolutional_network(settings, image_shape, n_classes)
    pace = descent.pace(settings)
    return System(
        parameters=by_name(network.params),
        step=partial(training_step, network, learn=plain.learn_network(settings, pace)),
        predict={"all units": partial(forward, network)},
        schedule=pace.schedule,
    )


TRAINING = PREDICTION = {"dense": build}

PRESETS = (
    Settings(
        name="dasnet-cnn",
        batch_size=100,
        loss_reduction="mean",
        learning_rate=0.1,
        l2=0.0001,
        shuffle=True,
        n_epochs=30,
        patience=15_000,
    ),
)
