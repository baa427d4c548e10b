"""Deep sequential networks: the gradient by enumeration of all paths, routing, and whole runs."""

from itertools import product

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import AS_WRITTEN, compiled, flat, given, values_of
from stopping import check_resumes

from reinforce_dropout import backends, load_evaluation, systems
from reinforce_dropout.running import datasets
from reinforce_dropout.systems import dsnn, plain

SIZES = (4,), 3
N_UNITS = (3, 2)
X = np.random.default_rng(5).normal(size=(2, 4)).astype("float32")
Y = np.array([0, 2], "int32")


def settings(**fields):
    """Return settings of two levels of two small mappings."""
    return dsnn.Settings(**{"n_units": N_UNITS, "loss_reduction": "mean"} | fields)


def built(experiment):
    """Return the system of an experiment, with biases that are not 0."""
    system, rng = systems.build_for_training(experiment, *SIZES), np.random.default_rng(8)
    for name, p in system.parameters.items():
        if name[0] in "bo":
            p.set_value(rng.normal(0, 0.5, p.get_value().shape).astype("float32"))
    return system


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def walk(P, x, path, k=2):
    """Return the logits of the softmax, and the probability of each choice, in NumPy.

    `path` has the chosen mapping of each level, or None for the most probable one.
    """
    s, probabilities = x, []
    for i, j in enumerate(path, start=1):
        p = softmax(s @ P[f"Z_{i}"] + P[f"o_{i}"])
        j = np.argmax(p) if j is None else j
        probabilities.append(p[j])
        columns = slice(j * N_UNITS[i - 1], (j + 1) * N_UNITS[i - 1])
        s = np.tanh(s @ P[f"W_{i}"][:, columns] + P[f"b_{i}"][columns])
    return s @ P["W_out"] + P["b_out"], np.array(probabilities)


def paths(k=2):
    """Return all paths of one example."""
    return list(product(range(k), repeat=len(N_UNITS)))


def expected_nll(P, weights_of=None, x=X, k=2):
    """Mean over the examples of E[nll], by summing over all paths.

    The probabilities of the paths are those of `weights_of`, by default of P itself.
    """
    total = 0
    for image, label in zip(x, Y, strict=False):
        for path in paths(k):
            logits, probabilities = walk(P, image, path)
            _, p = (None, probabilities) if weights_of is None else walk(weights_of, image, path)
            total = total + np.prod(p) * -np.log(softmax(logits)[label])
    return total / len(x)


def expected_gradient(experiment, x=X, k=2):
    """Return the system, and the mean of a step's gradient over the paths of all examples."""
    system = built(experiment.replace(learning_rate=1.0, policy_learning_rate=1.0))
    P = values_of(system)
    u = [pt.fmatrix(f"u_{i}") for i in range(len(N_UNITS))]
    x_in, y_in = pt.fmatrix("x"), pt.ivector("y")
    step = system.step(x_in, y_in, None, rule=given(u))
    names = list(P)
    after = compiled([x_in, y_in, *u], [step.updates[system.parameters[n]] for n in names])
    total = dict.fromkeys(names, 0)
    for joint in product(paths(k), repeat=len(x)):
        weight = np.prod(
            [walk(P, image, path)[1].prod() for image, path in zip(x, joint, strict=True)]
        )
        decisions = [np.eye(k, dtype="float32")[list(level)] for level in zip(*joint, strict=True)]
        for name, value in zip(names, after(x, Y[: len(x)], *decisions), strict=True):
            total[name] = total[name] + weight * (P[name] - value)
    return P, total


def check(found, expected):
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=2e-4, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("baseline", ["none", "leave-one-out-mean"])
def test_the_gradient_is_that_of_the_expected_loss(baseline):
    """Of all parameters: policies, mappings and the output, over the 16 joint paths of 2 images."""
    P, found = expected_gradient(settings(baseline=baseline, l2=0.0))
    exact = reference.gradient(expected_nll, P, P)
    check(found, exact)
    assert all(np.abs(exact[name]).max() > 1e-3 for name in P)


def test_with_three_mappings():
    """The 9 paths of one image."""
    P, found = expected_gradient(settings(n_mappings=3, baseline="none", l2=0.0), X[:1], k=3)
    check(found, reference.gradient(lambda P: expected_nll(P, x=X[:1], k=3), P, P))


