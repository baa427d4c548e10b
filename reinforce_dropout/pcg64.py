"""The state of NumPy's generator PCG64 as an array, which compiled code can read and change."""

import numpy as np

_WORD = 2**64


def words_of(state):
    """Return a state of ``numpy.random.PCG64`` as four words: of s, then of c, the high one first.

    Parameters
    ----------
    state : dict
        As ``numpy.random.PCG64.state`` gives it.

    Returns
    -------
    ndarray (4,) uint64
    """
    s, c = state["state"]["state"], state["state"]["inc"]
    return np.array([*divmod(s, _WORD), *divmod(c, _WORD)], "uint64")


def state_of(words):
    """Return the state that `words_of` made into words."""
    s_high, s_low, c_high, c_low = map(int, words)
    return {
        "bit_generator": "PCG64",
        "state": {"state": s_high * _WORD + s_low, "inc": c_high * _WORD + c_low},
        "has_uint32": 0,
        "uinteger": 0,
    }
