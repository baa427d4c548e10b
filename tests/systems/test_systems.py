"""The table of systems: the paper's numbers, and one sentence for impossible requests."""

import dataclasses

import numpy as np
import pytest
from test_settings import check_sentence

from reinforce_dropout import systems
from reinforce_dropout.errors import ExperimentError
from reinforce_dropout.running.evaluation import decisive_rule
from reinforce_dropout.systems import PRESETS, SYSTEMS, block_policy, plain, policy, standout
from reinforce_dropout.systems.system import by_name

WIDTHS = {"n_units": (12, 9)}
SIZES = ((8, 8), 4)


@pytest.mark.parametrize(
    ("name", "n_units", "system", "lam"),
    [
        ("baseline-500", (500,), plain, None),
        ("policy-500", (500,), policy, 0.0),
        ("policy-800-800", (800, 800), policy, 0.0001),
    ],
)
def test_presets_hold_the_papers_numbers(name, n_units, system, lam):
    """Section 4, and the readings chosen where it is silent."""
    experiment = systems.preset(name)
    assert type(experiment) is system.Settings
    assert (experiment.name, experiment.n_units) == (name, n_units)
    assert experiment.learning_rate == 0.01
    assert (experiment.l2, experiment.batch_size, experiment.n_epochs) == (0.001, 20, 1000)
    assert (experiment.activation, experiment.loss_reduction) == ("tanh", "sum")
    assert (experiment.patience, experiment.patience_increase) == (10_000, 2)
    assert (experiment.improvement_threshold, experiment.validation_fraction) == (0.995, 1 / 6)
    if lam is not None:
        assert (experiment.lam, experiment.policy_learning_rate) == (lam, 0.01)
        assert 0.10 <= experiment.initial_rate <= 0.15
        assert (experiment.gate, experiment.penalty) == ("sigmoid-bernoulli", "kl")
        assert experiment.kl_gradient == ("score" if lam else "total")
        assert (experiment.baseline, experiment.estimator) == ("batch-mean", "reinforce")
        assert (experiment.product, experiment.min_rate) == ("pullback", 0)
        assert not experiment.natural_gradient
        assert experiment.evaluation_rule == "sampled"


def test_the_presets():
    """Each system's, the paper's systems first, under their own names, no name twice."""
    assert list(SYSTEMS)[:2] == ["plain", "policy"]
    assert {"baseline-500", "policy-500", "policy-800-800"} <= PRESETS.keys()
    assert {"block-800-800", "uniform-block-800-800", "standout-1000-1000"} <= PRESETS.keys()
    listed = [preset for module in SYSTEMS.values() for preset in module.PRESETS]
    assert [preset.name for preset in listed] == list(PRESETS)
    assert all(systems.preset(preset.name) is preset for preset in listed)
    with pytest.raises(ExperimentError) as error:
        systems.preset("policy-501")
    check_sentence(error, "no preset 'policy-501'", ", ".join(PRESETS))


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_of_their_system_and_can_be_built(name):
    """The rule that decides is among those of the predictions."""
    experiment = systems.preset(name)
    assert type(experiment) is SYSTEMS[experiment.system].Settings
    small = experiment.replace(n_units=[16] * len(experiment.n_units))
    for build in (systems.build_for_training, systems.build_for_prediction):
        system = build(small, (28, 28), 10)
        assert decisive_rule(experiment, system.predict) in system.predict
        assert system.parameters == {p.name: p for p in system.parameters.values()}


@pytest.mark.parametrize("fields", [{"system": "dreams", "lam": 1.0}, {}], ids=str)
def test_an_unknown_system_is_refused(fields):
    """A record of a later version may have such a system."""
    with pytest.raises(ExperimentError) as error:
        systems.from_dict(fields)
    check_sentence(error, f"no system {fields.get('system')!r}", ", ".join(SYSTEMS), "upgrade")


def test_from_dict_leaves_its_argument():
    fields = systems.preset("policy-500").as_dict()
    before = dict(fields)
    systems.from_dict(fields)
    assert fields == before


@pytest.mark.parametrize(
    ("experiment", "execution", "words"),
    [
        (plain.Settings(), "block-sparse", ["plain trains with the execution dense, not 'block"]),
        (policy.Settings(), "block-sparse", ["policy trains with the execution dense, not 'bl"]),
        (standout.Settings(), "fast", ["standout trains with the execution dense, not 'fast'"]),
        (block_policy.Settings(), "fast", ["trains with the execution dense or block-sparse"]),
        (
            block_policy.Settings(instances_per_block=10),
            "block-sparse",
            ["mini-batches of one block", "batch_size (20)", "leave the execution dense"],
        ),
        (
            block_policy.Settings(instances_per_block=20, baseline="none", l2=50),
            "block-sparse",
            ["2 * learning_rate * l2 below 1", "lower learning_rate or l2"],
        ),
        (
            block_policy.Settings(instances_per_block=20, baseline="none", l2_of="norms"),
            "block-sparse",
            ["l2_of=norms does not", "set l2_of=squares, or leave the execution dense"],
        ),
    ],
)
def test_executions_that_cannot_train_are_refused(experiment, execution, words):
    with pytest.raises(ExperimentError) as error:
        systems.build_for_training(experiment, *SIZES, execution)
    check_sentence(error, *words)


