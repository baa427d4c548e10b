"""The training step against a plain NumPy step, parameter by parameter."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from pytensor.graph.traversal import ancestors
from reference import compiled, flat, gated_network, in_blocks, parameters, thetas

from reinforce_dropout import costs
from reinforce_dropout.algorithm import training_step
from reinforce_dropout.blocks.sharing import Sharing
from reinforce_dropout.network import RULES, forward, multilayer_perceptron
from reinforce_dropout.systems import block_policy, plain, policy
from reinforce_dropout.systems.policy import BASELINES, PRODUCTS

N_IN, N_CLASSES = 4, 3
BATCH_SIZES = (5, 3, 1)


def experiment(**changes):
    """Return an experiment in which every term counts and no two rates are the same."""
    settings = {
        "n_units": (3, 2),
        "learning_rate": 0.3,
        "policy_learning_rate": 0.7,
        "l2": 0.05,
        "lam": 0.4,
        "q": 0.2,
        "baseline_decay": 0.6,
    }
    return block_policy.Settings(**settings | changes)


def spread(network):
    """Give all parameters of a network values at random, none of them zero, in float32."""
    rng = np.random.default_rng(1)
    for p in parameters(network):
        p.set_value(rng.normal(0, 0.7, p.get_value().shape).astype("float32"))
    return network


def network_of(experiment):
    """Return a network in float32, as in training, with gates for blocks and groups."""
    widths = (N_IN, *experiment.n_units, N_CLASSES)
    sharing = Sharing(experiment.instances_per_block, experiment.units_per_block)
    network = gated_network(np.random.default_rng(0), widths, units=sharing.units)
    return spread(in_blocks(network, sharing))


def step_of(network, x, y, experiment, rng=None, rule=RULES["sampled"]):
    """Return the step that the settings name."""
    return training_step(network, x, y, rng, policy.learn_both(experiment), rule)


def batches(experiment):
    """Yield mini-batches with decisions (x, y, an array a layer); the last are smaller."""
    rng = np.random.default_rng(2)
    B, G = experiment.instances_per_block, experiment.units_per_block
    for N in BATCH_SIZES:
        shapes = [(-(-N // B), -(-n // G)) for n in experiment.n_units]
        masks = [rng.integers(0, 2, shape).astype("float32") for shape in shapes]
        x = rng.normal(size=(N, N_IN)).astype("float32")
        yield x, rng.integers(0, N_CLASSES, N).astype("int32"), masks


def numpy_baseline(C, e, memory, s, z, u):
    """Return the baseline of the costs and what it remembers next; `memory` is empty at first."""
    N, past = len(C), e.baseline_decay
    if e.baseline == "moving-average":
        (average,) = memory or [0.0]
        return np.full(N, average), [past * average + (1 - past) * C.mean()]
    if e.baseline == "per-unit":
        square = (u - reference.sigm(z)) ** 2
        weighted, weight = memory or [0.0, 0.0]
        b = weighted / weight if memory else 0.0
        weighted = past * weighted + (1 - past) * (C @ square) / N
        return np.zeros(z.shape) + b, [weighted, past * weight + (1 - past) * square.mean(axis=0)]
    if e.baseline == "learned":
        v, v0 = memory or [np.zeros(s.shape[1]), 0.0]
        b = s @ v + v0
        rate = e.baseline_learning_rate / (1 + (s**2).sum(axis=1).mean())
        return b, [v + rate * (C - b) @ s / N, v0 + rate * (C - b).mean()]
    b = {
        "none": np.zeros(N),
        "batch-mean": np.full(N, C.mean()),
        "leave-one-out-mean": (C.sum() - C) / (N - 1) if N > 1 else C,
        "batch-minimum": np.full(N, C.min()),
    }[e.baseline]
    return b, []


def states(P, x, masks, B, G):
    """Return the activations below each policy, pooled over blocks."""
    s, found = x, []
    for i, u in enumerate(masks, start=1):
        found.append(reference.block_mean(s, B))
        h = np.tanh(s @ P[f"W_{i}"] + P[f"b_{i}"])
        s = h * reference.expand(u, h.shape, B, G)
    return found


def numpy_step(P, x, y, masks, e, memories):
    """Return the parameters, and what the baselines remember, after one step of section 3.3."""
    after, memories = dict(P), list(memories)
    blocks = {"B": e.instances_per_block, "G": e.units_per_block}
    names = [name for name in P if name[0] in "Wb"]

    def loss(P):
        nll = reference.nll(reference.forward(P, x, masks, **blocks)[1], y)
        squares = [(P[name] ** 2).sum() for name in names if name[0] == "W"]
        penalty = sum(squares) if e.l2_of == "squares" else sum(np.sqrt(squares))
        return (nll.sum() if e.loss_reduction == "sum" else nll.mean()) + e.l2 * penalty

    for name, grad in reference.gradient(loss, P, names).items():
        after[name] = P[name] - e.learning_rate * grad

    zs, logits = reference.forward(P, x, masks, **blocks)
    nll = reference.block_mean(reference.nll(logits, y), e.instances_per_block)
    kls = [reference.kl(z, e.q) for z in zs]
    for i, u in enumerate(masks):
        counted = kls if e.kl_gradient == "score" else kls[i + 1 :]
        C = nll + e.lam * sum(counted, np.zeros(len(nll)))
        s = states(P, x, masks, **blocks)[i]
        b, memories[i] = numpy_baseline(C, e, memories[i], s, zs[i], u)
        c = (C[:, None] if b.ndim == 2 else C) - b

        def surrogate(P, i=i, u=u, c=c):
            z = reference.forward(P, x, masks, **blocks)[0][i]
            direct = e.lam * reference.kl(z, e.q).mean() if e.kl_gradient == "total" else 0
            if c.ndim == 2:  # each unit's score has a weight of its own
                log_pi = u * np.log(reference.sigm(z)) + (1 - u) * np.log(1 - reference.sigm(z))
                return (c * log_pi).sum() / len(c) + direct
            return (c * reference.log_pi(z, u)).mean() + direct

        theta = [f"Z_{i + 1}", f"o_{i + 1}"]
        for name, grad in reference.gradient(surrogate, P, theta).items():
            after[name] = P[name] - e.policy_learning_rate * grad
    return after, memories


def numpy_statistics(P, x, y, masks, e):
    """Return mean nll, active fractions and entropies per decision."""
    B, G = e.instances_per_block, e.units_per_block
    zs, logits = reference.forward(P, x, masks, B=B, G=G)
    return np.array(
        [reference.nll(logits, y).mean()]
        + [
            reference.expand(u, (len(y), n), B, G).mean()
            for u, n in zip(masks, e.n_units, strict=True)
        ]
        + [reference.entropy(z).mean() / z.shape[1] for z in zs]
    )


@pytest.mark.parametrize("loss_reduction", ["sum", "mean"])
@pytest.mark.parametrize("kl_gradient", ["total", "score"])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("n_units", [(3,), (3, 2)], ids=str)
def test_step_is_that_of_numpy(n_units, baseline, kl_gradient, loss_reduction):
    """With a mask for every example and unit."""
    check_steps(
        experiment(
            n_units=n_units,
            baseline=baseline,
            kl_gradient=kl_gradient,
            loss_reduction=loss_reduction,
        )
    )


@pytest.mark.parametrize("kl_gradient", ["total", "score"])
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(("B", "G"), [(2, 1), (1, 2), (2, 2), (4, 3)])
def test_step_with_blocks_is_that_of_numpy(B, G, baseline, kl_gradient):
    """Mini-batches of 5, 3 and 1 and layers of 3 and 2: whole and shorter blocks and groups."""
    settings = {"instances_per_block": B, "units_per_block": G}
    check_steps(experiment(baseline=baseline, kl_gradient=kl_gradient, **settings))


@pytest.mark.parametrize("product", PRODUCTS)
def test_step_by_every_product_is_that_of_numpy(product):
    """All name the same vector."""
    check_steps(experiment(product=product))
    check_steps(experiment(product=product, baseline="per-unit"))


MEMORIES = {
    "moving-average": ["average"],
    "per-unit": ["weighted_cost", "weight"],
    "learned": ["v", "v0"],
}
"""Names of what the baselines remember."""


def test_step_with_norms_of_weights_is_that_of_numpy():
    check_steps(experiment(l2_of="norms"))


def check_steps(e):
    """Three steps with given masks: every parameter, what is remembered, the statistics."""
    n_units = e.n_units
    network = network_of(e)
    x, y, U = pt.fmatrix("x"), pt.ivector("y"), [pt.fmatrix() for _ in n_units]
    step = step_of(network, x, y, e, rule=reference.given(U))
    assert list(step.statistics) == ["train_nll", "active_fraction", "policy_entropy"]
    remembered = [v for v in step.updates if v not in parameters(network)]
    f = compiled([x, y, *U], flat(step.statistics), updates=step.updates)
    P, memories = reference.values(network), [[]] * len(n_units)
    for images, labels, masks in batches(e):
        statistics = f(images, labels, *masks)
        assert {v.dtype for v in statistics} == {np.dtype("float32")}
        expected = numpy_statistics(P, images, labels, masks, e)
        np.testing.assert_allclose(statistics, expected, rtol=1e-4, atol=1e-5)
        P, memories = numpy_step(P, images, labels, masks, e, memories)
        for name, value in reference.values(network).items():
            np.testing.assert_allclose(value, P[name], rtol=1e-4, atol=2e-5, err_msg=name)
    names = MEMORIES.get(e.baseline, [])
    expected = [f"{name}_{i + 1}" for i in range(len(n_units)) for name in names]
    assert [v.name for v in remembered] == expected
    for variable, value in zip(remembered, sum(memories, []), strict=True):
        np.testing.assert_allclose(variable.get_value(), value, rtol=1e-4, atol=1e-5)


def test_without_gates():
    """Back-propagation alone updates the network's parameters and returns the mean nll."""
    e = experiment()
    widths = (N_IN, *e.n_units, N_CLASSES)
    network = spread(multilayer_perceptron(np.random.default_rng(0), widths, pt.tanh))
    x, y = pt.fmatrix("x"), pt.ivector("y")
    step = training_step(network, x, y, None, plain.learn_network(e))
    assert list(step.updates) == network.params
    assert step.statistics["active_fraction"] == step.statistics["policy_entropy"] == []
    f = compiled([x, y], flat(step.statistics), updates=step.updates)
    P = reference.values(network)
    for i, n in enumerate(e.n_units, start=1):  # masks of ones stand for no masks
        P |= {f"Z_{i}": np.zeros((P[f"W_{i}"].shape[0], n)), f"o_{i}": np.zeros(n)}
    for images, labels, masks in batches(e):
        ones = [np.ones_like(u) for u in masks]
        expected = numpy_statistics(P, images, labels, ones, e)[:1]
        np.testing.assert_allclose(f(images, labels), expected, rtol=1e-5)
        after, _ = numpy_step(P, images, labels, ones, e, [[], []])
        P |= {p.name: after[p.name] for p in network.params}
        for p in network.params:
            np.testing.assert_allclose(p.get_value(), P[p.name], rtol=1e-4, atol=1e-5)


