"""A folder of pictures: a folder for each class, named after it, with PNG files of one size.

The folders of the classes may be in two folders ``train`` and ``test``. Colours become grey, and
transparency is dropped.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from reinforce_dropout.errors import DataError
from reinforce_dropout.running.formats.arrays import PARTS, checked

SETS = ("train", "test")
_ORDER_SEED = 0  # fixed, so that everybody has the same order


def matches(path):
    """Whether it is a folder with folders."""
    return path.is_dir() and bool(_folders(path))


def read(folder):
    """Return the `Parts` of a folder of pictures, uint8.

    The examples come in a random order, always the same one: files are sorted by class, and the
    validation examples are the last ones.
    """
    in_sets = {path.name for path in _folders(folder)} == set(SETS)
    sets = [folder / name for name in SETS] if in_sets else [folder]
    pairs = [array for path in sets for array in _examples(path)]
    return checked(dict(zip(PARTS, pairs, strict=False)), folder)


def _folders(path):
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _examples(folder):
    """Return images (n, rows, columns) uint8 and labels (n,) as text."""
    classes = _folders(folder)
    if not classes:
        raise DataError(f"{folder} has no folder of a class: make one for each, with its PNG files")
    files = [(path.name, file) for path in classes for file in _files(path)]
    order = np.random.default_rng(_ORDER_SEED).permutation(len(files))
    images = [_grey(file) for _, file in files]
    for image, (_, file) in zip(images, files, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"{file} has {_size(image)} pixels but {files[0][1]} {_size(images[0])}: "
                "bring all images to one size"
            )
    return np.array(images)[order], np.array([label for label, _ in files])[order]


def _files(folder):
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
    if not files:
        raise DataError(f"{folder} has no PNG file: put those of the class there, or remove it")
    return files


def _grey(path: Path):
    """Return a picture as an array (rows, columns) uint8."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.mode.startswith("I"):  # 16 bits; Pillow would cut them off
                raise DataError(f"{path} has more than 8 bits a pixel: save it with 8 bits")
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not an intact PNG file ({error}): save it again") from error


def _size(image):
    return f"{image.shape[0]} x {image.shape[1]}"
