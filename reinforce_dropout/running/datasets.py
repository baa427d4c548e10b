"""Data sets by name, made from the packaged MNIST, and the user's own as a folder of IDX files.

IDX is the format of the original MNIST files. It begins with two zero bytes, the type (8 is
unsigned byte) and the number of dimensions. Each dimension follows as a big-endian 32-bit integer,
then the elements in C order.
"""

import gzip
import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from reinforce_dropout.errors import DataError

PACKAGED_MNIST = Path(__file__).parents[1] / "data" / "mnist.hdf5"

# Part of a data set -> the beginning of its IDX file's name, and its number of dimensions.
IDX_PARTS = {
    "train_images": ("train-images", 3),
    "train_labels": ("train-labels", 1),
    "test_images": ("t10k-images", 3),
    "test_labels": ("t10k-labels", 1),
}
UNSIGNED_BYTE = 0x08
_INVERSION_SEED = 20_141_001  # fixed, so everybody has the same images
PIECE_BYTES = 1 << 16


@dataclass(frozen=True, eq=False)
class Examples:
    """Images and the classes they show.

    Attributes
    ----------
    images : ndarray (n, n_in) float32
        Pixels in [0, 1], C-contiguous, one image a row.
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
        The source as given to `load`.
    sha256 : str
        Digest of the pixels and labels before the split (see `digest`).
    train, valid, test : Examples
    image_shape : tuple of int
        Rows and columns of an image.
    n_classes : int
        One more than the largest training label.
    """

    name: str
    sha256: str
    train: Examples
    valid: Examples
    test: Examples
    image_shape: tuple[int, ...]
    n_classes: int

    @property
    def n_in(self):
        """Pixels of an image."""
        return math.prod(self.image_shape)


def load(source="mnist", validation_fraction=1 / 6):
    """Load a data set and set the last of its training examples aside for validation.

    Parameters
    ----------
    source : str or Path
        A name in `NAMED`, such as ``"mnist"``, or a folder of four IDX files (see
        `find_idx_files`).
    validation_fraction : float
        Fraction in (0, 1) of the n training examples that become the validation set. These are the
        last ``round(validation_fraction * n)`` in file order. The default gives MNIST's usual
        split: 50 000 training, 10 000 validation and 10 000 test examples.

    Returns
    -------
    Dataset
        With pixels divided by 255.

    Raises
    ------
    DataError
        The data is missing, damaged or inconsistent, or cannot be split like that.
    """
    if source in NAMED:
        arrays = NAMED[source]()
    else:
        arrays = {
            part: read_idx(path, IDX_PARTS[part][1])
            for part, path in find_idx_files(source).items()
        }
    check_agreement(arrays)
    training = _examples(arrays["train_images"], arrays["train_labels"])
    test = _examples(arrays["test_images"], arrays["test_labels"])
    train, valid = split(training, validation_fraction)
    check_labels_known(train, valid, test)
    return Dataset(
        name=str(source),
        sha256=digest(arrays),
        train=train,
        valid=valid,
        test=test,
        image_shape=arrays["train_images"].shape[1:],
        n_classes=1 + int(training.labels.max()),
    )


def read_packaged(path):
    """Return the arrays of the HDF5 file that ``data/pack_mnist.py`` writes, uint8, by part."""
    try:
        # Nobody writes this file, and some network file systems cannot lock.
        with h5py.File(path, "r", locking=False) as file:
            return {part: file[part][()] for part in IDX_PARTS}
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


def accepted_names(part):
    """Return the file names of a part, best first: hyphen or dot before ``idx``, gzipped or not."""
    stem, n_dims = IDX_PARTS[part]
    return [
        f"{stem}{separator}idx{n_dims}-ubyte{suffix}"
        for separator in "-."
        for suffix in ("", ".gz")
    ]


def find_idx_files(folder):
    """Return ``{part: path}`` of a folder with each part under one of its `accepted_names`."""
    folder = Path(folder)
    try:
        present = set(os.listdir(folder))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read as a folder of IDX files ({error.strerror}): "
            f"give {', '.join(NAMED)} or a readable folder that holds the four files"
        ) from error
    paths = {}
    for part in IDX_PARTS:
        names = accepted_names(part)
        found = [name for name in names if name in present]
        if not found:
            raise DataError(
                f"{folder} lacks the {part.replace('_', ' ')}: "
                f"put the IDX file there as {', '.join(names[:-1])} or {names[-1]}"
            )
        paths[part] = folder / found[0]
    return paths


def read_idx(path, n_dims):
    """Return the array of an IDX file: uint8, `n_dims` dimensions; ``.gz`` is unpacked."""
    return parse_idx(unpack(path, n_dims), n_dims, path)


