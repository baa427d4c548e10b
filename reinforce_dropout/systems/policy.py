"""The paper's system: every hidden layer has a sigmoid-Bernoulli policy that learns by REINFORCE.

`Settings` has a field for each question that the paper leaves open, with a default and its reason.
Each table below maps names to functions of one signature. A new gate, penalty, baseline or
estimator is one function and one row.
"""

from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np

from reinforce_dropout import baselines, costs, gates, reinforce, returns
from reinforce_dropout.algorithm import reinforce_updates, training_step
from reinforce_dropout.network import RULES, forward
from reinforce_dropout.systems import descent, plain
from reinforce_dropout.systems.settings import (
    at_least,
    fraction,
    less_than,
    one_of,
    setting,
    settings,
)
from reinforce_dropout.systems.system import System, by_name

GATES = {"sigmoid-bernoulli": gates.sigmoid_bernoulli, "uniform": gates.uniform}
"""``gate(rng, n_in, n_units, name, initial_rate) -> Gate``"""

PENALTIES = {"kl": lambda settings: costs.kl_to_rate(settings.q)}
"""``penalty(settings) -> cost(stages, i) -> Paid``"""

RETURNS = {"total": returns.to_go, "score": returns.literal}
"""``returns(nll, paid, lam, i) -> (C_i, direct)``"""

BASELINES = {
    "none": lambda settings: baselines.none,
    "batch-mean": lambda settings: baselines.batch_mean,
    "leave-one-out-mean": lambda settings: baselines.leave_one_out_mean,
    "batch-minimum": lambda settings: baselines.batch_minimum,
    "moving-average": lambda settings: baselines.moving_average(settings.baseline_decay),
}
"""``baseline(settings) -> baseline(C, stage) -> (b, updates)``"""

ESTIMATORS = {
    "pullback": reinforce.policy_gradient,
    "jacobian": reinforce.jacobian_policy_gradient,
    "pushforward": reinforce.pushforward_policy_gradient,
    "surrogate": reinforce.surrogate_policy_gradient,
}
"""``estimate(log_pi, theta, c) -> grads``"""


@settings
class Settings(plain.Settings):
    """Settings of a network with policies."""

    system: ClassVar[str] = "policy"

    gate: str = setting(
        "sigmoid-bernoulli",
        one_of(GATES),
        "Who decides. The paper's policies are sigmoid-Bernoulli. 'uniform' neither looks nor "
        "learns: ordinary dropout that keeps units at initial_rate, which policies have to beat.",
    )
    initial_rate: float = setting(
        0.12,
        fraction(),
        "Fraction of the units that take part at first; the paper says 10-15 %.",
    )
    policy_learning_rate: float = setting(
        0.01, at_least(0), "Of the policies' parameters. Open; 'the same learning rates'."
    )
    policy_optimizer: str = setting(
        "sgd", one_of(descent.OPTIMIZERS), "How the policies' parameters descend; as optimizer."
    )
    lam: float = setting(
        0.0,
        at_least(0),
        "Trade-off lambda of eq. (6). The paper gives 0.0001 for 800-800. For 500 units it says "
        "that the likelihood 'should completely dominate', which 0 makes exact.",
    )
    penalty: str = setting(
        "kl", one_of(PENALTIES), "What lambda weighs; the paper's divergence of eq. (5)."
    )
    q: float = setting(
        0.1,
        fraction(),
        "Target rate of eq. (5). Open; 0.1 is the sparse end of the paper's initial rates.",
    )
    kl_gradient: str = setting(
        "total",
        one_of(RETURNS),
        "'total' follows the true gradient of the expected cost. 'score' reads eqs. (2) and (6) "
        "literally, by which no layer learns from its own divergence, see `returns`. The paper's "
        "own update is the literal one, which its preset with lambda > 0 takes.",
    )
    baseline: str = setting(
        "batch-mean",
        one_of(BASELINES),
        "Baseline b of eq. (2). Open; the mean of the mini-batch is the simplest without a memory.",
    )
    baseline_decay: float = setting(
        0.9, less_than(1, "1"), "Weight of the past in the moving average."
    )
    estimator: str = setting(
        "pullback",
        one_of(ESTIMATORS),
        "How the policy gradient is computed: eq. (4), or a slower way to the same vector.",
    )
    evaluation_rule: str = setting(
        "sampled",
        one_of(RULES),
        "Where the masks come from when a validation error decides early stopping and the best "
        "model, and in the tables. Open; sampled masks are what the paper trains with.",
    )


def with_gates(network, settings, rng, n_decisions=lambda n_units: n_units):
    """Return the network with a gate at every hidden layer.

    `rng` draws the policies. It has drawn the network before, so a plain network starts from the
    same weights. A layer has ``n_decisions(n_units)`` decisions.
    """
    sizes = pairwise([len(network.layers[0].W.get_value(borrow=True)), *settings.n_units])
    gate = GATES[settings.gate]
    return network._replace(
        gates=[
            gate(rng, n_in, n_decisions(n_units), str(i), settings.initial_rate)
            for i, (n_in, n_units) in enumerate(sizes, start=1)
        ]
    )


def learn_both(settings, pace=None):
    """Return ``learn(network, passed, nll) -> updates``: both updates of section 3.3.

    `pace` is a `descent.Pace`, by default the constant one.
    """
    pace = pace or descent.constant(settings)
    learn_network = plain.learn_network(settings, pace)

    def learn(network, passed, nll):
        learning = [stage for stage in passed.stages if stage.gate.policy.theta]
        return learn_network(network, passed, nll) | reinforce_updates(
            learning,
            nll,
            cost=PENALTIES[settings.penalty](settings),
            lam=settings.lam,
            returns=RETURNS[settings.kl_gradient],
            baseline=BASELINES[settings.baseline](settings),
            estimate=ESTIMATORS[settings.estimator],
            descend=pace.descend(settings.policy_optimizer, settings.policy_learning_rate),
        )

    return learn


def parameters(network):
    """Return the parameters that a network and its policies learn, by name."""
    return by_name(network.params + [p for gate in network.gates for p in gate.policy.theta])


def passes(network):
    """Return ``{rule: predict(x, rng) -> Pass}`` for all rules."""
    return {name: partial(forward, network, rule=rule) for name, rule in RULES.items()}


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    rng = np.random.default_rng(settings.seeds().init)
    network = with_gates(plain.perceptron(settings, image_shape, n_classes, rng), settings, rng)
    pace = descent.pace(settings)
    return System(
        parameters=parameters(network),
        step=partial(training_step, network, learn=learn_both(settings, pace)),
        predict=passes(network),
        schedule=pace.schedule,
    )


TRAINING = PREDICTION = {"dense": build}

PRESETS = (
    Settings(name="policy-500"),
    # lambda matters here. The paper's update is (4) with C of (6): the literal reading.
    Settings(name="policy-800-800", n_units=(800, 800), lam=0.0001, kl_gradient="score"),
)
