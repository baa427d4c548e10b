"""What the files of both benchmarks have in common: how they are told apart and read."""

import contextlib

import h5py
import numpy as np

from reinforce_dropout.errors import RecordError


@contextlib.contextmanager
def opened(path, file_format, kind, script):
    """Open a file of results for reading.

    Parameters
    ----------
    path : Path
    file_format : str
        Its attribute ``format``.
    kind : str
        What it holds, in words.
    script : str
        Writes it.

    Yields
    ------
    root : h5py.File
    attributes : dict
        Its own but for the format, as `plain` gives them.

    Raises
    ------
    RecordError
        There is no such file, or it is of another format, or what is read from it is not there.
    """
    try:
        with h5py.File(path) as root:
            attributes = plain(root.attrs)
            if attributes.pop("format", None) != file_format:
                raise RecordError(f"{path} is no file of {kind}: name one.")
            yield root, attributes
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise RecordError(
            f"{path} is missing or damaged: run reproduce/{script} without --redraw."
        ) from error


def plain(attributes):
    """Return the attributes of an HDF5 group as a dict of Python's own values, arrays as tuples."""
    return {
        name: tuple(value.tolist()) if isinstance(value, np.ndarray) else _item(value)
        for name, value in attributes.items()
    }


def _item(value):
    return value.item() if isinstance(value, np.generic) else value
