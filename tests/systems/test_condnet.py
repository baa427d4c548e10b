"""Condnet: its three penalties, its step, and its groups of units."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import AS_WRITTEN, all_masks, compiled, given, sigm, values_of

from reinforce_dropout import backends, load_evaluation, systems, train
from reinforce_dropout.running import datasets
from reinforce_dropout.systems import condnet, plain

SIZES = (4,), 3
FIELDS = {
    "n_units": (6,), "units_per_group": 2, "tau": 0.3, "lam_s": 2.0, "lam_v": 3.0, "l2": 0.1,
    "learning_rate": 0.5, "policy_learning_rate": 0.25, "penalty_learning_rate": 0.75,
}  # fmt: skip
NETWORK, POLICY = ["W_1", "b_1", "W_out", "b_out"], ["Z_1", "o_1"]


def built(**fields):
    """Return a small system; all of its parameters are random."""
    system = systems.build_for_training(condnet.Settings(**FIELDS | fields), *SIZES)
    rng = np.random.default_rng(6)
    for p in system.parameters.values():
        p.set_value(rng.normal(0, 0.7, p.get_value().shape).astype("float32"))
    return system


def batch(size):
    """Return a mini-batch."""
    rng = np.random.default_rng(2)
    x = rng.random((size, SIZES[0][0])).astype("float32")
    return x, rng.integers(0, SIZES[1], size).astype("int32")


def numpy_terms(sigma, tau):
    """Return L_b, L_e and L_v by their sums, as printed."""
    m_b, n = sigma.shape
    L_b = sum(abs(sum(sigma[i, j] for i in range(m_b)) / m_b - tau) for j in range(n))
    L_e = sum(abs(sum(sigma[i, j] for j in range(n)) / n - tau) for i in range(m_b)) / m_b
    means = [sum(sigma[i, j] for i in range(m_b)) / m_b for j in range(n)]
    L_v = -sum(sum((sigma[i, j] - means[j]) ** 2 for i in range(m_b)) / m_b for j in range(n))
    return L_b, L_e, L_v


def test_the_three_terms_are_numpys():
    """Of rates some of which are above tau and some below."""
    sigma = np.random.default_rng(0).random((5, 3)).astype("float32")
    S = pt.fmatrix("sigma")
    terms = [condnet.by_group(S, 0.4), condnet.by_example(S, 0.4), condnet.variance(S)]
    found = compiled([S], terms)(sigma)
    np.testing.assert_allclose(found, numpy_terms(sigma.astype("float64"), 0.4), rtol=1e-5)


def test_what_each_term_wants():
    """Equal rates of tau cost nothing; rates that differ between examples are rewarded."""
    S = pt.fmatrix("sigma")
    terms = compiled(
        [S], [condnet.by_group(S, 0.5), condnet.by_example(S, 0.5), condnet.variance(S)]
    )
    same, apart = np.full((2, 2), 0.5, "float32"), np.eye(2, dtype="float32")
    np.testing.assert_allclose(terms(same), [0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(terms(apart), [0, 0, -0.5], atol=1e-7)
    np.testing.assert_allclose(terms(np.float32([[1, 0], [1, 0]])), [1, 0, 0], atol=1e-7)
    np.testing.assert_allclose(terms(np.float32([[1, 1], [0, 0]])), [0, 0.5, -0.5], atol=1e-7)


def loss_and_penalty(P, x, y, u):
    """Return the nll of each example with the groups' masks u, and what else the policy pays."""
    U = np.repeat(u, 2, axis=1)
    nll = reference.nll((np.tanh(x @ P["W_1"] + P["b_1"]) * U) @ P["W_out"] + P["b_out"], y)
    sigma = sigm(x @ P["Z_1"] + P["o_1"])
    # The complex step needs the absolute value as a square root.
    size = lambda a: np.sqrt(a**2)  # noqa: E731
    L_b = size(sigma.mean(axis=0) - 0.3).sum()
    L_e = size(sigma.mean(axis=1) - 0.3).mean()
    L_v = -((sigma - sigma.mean(axis=0)) ** 2).mean(axis=0).sum()
    return nll, 2.0 * (L_b + L_e) + 3.0 * L_v + 0.1 * (P["Z_1"] ** 2).sum()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_step_is_that_of_algorithm_2(reduction):
    """Penalties and REINFORCE on the nll, each at its own rate, both L2s."""
    system, (x, y) = built(loss_reduction=reduction), batch(5)
    before = values_of(system)
    u = np.random.default_rng(1).integers(0, 2, (5, 3)).astype("float32")
    xs, ys, us = pt.fmatrix("x"), pt.ivector("y"), pt.fmatrix("u")
    step = system.step(xs, ys, None, rule=given([us]))
    assert {v.name for v in step.updates} == {*NETWORK, *POLICY}
    compiled([xs, ys, us], [], updates=step.updates)(x, y, u)
    reduce = {"sum": np.sum, "mean": np.mean}[reduction]

    def network_loss(P):
        nll, _ = loss_and_penalty(P, x, y, u)
        return reduce(nll) + 0.1 * ((P["W_1"] ** 2).sum() + (P["W_out"] ** 2).sum())

    nll, _ = loss_and_penalty(before, x, y, u)

    def score(P):
        return reduce((nll - nll.mean()) * reference.log_pi(x @ P["Z_1"] + P["o_1"], u))

    def penalty(P):
        return loss_and_penalty(P, x, y, u)[1]

    expected = {k: 0.5 * g for k, g in reference.gradient(network_loss, before, NETWORK).items()}
    direct = reference.gradient(penalty, before, POLICY)
    for name, g in reference.gradient(score, before, POLICY).items():
        expected[name] = 0.25 * g + 0.75 * direct[name]
        assert abs(g).max() > 1e-2 and abs(direct[name]).max() > 1e-2
    for name, moved in expected.items():
        found = before[name] - values_of(system)[name]
        np.testing.assert_allclose(found, moved, rtol=1e-3, atol=1e-5, err_msg=name)