def test_the_mean_loss_scales_the_score_only():
    """The baseline contains the example's own loss: N - 1 of N parts of the score are left.

    The other part, back-propagation along the path, holds the probabilities of paths constant.
    """
    P, found = expected_gradient(settings(l2=0.0))
    assert settings().baseline == "batch-mean"
    exact = reference.gradient(expected_nll, P, P)
    along = reference.gradient(lambda Q: expected_nll(Q, weights_of=P), P, P)
    check(found, {name: along[name] + (exact[name] - along[name]) / 2 for name in P})


def test_a_score_that_reaches_policies_only():
    """Then mappings learn along the path, and policies as before."""
    P, found = expected_gradient(settings(score="policies", baseline="none", l2=0.0))
    exact = reference.gradient(expected_nll, P, P)
    along = reference.gradient(lambda Q: expected_nll(Q, weights_of=P), P, P)
    policies = {name: exact[name] if name[0] in "Zo" else along[name] for name in P}
    for name in ("o_1", "Z_1", "o_2", "Z_2"):
        policies[name] = exact[name]
    for name in ("b_2", "W_out", "b_out"):  # no score depends on these
        np.testing.assert_allclose(exact[name], along[name], atol=1e-12)
    assert np.abs(exact["W_1"] - along["W_1"]).max() > 1e-3
    check(found, policies)


def test_sum_and_l2():
    """The sum over the mini-batch is N times the mean; the penalty counts weights of mappings."""
    mean, summed = (
        expected_gradient(settings(l2=0.0, loss_reduction=r))[1] for r in ("mean", "sum")
    )
    P, with_l2 = expected_gradient(settings(l2=0.1))
    for name in P:
        np.testing.assert_allclose(summed[name], 2 * mean[name], rtol=1e-3, atol=1e-6)
        penalty = 0.2 * P[name] if name[0] == "W" else 0
        np.testing.assert_allclose(with_l2[name], mean[name] + penalty, rtol=1e-3, atol=1e-6)


def compile_step(system, seed=4):
    """Return a function that takes a step and returns its statistics by name."""
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(seed))
    step = system.step(x, y, rng)
    f = compiled([x, y], flat(step.statistics), updates=step.updates)

    def take(images, labels):
        entries = iter(f(images, labels))
        return {
            name: [next(entries) for _ in v] if isinstance(v, list) else next(entries)
            for name, v in step.statistics.items()
        }

    return take


def compile_logits(system, rule, seed=0):
    x, rng = pt.fmatrix("x"), pytensor.shared(np.random.default_rng(seed))
    passed = system.predict[rule](x, rng)
    return compiled([x], [passed.logits, *(stage.U for stage in passed.stages)])


def test_one_mapping_is_the_plain_network():
    """The same initial weights, statistics and updates."""
    fields = {"n_units": N_UNITS, "learning_rate": 0.1, "l2": 0.01}
    ours = systems.build_for_training(dsnn.Settings(n_mappings=1, **fields), *SIZES)
    network = systems.build_for_training(plain.Settings(**fields), *SIZES)
    take, other = compile_step(ours), compile_step(network)
    for _ in range(3):
        np.testing.assert_allclose(take(X, Y)["train_nll"], other(X, Y)["train_nll"], rtol=1e-6)
    for name, value in values_of(network).items():
        np.testing.assert_allclose(values_of(ours)[name], value, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(values_of(ours)["o_1"], 0)


def test_statistics_are_numpys():
    """Entropies from the probabilities; the use of a mapping is the fraction that chose it."""
    system = built(settings(n_mappings=2))
    P, images = values_of(system), np.tile(X[:1], (4000, 1))
    statistics = compile_step(system)(images, np.zeros(4000, "int32"))
    p = softmax(X[0] @ P["Z_1"] + P["o_1"])
    np.testing.assert_allclose(statistics["policy_entropy"][0], -(p * np.log(p)).sum(), rtol=1e-5)
    np.testing.assert_allclose(statistics["mapping_use_1"], p, atol=0.03)
    both = [sum(np.prod(walk(P, X[0], (i, j))[1]) for i in range(2)) for j in range(2)]
    np.testing.assert_allclose(statistics["mapping_use_2"], both, atol=0.03)
    for level in ("1", "2"):
        np.testing.assert_allclose(sum(statistics[f"mapping_use_{level}"]), 1, rtol=1e-6)
    total = sum(statistics["policy_entropy"])
    np.testing.assert_allclose(statistics["path_entropy"], total, rtol=1e-6)


def test_thresholded_takes_the_most_probable_choice_at_each_node():
    system = built(settings())
    x = np.random.default_rng(6).normal(0, 4, size=(20, 4)).astype("float32")
    logits, *choices = compile_logits(system, "thresholded")(x)
    P = values_of(system)
    expected = [walk(P, image, (None, None)) for image in x]
    np.testing.assert_allclose(logits, [e[0] for e in expected], rtol=1e-4, atol=1e-5)
    assert all((p >= 0.5).all() for _, p in expected)
    assert 0 < choices[0][:, 0].mean() < 1


def test_averaged_is_the_mean_prediction_of_sampled_paths():
    """With many paths it comes near the exact mean over all four, for each image its own."""
    system = built(settings(n_paths=50))
    P = values_of(system)
    logits, *choices = compile_logits(system, "averaged")(X.repeat(100, axis=0))
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, rtol=1e-5)
    assert logits.shape == (200, 3) and choices[0].shape == (200, 2)
    means = np.exp(logits).reshape(2, 100, -1).mean(axis=1)
    taken = choices[0].reshape(2, 100, -1).mean(axis=1)
    for n, image in enumerate(X):
        exact = sum(np.prod(p) * softmax(z) for z, p in (walk(P, image, c) for c in paths()))
        np.testing.assert_allclose(means[n], exact, atol=0.02)
        np.testing.assert_allclose(taken[n], softmax(image @ P["Z_1"] + P["o_1"]), atol=0.04)


