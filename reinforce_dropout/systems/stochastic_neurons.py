"""Stochastic neurons (Bengio, Leonard and Courville, 2013) that gate the units of a layer.

The network has a layer of linear experts, ``x W_1 + b_1``. A gater looks at the image too, through
one layer of tanh units, and gives each expert a logit z. The gate h is a random function of z, and
``expert * h`` goes to the softmax. The question of the paper is how to learn the gater through h.
`stochastic_gates` has its answers, with sigma = sigm(z):

- straight-through: h ~ Bernoulli(sigma), and dL/dz := dL/dh;
- noisy rectifier: h = max(0, z + n), n normal with standard deviation ``noise_std``;
- stochastic times smooth (STS): h = b sqrt(sigma), b ~ Bernoulli(sqrt(sigma)), so E h = sigma; only
  the second factor is differentiated;
- stochastic binary: h ~ Bernoulli(sigma), and (h - sigma)(L - baseline) estimates dL/dz, with the
  baseline of least variance for each unit, from earlier mini-batches (`baselines.per_unit`);
- rectifier: h = max(0, z), nothing random.

A tenth of the gates is to be on. For sigmoid gates, the cross-entropy of the target and of each
unit's mean probability of being on, over the mini-batch, is added to the loss. For rectifiers, the
mean sum of the gates is added, with a weight that grows while too many are on, and shrinks while
too few are.

At test time the rule "expected" takes the gates without noise. (Those of the noisy rectifier are
not its expectation.) The rule "thresholded" turns off all gates whose z is below a threshold. That
leaves a tenth of them on. Binary gates are then 0 or 1. The threshold follows the 90 % quantile of
z over training mini-batches, by stochastic approximation. So training data choose it, and it is a
parameter of the model. The noisy rectifier's may be below 0; without noise, fewer gates are then
on.

The authors' published code differs from their text in more points. Two are options. It samples
STS's b with sigma instead of sqrt(sigma) ("sts-sampled-with-sigma"). Its last run of
straight-through multiplies dL/dh by the derivative of sigma ("straight-through-with-slope").

The limit on columns is the code's: a norm of 2.1 for experts and gater. Its stochastic binary gater
learns from the sum over 32 images at a rate of 0.001: here from their mean, at 0.032, and the
weight of the sparsity is divided by 32, too. The text gives no weight of a sparsity term.
"""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytensor
from pytensor.gradient import pullback

from reinforce_dropout.algorithm import training_step
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.gates import Gate
from reinforce_dropout.initializers import glorot_uniform, parameter
from reinforce_dropout.layers import ACTIVATIONS, dense
from reinforce_dropout.network import RULES, Network
from reinforce_dropout.systems import descent, plain, policy
from reinforce_dropout.systems.settings import (
    as_text,
    at_least,
    fraction,
    one_of,
    setting,
    settings,
)
from reinforce_dropout.systems.stochastic_gates import NEURONS, is_on
from reinforce_dropout.systems.system import System, by_name
from reinforce_dropout.updates import max_norm


class Gates(NamedTuple):
    """The family of decisions of a kind of gate, for the rules of `network.RULES`.

    Attributes
    ----------
    neuron : stochastic_gates.Neuron
    threshold : shared () float32
        Of z.
    settings : Settings
    """

    neuron: Any
    threshold: Any
    settings: Any

    def sample(self, z, rng):
        """Draw the gates, (m_b, n_units), and return the generator's next state."""
        return self.neuron.sample(z, rng, self.settings)

    def mean(self, z):
        """Return the gates without noise."""
        return self.neuron.smooth(z)

    def mode(self, z):
        """Turn off the gates whose z is below the threshold."""
        return (z > self.threshold).astype(z.dtype) * self.neuron.height(z)


class Gater(NamedTuple):
    """Two layers that give each expert its logit.

    Attributes
    ----------
    hidden, output : Layer
    """

    hidden: Any
    output: Any

    @property
    def theta(self):
        """Parameters of both layers."""
        return self.hidden.params + self.output.params

    def __call__(self, x):
        """Logits (m_b, n_units) for the images `x` (m_b, n_in)."""
        return self.output(self.hidden(x))


@settings
class Settings(plain.Settings):
    """Settings of a layer of linear experts with stochastic gates."""

    system: ClassVar[str] = "stochastic_neurons"

    neuron: str = setting("straight-through", one_of(NEURONS), "Kind of the gates.")
    gater_units: int = setting(
        400, at_least(1), "Hidden units of the gater; 400 in the paper. Their function: activation."
    )
    gater_learning_rate: float = setting(0.1, at_least(0), "Of the gater's parameters.")
    target: float = setting(0.1, fraction(), "Fraction of the gates to be on; 0.1 in the paper.")
    sparsity: float = setting(
        0.001, at_least(0), "Weight of the term that holds the target. Of rectifiers, at first."
    )
    noise_std: float = setting(
        1.0, at_least(0), "Standard deviation of the noisy rectifier's noise; 1 in the paper."
    )
    max_squared_norm: float = setting(
        4.41,
        at_least(0),
        "Largest squared length of the incoming weights of experts and gater; 0 for none. The "
        "authors' code has 2.1 squared.",
    )
    threshold_rate: float = setting(
        0.1, at_least(0), "Step of the threshold, in units of z, for all gates being on."
    )
    evaluation_rule: str = setting(
        "thresholded", one_of(RULES), "Where the gates come from when a model is judged."
    )

    def check(self):
        """Refuse more than one layer of experts."""
        if len(self.n_units) > 1:
            raise ExperimentError(
                f"n_units is {as_text(self.n_units)} but there is one layer of experts: give one "
                "width."
            )


