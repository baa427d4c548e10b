"""Data sets: named ones, made from the packaged MNIST, and the user's own in any of the `formats`.

Here the examples are checked and divided into training, validation and test sets.
"""

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from reinforce_dropout.errors import DataError
from reinforce_dropout.running import formats
from reinforce_dropout.running.formats.arrays import PARTS, Parts

if TYPE_CHECKING:
    from reinforce_dropout.systems import Experiment

PACKAGED_MNIST = Path(__file__).parents[1] / "data" / "mnist.hdf5"

_INVERSION_SEED = 20_141_001  # fixed, so everybody has the same images
_SPLIT_SEED = 0  # fixed: runs with other seeds have the same validation examples


@dataclass(frozen=True, eq=False)
class Examples:
    """Images and the classes they show.

    Attributes
    ----------
    images : ndarray (n, n_in) float32
        One image a row, C-contiguous. Pixels that were whole numbers are in [0, 1].
    labels : ndarray (n,) int32
        Classes, counted from 0.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        """Return n, the number of examples."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test examples of one task.

    Attributes
    ----------
    name : str
        The source as given to `load`; "arrays" for arrays.
    sha256 : str
        Digest of the pixels and labels before the split (see `digest`).
    train, valid, test : Examples
    image_shape : tuple of int
        Rows and columns of an image, or the number of its values.
    n_classes : int
        One more than the largest training label.
    class_names : tuple of str
        The word for each label, if the source has words; else empty.
    """

    name: str
    sha256: str
    train: Examples
    valid: Examples
    test: Examples
    image_shape: tuple[int, ...]
    n_classes: int
    class_names: tuple[str, ...] = ()

    @property
    def n_in(self):
        """Pixels of an image."""
        return math.prod(self.image_shape)


def load(
    source: str | os.PathLike | tuple = "mnist",
    validation_fraction: float = 1 / 6,
    test_fraction: float = 1 / 7,
    split_at_random: bool = False,
) -> Dataset:
    """Load a data set, and set the last of its training examples aside for validation.

    Parameters
    ----------
    source : str, Path or tuple of arrays
        A name in `NAMED`, such as ``"mnist"``; a file or folder, or arrays, see `formats`.
    validation_fraction : float
        Fraction in (0, 1) of the n training examples that become the validation set. These are the
        last ``round(validation_fraction * n)`` in file order. The default gives MNIST's usual
        split: 50 000 training, 10 000 validation and 10 000 test examples.
    test_fraction : float
        Fraction in (0, 1) of all examples that become the test set, before that, if the source has
        none. These are the last ones too.
    split_at_random : bool
        Whether the examples that are split are put in a random order first, always the same one.

    Returns
    -------
    Dataset
        With pixels that are whole numbers divided by 255.

    Raises
    ------
    DataError
        The data is missing, damaged or inconsistent, or cannot be split like that.

    Examples
    --------
    >>> data = load((np.ones((21, 4)), np.arange(21) % 2))
    >>> len(data.train), len(data.valid), len(data.test), data.n_classes
    (15, 3, 3, 2)
    """
    if isinstance(source, str) and source in NAMED:
        parts = Parts(NAMED[source]())
    else:
        parts = formats.read(source)
    arrays = parts.arrays
    check_agreement(arrays)
    training = _examples(arrays["train_images"], arrays["train_labels"])
    if split_at_random:
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(training))
        training = Examples(training.images[order], training.labels[order])
    if "test_images" in arrays:
        test = _examples(arrays["test_images"], arrays["test_labels"])
    else:
        training, test = split(training, test_fraction, "test")
    train, valid = split(training, validation_fraction, "validation")
    check_labels_known(train, valid, test, parts.class_names)
    return Dataset(
        name="arrays" if isinstance(source, tuple) else str(source),
        sha256=digest(arrays),
        train=train,
        valid=valid,
        test=test,
        image_shape=arrays["train_images"].shape[1:],
        n_classes=1 + int(training.labels.max()),
        class_names=parts.class_names,
    )


def load_for(experiment: "Experiment", source: str | os.PathLike | tuple) -> Dataset:
    """Load a data set with the split of an experiment's settings."""
    return load(
        source,
        experiment.validation_fraction,
        experiment.test_fraction,
        experiment.split_at_random,
    )


