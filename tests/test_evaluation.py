"""Error rates by the three mask rules, exact over sets of any size."""

import numpy as np
import pytest
import reference
from reference import AS_WRITTEN

from reinforce_dropout import evaluation
from reinforce_dropout.block_sparse import EXECUTIONS
from reinforce_dropout.datasets import Examples
from reinforce_dropout.errors import DataError
from reinforce_dropout.evaluation import compile_evaluation
from reinforce_dropout.network import MaskedNetwork

SEED = 11


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Propagate 7 examples at once."""
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 7)


def examples(n, n_in=4, n_classes=3, seed=0):
    """Return n random examples."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, n_in)).astype("float32")
    return Examples(images, rng.integers(0, n_classes, n).astype("int32"))


def network_of(widths, policies=True, **options):
    """Return a network in float32 whose units take part at all kinds of rates."""
    network = MaskedNetwork(
        np.random.default_rng(0), widths, initial_rate=0.3 if policies else None, **options
    )
    rng = np.random.default_rng(1)
    for p in network.all_parameters:
        p.set_value(rng.normal(size=p.get_value().shape).astype("float32"))
    return network


def draw(z, rng):
    """Draw masks as `bernoulli.sample` does: one uniform number in float32 a unit."""
    return rng.uniform(size=z.shape).astype("float32") < reference.sigm(z)


RULES = [draw, lambda z, rng: reference.sigm(z), lambda z, rng: z > 0]


def numpy_evaluation(network, data, n_hidden, B=1, G=1, size=7):
    """Return errors (3,) and active fractions (3, L), example by example."""
    P, rng = reference.values(network), np.random.default_rng(SEED)
    wrong, active = np.zeros(3), np.zeros((3, n_hidden))
    for start in range(0, len(data), size):
        x, y = data.images[start : start + size], data.labels[start : start + size]
        for r, rule in enumerate(RULES):
            s = x.astype("float64")
            for i in range(1, n_hidden + 1):
                u = rule(reference.block_mean(s, B) @ P[f"Z_{i}"] + P[f"o_{i}"], rng)
                h = np.tanh(s @ P[f"W_{i}"] + P[f"b_{i}"])
                mask = reference.expand(u, h.shape, B, G)
                active[r, i - 1] += mask.mean(axis=1).sum()
                s = h * mask
            wrong[r] += (np.argmax(s @ P["W_out"] + P["b_out"], axis=1) != y).sum()
    return wrong / len(data), active / len(data)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("hidden", [(5,), (5, 6)], ids=str)
def test_exact_whatever_the_number_of_examples(hidden, execution):
    """Fewer than one batch, whole batches, and a last one that is smaller."""
    network = network_of((4, *hidden, 3))
    evaluate = compile_evaluation(network, AS_WRITTEN, SEED, execution)
    for n in (1, 3, 7, 21, 23, 48):
        data = examples(n)
        errors, active = evaluate(data)
        expected_errors, expected_active = numpy_evaluation(network, data, len(hidden))
        assert errors.shape == (3,) and active.shape == (3, len(hidden))
        assert errors.dtype == active.dtype == "float64"
        np.testing.assert_allclose(errors, expected_errors, rtol=1e-12)
        np.testing.assert_allclose(active, expected_active, rtol=1e-5)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize(("B", "size"), [(2, 6), (3, 6), (7, 7), (10, 10), (1000, 1000)])
def test_blocks_do_not_depend_on_how_the_examples_are_sliced(B, size, execution):
    """At most 7 at once, but whole blocks; only the last of all is shorter."""
    network = network_of((4, 5, 6, 3), instances_per_block=B, units_per_block=2)
    evaluate = compile_evaluation(network, AS_WRITTEN, SEED, execution)
    for n in (1, 7, 23):
        data = examples(n)
        errors, active = evaluate(data)
        expected = numpy_evaluation(network, data, 2, B, 2, size)
        np.testing.assert_allclose(errors, expected[0], rtol=1e-12)
        np.testing.assert_allclose(active, expected[1], rtol=1e-5)
        whole = numpy_evaluation(network, data, 2, B, 2, 10**6)
        np.testing.assert_allclose(errors[1:], whole[0][1:], rtol=1e-12)


