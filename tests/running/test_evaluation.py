"""Error rates by every rule, exact over sets of any size."""

import numpy as np
import pytest
import reference
from random_models import record_of
from reference import AS_WRITTEN

from reinforce_dropout import backends, systems
from reinforce_dropout.errors import DataError, ExperimentError
from reinforce_dropout.running.datasets import Examples
from reinforce_dropout.running.evaluation import decisive_rule, load_evaluation
from reinforce_dropout.systems import block_policy, passes, plain, policy
from reinforce_dropout.systems.learner import put
from reinforce_dropout.systems.passes import activity, compile_passes, logits

EXECUTIONS = ("dense", "block-sparse")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Propagate 7 examples at once, and run graphs node by node."""
    monkeypatch.setattr(passes, "BATCH_SIZE", 7)
    monkeypatch.setattr(backends, "mode", lambda *_, **options: AS_WRITTEN)


def examples(n, n_in=4, n_classes=3, seed=0):
    """Return n random examples."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, n_in)).astype("float32")
    return Examples(images, rng.integers(0, n_classes, n).astype("int32"))


def model(*n_units, system=policy, **fields):
    """Return the record of a random model for `examples`."""
    return record_of(system.Settings(n_units=n_units, initial_rate=0.3, **fields), 4, 3)


def plain_model():
    """Return the record of a random model without policies."""
    return record_of(plain.Settings(n_units=(5,)), 4, 3)


def values(record):
    """Return the parameters of a model by name, in float64."""
    return {name: value.astype("float64") for name, value in record.best.items()}


def draw(z, rng):
    """Draw masks as `bernoulli.sample` does: one uniform number in float32 a unit."""
    return rng.uniform(size=z.shape).astype("float32") < reference.sigm(z)


RULES = {
    "sampled": draw,
    "expected": lambda z, rng: reference.sigm(z),
    "thresholded": lambda z, rng: z > 0,
}


def numpy_evaluation(record, data, n_hidden, B=1, G=1, size=7):
    """Return errors (3,) and active fractions (3, L), example by example."""
    seed = systems.from_dict(record.attributes["experiment"]).seeds().evaluation
    P, rng = values(record), np.random.default_rng(seed)
    wrong, active = np.zeros(3), np.zeros((3, n_hidden))
    for start in range(0, len(data), size):
        x, y = data.images[start : start + size], data.labels[start : start + size]
        for r, rule in enumerate(RULES.values()):
            s = x.astype("float64")
            for i in range(1, n_hidden + 1):
                u = rule(reference.block_mean(s, B) @ P[f"Z_{i}"] + P[f"o_{i}"], rng)
                h = np.tanh(s @ P[f"W_{i}"] + P[f"b_{i}"])
                mask = reference.expand(u, h.shape, B, G)
                active[r, i - 1] += mask.mean(axis=1).sum()
                s = h * mask
            wrong[r] += (np.argmax(s @ P["W_out"] + P["b_out"], axis=1) != y).sum()
    return wrong / len(data), active / len(data)


def figures(evaluation):
    """Return errors (3,) and active fractions (3, L) in the order of the rules."""
    assert list(evaluation.errors) == list(evaluation.active_fraction) == list(RULES)
    return np.array(list(evaluation.errors.values())), np.stack(
        list(evaluation.active_fraction.values())
    )


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("hidden", [(5,), (5, 6)], ids=str)
def test_exact_whatever_the_number_of_examples(hidden, execution):
    """Fewer than one batch, whole batches, and a last one that is smaller."""
    record = model(*hidden)
    evaluate = load_evaluation(record, execution=execution)
    for n in (1, 3, 7, 21, 23, 48):
        data = examples(n)
        errors, active = figures(evaluate(data))
        expected_errors, expected_active = numpy_evaluation(record, data, len(hidden))
        assert errors.shape == (3,) and active.shape == (3, len(hidden))
        assert errors.dtype == active.dtype == "float64"
        np.testing.assert_allclose(errors, expected_errors, rtol=1e-12)
        np.testing.assert_allclose(active, expected_active, rtol=1e-5)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize(("B", "size"), [(2, 6), (3, 6), (7, 7), (10, 10), (1000, 1000)])
def test_blocks_do_not_depend_on_how_the_examples_are_sliced(B, size, execution):
    """At most 7 examples at once, in whole blocks; only the last one is shorter."""
    record = model(
        5, 6, system=block_policy, instances_per_block=B, units_per_block=2, batch_size=2000
    )
    evaluate = load_evaluation(record, execution=execution)
    for n in (1, 7, 23):
        data = examples(n)
        errors, active = figures(evaluate(data))
        expected = numpy_evaluation(record, data, 2, B, 2, size)
        np.testing.assert_allclose(errors, expected[0], rtol=1e-12)
        np.testing.assert_allclose(active, expected[1], rtol=1e-5)
        whole = numpy_evaluation(record, data, 2, B, 2, 10**6)
        np.testing.assert_allclose(errors[1:], whole[0][1:], rtol=1e-12)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("record", [model(5, 6), model(5, 6, system=block_policy)], ids=str)