@pytest.mark.parametrize(
    ("experiment", "options", "words"),
    [
        (plain.Settings(), ["block-sparse"], ["system plain has no policies", "execution dense"]),
        (standout.Settings(), ["block-sparse"], ["system standout has no policies"]),
        (plain.Settings(), ["dense", 8], ["plain has no policies", "leave instances_per_block"]),
        (policy.Settings(), ["fast"], ["policy predicts with the execution dense, not 'fast'"]),
        (policy.Settings(), ["fast", 8], ["block_policy predicts with the execution dense or bl"]),
    ],
)
def test_executions_that_cannot_predict_are_refused(experiment, options, words):
    with pytest.raises(ExperimentError) as error:
        systems.build_for_prediction(experiment, *SIZES, *options)
    check_sentence(error, *words)


@pytest.mark.parametrize("instances", [1, 7, 20, 50, None])
@pytest.mark.parametrize(
    "experiment",
    [
        policy.Settings(lam=0.1, seed=7, **WIDTHS),
        block_policy.Settings(
            instances_per_block=4, units_per_block=5, block_state="max", **WIDTHS
        ),
    ],
    ids=lambda experiment: experiment.system,
)
def test_policies_decide_for_blocks_of_any_size(experiment, instances):
    """The same parameters, widths and seeds; only settings for training may change."""
    changed = block_policy.in_blocks(experiment, instances)
    assert type(changed) is block_policy.Settings
    in_training = getattr(experiment, "instances_per_block", 1)
    assert changed.instances_per_block == (in_training if instances is None else instances)
    same = {field.name for field in dataclasses.fields(experiment)}
    same -= {"instances_per_block", "batch_size", "baseline"}
    for name in same:
        assert getattr(changed, name) == getattr(experiment, name)
    own, others = (
        {name: p.get_value() for name, p in system.parameters.items()}
        for system in (
            systems.build_for_training(experiment, *SIZES),
            systems.build_for_prediction(experiment, *SIZES, instances=instances),
        )
    )
    assert own.keys() == others.keys()
    for name, value in own.items():
        np.testing.assert_array_equal(others[name], value)


@pytest.mark.parametrize("experiment", [plain.Settings(), standout.Settings()])
@pytest.mark.parametrize(
    ("instances", "cure"), [(2, "leave instances_per_block out"), (None, "the execution dense")]
)
def test_what_has_no_policies_has_no_blocks(experiment, instances, cure):
    with pytest.raises(ExperimentError) as error:
        block_policy.in_blocks(experiment, instances)
    check_sentence(error, f"the system {experiment.system} has no policies", cure)


def test_all_systems_start_from_the_same_network():
    """The network is drawn before the policies, so that systems can be compared."""
    found = [
        systems.build_for_training(module.Settings(**WIDTHS), *SIZES).parameters
        for module in (plain, policy, block_policy, standout)
    ]
    names = {"W_1", "b_1", "W_2", "b_2", "W_out", "b_out"}
    assert found[0].keys() == names
    for parameters in found[1:]:
        for name in names:
            np.testing.assert_array_equal(parameters[name].get_value(), found[0][name].get_value())


def test_parameters_of_each_system():
    """Uniform gates have only a constant; standout's masks have none of their own."""
    assert shapes(policy.Settings(**WIDTHS)) == NETWORK | {
        "Z_1": (64, 12), "o_1": (12,), "Z_2": (12, 9), "o_2": (9,),
    }  # fmt: skip
    assert shapes(block_policy.Settings(units_per_block=5, **WIDTHS)) == NETWORK | {
        "Z_1": (64, 3), "o_1": (3,), "Z_2": (12, 2), "o_2": (2,),
    }  # fmt: skip
    assert shapes(policy.Settings(gate="uniform", **WIDTHS)) == NETWORK
    assert shapes(plain.Settings(**WIDTHS)) == shapes(standout.Settings(**WIDTHS)) == NETWORK


NETWORK = {
    "W_1": (64, 12), "b_1": (12,), "W_2": (12, 9), "b_2": (9,), "W_out": (9, 4), "b_out": (4,),
}  # fmt: skip


def shapes(experiment):
    """Return the shapes of a system's parameters by name."""
    parameters = systems.build_for_training(experiment, *SIZES).parameters
    return {name: p.get_value().shape for name, p in parameters.items()}


def test_two_parameters_of_one_name_are_refused():
    (W, *_) = systems.build_for_training(plain.Settings(**WIDTHS), *SIZES).parameters.values()
    with pytest.raises(ValueError, match="two parameters have one name"):
        by_name([W, W])