def gated_experts(settings, image_shape, n_classes, rng):
    """Return the network: experts, gater and softmax. `rng` draws them in this order."""
    n_in, (n_units,) = int(np.prod(image_shape)), settings.n_units
    experts = dense(rng, n_in, n_units, "1")
    activation = ACTIVATIONS[settings.activation]
    gater = Gater(
        dense(rng, n_in, settings.gater_units, "gater", activation),
        dense(rng, settings.gater_units, n_units, "gates", initial=four_times_glorot),
    )
    threshold = parameter(np.float32(0), "threshold")
    family = Gates(NEURONS[settings.neuron], threshold, settings)
    gate = Gate(gater, family, active=is_on)
    return Network([experts], [gate], dense(rng, n_units, n_classes, "out"))


def four_times_glorot(rng, n_in, n_out):
    """Weights of the gates: uniform, four times as large as Glorot's, as suits sigmoids."""
    return 4 * glorot_uniform(rng, n_in, n_out)


def learn_all(settings, pace):
    """Return ``learn(network, passed, nll) -> updates``: network, gater, sparsity and threshold."""
    learn_network = plain.learn_network(settings, pace)
    reduce = plain.LOSS_REDUCTIONS[settings.loss_reduction]
    descend = pace.descend(settings.optimizer, settings.gater_learning_rate)

    def learn(network, passed, nll):
        (stage,) = passed.stages
        neuron, gater = stage.gate.family.neuron, stage.gate.policy
        dz, remembered = neuron.gradient(stage, nll, reduce(nll))
        cost, held = neuron.sparsity(stage.z, stage.u, settings)
        dz = dz + pytensor.grad(cost, stage.z)
        updates = learn_network(network, passed, nll) | remembered | held
        updates |= descend(gater.theta, pullback(stage.z, gater.theta, dz))
        updates |= follow_quantile(stage.gate.family.threshold, stage.z, settings)
        if settings.max_squared_norm == 0:
            return updates
        (experts,) = network.layers
        limited = [experts.W, gater.hidden.W, gater.output.W]
        return max_norm(updates, limited, settings.max_squared_norm)

    return learn


def follow_quantile(threshold, z, settings):
    """Let the threshold rise while too many z are above it, and fall while too few are.

    It comes to rest where the target's fraction of a mini-batch's z is above, on average.
    """
    excess = (z > threshold).astype(z.dtype).mean() - np.float32(settings.target)
    return {threshold: threshold + np.float32(settings.threshold_rate) * excess}


def statistics(stages, nll):
    """Return the `algorithm.Step.statistics` of a pass.

    They are ``train_nll`` in nats an example, ``active_fraction`` of the gates that were drawn,
    ``active_thresholded`` of those that the rule "thresholded" leaves on, and the ``threshold``.
    """
    (stage,) = stages
    gate = stage.gate
    return {
        "train_nll": nll.mean(),
        "active_fraction": [gate.active(stage.U).mean()],
        "active_thresholded": [gate.active(gate.family.mode(stage.z)).mean()],
        "threshold": gate.family.threshold,
    }


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    rng = np.random.default_rng(settings.seeds().init)
    network, pace = gated_experts(settings, image_shape, n_classes, rng), descent.pace(settings)
    (gate,) = network.gates
    return System(
        parameters=by_name([*network.params, *gate.policy.theta, gate.family.threshold]),
        step=partial(training_step, network, learn=learn_all(settings, pace), measure=statistics),
        predict=policy.passes(network),
        schedule=pace.schedule,
    )


TRAINING = PREDICTION = {"dense": build}


def _preset(name, **fields):
    """Return a preset with what all have in common."""
    return Settings(
        name=name, n_units=(2000,), loss_reduction="mean", learning_rate=0.1, l2=0.0,
        batch_size=32, shuffle=True, n_epochs=200, patience=50_000, **fields,
    )  # fmt: skip


PRESETS = (
    _preset("straight-through-2000", neuron="straight-through", sparsity=0.01),
    _preset("noisy-rectifier-2000", neuron="noisy-rectifier", sparsity=3e-4),
    _preset("sts-2000", neuron="sts", sparsity=0.001),
    # The authors' rate and weight of the sparsity are 0.001 and 1, for a sum over 32 images.
    _preset(
        "stochastic-binary-2000",
        neuron="stochastic-binary",
        gater_learning_rate=0.032,
        sparsity=0.03,
    ),
    _preset("rectifier-2000", neuron="rectifier", sparsity=3e-4),
)
