"""Data sets as NumPy arrays. The formats other than IDX end here too, and share the checks.

Pixels that are whole numbers go from 0 to 255, and are divided by 255 later. Floats are used as
they are: scale them to about 0 to 1. Labels are whole numbers from 0, or words.
"""

from typing import NamedTuple

import numpy as np

from reinforce_dropout.errors import DataError

PARTS = ("train_images", "train_labels", "test_images", "test_labels")
LARGEST_LABEL = 65_535
"""The output layer has a unit for each number up to the largest label."""


class Parts(NamedTuple):
    """What a format reads.

    Attributes
    ----------
    arrays : dict from str to ndarray
        By the names in `PARTS`; the last two are missing if there is no test set. Images
        (n, n_in) or (n, rows, columns) are uint8 or float32, labels (n,) are numbers from 0.
    class_names : tuple of str
        The word for each number, if the labels are words.
    """

    arrays: dict
    class_names: tuple = ()


def read(source):
    """Return the `Parts` of ``(X, y)`` or ``(X, y, X_test, y_test)``."""
    if len(source) not in (2, 4):
        raise DataError(f"data is a tuple of {len(source)}: give (X, y), or (X, y, X_test, y_test)")
    return checked(dict(zip(PARTS, source, strict=False)), "data")


def checked(given, source):
    """Return the `Parts` of arrays of various types.

    Parameters
    ----------
    given : dict from str to array
        By the names in `PARTS`.
    source : str or Path
        For the messages.
    """
    arrays = {
        part: (_pixels if part.endswith("images") else _labels)(
            np.asarray(value), f"{source}: the {part.replace('_', ' ')}"
        )
        for part, value in given.items()
    }
    return _numbered(arrays, source)


def _pixels(images, name):
    """Return images as uint8 or float32."""
    if images.ndim not in (2, 3) or 0 in images.shape:
        raise DataError(
            f"{name} have the shape {images.shape}: give (n, n_in) or (n, rows, columns), with at "
            "least one example of at least one pixel"
        )
    if images.dtype.kind in "iu":
        if images.min() < 0 or images.max() > 255:
            raise DataError(
                f"{name} are whole numbers from {images.min()} to {images.max()}: give pixels from "
                "0 to 255, or floats from about 0 to 1"
            )
        return np.ascontiguousarray(images, np.uint8)
    if images.dtype.kind not in "bf":
        raise DataError(f"{name} have the type {images.dtype}: give numbers")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        images = np.ascontiguousarray(images, np.float32)
    if not np.isfinite(images).all():
        raise DataError(f"{name} have values that are not finite: replace them, such as by 0")
    return images


def _labels(labels, name):
    """Return labels as integers or text."""
    if labels.ndim != 1:
        raise DataError(f"{name} have the shape {labels.shape}: give one for each image, (n,)")
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    if labels.dtype.kind == "U":
        return labels
    whole = labels.dtype.kind in "biu" or labels.dtype.kind == "f" and (labels % 1 == 0).all()
    if not whole or len(labels) and (labels.min() < 0 or labels.max() > LARGEST_LABEL):
        raise DataError(f"{name} must be whole numbers from 0 to {LARGEST_LABEL}, or words")
    return labels.astype(np.int32)


def _numbered(arrays, source):
    """Return the arrays with numbers as labels, and the words for them; "7" is no word."""
    parts = [part for part in arrays if part.endswith("labels")]
    if len({arrays[part].dtype.kind for part in parts}) > 1:
        raise DataError(f"{source} has numbers and words as labels: give one kind")
    labels, names = np.concatenate([arrays[part] for part in parts]), ()
    if labels.dtype.kind == "U" and all(label.isascii() and label.isdecimal() for label in labels):
        labels = _labels(labels.astype(float), f"{source}: the labels")
    if labels.dtype.kind == "U":
        names, labels = np.unique(labels, return_inverse=True)
    # The type of the IDX files where it fits: equal data has an equal digest in any format.
    labels = labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.int32)
    cuts = np.cumsum([len(arrays[part]) for part in parts])[:-1]
    numbered = dict(zip(parts, np.split(labels, cuts), strict=True))
    return Parts(arrays | numbered, tuple(map(str, names)))