def test_without_a_baseline_reinforce_is_unbiased():
    """By all masks of two examples: the expected step is the gradient of the expected nll."""
    fields = {"baseline": "none", "lam_s": 0.0, "lam_v": 0.0, "l2": 0.0, "learning_rate": 0.0}
    system, (x, y) = built(policy_learning_rate=1.0, **fields), batch(2)
    P = values_of(system)
    xs, ys, us = pt.fmatrix("x"), pt.ivector("y"), pt.fmatrix("u")
    updates = system.step(xs, ys, None, rule=given([us])).updates
    by_name = {v.name: v - after for v, after in updates.items()}
    moves = compiled([xs, ys, us], [by_name[name] for name in POLICY])
    sigma, total = sigm(x @ P["Z_1"] + P["o_1"]), 0
    for bits in all_masks(2 * 3):
        u = bits.reshape(2, 3)
        probability = np.prod(u * sigma + (1 - u) * (1 - sigma))
        found = moves(x, y, u.astype("float32"))
        total = total + probability * np.concatenate([v.ravel() for v in found])

    def expected_nll(P):
        sigma, value = sigm(x @ P["Z_1"] + P["o_1"]), 0
        for u in all_masks(3):
            probability = (u * sigma + (1 - u) * (1 - sigma)).prod(axis=1)
            value = value + (probability * loss_and_penalty(P, x, y, np.tile(u, (2, 1)))[0]).sum()
        return value

    true = np.concatenate([g.ravel() for g in reference.gradient(expected_nll, P, POLICY).values()])
    np.testing.assert_allclose(total, true, rtol=0, atol=1e-4 * abs(true).max())


def test_masks_are_of_instances_and_groups():
    """Neighbouring units share a decision, and neighbouring examples do not."""
    system = built()
    x, rng = pt.fmatrix("x"), pytensor.shared(np.random.default_rng(4))
    (stage,) = system.predict["sampled"](x, rng).stages
    U, sigma = compiled([x], [stage.U, pt.sigmoid(stage.z)])(np.tile(batch(1)[0], (500, 1)))
    assert U.shape == (500, 6) and sigma.shape == (500, 3)
    np.testing.assert_array_equal(U[:, ::2], U[:, 1::2])
    np.testing.assert_allclose(U[:, ::2].mean(axis=0), sigma[0], atol=0.08)
    assert 0 < (U[::2] == U[1::2]).all(axis=1).mean() < 1


def test_presets_hold_the_papers_numbers():
    """Except its rates, of which nothing is learned. Plain networks are compared with it."""
    e = systems.preset("condnet-256")
    assert (e.n_units, e.units_per_group, e.tau, e.activation) == ((256,), 16, 1 / 16, "tanh")
    assert (e.lam_s, e.lam_v, e.l2) == (200, 200, 0.005)
    assert (e.loss_reduction, e.evaluation_rule) == ("sum", "sampled")
    for n in (256, 32):
        other = systems.preset(f"plain-{n}")
        assert other == plain.Settings(name=f"plain-{n}", n_units=(n,))


def test_the_preset_trains_and_evaluates(small_data, tmp_path, monkeypatch):
    """End to end: the masks of the test are drawn, and a record repeats its errors."""
    monkeypatch.setattr(backends, "mode", lambda *_, **__: AS_WRITTEN)
    e = systems.preset("condnet-256").replace(
        n_units=(64,), units_per_group=8, tau=0.4, lam_s=5, lam_v=5, learning_rate=0.02, n_epochs=5
    )
    with pytensor.config.change_flags(cxx=""):
        record = train(e, tmp_path / "run.hdf5", data=small_data, show_progress=False, n_threads=1)
        evaluation = load_evaluation(record)(datasets.load(small_data).test)
    assert record.best["Z_1"].shape == (64, 8)
    assert record.best_attributes["test_error"] < 0.4  # chance is 0.75
    for rule, error in evaluation.errors.items():
        assert error == record.curves[f"test_error_{rule}"][record.best_epoch - 1]
    np.testing.assert_array_equal(record.curves["test_error"], record.curves["test_error_sampled"])
