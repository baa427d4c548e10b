"""Conditional computation with sigmoid-Bernoulli policies, after Bacon et al. (2015).

Each equation of the paper, and where it is:

=====  =======================================================================
(1)    `bernoulli.log_prob`, `bernoulli.sample`, `gates.sigmoid_bernoulli`
(2)    `returns`, `baselines`
(3)    `reinforce.jacobian_policy_gradient`
(4)    `reinforce.policy_gradient`
(5)    `bernoulli.kl`
(6)    `costs.mdp_cost`
3.3    `algorithm.training_step`
4      `systems.plain`, `systems.policy`; block dropout: `systems.block_policy`,
       `blocks`
=====  =======================================================================

Names are imported when they are first used. So the command line and the reading of records do not
wait for the symbolic library.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reinforce_dropout.running.early_stopping import Patience as Patience
    from reinforce_dropout.running.evaluation import load_evaluation as load_evaluation
    from reinforce_dropout.running.prediction import load_prediction as load_prediction
    from reinforce_dropout.running.training import train as train
    from reinforce_dropout.systems import PRESETS as PRESETS
    from reinforce_dropout.systems import Experiment as Experiment
    from reinforce_dropout.systems import preset as preset

_HOMES = {
    "PRESETS": "systems",
    "Experiment": "systems",
    "Patience": "running.early_stopping",
    "load_evaluation": "running.evaluation",
    "load_prediction": "running.prediction",
    "preset": "systems",
    "train": "running.training",
}
"""Modules of the names that are no modules themselves."""

_MODULES = (
    "baselines", "bernoulli", "costs", "gates", "network", "reinforce", "returns", "updates",
)  # fmt: skip

__all__ = sorted([*_HOMES, *_MODULES])


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES.get(name, name)}")
    value = getattr(module, name) if name in _HOMES else module
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
