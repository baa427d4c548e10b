r"""A second look: a policy decides for which images a large network takes part.

This is conditional computation with one decision for an image. A small network looks at every
image. By its own probabilities its answer is wrong with some probability. The log-odds of that are
its doubt s. The policy has one sigmoid-Bernoulli unit, z = s Z + o. If it is on, the large network
takes part: its logits are added. So all its units are one group, of which an image uses all or
none. Each network learns from all images as if it were alone, see `dropout`.

The policy minimises the expected cost, eqs. (2) and (6). It has one unit, so the sum over its two
masks takes the place of a draw:

.. math:: E[C] = (1 - \sigma) \, \mathrm{nll}_0 + \sigma \, (\mathrm{nll}_1 + \lambda)

Here nll_0 is that of the small network, and nll_1 that of both.

Lambda is the price of a second look in nats. At first Z is 1 and o is 0: then a second look is as
probable as a wrong answer. The policy learns by plain gradient descent, once the networks have
matured, as the paper's conclusion proposes. Before that the large one is no better, and the policy
would learn not to ask it. Pixels are dropped meanwhile. Otherwise the small network would hardly
ever be in doubt about an image that it has learned.

Executed "block-sparse", the large network computes only the images for which it takes part. A
chain of ever larger classifiers of which most images leave early is a cascade (Viola and Jones,
2001).
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import costs, network
from reinforce_dropout.algorithm import Step, draws, statistics
from reinforce_dropout.gates import AffinePolicy, Gate, Stage
from reinforce_dropout.initializers import parameter
from reinforce_dropout.layers import ACTIVATIONS
from reinforce_dropout.network import Network, Pass, expected, sampled, thresholded
from reinforce_dropout.systems import descent, dropout
from reinforce_dropout.systems.settings import (
    at_least,
    one_of,
    positive_at_most,
    setting,
    settings,
    widths,
)
from reinforce_dropout.systems.system import System, by_name
from reinforce_dropout.updates import sgd

LEAST = 1e-6
"""A smaller probability of a wrong answer is lost in the rounding of float32."""

PASSES = {"thresholded": thresholded, "sampled": sampled}
"""Rules by name. A mean of both networks would need both, so there is no rule "expected"."""


@settings
class Settings(dropout.Settings):
    """Settings of two networks and a policy; those of `dropout` are for the small network.

    What has no second name is for both.
    """

    system: ClassVar[str] = "second-look"

    second_units: tuple[int, ...] = setting(
        (400, 400), widths(), "Widths of the large network's hidden layers."
    )
    second_activation: str = setting(
        "relu", one_of(ACTIVATIONS), "Of the large network's hidden units."
    )
    second_hidden_keep: float = setting(
        0.8, positive_at_most(1), "Probability that a hidden unit of the large network takes part."
    )
    lam: float = setting(0.2, at_least(0), "Price lambda of a second look, in nats.")
    policy_learning_rate: float = setting(1.0, at_least(0), "Of the policy's parameters.")
    policy_from_epoch: int = setting(31, at_least(1), "The policy learns from this epoch on.")
    evaluation_rule: str = setting(
        "thresholded", one_of(PASSES), "Where the decisions come from when a model is judged."
    )


class Model(NamedTuple):
    """What decides, and what it decides on.

    Attributes
    ----------
    first, second : Network
        The small one, and the large one.
    gate : Gate
        Its policy maps the doubt (m_b, 1) to logits (m_b, 1).
    """

    first: Network
    second: Network
    gate: Gate


def model(settings, image_shape, n_classes):
    """Return the model with its initial parameters."""
    rng = np.random.default_rng(settings.seeds().init)
    large = dataclasses.replace(
        settings,
        n_units=settings.second_units,
        activation=settings.second_activation,
        hidden_keep=settings.second_hidden_keep,
    )
    first, second = (
        dropout.perceptron(one, image_shape, n_classes, rng) for one in (settings, large)
    )
    for p in second.params:
        p.name = f"second_{p.name}"
    Z, o = parameter(np.ones((1, 1), "float32"), "Z"), parameter(np.zeros(1, "float32"), "o")
    return Model(first, second, Gate(AffinePolicy(Z, o)))


def doubt(logits):
    """Return the log-odds that the most probable class is wrong, (m_b, 1).

    Examples
    --------
    >>> doubt(pt.as_tensor([[0.0, 0.0], [3.0, 0.0]])).eval()
    array([[ 0.],
           [-3.]])
    """
    wrong = 1 - pt.special.softmax(logits, axis=1).max(axis=1, keepdims=True)
    wrong = pt.maximum(wrong, pt.constant(LEAST, dtype=logits.dtype))
    return pt.log(wrong) - pt.log1p(-wrong)


def decide(gate, logits, rng, rule):
    """Return the stage of the decision from the small network's logits, and the next state."""
    s = doubt(logits)
    z = gate.policy(s)
    u, rng = rule(gate.family, z, rng)
    return Stage(gate, "second", s, z, u, u), rng


