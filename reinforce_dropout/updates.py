"""Updates of shared variables: returned, never applied here."""

import pytensor.tensor as pt


def sgd(params, grads, learning_rate):
    """One step of stochastic gradient descent, ``p - learning_rate * g``.

    Parameters
    ----------
    params : sequence of shared variables
    grads : sequence of tensor
        One for each parameter.
    learning_rate : float

    Returns
    -------
    list of (shared variable, tensor)
    """
    return [
        (p, p - pt.constant(learning_rate, dtype=p.dtype) * g)
        for p, g in zip(params, grads, strict=True)
    ]
