"""Backends: what the symbolic graphs are compiled to."""

import importlib.util

from pytensor.compile.mode import Mode, get_mode

from reinforce_dropout import native
from reinforce_dropout.errors import BackendError

BACKENDS = ("auto", "numba", "c", "jax")


def resolve(backend):
    """Return the backend that is meant, a member of `BACKENDS` other than "auto".

    "auto" takes Numba, which every install brings.

    Parameters
    ----------
    backend : str

    Raises
    ------
    BackendError
        The backend is unknown or not installed.
    """
    if backend not in BACKENDS:
        raise BackendError(
            f"there is no backend {backend!r}; the backends are {', '.join(BACKENDS)}."
        )
    if backend == "jax" and importlib.util.find_spec("jax") is None:
        raise BackendError(
            "the backend jax is not installed; install it with "
            "pip install 'reinforce-dropout[jax]', or leave --backend out."
        )
    return "numba" if backend == "auto" else backend


def mode(backend):
    """Return PyTensor's compilation mode for a backend.

    Parameters
    ----------
    backend : str
        As for `resolve`.

    Raises
    ------
    BackendError
        The backend is unknown or not installed.
    """
    return {
        "numba": native.mode,
        "c": lambda: Mode(linker="cvm", optimizer="fast_run"),
        "jax": lambda: get_mode("JAX"),
    }[resolve(backend)]()