def test_no_examples_are_refused():
    """With one sentence."""
    evaluate = compile_evaluation(network_of((4, 5, 3)), AS_WRITTEN, SEED)
    with pytest.raises(DataError, match="there are no examples to evaluate: give one or more."):
        evaluate(examples(0))


def test_the_last_examples_count():
    """One more example that is surely wrong, in a batch of its own, raises the error by 1/n."""
    network = network_of((4, 5, 3), policies=False)
    evaluate = compile_evaluation(network, AS_WRITTEN, SEED)
    data = examples(14)
    before = evaluate(data).errors * 14
    right = np.argmin(numpy_logits(network, data.images[:1])[0]).astype("int32")
    more = Examples(
        np.concatenate([data.images, data.images[:1]]),
        np.append(data.labels, right).astype("int32"),
    )
    np.testing.assert_allclose(evaluate(more).errors * 15, before + 1)


def numpy_logits(network, x):
    """Return the logits of a network without policies and with one hidden layer."""
    P = reference.values(network)
    return np.tanh(x @ P["W_1"] + P["b_1"]) @ P["W_out"] + P["b_out"]


def test_without_policies():
    """One error rate, a number, and no active fractions."""
    network, data = network_of((4, 5, 3), policies=False), examples(23)
    errors, active = compile_evaluation(network, AS_WRITTEN, SEED)(data)
    expected = (numpy_logits(network, data.images).argmax(axis=1) != data.labels).mean()
    assert np.shape(errors) == () and active.size == 0
    np.testing.assert_allclose(errors, expected, rtol=1e-12)


def test_repeatable():
    """The same numbers at every call, from the same seed, and others from another seed."""
    network, data = network_of((4, 30, 3)), examples(100)
    evaluate = compile_evaluation(network, AS_WRITTEN, np.random.SeedSequence(SEED))
    first = evaluate(data)
    evaluate(examples(9, seed=3))
    for again in (
        evaluate(data),
        compile_evaluation(network, AS_WRITTEN, np.random.SeedSequence(SEED))(data),
    ):
        np.testing.assert_array_equal(first.errors, again.errors)
        np.testing.assert_array_equal(first.active_fraction, again.active_fraction)
    other = compile_evaluation(network, AS_WRITTEN, SEED + 1)(data)
    assert other.active_fraction[0, 0] != first.active_fraction[0, 0]
    np.testing.assert_array_equal(other.errors[1:], first.errors[1:])


def test_follows_the_parameters():
    """The compiled function evaluates the network as it stands at the call."""
    network, data = network_of((4, 5, 3)), examples(23)
    evaluate = compile_evaluation(network, AS_WRITTEN, SEED)
    evaluate(data)
    network.policies[0].o.set_value(np.full(5, 100, "float32"))
    np.testing.assert_allclose(evaluate(data).active_fraction, 1)
    network.policies[0].o.set_value(np.full(5, -100, "float32"))
    np.testing.assert_allclose(evaluate(data).active_fraction, 0, atol=1e-12)


def test_ties():
    """Of equal logits the first class is predicted; a unit at sigma = 1/2 is thresholded off."""
    network = network_of((4, 5, 3))
    for p in network.all_parameters:
        p.set_value(np.zeros_like(p.get_value()))
    data = examples(23)
    errors, active = compile_evaluation(network, AS_WRITTEN, SEED)(data)
    np.testing.assert_allclose(errors, (data.labels != 0).mean())
    np.testing.assert_allclose(active[1:, 0], [0.5, 0])
    assert 0.3 < active[0, 0] < 0.7


def test_does_not_change_the_network():
    """Evaluation reads the parameters only."""
    network = network_of((4, 5, 3))
    before = reference.values(network)
    compile_evaluation(network, AS_WRITTEN, SEED)(examples(9))
    for name, value in reference.values(network).items():
        np.testing.assert_array_equal(value, before[name])
