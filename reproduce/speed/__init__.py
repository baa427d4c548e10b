"""What `training_speed.py` times: a module a library, each in a process of its own.

The class of each column is made from the initial parameters by name (``W_1`` (n_in, n_units),
``b_1``, ``Z_1``, ``o_1``, ..., ``W_out``, ``b_out``; no ``Z_i``: no policies), the mini-batches
``x`` (n_steps, m_b, n_in) float32 and ``y`` (n_steps, m_b) int32, and a learning rate. Its method
``turn()`` makes one step for each mini-batch and returns the statistics of
`reinforce_dropout.algorithm.TrainingStep`, an array (n_steps, 1 + 2 L); ``parameters()`` returns
the parameters as they were given.

All columns do the same work, that of the paper's experiments with lambda 0: the nll summed over the
mini-batch, the L2 penalty on the network's weight matrices, sampled masks, and the policy
gradient (4) of nll minus its mean; all in float32.
"""

L2 = 0.001
"""Coefficient of the sum of squared weights."""


def n_layers(parameters):
    """Return the number of hidden layers, the paper's L."""
    return sum(name.startswith("b_") for name in parameters) - 1
