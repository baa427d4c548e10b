"""Conditional computation with sigmoid-Bernoulli policies, after Bacon et al. (2015).

Where each equation of the paper is:

=====  =======================================================================
(1)    `bernoulli.log_prob`, `bernoulli.sample`, `SigmoidBernoulliPolicy`
(2)    `reinforce.score_cost`, `baselines`, `reinforce.kl_penalty_gradient`
(3)    `reinforce.jacobian_policy_gradient`
(4)    `reinforce.policy_gradient`
(5)    `bernoulli.kl`
(6)    `costs.mdp_cost`
3.3    `algorithm.training_step`
4      `experiment.PRESETS`, `training.train`; block dropout: `blocks`,
       `block_sparse`, `block_training`
=====  =======================================================================
"""

__version__ = "0.1.0"

# The version comes first: the modules below record it.
from reinforce_dropout import baselines, bernoulli, costs, reinforce, updates  # noqa: E402
from reinforce_dropout.early_stopping import Patience  # noqa: E402
from reinforce_dropout.evaluation import load_evaluation  # noqa: E402
from reinforce_dropout.experiment import PRESETS, Experiment, preset  # noqa: E402
from reinforce_dropout.network import MaskedNetwork  # noqa: E402
from reinforce_dropout.policy import SigmoidBernoulliPolicy  # noqa: E402
from reinforce_dropout.prediction import load_prediction  # noqa: E402
from reinforce_dropout.training import train  # noqa: E402

__all__ = [
    "PRESETS",
    "Experiment",
    "MaskedNetwork",
    "Patience",
    "SigmoidBernoulliPolicy",
    "baselines",
    "bernoulli",
    "costs",
    "load_evaluation",
    "load_prediction",
    "preset",
    "reinforce",
    "train",
    "updates",
]
