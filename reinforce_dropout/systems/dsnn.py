"""Deep sequential neural network (Denoyer and Gallinari, 2014): a policy routes each example.

At every node a Gibbs policy ``p(j | s) = softmax(s Z + o)_j`` picks one of k mappings for the state
s. A mapping is affine with tanh, and its result is the state of the next node. The choices make a
path. The gradient of the expected loss, over sampled paths, has two parts::

    E[ grad nll + (nll - b) grad log P(path) ],    log P(path) = sum over nodes of log p(u_i | s_i)

The first is back-propagation along the path, with the choices held constant. The second is the
score. The states s_i depend on the mappings below. So by the formula the score reaches these
mappings, too, and not the policies alone. ``score`` turns that off. The baseline b is the mean loss
of the mini-batch.

A tree of depth D has as many nodes at depth i as there are paths to it, and k^D mappings in its
last level. Here all paths share the k mappings of a level: a layered graph with k D mappings. The
last layer, to the classes, is one for all paths. We know no number of the paper that we could
check. Its case is data with several modes: ``--data mnist-inverted``.

All k mappings are computed for every example, and one is selected. So a step costs k times the
products of one path, and only a count of one path's products shows what routing saves. Watch the
curves ``mapping_use_1``, ...: one mapping may take all examples. Rates that are too large do that
at once.
"""

from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from reinforce_dropout import baselines, categorical
from reinforce_dropout.algorithm import training_step
from reinforce_dropout.gates import AffinePolicy, Gate, UniformPolicy, unchanged
from reinforce_dropout.initializers import glorot_uniform, parameter
from reinforce_dropout.layers import ACTIVATIONS, dense
from reinforce_dropout.network import RULES, Network, forward, sampled
from reinforce_dropout.systems import descent, plain, policy
from reinforce_dropout.systems.settings import at_least, one_of, setting, settings
from reinforce_dropout.systems.system import System


class Mappings(NamedTuple):
    """k mappings of the same state, ``act(s W_j + b_j)``, all computed at once.

    Attributes
    ----------
    W : shared (n_in, k * n_units) float32
        The k matrices side by side.
    b : shared (k * n_units,) float32
    k : int
    activation : callable
    """

    W: Any
    b: Any
    k: int
    activation: Any

    @property
    def params(self):
        """What back-propagation learns: ``[W, b]``."""
        return [self.W, self.b]

    @property
    def weights(self):
        """What the L2 penalty counts: ``[W]``."""
        return [self.W]

    def __call__(self, s):
        """Map states (m_b, n_in) to the results of all mappings, (m_b, k, n_units)."""
        return self.activation(s @ self.W + self.b).reshape((s.shape[0], self.k, -1))


def chosen(h, U):
    """Return the results (m_b, n_units) of the chosen mappings: ``sum_j U_j h_j``."""
    return (h * U[:, :, None]).sum(axis=1)


def gibbs(rng, n_in, k, name):
    """Return a policy that looks at the state: ``p = softmax(s Z + o)``."""
    Z = parameter(glorot_uniform(rng, n_in, k), f"Z_{name}")
    return AffinePolicy(Z, parameter(np.zeros(k, "float32"), f"o_{name}"))


def uniform(rng, n_in, k, name):
    """Return a policy that routes at random, and learns nothing."""
    return UniformPolicy(parameter(np.zeros(k, "float32"), f"o_{name}"))


ROUTING = {"gibbs": gibbs, "uniform": uniform}
"""``policy(rng, n_in, k, name)``, see `gates.Gate`."""

SCORES = {"all": unchanged, "policies": disconnected_grad}
"""What log P(path) differentiates: ``state(s)`` keeps the mappings below, or holds s constant."""

BASELINES = {
    "none": baselines.none,
    "batch-mean": baselines.batch_mean,
    "leave-one-out-mean": baselines.leave_one_out_mean,
}
"""``baseline(C, stage) -> (b, updates)``"""

AVERAGED = "averaged"


@settings
class Settings(plain.Settings):
    """Settings of a deep sequential neural network."""

    system: ClassVar[str] = "dsnn"

    n_mappings: int = setting(2, at_least(1), "Mappings of a level, k; 1 is a plain network.")
    routing: str = setting(
        "gibbs", one_of(ROUTING), "Who picks the mapping: a learned policy, or chance alone."
    )
    score: str = setting(
        "all",
        one_of(SCORES),
        "What the score reaches: 'all' that log P(path) depends on, by the formula; or the "
        "'policies' only, as if states were constants.",
    )
    policy_learning_rate: float = setting(
        0.01, at_least(0), "Of the policies; learning_rate by the formula, which has one gradient."
    )
    baseline: str = setting(
        "batch-mean", one_of(BASELINES), "Baseline b of the score; the paper's is the mean loss."
    )
    n_paths: int = setting(10, at_least(1), "Sampled paths that the rule 'averaged' averages.")
    evaluation_rule: str = setting(
        "thresholded",
        one_of((*RULES, AVERAGED)),
        "How a model is judged: by the most probable choice at each node (thresholded), the mean "
        "prediction of sampled paths (averaged), one path (sampled), or mixed results (expected).",
    )