def test_one_draw_serves_both_steps():
    """With masks drawn inside, statistics, network and policies all use the same masks."""
    e = experiment()
    network = network_of(e)
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(5))
    drawn = []
    step = step_of(network, x, y, e, rng, reference.sampled_into(drawn))
    assert rng in step.updates
    f = compiled([x, y], [*flat(step.statistics), *drawn], updates=step.updates)
    P, seen = reference.values(network), []
    images, labels, _ = next(batches(e))
    for _ in range(2):
        results = f(images, labels)
        statistics, masks = results[: -len(drawn)], results[-len(drawn) :]
        expected = numpy_statistics(P, images, labels, masks, e)
        np.testing.assert_allclose(statistics, expected, rtol=1e-4, atol=1e-5)
        P, _ = numpy_step(P, images, labels, masks, e, [[], []])
        for name, value in reference.values(network).items():
            np.testing.assert_allclose(value, P[name], rtol=1e-4, atol=2e-5, err_msg=name)
        seen.append(np.concatenate([u.ravel() for u in masks]))
    assert (seen[0] != seen[1]).any()


@pytest.mark.parametrize("i", [0, 1])
def test_masks_are_constant_for_back_propagation(i):
    """No gradient of the nll reaches a policy by back-propagation, unlike with sigma as mask."""
    network = network_of(experiment())
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(0))
    for rule, connected in (("sampled", False), ("expected", True)):
        nll = costs.nll(forward(network, x, rng, RULES[rule]).logits, y).sum()
        grads = pytensor.grad(nll, thetas(network)[i], disconnected_inputs="ignore")
        images, labels, _ = next(batches(experiment()))
        values = compiled([x, y], grads, on_unused_input="ignore")(images, labels)
        assert [bool(np.abs(v).max() > 0) for v in values] == [connected, connected]