def test_blocks_of_another_size_than_in_training(record, execution):
    """Also of a system that was trained without blocks."""
    evaluate, data = load_evaluation(record, None, 3, execution), examples(23)
    errors, active = figures(evaluate(data))
    expected = numpy_evaluation(record, data, 2, B=3, size=6)
    np.testing.assert_allclose(errors, expected[0], rtol=1e-12)
    np.testing.assert_allclose(active, expected[1], rtol=1e-5)


def test_no_examples_are_refused():
    """The error is one sentence."""
    evaluate = load_evaluation(model(5))
    with pytest.raises(DataError, match="there are no examples to evaluate: give one or more."):
        evaluate(examples(0))


@pytest.mark.parametrize("other", [examples(3, n_in=5), examples(30, n_classes=4)])
def test_examples_of_other_data_are_refused(other):
    """The error is one sentence."""
    with pytest.raises(DataError, match="for images of 4 pixels and 3 classes, the data has .* "):
        load_evaluation(model(5))(other)


def test_the_last_examples_count():
    """One more example that is surely wrong, in a batch of its own, raises the error by 1/n."""
    record = plain_model()
    evaluate = load_evaluation(record)
    data = examples(14)
    before = evaluate(data).errors["all units"] * 14
    wrong = np.argmin(numpy_logits(record, data.images[:1])[0]).astype("int32")
    more = Examples(
        np.concatenate([data.images, data.images[:1]]),
        np.append(data.labels, wrong).astype("int32"),
    )
    np.testing.assert_allclose(evaluate(more).errors["all units"] * 15, before + 1)


def numpy_logits(record, x):
    """Return the logits of a network without policies and with one hidden layer."""
    P = values(record)
    return np.tanh(x @ P["W_1"] + P["b_1"]) @ P["W_out"] + P["b_out"]


def test_without_policies():
    """One error rate, and no active fractions."""
    record, data = plain_model(), examples(23)
    errors, active = load_evaluation(record)(data)
    expected = (numpy_logits(record, data.images).argmax(axis=1) != data.labels).mean()
    assert errors.keys() == active.keys() == {"all units"}
    assert active["all units"].shape == (0,)
    np.testing.assert_allclose(errors["all units"], expected, rtol=1e-12)


def test_repeatable():
    """The same numbers at every call, from the same seed, and others from another seed."""
    record, data = model(30), examples(100)
    evaluate = load_evaluation(record)
    first = evaluate(data)
    evaluate(examples(9, seed=3))
    for again in (evaluate(data), load_evaluation(record)(data)):
        np.testing.assert_array_equal(figures(first)[0], figures(again)[0])
        np.testing.assert_array_equal(figures(first)[1], figures(again)[1])
    record.attributes["experiment"]["seed"] = 2
    other = load_evaluation(record)(data)
    assert (other.active_fraction["sampled"] != first.active_fraction["sampled"]).all()
    for rule in ("expected", "thresholded"):
        assert other.errors[rule] == first.errors[rule]


def compiled(*n_units):
    """Return the system of a random model, and its passes."""
    record = model(*n_units)
    experiment = systems.from_dict(record.attributes["experiment"])
    system = systems.build_for_prediction(experiment, (4,), 3)
    put(system.parameters, record.best)
    return system, compile_passes(system, system.predict, (logits, activity), 0, AS_WRITTEN)


def test_follows_the_parameters():
    """The compiled passes use the parameters at the time of the call."""
    system, evaluate = compiled(5)
    images = examples(23).images
    evaluate(images)
    for o, rate in ((100, 1), (-100, 0)):
        system.parameters["o_1"].set_value(np.full(5, o, "float32"))
        for _, active in evaluate(images).values():
            np.testing.assert_allclose(active, rate, atol=1e-12)


def test_does_not_change_the_network():
    """Evaluation reads the parameters only."""
    system, evaluate = compiled(5)
    before = {name: p.get_value() for name, p in system.parameters.items()}
    evaluate(examples(9).images)
    for name, value in before.items():
        np.testing.assert_array_equal(system.parameters[name].get_value(), value)


def test_only_the_chosen_rules_are_computed_in_their_order():
    """The result has an entry for each rule and each requested quantity."""
    system, _ = compiled(5)
    found = compile_passes(system, ["thresholded"], (activity,), 0, AS_WRITTEN)(examples(9).images)
    ((rule, (active,)),) = found.items()
    assert rule == "thresholded" and active.shape == (9, 1)


def test_ties():
    """Of equal logits the first class is predicted; a unit at sigma = 1/2 is thresholded off."""
    record = model(5)
    record.best = {name: np.zeros_like(value) for name, value in record.best.items()}
    data = examples(23)
    errors, active = load_evaluation(record)(data)
    np.testing.assert_allclose(list(errors.values()), (data.labels != 0).mean())
    assert (active["expected"], active["thresholded"]) == ([0.5], [0])
    assert 0.3 < active["sampled"] < 0.7


def test_the_rule_that_decides():
    """The experiment's own, or the only one there is."""
    experiment = policy.Settings(evaluation_rule="expected")
    assert decisive_rule(experiment, ["sampled", "expected"]) == "expected"
    assert decisive_rule(plain.Settings(), {"all units": None}) == "all units"


def test_a_record_of_a_later_system_is_refused():
    """The error is one sentence."""
    record = model(5)
    record.attributes["experiment"]["system"] = "dreams"
    with pytest.raises(ExperimentError, match="there is no system 'dreams'; .*: upgrade"):
        load_evaluation(record)