def sequential_network(settings, image_shape, n_classes):
    """Return the `Network`: a level of mappings for each entry of ``n_units``, with its policy."""
    rng, k = np.random.default_rng(settings.seeds().init), settings.n_mappings
    sizes = [int(np.prod(image_shape)), *settings.n_units]
    activation = ACTIVATIONS[settings.activation]
    layers = []
    for i, (n_in, n_units) in enumerate(pairwise(sizes), start=1):
        W = np.concatenate([glorot_uniform(rng, n_in, n_units) for _ in range(k)], axis=1)
        b = np.zeros(k * n_units, "float32")
        layers.append(Mappings(parameter(W, f"W_{i}"), parameter(b, f"b_{i}"), k, activation))
    output = dense(rng, sizes[-1], n_classes, "out")
    route = ROUTING[settings.routing]
    policies = [route(rng, n_in, k, str(i)) for i, n_in in enumerate(sizes[:-1], start=1)]
    return Network(layers, [Gate(p, categorical, act=chosen) for p in policies], output)


def expected_loss(stages, nll, *, state, baseline):
    """Return a vector (m_b,) whose gradient is that of the expected nll, over sampled paths.

    Parameters
    ----------
    stages : list of Stage
    nll : tensor (m_b,)
        In nats.
    state : callable
        An entry of `SCORES`.
    baseline : callable
        An entry of `BASELINES`.
    """
    b, _ = baseline(nll, None)
    log_path = sum(s.gate.family.log_prob(s.gate.policy(state(s.s)), s.u) for s in stages)
    return nll + disconnected_grad(nll - b) * log_path


def learn_all(settings, pace):
    """Return ``learn(network, passed, nll) -> updates`` for the mappings and policies."""
    learn_mappings = plain.learn_network(settings, pace)
    reduce = plain.LOSS_REDUCTIONS[settings.loss_reduction]
    descend = pace.descend(settings.optimizer, settings.policy_learning_rate)

    def learn(network, passed, nll):
        theta = [p for gate in network.gates for p in gate.policy.theta]
        surrogate = expected_loss(
            passed.stages,
            nll,
            state=SCORES[settings.score],
            baseline=BASELINES[settings.baseline],
        )
        grads = pytensor.grad(reduce(surrogate), theta)
        return learn_mappings(network, passed, surrogate) | descend(theta, grads)

    return learn


def statistics(stages, nll, n_mappings):
    """Return the `algorithm.Step.statistics` of a pass.

    ``train_nll`` is in nats an example. ``policy_entropy``, for each node, and ``path_entropy``,
    their sum, are in nats. ``mapping_use_i`` are the fractions of the examples that take each
    mapping of level i.
    """
    entropies = [stage.gate.family.entropy(stage.z).mean() for stage in stages]
    use = {
        f"mapping_use_{stage.name}": [stage.U[:, j].mean() for j in range(n_mappings)]
        for stage in stages
    }
    return {
        "train_nll": nll.mean(),
        "policy_entropy": entropies,
        "path_entropy": sum(entropies),
        **use,
    }


def averaged(network, x, rng, n_paths):
    """Return the `Pass` with the mean prediction of sampled paths, and the mean of their choices.

    The probabilities of the classes are averaged, not their logits.
    """
    passed = forward(network, pt.concatenate([x] * n_paths), rng, sampled)

    def by_path(v):
        return v.reshape((n_paths, x.shape[0], -1))

    probabilities = by_path(categorical.mean(passed.logits)).mean(axis=0)
    tiny = np.finfo("float32").tiny
    stages = [stage._replace(U=by_path(stage.U).mean(axis=0)) for stage in passed.stages]
    return passed._replace(logits=pt.log(pt.maximum(probabilities, tiny)), stages=stages)


def build(settings, image_shape, n_classes):
    """Build the system for images of a shape and a number of classes."""
    network = sequential_network(settings, image_shape, n_classes)
    pace = descent.pace(settings)
    return System(
        parameters=policy.parameters(network),
        step=partial(
            training_step,
            network,
            learn=learn_all(settings, pace),
            measure=partial(statistics, n_mappings=settings.n_mappings),
        ),
        schedule=pace.schedule,
        predict={
            **policy.passes(network),
            AVERAGED: partial(averaged, network, n_paths=settings.n_paths),
        },
    )


TRAINING = PREDICTION = {"dense": build}


def _with_comparisons(name, **chosen):
    """Return a preset, and the presets that show what its routing is worth."""
    ours = Settings(name=name, **chosen)
    all_units = tuple(n * ours.n_mappings for n in ours.n_units)
    return (
        ours,
        ours.replace(name=f"{name}-one-path", n_mappings=1),
        ours.replace(name=f"{name}-all-mappings", n_mappings=1, n_units=all_units),
        ours.replace(name=f"{name}-uniform", routing="uniform", evaluation_rule=AVERAGED),
    )


_MEAN = {"loss_reduction": "mean", "l2": 0.00005, "n_epochs": 200}

PRESETS = (
    # Rates by the validation error of five epochs. MNIST has one mode. At every rate that was
    # tried, one mapping of each level soon takes nearly all examples.
    *_with_comparisons(
        "dsnn-mnist",
        n_units=(100, 100),
        n_mappings=3,
        learning_rate=0.1,
        policy_learning_rate=0.01,
        **_MEAN,
    ),
    # Most pixels of an inverted image are 1, so steps are about seven times as long. With larger
    # rates one mapping takes all examples in the first epoch, for good.
    *_with_comparisons(
        "dsnn-inverted",
        n_units=(100,),
        n_mappings=2,
        learning_rate=0.02,
        policy_learning_rate=0.02,
        **_MEAN,
    ),
)
