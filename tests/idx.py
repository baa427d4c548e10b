"""Writes IDX files and small data sets for the tests."""

from gzip import compress
from pathlib import Path

import numpy as np

IDX_TYPES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D}


def idx_bytes(array):
    """Return the contents of the (unpacked) IDX file of an array."""
    kind = bytes([0, 0, IDX_TYPES[array.dtype.name], array.ndim])
    big_endian = array.astype(array.dtype.newbyteorder(">"))
    return kind + np.array(array.shape, ">u4").tobytes() + big_endian.tobytes()


def write_idx(path, array):
    """Write an array as an IDX file, gzipped if the name ends in ``.gz``."""
    contents = idx_bytes(array)
    path.write_bytes(compress(contents) if path.suffix == ".gz" else contents)


def class_examples(rng, patterns, n):
    """Return n noisy images uint8 (n, height, width) and labels uint8 (n,), classes in turn.

    Each pixel is 0-55 of noise, plus 200 where the pattern of the class is set.
    """
    labels = np.arange(n, dtype=np.uint8) % len(patterns)
    noise = rng.integers(0, 56, size=(n, *patterns.shape[1:]), dtype=np.uint8)
    return noise + np.uint8(200) * patterns[labels], labels


def write_dataset(
    folder, *, n_train=600, n_test=100, shape=(8, 8), n_classes=4, seed=0, gzip=False
):
    """Write a small, easily learnable data set as four IDX files, and return the folder.

    Every class has a random pattern of its own, the same in training and test images.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    patterns = rng.random((n_classes, *shape)) < 0.5
    for stem, n in (("train", n_train), ("t10k", n_test)):
        images, labels = class_examples(rng, patterns, n)
        suffix = ".gz" if gzip else ""
        write_idx(folder / f"{stem}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{suffix}", labels)
    return folder
