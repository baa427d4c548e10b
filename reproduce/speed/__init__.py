"""What `benchmarks.py` times: columns that take turns, each in a process of its own.

The benchmarks are the modules ``training`` and ``forward``, with settings, a plan for each setting,
and a table. ``turns`` measures them, ``table`` holds and stores the results, and ``drawing`` draws
them.

A column is a class, see `worker.COLUMNS`. It is made from the parameters by name: ``W_1``
(n_in, n_units), ``b_1``, ``Z_1``, ``o_1``, ..., ``W_out``, ``b_out``. Without ``Z_i`` there are no
policies. It also gets the mini-batches ``x`` (n_steps, m_b, n_in) float32. To train, it gets ``y``
(n_steps, m_b) int32 and a learning rate. Its method ``turn()`` works through all mini-batches and
returns statistics, an array (n_steps, any). A training step returns those of
`reinforce_dropout.algorithm.Step`, and ``parameters()`` returns the parameters by name.

All training columns do the same work, that of the paper's experiments with lambda 0. The loss is
the nll summed over the mini-batch plus the L2 penalty on the network's weight matrices. Masks are
sampled, and policies follow the gradient (4) of nll minus its mean. All is float32.
"""

L2 = 0.001
"""Coefficient of the sum of squared weights."""


def n_layers(parameters):
    """Return the number of hidden layers, the paper's L."""
    return sum(name.startswith("b_") for name in parameters) - 1
