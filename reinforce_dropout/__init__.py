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
"""

from reinforce_dropout import (
    baselines,
    bernoulli,
    costs,
    gates,
    network,
    reinforce,
    returns,
    updates,
)
from reinforce_dropout.running.early_stopping import Patience
from reinforce_dropout.running.evaluation import load_evaluation
from reinforce_dropout.running.prediction import load_prediction
from reinforce_dropout.running.training import train
from reinforce_dropout.systems import PRESETS, Experiment, preset

__all__ = [
    "PRESETS",
    "Experiment",
    "Patience",
    "baselines",
    "bernoulli",
    "costs",
    "gates",
    "load_evaluation",
    "load_prediction",
    "network",
    "preset",
    "reinforce",
    "returns",
    "train",
    "updates",
]
