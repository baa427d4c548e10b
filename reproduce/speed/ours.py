"""The package of this repository. No other module of the benchmarks knows its networks."""

from functools import partial

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt

from reinforce_dropout import backends, systems
from reinforce_dropout.algorithm import training_step
from reinforce_dropout.blocks import by_instance, training_by_instance
from reinforce_dropout.blocks import forward as block_forward
from reinforce_dropout.blocks import training as block_training
from reinforce_dropout.blocks.sharing import Sharing, n_groups
from reinforce_dropout.initializers import logit_of_rate
from reinforce_dropout.network import forward, sampled
from reinforce_dropout.systems import plain, policy
from reinforce_dropout.systems.learner import copies, put
from speed import L2, blas, n_layers

N_CORES = numba.config.NUMBA_DEFAULT_NUM_THREADS
"""That this process may use."""

RATE_FOR_ALL = 1 - 1e-9
"""At this rate policies draw every unit in float32. At 1 itself the logits would be infinite."""
POLICY_LEARNING_RATE = 1e-9
"""For steps by blocks. It hardly changes the rate, but 0 would leave out the updates."""
UNITS_IN_A_LINE = 16
"""Float32 weights in a line of the cache, and units in a group if each instance has masks."""


def initial_parameters(n_units, n_in, n_classes, rate=None):
    """Return initial parameters by name; policies start at `rate`, None means no policies."""
    settings = (
        plain.Settings(n_units=n_units)
        if rate is None
        else policy.Settings(n_units=n_units, initial_rate=rate)
    )
    return copies(systems.build_for_training(settings, (n_in,), n_classes).parameters)


def network_of(parameters, gated=False, units_per_block=1, **settings):
    """Return the network of these parameters, its settings, and its variables by name.

    Policies, if any, decide for groups of `units_per_block` units.
    """
    widths = [len(parameters[f"b_{i}"]) for i in range(1, n_layers(parameters) + 1)]
    system = policy if gated or "Z_1" in parameters else plain
    settings = system.Settings(name="benchmark", n_units=widths, l2=L2).replace(**settings)
    rng, n_in = np.random.default_rng(0), len(parameters["W_1"])
    network = plain.perceptron(settings, (n_in,), len(parameters["b_out"]), rng)
    variables = {p.name: p for p in network.params}
    if system is policy:
        network = policy.with_gates(network, settings, rng, lambda n: n_groups(n, units_per_block))
        variables = policy.parameters(network)
    put(variables, copies(variables) | parameters)  # policies may keep their initial values
    return network, settings, variables


def stacked(step):
    """Return all statistics of a step as a vector, as the package's learner computes them."""
    values = (v if isinstance(v, list) else [v] for v in step.statistics.values())
    return pt.stack([one for value in values for one in value])


def compile_graph(inputs, outputs, updates=None, backend="numba"):
    """Compile as the package does."""
    mode, updates = backends.mode(backend), list((updates or {}).items())
    return backends.function(inputs, outputs, updates=updates, mode=mode, trust_input=True)


class Step:
    """The training step of one backend, repeated as the package's learner repeats it."""

    rule = staticmethod(sampled)

    def __init__(self, parameters, x, y, learning_rate):
        gated = "Z_1" in parameters
        rates = {"learning_rate": learning_rate}
        if gated:
            rates["policy_learning_rate"] = learning_rate
        network, settings, self.variables = network_of(parameters, **rates)
        self.examples = x.reshape(-1, x.shape[-1]), y.ravel(), x.shape[1]
        inputs = pt.fmatrix("x"), pt.ivector("y")
        rng = pytensor.shared(np.random.default_rng(1)) if gated else None
        learn = policy.learn_both(settings) if gated else plain.learn_network(settings)
        step = training_step(network, *inputs, rng, learn, self.rule)
        function = compile_graph(inputs, stacked(step), step.updates, self.backend)
        self.steps = backends.steps(function, function)

    def turn(self):
        """Make one step for each mini-batch."""
        return np.stack(list(self.steps(*self.examples)))

    def parameters(self):
        """Return the parameters by name."""
        return copies(self.variables)


class Numba(Step):
    """Numba with the package's native Ops."""

    backend = "numba"


class C(Step):
    """PyTensor's C backend."""

    backend = "c"


class Jax(Step):
    """PyTensor's JAX backend, scans over the mini-batches."""

    backend = "jax"


class Dense:
    """The forward pass of the network without masks and policies, by our own kernels."""

    def __init__(self, parameters, x):
        network, *_ = network_of({k: v for k, v in parameters.items() if k[0] in "Wb"})
        images = pt.fmatrix("x")
        self.forward, self.batches = compile_graph([images], forward(network, images).logits), x
        blas.check(parameters, x[0], self.forward(x[0]))

    def turn(self):
        """Propagate all batches."""
        for x in self.batches:
            self.forward(x)
        return np.empty((len(self.batches), 0))


