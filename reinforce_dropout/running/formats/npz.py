"""An ``.npz`` file, as `numpy.savez` writes it, with the arrays under one of their usual names."""

import zipfile
import zlib

import numpy as np

from reinforce_dropout.errors import DataError
from reinforce_dropout.running.formats.arrays import checked

NAMES = {
    "train_images": ("train_images", "x_train", "X_train", "x", "X"),
    "train_labels": ("train_labels", "y_train", "y"),
    "test_images": ("test_images", "x_test", "X_test"),
    "test_labels": ("test_labels", "y_test"),
}
"""Accepted names of each part, best first."""


def matches(path):
    """Whether the name ends in ``.npz``."""
    return path.suffix == ".npz"


def read(path):
    """Return the `Parts` of an ``.npz`` file; those of the test set may be missing."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {
                part: next((name for name in names if name in file), None)
                for part, names in NAMES.items()
            }
            _refuse_incomplete(path, found)
            arrays = {part: file[name] for part, name in found.items() if name}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as an .npz file ({reason}): write it again with numpy.savez, "
            "without arrays of objects"
        ) from error
    return checked(arrays, path)


def _refuse_incomplete(path, found):
    has_test = found["test_images"] or found["test_labels"]
    for part, name in found.items():
        if name is None and (has_test or part.startswith("train")):
            raise DataError(
                f"{path} lacks the {part.replace('_', ' ')}: "
                f"save them under the name {' or '.join(NAMES[part])}"
            )