def expected_cost(sigma, nll_0, nll_1, lam):
    """Return E[C] (m_b,) over both decisions, in nats.

    Examples
    --------
    >>> float(expected_cost(0.25, nll_0=4.0, nll_1=1.0, lam=1.0))
    3.5
    """
    return (1 - sigma) * nll_0 + sigma * (nll_1 + lam)


def training_step(model, x, y, rng, learn, descend, lam):
    """Build the step for the mini-batch (x, y).

    Parameters
    ----------
    model : Model
    x : tensor (m_b, n_in)
    y : integer tensor (m_b,)
    rng : shared random generator
    learn : callable
        ``learn(network, passed, nll) -> updates`` of either network.
    descend : callable
        ``descend(params, grads) -> updates`` of the policy.
    lam : float
        In nats.

    Returns
    -------
    Step
    """
    first = network.forward(model.first, x, rng)
    second = network.forward(model.second, x, first.rng)
    alone = [costs.nll(passed.logits, y) for passed in (first, second)]
    updates = learn(model.first, first, alone[0]) | learn(model.second, second, alone[1])
    stage, after = decide(model.gate, first.logits, second.rng, expected)
    sigma, theta = stage.u[:, 0], model.gate.policy.theta
    cost = partial(expected_cost, sigma, alone[0], costs.nll(first.logits + second.logits, y))
    updates |= descend(theta, pytensor.grad(cost(np.float32(lam)).mean(), theta))
    nll = cost(np.float32(0))
    return Step(statistics([stage], nll), updates | draws(rng, after))


def forward(model, x, rng, rule):
    """Classify the images `x` (m_b, n_in) by the small network, or by both."""
    first, second = (network.forward(one, x, rule=expected) for one in (model.first, model.second))
    stage, rng = decide(model.gate, first.logits, rng, rule)
    takes_part = stage.u[:, 0][:, None]
    return Pass(first.logits + takes_part * second.logits, [stage], rng)


def forward_skipping(model, x, rng, rule):
    """Do the same; the large network computes only the images for which it takes part.

    The weights are copied: later changes have no effect.
    """
    first, second = dropout.folded(model.first), dropout.folded(model.second)
    passed = network.forward(first, x)
    stage, rng = decide(model.gate, passed.logits, rng, rule)
    (rows,) = pt.nonzero(stage.u[:, 0])
    logits = pt.inc_subtensor(passed.logits[rows], network.forward(second, x[rows]).logits)
    return Pass(logits, [stage], rng)


def build(settings, image_shape, n_classes, walk=forward):
    """Build the system for images of a shape and a number of classes."""
    pace, both = descent.pace(settings), model(settings, image_shape, n_classes)
    policy_rate = pytensor.shared(np.float32(0), name="policy_rate")

    def schedule(epoch):
        pace.schedule(epoch)
        matured = epoch >= settings.policy_from_epoch
        policy_rate.set_value(np.float32(matured * settings.policy_learning_rate))

    step = partial(
        training_step,
        both,
        learn=dropout.learn_network(settings, pace),
        descend=partial(sgd, learning_rate=policy_rate),
        lam=settings.lam,
    )
    params: Any = [*both.first.params, *both.second.params, *both.gate.policy.theta]
    return System(
        parameters=by_name(params),
        step=step,
        predict={name: partial(walk, both, rule=rule) for name, rule in PASSES.items()},
        schedule=schedule,
    )


TRAINING = {"dense": build}
PREDICTION = TRAINING | {"block-sparse": partial(build, walk=forward_skipping)}

PRESETS = (
    # Chosen by validation error and second looks. Tried for the large network: tanh, keeping 0.5 or
    # all of the hidden units, and answering alone.
    Settings(name="second-look-80-32", **dropout.SMALL | {"n_units": (80, 32)}),
)
