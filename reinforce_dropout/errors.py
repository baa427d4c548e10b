"""Errors that a user can fix. Each message is one sentence: what is wrong, and how to fix it.

Everything else that is raised is a defect of this package and keeps its traceback.
"""


class ReinforceDropoutError(Exception):
    """Base of all errors whose message is written for the user."""


class ExperimentError(ReinforceDropoutError, ValueError):
    """A setting of an experiment is unknown or out of range."""


class DataError(ReinforceDropoutError):
    """A data set is missing, damaged, or not what the experiment needs."""


class RecordError(ReinforceDropoutError):
    """A record of a run cannot be read, written, or continued."""


class RecordInUseError(RecordError):
    """Another process is training into the record."""


class SweepError(ReinforceDropoutError):
    """A sweep's grid, seeds, folder or cluster does not fit."""


class DivergenceError(ReinforceDropoutError):
    """Training produced a number that is not finite."""


class BackendError(ReinforceDropoutError):
    """A backend is unknown or not installed."""
