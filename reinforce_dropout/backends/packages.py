"""Whether a package that a backend needs can be imported."""

import importlib

from reinforce_dropout.errors import BackendError


def check_package(name, fix):
    """Raise BackendError if a package cannot be imported; `fix` says what to do then."""
    try:
        importlib.import_module(name)
    except Exception as error:  # a package that does not fit another one can raise anything
        reason = " ".join(str(error).split()).rstrip(".")
        raise BackendError(f"the backend {name} does not work here ({reason}): {fix}.") from error