def unpack(path, n_dims):
    """Return a file's bytes, unpacked if its name ends in ``.gz``.

    A small file can unpack to a huge one. So this reads one byte more than the header announces,
    at most, and in pieces: a false header must not reserve memory.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            pieces = [file.read(4 + 4 * n_dims)]
            if pieces[0].startswith(bytes([0, 0, UNSIGNED_BYTE, n_dims])):
                left = math.prod(_shape(pieces[0])) + 1
                while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
                    pieces.append(piece)
                    left -= len(piece)
            return b"".join(pieces)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is not an intact gzip file ({error}): "
            "fetch it again or, if it is not packed, take .gz off its name"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): make it a file that you may read"
        ) from error


def parse_idx(contents, n_dims, path):
    """Return a read-only view of an IDX file's bytes as an array, uint8 of `n_dims` dimensions."""
    if len(contents) < 4 or contents[:2] != b"\0\0":
        raise DataError(
            f"{path} is not an IDX file (it must begin with two zero bytes, a type and a number "
            "of dimensions): supply the data in the format of the MNIST files"
        )
    if contents[2] != UNSIGNED_BYTE:
        raise DataError(
            f"{path} holds elements of IDX type 0x{contents[2]:02x}: "
            f"write it with unsigned bytes (type 0x{UNSIGNED_BYTE:02x})"
        )
    if contents[3] != n_dims:
        raise DataError(
            f"{path} has {contents[3]} dimensions instead of {n_dims}: "
            "write images as (n, rows, columns) and labels as (n,)"
        )
    start = 4 + 4 * n_dims
    shape = _shape(contents[:start])
    excess = len(contents) - (start + math.prod(shape))
    if len(contents) < start or excess < 0:
        raise DataError(
            f"{path} is truncated ({len(contents)} bytes are fewer than its header announces): "
            "fetch or write it again"
        )
    if 0 in shape:
        raise DataError(
            f"{path} is empty (shape {shape}): supply at least one example of at least one pixel"
        )
    if excess > 0:
        raise DataError(
            f"{path} goes on after the array of shape {shape} its header announces: "
            "fetch or write it again"
        )
    return np.frombuffer(contents, np.uint8, offset=start).reshape(shape)


def _shape(header):
    return tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, len(header), 4))


def digest(arrays):
    """Return the SHA-256 of all shapes and elements: equal for equal data, in whatever files."""
    sha256 = hashlib.sha256()
    for part in IDX_PARTS:
        sha256.update(str(arrays[part].shape).encode())
        sha256.update(arrays[part])
    return sha256.hexdigest()


def check_agreement(arrays):
    """Refuse arrays unless every image has a label and all images have one size."""
    for subset in ("train", "test"):
        n_images, n_labels = len(arrays[f"{subset}_images"]), len(arrays[f"{subset}_labels"])
        if n_images != n_labels:
            raise DataError(
                f"the {subset} files have {n_images} images but {n_labels} labels: "
                "supply two files of the same examples"
            )
    train_size, test_size = (arrays[part].shape[1:] for part in ("train_images", "test_images"))
    if train_size != test_size:
        raise DataError(
            f"train images are {train_size[0]} x {train_size[1]} pixels but test images "
            f"{test_size[0]} x {test_size[1]}: bring both to one size"
        )


def split(training, validation_fraction):
    """Return training and validation examples, as views; the latter are the last of the n."""
    if not 0 < validation_fraction < 1:
        raise DataError(
            f"validation_fraction is {validation_fraction}: choose a fraction between 0 and 1, "
            "both excluded"
        )
    n_train = len(training) - round(validation_fraction * len(training))
    if not 0 < n_train < len(training):
        raise DataError(
            f"validation_fraction {validation_fraction} of {len(training)} training examples "
            f"leaves no {'validation' if n_train else 'training'} example: "
            "choose a fraction nearer to 1/2 or supply more examples"
        )
    return (
        Examples(training.images[:n_train], training.labels[:n_train]),
        Examples(training.images[n_train:], training.labels[n_train:]),
    )


def check_labels_known(train, valid, test):
    """Refuse validation and test labels that no training example has."""
    for name, examples in (("validation", valid), ("test", test)):
        unknown = np.setdiff1d(examples.labels, train.labels)
        if unknown.size:
            raise DataError(
                f"no training example has the {name} label {', '.join(map(str, unknown))}: "
                "shuffle the examples before writing the files, or correct the labels"
            )


def _examples(images, labels):
    """Return uint8 images (n, rows, columns) and labels (n,) as Examples."""
    pixels = np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)
    return Examples(pixels, labels.astype(np.int32))
