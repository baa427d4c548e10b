"""The schedule of Hinton et al. (2012), and optimizers by name for network and policies."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import compiled
from test_settings import check_sentence

from reinforce_dropout import systems
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.systems import block_policy, descent, dropout, plain, policy, standout

SIZES = (6,), 3
SMALL = {"n_units": (5,), "batch_size": 4}


def test_the_papers_schedule():
    """Rates 10 * 0.998^t and momenta from 0.5 to 0.99 in 500 epochs, in epoch t from 0."""
    for t in (0, 1, 100, 499, 500, 2999):
        assert descent.rate_factor(t + 1, 3000) == pytest.approx(0.998**t, rel=1e-12)
        part = min(t / 500, 1)
        expected = part * 0.99 + (1 - part) * 0.5
        assert descent.momentum(t + 1, 3000, 0.99) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_epochs", [300, 30])
def test_a_compressed_schedule_keeps_its_shape(n_epochs):
    """At the same part of the run: f = 0.998^(3000 / E), T = E / 6."""
    every = 3000 // n_epochs
    for t in range(n_epochs):
        own, papers = (t + 1, n_epochs), (every * t + 1, 3000)
        assert descent.rate_factor(*own) == pytest.approx(descent.rate_factor(*papers))
        found = descent.momentum(*own, 0.99)
        assert found == pytest.approx(descent.momentum(*papers, 0.99))
        assert found == pytest.approx(0.99) if t >= n_epochs / 6 else found < 0.99


def test_the_cosine_falls_from_one_towards_zero():
    """By half in the middle; the momentum stays."""
    found = [descent.cosine(epoch, 40) for epoch in (1, 11, 21, 40)]
    quarter, last = (1 + np.sqrt(0.5)) / 2, (1 - np.cos(np.pi / 40)) / 2
    np.testing.assert_allclose(found, [1, quarter, 0.5, last], rtol=1e-12)
    settings = plain.Settings(**SMALL, schedule_epochs=40, schedule="cosine", momentum=0.7)
    pace = descent.pace(settings)
    pace.schedule(21)
    assert pace.factor.get_value() == np.float32(0.5) and pace.mu.get_value() == np.float32(0.7)


def test_a_run_ends_with_its_schedule():
    """Whatever is said of epochs; without a schedule nothing changes."""
    paper = systems.preset("dropout-800-800")
    assert (paper.n_epochs, paper.schedule_epochs) == (3000, 3000)
    assert paper.replace(schedule_epochs="300").n_epochs == 300
    assert paper.replace(n_epochs=10).schedule_epochs == 3000
    assert plain.Settings().schedule_epochs == 0 and plain.Settings().n_epochs == 1000


def compile_step(system):
    """Return a function of a mini-batch that makes a step, and the updates."""
    x, y, rng = pt.fmatrix("x"), pt.ivector("y"), pytensor.shared(np.random.default_rng(4))
    step = system.step(x, y, rng)
    return compiled([x, y], [], updates=step.updates), step.updates


def batch(size=4):
    """Return a mini-batch."""
    rng = np.random.default_rng(2)
    return rng.random((size, 6)).astype("float32"), rng.integers(0, 3, size).astype("int32")


@pytest.mark.parametrize("module", [plain, policy, block_policy, standout, dropout])
def test_the_schedule_sets_the_rates_of_every_system(module):
    """A plain step of epoch 2 of 2 is 0.998^1500 times that of epoch 1, also of policies."""
    rates = {"learning_rate": 1.0}
    if module in (policy, block_policy):
        rates["policy_learning_rate"] = 100.0
    settings, moved = module.Settings(**SMALL, **rates, schedule_epochs=2, l2=0.1), []
    for epoch in (1, 2):
        system = systems.build_for_training(settings, *SIZES)
        before = {name: p.get_value() for name, p in system.parameters.items()}
        step, _ = compile_step(system)
        system.schedule(epoch)
        step(*batch())
        moved.append({n: p.get_value() - before[n] for n, p in system.parameters.items()})
    for name, first in moved[0].items():
        assert abs(first).max() > 1e-3, name
        np.testing.assert_allclose(moved[1][name], first * 0.998**1500, rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("module", [plain, policy, block_policy, standout, dropout])
@pytest.mark.parametrize("optimizer", list(descent.OPTIMIZERS)[1:])
def test_optimizers_remember_in_the_state(module, optimizer):
    """What an optimizer remembers is a key of the updates, for each parameter it moves."""
    fields = SMALL | {"optimizer": optimizer}
    gated = module in (policy, block_policy)
    if gated:
        fields["policy_optimizer"] = "momentum"
    system = systems.build_for_training(module.Settings(**fields), *SIZES)
    _, updates = compile_step(system)
    names = {v.name for v in updates} - {None}
    first = {"momentum": "velocity", "rmsprop": "square", "adam": "mean"}[optimizer]
    expected = {f"{first}_{n}" for n in ("W_1", "b_1", "W_out", "b_out")}
    if gated:
        expected |= {"velocity_Z_1", "velocity_o_1"}
    assert expected <= names


def test_the_policies_have_an_optimizer_of_their_own():
    """The network's changes nothing in the policies."""
    settings = policy.Settings(**SMALL, optimizer="adam")
    _, updates = compile_step(systems.build_for_training(settings, *SIZES))
    names = {v.name for v in updates}
    assert "mean_W_1" in names and not {"mean_Z_1", "velocity_Z_1"} & names


def test_block_sparse_steps_are_plain():
    """They would have to put velocities back, too."""
    fields = {"instances_per_block": 4, "baseline": "none", **SMALL}
    for change in ({"optimizer": "momentum"}, {"schedule_epochs": 5}):
        settings = block_policy.Settings(**fields | change)
        with pytest.raises(ExperimentError) as error:
            systems.build_for_training(settings, *SIZES, "block-sparse")
        check_sentence(error, "optimizer=sgd and schedule_epochs=0", "leave the execution dense")
