"""The paper's system: every hidden layer has a sigmoid-Bernoulli policy that learns by REINFORCE.

`Settings` has a field for each question that the paper leaves open, with a default and its reason.
Each table below maps names to functions of one signature. A new gate, penalty, baseline or
estimator is one function and one row. The defaults are the paper's method. Other choices are its
future work, see `reinforce_dropout.search`.
"""

from functools import partial
from itertools import pairwise
from typing import ClassVar

import numpy as np

from reinforce_dropout import algorithm, baselines, costs, gates, reinforce, returns
from reinforce_dropout.algorithm import policy_updates, to_theta
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.network import RULES, decided, forward, sampled
from reinforce_dropout.reinforce import score_function
from reinforce_dropout.search import compute_time, estimators, straight_through
from reinforce_dropout.search.natural import natural_gradient
from reinforce_dropout.systems import descent, maturation, plain
from reinforce_dropout.systems.maturation import MATURING
from reinforce_dropout.systems.settings import (
    anything,
    at_least,
    fraction,
    less_than,
    one_of,
    positive,
    setting,
    settings,
)
from reinforce_dropout.systems.system import System, by_name

GATES = {"sigmoid-bernoulli": gates.sigmoid_bernoulli, "uniform": gates.uniform}
"""``gate(rng, n_in, n_units, name, initial_rate) -> Gate``"""

PENALTIES = {
    "kl": lambda settings: costs.kl_to_rate(settings.q),
    "mean-kl": lambda settings: costs.kl_of_mean(settings.q),
    "active-units": lambda settings: costs.active_units,
    "compute-time": lambda settings: compute_time.fraction_of_time(compute_time.read()),
}
"""``penalty(settings) -> cost(stages, i) -> Paid``"""

RETURNS = {"total": returns.to_go, "score": returns.literal}
"""``returns(nll, paid, lam, i) -> (C_i, direct)``"""

BASELINES = {
    "none": lambda settings: baselines.none,
    "batch-mean": lambda settings: baselines.batch_mean,
    "leave-one-out-mean": lambda settings: baselines.leave_one_out_mean,
    "batch-minimum": lambda settings: baselines.batch_minimum,
    "moving-average": lambda settings: baselines.moving_average(settings.baseline_decay),
    "per-unit": lambda settings: baselines.per_unit(settings.baseline_decay),
    "learned": lambda settings: baselines.learned(settings.baseline_learning_rate),
}
"""``baseline(settings) -> baseline(C, stage) -> (b, updates)``"""

ESTIMATORS = {
    "reinforce": lambda settings: score_function(BASELINES[settings.baseline](settings)),
    "leave-one-out": lambda settings: estimators.leave_one_out(settings.n_masks),
    "self-critical": lambda settings: estimators.self_critical,
    "arm": lambda settings: estimators.arm,
    "disarm": lambda settings: estimators.disarm,
    "straight-through": lambda settings: straight_through.straight_through,
    "straight-through-with-slope": lambda settings: straight_through.straight_through_with_slope,
}
"""``estimator(settings) -> estimator(stage, C, cost_of, rng) -> Estimate``"""

PRODUCTS = {
    "pullback": reinforce.policy_gradient,
    "jacobian": reinforce.jacobian_policy_gradient,
    "pushforward": reinforce.pushforward_policy_gradient,
    "surrogate": reinforce.surrogate_policy_gradient,
}
"""``product(log_pi, theta, c) -> grads``"""


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
    policy_rank: int = setting(
        0,
        at_least(0),
        "Rank of the policies' matrix. The paper's has full rank, which 0 stands for. A low rank "
        "r makes it the product of an (n_in, r) and an (r, n_units) matrix, which takes less time.",
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
        "kl",
        one_of(PENALTIES),
        "What lambda weighs; 'kl' is the paper's divergence of eq. (5). 'mean-kl' is that of each "
        "unit's mean over the mini-batch. 'active-units' is their number. 'compute-time' is the "
        "time of the pass as a fraction of that with all units.",
    )
    min_rate: float = setting(
        0.0,
        less_than(1, "1"),
        "No unit's probability of taking part falls below it. A price on units in use can turn all "
        "of them off, and then nothing is learned.",
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
        0.9, less_than(1, "1"), "Weight of the past in the baselines moving-average and per-unit."
    )
    baseline_learning_rate: float = setting(
        0.1, less_than(2, "2"), "Of the baseline learned, whose regression is unstable from 2 on."
    )
    estimator: str = setting(
        "reinforce",
        one_of(ESTIMATORS),
        "How the gradient is estimated. 'reinforce' is the paper's: one mask and the baseline. The "
        "others need no baseline. Most try more masks of a layer; the straight-through ones, which "
        "are biased, differentiate by the mask.",
    )
    n_masks: int = setting(
        4, at_least(2), "Masks of the estimator leave-one-out, in the same state."
    )
    natural_gradient: bool = setting(
        False,
        anything(),
        "Whether the policies' gradient is multiplied by the inverse of the Fisher matrix.",
    )
    damping: float = setting(
        0.1, positive(), "Added to the diagonal of the Fisher matrix before it is inverted."
    )
    cg_steps: int = setting(
        10, at_least(1), "Steps of conjugate gradients that approximate the inverse."
    )
    product: str = setting(
        "pullback",
        one_of(PRODUCTS),
        "How the policy gradient is computed: eq. (4), or a slower way to the same vector.",
    )
    policy_from_epoch: int = setting(
        1,
        at_least(1),
        "The policies act and learn from this epoch on. Before it the network matures, see "
        "matures_with. Early stopping counts from it.",
    )
    matures_with: str = setting(
        "all-units",
        one_of(MATURING),
        "What learns before: the plain network, or one with random masks at the rate q.",
    )
    policy_every: int = setting(
        1, at_least(1), "The policies learn in every so many mini-batches of an epoch."
    )
    freeze_network: bool = setting(
        False, anything(), "Whether the network stops learning when the policies begin."
    )
    evaluation_rule: str = setting(
        "sampled",
        one_of(RULES),
        "Where the masks come from when a validation error decides early stopping and the best "
        "model, and in the tables. Open; sampled masks are what the paper trains with.",
    )

    def check(self):
        """Refuse settings that do not fit each other."""
        if self.min_rate >= self.initial_rate:
            raise ExperimentError(
                f"min_rate is {self.min_rate} but units take part at {self.initial_rate} at first: "
                "set min_rate below initial_rate."
            )
        if self.policy_rank and self.gate != "sigmoid-bernoulli":
            raise ExperimentError(
                f"policy_rank is {self.policy_rank} but gate={self.gate} has no matrix of a rank: "
                "set policy_rank=0 or gate=sigmoid-bernoulli."
            )
        if self.policy_from_epoch > self.n_epochs:
            raise ExperimentError(
                f"policy_from_epoch is {self.policy_from_epoch} but there are {self.n_epochs} "
                "epochs: lower it or raise n_epochs."
            )
        if self.policy_every > 1 and self.optimizer != "sgd":
            raise ExperimentError(
                "policy_every takes turns of two steps, each with an optimizer of its own: set "
                "optimizer=sgd, or policy_every=1."
            )
        if self.freeze_network and self.policy_every > 1:
            raise ExperimentError(
                "with freeze_network nothing would learn in most mini-batches: set policy_every=1."
            )

    @property
    def first_counted_epoch(self):
        """That in which the policies begin."""
        return self.policy_from_epoch


