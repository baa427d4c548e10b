"""The backend numba: LLVM, with the Ops of `native`."""

from reinforce_dropout.backends.packages import check_package


def check():
    """Raise BackendError if the backend cannot work here."""
    check_package("numba", "reinstall it with pip install --force-reinstall numba")


def mode(adaptive=False):
    """Return the compilation mode; see `native.adaptive`."""
    from reinforce_dropout import native  # not above: the other backends work without Numba

    return native.mode(adaptive=adaptive)