class ByBlocks:
    """Work by blocks of instances that share their masks.

    Subclasses compile ``given``, which takes the masks as further inputs, and ``counted``, whose
    policies draw them.
    """

    def set(self, rate, counted):
        """Prepare turns at a rate of active units, the policies' own time counted or not.

        Every call has other images and other masks. Otherwise a single image would always find its
        few rows of the weights in the caches.
        """
        rng = np.random.default_rng(0)
        for gate, n in zip(self.network.gates, self.n_decisions, strict=True):
            gate.policy.o.set_value(logit_of_rate(min(rate, RATE_FOR_ALL), n))
        self.calls = [
            (*batch, *([] if counted else draw_masks(rng, rate, self.n_blocks, self.n_decisions)))
            for batch in self.batches
        ]
        self.function = self.counted if counted else self.given


class Forward(ByBlocks):
    """Forward passes by blocks or by instances, which never read a dropped unit's weights."""

    def __init__(self, parameters, x, instances_per_block, units_per_block=1, policy_rank=0):
        sharing = Sharing(instances_per_block, units_per_block)
        self.network, settings, _ = network_of(
            parameters, True, sharing.units, policy_rank=policy_rank
        )
        self.n_decisions = [n_groups(n, sharing.units) for n in settings.n_units]
        self.n_blocks, self.batches = -(-x.shape[1] // sharing.instances), [(s,) for s in x]
        if by_instance.suits(self.network, sharing):
            sparse, walk = by_instance.listed(self.network, sharing), by_instance.forward
        else:
            sparse, walk = block_forward.block_sparse(self.network, sharing), block_forward.forward
        images, masks, rule = pt.fmatrix("x"), *masks_given(self.n_decisions)
        passed = walk(sparse, images, rule=rule)
        self.given = compile_graph([images, *masks], passed.logits)
        rng = pytensor.shared(np.random.default_rng(1))
        drawn = walk(sparse, images, rng)
        updates = {rng: drawn.rng}
        self.counted = compile_graph([images], drawn.logits, updates)
        active = sum(stage.u.mean() for stage in drawn.stages) / len(drawn.stages)
        self.active, self.active_at = compile_graph([images], active, updates), {}
        given = draw_masks(np.random.default_rng(0), 0.3, self.n_blocks, self.n_decisions)
        masks = [
            mask.repeat(sharing.instances, axis=0)[: x.shape[1]].repeat(sharing.units, axis=1)[
                :, :n
            ]
            for mask, n in zip(given, settings.n_units, strict=True)
        ]
        blas.check(parameters, x[0], self.given(x[0], *given), masks)

    def set(self, rate, counted):
        """Prepare turns; the statistics say which fraction of the units the policies draw."""
        super().set(rate, counted)
        if counted and rate not in self.active_at:
            self.active_at[rate] = np.array([[self.active(x)] for (x,) in self.batches])
        self.statistics = self.active_at[rate] if counted else np.empty((len(self.batches), 0))

    def turn(self):
        """Propagate all batches."""
        for arguments in self.calls:
            self.function(*arguments)
        return self.statistics


class Steps(ByBlocks):
    """Training steps that touch only the units in use. Subclasses say who shares a decision.

    ``sharing(batch_size) -> Sharing``, and ``training_step`` as `blocks.training.training_step`.
    """

    def __init__(self, parameters, x, y, learning_rate):
        sharing = self.sharing(x.shape[1])
        self.network, settings, _ = network_of(
            parameters, True, sharing.units, baseline="moving-average",
            learning_rate=learning_rate, policy_learning_rate=POLICY_LEARNING_RATE,
        )  # fmt: skip
        self.n_decisions = [n_groups(n, sharing.units) for n in settings.n_units]
        self.n_blocks, self.batches = x.shape[1] // sharing.instances, list(zip(x, y, strict=True))
        inputs = pt.fmatrix("x"), pt.ivector("y")
        masks, rule = masks_given(self.n_decisions)
        build = partial(
            self.training_step, self.network, sharing, *inputs,
            shrinkage=1 - 2 * settings.learning_rate * settings.l2,
        )  # fmt: skip
        given = build(rng=None, learn=plain.learn_network(settings), rule=rule)
        rng = pytensor.shared(np.random.default_rng(1))
        counted = build(rng=rng, learn=policy.learn_both(settings))
        # Without policies there is no entropy of theirs.
        nll = given.statistics["train_nll"][None]
        self.given = compile_graph([*inputs, *masks], nll, given.updates)
        self.counted = compile_graph(inputs, stacked(counted), counted.updates)

    def turn(self):
        """Make one step for each mini-batch."""
        return np.stack([self.function(*arguments) for arguments in self.calls])


class BlockSteps(Steps):
    """Each mini-batch is one block."""

    sharing = staticmethod(Sharing)
    training_step = staticmethod(block_training.training_step)


class InstanceSteps(Steps):
    """Each instance has masks of its own, over groups of units that fill a line of the cache."""

    sharing = staticmethod(lambda batch_size: Sharing(1, UNITS_IN_A_LINE))
    training_step = staticmethod(training_by_instance.training_step)


def masks_given(n_decisions):
    """Return symbolic masks, and the rule that takes them one after the other."""
    masks = [pt.fmatrix(f"u_{i}") for i, _ in enumerate(n_decisions, start=1)]
    rest = iter(masks)
    return masks, lambda family, z, rng: (next(rest), rng)


def draw_masks(rng, rate, n_blocks, n_decisions):
    """Draw masks at a rate, a float32 array (n_blocks, n) for each layer with n decisions."""
    return [(rng.random((n_blocks, n)) < rate).astype("float32") for n in n_decisions]
