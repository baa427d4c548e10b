"""A folder of four IDX files, the format of the original MNIST files.

A file begins with two zero bytes, the type (8 is unsigned byte) and the number of dimensions. Each
dimension follows as a big-endian 32-bit integer, then the elements in C order.
"""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from reinforce_dropout.errors import DataError
from reinforce_dropout.running.formats.arrays import Parts

# Part of a data set -> the beginning of its IDX file's name, and its number of dimensions.
IDX_PARTS = {
    "train_images": ("train-images", 3),
    "train_labels": ("train-labels", 1),
    "test_images": ("t10k-images", 3),
    "test_labels": ("t10k-labels", 1),
}
UNSIGNED_BYTE = 0x08
PIECE_BYTES = 1 << 16


def matches(path):
    """Whether a folder has an IDX file."""
    names = {name for part in IDX_PARTS for name in accepted_names(part)}
    return path.is_dir() and not names.isdisjoint(os.listdir(path))


def read(folder):
    """Return the `Parts` of a folder with each part under one of its `accepted_names`."""
    paths = find_idx_files(folder)
    return Parts({part: read_idx(path, IDX_PARTS[part][1]) for part, path in paths.items()})


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
    try:
        present = set(os.listdir(folder))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read as a folder of IDX files ({error.strerror}): give a readable "
            "folder that holds the four files, or a file whose name ends in .npz or .csv"
        ) from error
    folder, paths = Path(folder), {}
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