def read_packaged(path):
    """Return the arrays of the HDF5 file that ``data/pack_mnist.py`` writes, uint8, by part."""
    try:
        # Nobody writes this file, and some network file systems cannot lock.
        with h5py.File(path, "r", locking=False) as file:
            return {part: file[part][()] for part in PARTS}
    except (OSError, KeyError) as error:
        raise DataError(
            f"the packaged MNIST {path} is missing, damaged or unreadable ({error}): "
            "reinstall reinforce-dropout"
        ) from error


def read_mnist():
    """Return the arrays of the packaged MNIST, uint8, by part."""
    return read_packaged(PACKAGED_MNIST)


def read_inverted_mnist():
    """Return MNIST with a random half of its training and of its test images inverted.

    A pixel p of such an image becomes 255 - p. The same images are always chosen. Denoyer and
    Gallinari (2014) made such data: two modes that one small network serves badly.
    """
    arrays, rng = read_mnist(), np.random.default_rng(_INVERSION_SEED)
    for part in ("train_images", "test_images"):
        images = arrays[part]
        half = rng.permutation(len(images))[: len(images) // 2]
        images[half] = 255 - images[half]
    return arrays


NAMED = {"mnist": read_mnist, "mnist-inverted": read_inverted_mnist}
"""Data sets by name: functions that return the arrays, uint8, by part."""


def digest(arrays):
    """Return the SHA-256 of all shapes and elements: equal for equal data, in whatever files."""
    sha256 = hashlib.sha256()
    for part in PARTS:
        if part in arrays:
            sha256.update(str(arrays[part].shape).encode())
            sha256.update(arrays[part])
    return sha256.hexdigest()


def check_agreement(arrays):
    """Refuse arrays unless every image has a label and all images have one size."""
    for subset in ("train", "test") if "test_images" in arrays else ("train",):
        n_images, n_labels = len(arrays[f"{subset}_images"]), len(arrays[f"{subset}_labels"])
        if n_images != n_labels:
            raise DataError(
                f"the {subset} files have {n_images} images but {n_labels} labels: "
                "supply two files of the same examples"
            )
    sizes = [arrays[part].shape[1:] for part in PARTS if part.endswith("images") and part in arrays]
    if len(set(sizes)) > 1:
        train_size, test_size = (" x ".join(map(str, size)) for size in sizes)
        raise DataError(
            f"train images are {train_size} pixels but test images {test_size}: "
            "bring both to one size"
        )


def split(examples, fraction, name):
    """Return two parts of the examples, as views; the second, called `name`, has the last ones."""
    if not 0 < fraction < 1:
        raise DataError(
            f"{name}_fraction is {fraction}: choose a fraction between 0 and 1, both excluded"
        )
    n_left = len(examples) - round(fraction * len(examples))
    if not 0 < n_left < len(examples):
        raise DataError(
            f"{name}_fraction {fraction} of {len(examples)} training examples "
            f"leaves no {name if n_left else 'training'} example: "
            "choose a fraction nearer to 1/2 or supply more examples"
        )
    return (
        Examples(examples.images[:n_left], examples.labels[:n_left]),
        Examples(examples.images[n_left:], examples.labels[n_left:]),
    )


def check_labels_known(train, valid, test, class_names=()):
    """Refuse validation and test labels that no training example has."""
    for name, examples in (("validation", valid), ("test", test)):
        unknown = np.setdiff1d(examples.labels, train.labels)
        if unknown.size:
            words = [class_names[label] if class_names else str(label) for label in unknown]
            raise DataError(
                f"no training example has the {name} label {', '.join(words)}: set split_at_random "
                "to true, shuffle the examples before writing the files, or correct the labels"
            )


def _examples(images, labels):
    """Return images (n, ...), uint8 or float32, and labels (n,) as Examples."""
    values = np.ascontiguousarray(images.reshape(len(images), -1))
    if values.dtype == np.uint8:
        values = np.divide(values, 255, dtype=np.float32)
    return Examples(values, labels.astype(np.int32))