def test_without_lambda_both_kl_gradients_are_one():
    """Lambda 0 switches the divergence off in either reading."""
    results = []
    for kl_gradient in ("total", "score"):
        e = experiment(lam=0.0, kl_gradient=kl_gradient)
        network = network_of(e)
        x, y, U = pt.fmatrix("x"), pt.ivector("y"), [pt.fmatrix() for _ in e.n_units]
        step = step_of(network, x, y, e, rule=reference.given(U))
        f = compiled([x, y, *U], flat(step.statistics), updates=step.updates)
        for images, labels, masks in batches(e):
            f(images, labels, *masks)
        results.append(reference.values(network))
    for name, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][name])


@pytest.mark.parametrize("floatX", ["float32", "float64"])
@pytest.mark.parametrize("kl_gradient", ["total", "score"])
def test_everything_stays_in_float32(kl_gradient, floatX):
    """Every result is float32 for any default of PyTensor; float64 would double the time."""
    with pytensor.config.change_flags(floatX=floatX):
        e = experiment(baseline="moving-average", kl_gradient=kl_gradient)
        rng = pytensor.shared(np.random.default_rng(0))
        step = step_of(network_of(e), pt.fmatrix("x"), pt.ivector("y"), e, rng)
    statistics = flat(step.statistics)
    assert all(new.type.dtype == "float32" for p, new in step.updates.items() if p is not rng)
    assert {v.dtype for v in statistics} == {"float32"}
    for v in ancestors([*statistics, *step.updates.values()]):
        assert v.owner is None or getattr(v.type, "dtype", None) != "float64", v.owner


def test_nothing_is_drawn_without_a_need():
    """The generator does not move without gates, nor by a rule that draws nothing."""
    rng = pytensor.shared(np.random.default_rng(0))
    x, y, e = pt.fmatrix("x"), pt.ivector("y"), experiment()
    assert rng not in step_of(network_of(e), x, y, e, rng, RULES["thresholded"]).updates
    network = multilayer_perceptron(np.random.default_rng(0), (N_IN, 3, N_CLASSES), pt.tanh)
    assert rng not in training_step(network, x, y, rng, plain.learn_network(e)).updates
