"""Standout (Ba and Frey, 2013): dropout whose rates follow from the network's own weights.

A unit takes part with probability ``sigm(alpha * (s W) + beta)``. So the layer's own weights,
scaled and shifted, decide. Nothing of the decision is learned. Decisions are made layer by layer,
from the activations that are already masked. Masks are constants for back-propagation. At test time
their expectation is used instead.

The paper leaves one thing open: beta is added to every weight, as its formula is printed, or to the
logit. ``beta_on`` offers both; "logit" is the default. The layer's bias is not part of the logit,
because the formulas write none.

Two limits are tested. With ``alpha = beta = 0`` it is dropout at 1/2. With a large alpha, rectified
linear units and biases of 0 it is the plain network. The reported 0.80 % on MNIST had unsupervised
pre-training, which is not done here.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from reinforce_dropout.algorithm import training_step
from reinforce_dropout.gates import Gate
from reinforce_dropout.network import RULES
from reinforce_dropout.systems import descent, plain, policy
from reinforce_dropout.systems.settings import anything, one_of, setting, settings
from reinforce_dropout.systems.system import System, by_name


class TiedPolicy(NamedTuple):
    """Logits from the layer's own weights, ``z = s (alpha W) + beta``.

    Attributes
    ----------
    W : shared (n_in, n_units) float32
        Of the gated layer; a constant here.
    alpha, beta : float
    """

    W: Any
    alpha: float
    beta: float

    theta = ()
    """Nothing that learns."""

    def __call__(self, s):
        """Logits (m_b, n_units) for the activations `s` (m_b, n_in)."""
        return np.float32(self.alpha) * (s @ self.W) + np.float32(self.beta)


class PrintedPolicy(TiedPolicy):
    """The formula as printed, ``z = s (alpha W + beta)``: beta is added to every weight."""

    def __call__(self, s):
        """Logits (m_b, n_units) for the activations `s` (m_b, n_in)."""
        shift = np.float32(self.beta) * s.sum(axis=1, keepdims=True)
        return np.float32(self.alpha) * (s @ self.W) + shift


POLICIES = {"logit": TiedPolicy, "weights": PrintedPolicy}


@settings
class Settings(plain.Settings):
    """Settings of a network with standout."""

    system: ClassVar[str] = "standout"

    alpha: float = setting(0.5, anything(), "Factor on the weights in the logits of the masks.")
    beta: float = setting(1.0, anything(), "Shift of the logits of the masks.")
    beta_on: str = setting(
        "logit",
        one_of(POLICIES),
        "Whether beta shifts the logit, or every weight, as the paper's formula is printed.",
    )
    evaluation_rule: str = setting(
        "expected", one_of(RULES), "Where the masks come from when a model is judged."
    )


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    rng = np.random.default_rng(settings.seeds().init)
    network = plain.perceptron(settings, image_shape, n_classes, rng)
    tied = POLICIES[settings.beta_on]
    network = network._replace(
        gates=[Gate(tied(layer.W, settings.alpha, settings.beta)) for layer in network.layers]
    )
    pace = descent.pace(settings)
    return System(
        parameters=by_name(network.params),
        step=partial(training_step, network, learn=plain.learn_network(settings, pace)),
        predict=policy.passes(network),
        schedule=pace.schedule,
    )


TRAINING = PREDICTION = {"dense": build}

_CHOSEN = {
    "n_units": (1000, 1000),
    "activation": "relu",
    "loss_reduction": "mean",
    "l2": 0.0,
    "batch_size": 100,
    "shuffle": True,
    "optimizer": "momentum",
    "learning_rate": 0.5,
    "n_epochs": 100,
    "patience": 10**9,
}

PRESETS = (
    # Rate, alpha and beta by the validation error of 25 epochs.
    Settings(name="standout-1000-1000", **_CHOSEN),
    # Dropout at 1/2 of the same size, to compare with.
    Settings(name="standout-at-half-1000-1000", alpha=0.0, beta=0.0, **_CHOSEN),
)
