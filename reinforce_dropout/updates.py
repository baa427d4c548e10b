"""Updates of shared variables: dictionaries that are returned, never applied here.

A dictionary maps shared variables to their next values. Its keys are all that a step changes. So a
checkpoint holds exactly these.
"""

import pytensor.tensor as pt


def sgd(params, grads, learning_rate):
    """One step of stochastic gradient descent, ``p - learning_rate * g``.

    Parameters
    ----------
    params : sequence of shared variables
    grads : sequence of tensor
        One for each parameter.
    learning_rate : float or scalar tensor
        A tensor can change from step to step without a new compilation.

    Returns
    -------
    dict from shared variable to tensor
    """
    return {p: p - pt.cast(learning_rate, p.dtype) * g for p, g in zip(params, grads, strict=True)}