def test_averaged_with_one_path_is_sampled():
    """The same draws; logits differ by a constant for each image."""
    system = built(settings(n_paths=1))
    averaged, *ours = compile_logits(system, "averaged")(X)
    logits, *choices = compile_logits(system, "sampled")(X)
    np.testing.assert_allclose(softmax(averaged), softmax(logits), rtol=1e-5)
    np.testing.assert_array_equal(ours, choices)


def test_uniform_routing_neither_looks_nor_learns():
    """Its policies are no parameters; every mapping is taken as often."""
    system = systems.build_for_training(settings(routing="uniform", n_mappings=3), *SIZES)
    assert list(system.parameters) == ["W_1", "b_1", "W_2", "b_2", "W_out", "b_out"]
    statistics = compile_step(system)(np.tile(X, (3000, 1)), np.tile(Y, 3000))
    for level in ("1", "2"):
        np.testing.assert_allclose(statistics[f"mapping_use_{level}"], 1 / 3, atol=0.03)
    np.testing.assert_allclose(statistics["path_entropy"], 2 * np.log(3), rtol=1e-5)


PRESETS = [preset.name for preset in dsnn.PRESETS]


def test_the_presets_and_what_they_are_compared_with():
    """For each data set: the net of one path's size, of all mappings' size, uniform routing."""
    for data in ("mnist", "inverted"):
        ours = systems.preset(f"dsnn-{data}")
        one, all_, uniform = (
            systems.preset(f"dsnn-{data}-{what}")
            for what in ("one-path", "all-mappings", "uniform")
        )
        assert ours.n_mappings > 1 and ours.routing == "gibbs"
        assert (one.n_mappings, one.n_units) == (1, ours.n_units)
        assert all_.n_mappings == 1
        assert all_.n_units == tuple(n * ours.n_mappings for n in ours.n_units)
        assert (uniform.routing, uniform.n_units) == ("uniform", ours.n_units)
        assert uniform.evaluation_rule == "averaged"
        for other in (one, all_, uniform):
            assert other.differences(ours).keys() <= {
                "name", "n_mappings", "n_units", "routing", "evaluation_rule",
            }  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets_train_resume_and_evaluate(name, small_data, tmp_path, monkeypatch):
    """End to end; a run that was stopped ends with the numbers of one that was not."""
    monkeypatch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
    e = systems.preset(name)
    e = e.replace(n_units=[12] * len(e.n_units), n_epochs=3, n_paths=3, loss_reduction="sum")
    e = e.replace(learning_rate=0.02, policy_learning_rate=0.02)
    with pytensor.config.change_flags(cxx=""):
        record = check_resumes(e, tmp_path, data=small_data)
        evaluation = load_evaluation(record)(datasets.load(small_data).test)
    assert record.best_attributes["test_error"] < 0.3  # chance is 0.75
    curves, best = record.curves, record.best_attributes
    assert curves["mapping_use_1"].shape == (3, e.n_mappings)
    assert curves["policy_entropy"].shape == (3, len(e.n_units))
    for rule, error in evaluation.errors.items():
        assert error == curves[f"test_error_{rule}"][best["epoch"] - 1]