def with_gates(network, settings, rng, n_decisions=lambda n_units: n_units):
    """Return the network with a gate at every hidden layer.

    `rng` draws the policies. It has drawn the network before, so a plain network starts from the
    same weights. A layer has ``n_decisions(n_units)`` decisions.
    """
    sizes = pairwise([len(network.layers[0].W.get_value(borrow=True)), *settings.n_units])
    gate = gates.low_rank(settings.policy_rank) if settings.policy_rank else GATES[settings.gate]
    gate = gates.bounded(gate, settings.min_rate)
    return network._replace(
        gates=[
            gate(rng, n_in, n_decisions(n_units), str(i), settings.initial_rate)
            for i, (n_in, n_units) in enumerate(sizes, start=1)
        ]
    )


def learn_both(settings, pace=None, nll_of=None):
    """Return ``learn(network, passed, nll) -> updates``: both updates of section 3.3.

    `pace` is a `descent.Pace`, by default the constant one. Estimators that try other masks need
    ``nll_of(logits) -> (m_b,)``.
    """
    learn_network = plain.learn_network(settings, pace)
    learn_policies = search(settings, pace, nll_of)

    def learn(network, passed, nll):
        return learn_network(network, passed, nll) | learn_policies(network, passed, nll)

    return learn


def search(settings, pace=None, nll_of=None):
    """Return ``learn(network, passed, nll) -> updates``: that of the policies alone."""
    pace = pace or descent.constant(settings)
    product = PRODUCTS[settings.product]
    gradient = partial(to_theta, product=product)
    if settings.natural_gradient:
        gradient = partial(
            natural_gradient, product=product, damping=settings.damping, n_steps=settings.cg_steps
        )

    def learning(passed):
        return [stage for stage in passed.stages if stage.gate.policy.theta]

    def learn(network, passed, nll):
        stages = learning(passed)

        def again(i, u, rng, above):
            first = int(stages[i].name)
            tried = forward(network, stages[i].s, rng, decided(u, above), first)
            return learning(tried), nll_of(tried.logits), tried.rng

        return policy_updates(
            stages,
            nll,
            cost=PENALTIES[settings.penalty](settings),
            lam=settings.lam,
            returns=RETURNS[settings.kl_gradient],
            estimator=ESTIMATORS[settings.estimator](settings),
            gradient=gradient,
            descend=pace.descend(settings.policy_optimizer, settings.policy_learning_rate),
            again=again,
            rng=passed.rng,
        )

    return learn


def training_step(settings, pace, network, x, y, rng, rule=sampled):
    """Build the step of section 3.3, see `algorithm.training_step`."""
    what_learns = search if settings.freeze_network else learn_both
    learn = what_learns(settings, pace, partial(costs.nll, y=y))
    return algorithm.training_step(network, x, y, rng, learn, rule)


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
    return dense(network, settings)


def dense(network, settings):
    """Return the system of a network with gates."""
    pace = descent.pace(settings)
    learner = partial(
        maturation.learner, network=network, learn_network=plain.learn_network(settings, pace)
    )
    waits = settings.policy_from_epoch > 1 or settings.policy_every > 1
    return System(
        parameters=parameters(network),
        step=partial(training_step, settings, pace, network),
        predict=passes(network),
        schedule=pace.schedule,
        learner=learner if waits else None,
    )


TRAINING = PREDICTION = {"dense": build}

PRESETS = (
    Settings(name="policy-500"),
    # lambda matters here. The paper's update is (4) with C of (6): the literal reading.
    Settings(name="policy-800-800", n_units=(800, 800), lam=0.0001, kl_gradient="score"),
    # Of the ranks 4, 16 and 64, the one with the lowest validation error of 60 epochs.
    Settings(name="low-rank-500", policy_rank=4),
)
