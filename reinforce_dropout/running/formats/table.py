"""A table of comma-separated values: a row for each example, the first line names the columns.

The column ``label`` has the class, a number or a word. All others are numbers. If all of them are
whole numbers from 0 to 255, they are pixels, and are divided by 255 later.
"""

import csv

import numpy as np

from reinforce_dropout.errors import DataError
from reinforce_dropout.running.formats.arrays import PARTS, checked

LABEL = "label"
SETS = ("train.csv", "test.csv")


def matches(path):
    """Whether it is a ``.csv`` file, or a folder with ``train.csv``."""
    return path.suffix == ".csv" or (path / SETS[0]).is_file()


def read(path):
    """Return the `Parts` of a ``.csv`` file, or of a folder with one for each set."""
    paths = [path / name for name in SETS] if path.is_dir() else [path]
    columns, numbers, labels = zip(*map(_read_file, paths), strict=True)
    if any(names != columns[0] for names in columns):
        raise DataError(f"{paths[1]} has other columns than {paths[0]}: give both the same")
    if all(_are_pixels(table) for table in numbers):
        numbers = [table.astype(np.uint8) for table in numbers]
    pairs = [array for pair in zip(numbers, labels, strict=True) for array in pair]
    return checked(dict(zip(PARTS, pairs, strict=False)), path)


def _read_file(path):
    """Return the columns' names, the numbers (n, n_in) float32, and the labels (n,) as text."""
    words = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            columns = next(csv.reader(file), [])
            if columns.count(LABEL) != 1 or len(columns) == 1:
                raise DataError(
                    f"{path} must have one column {LABEL} and others: "
                    "name the columns in its first line, such as label,pixel1,pixel2"
                )
            at = columns.index(LABEL)
            rows = list(file)
            if not any(row.strip() for row in rows):
                raise DataError(f"{path} has no rows: give a line for each example")
            table = np.loadtxt(
                rows, np.float32, delimiter=",", comments=None, quotechar='"', ndmin=2,
                converters={at: lambda word: words.setdefault(word.strip(), len(words))},
            )  # fmt: skip
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
        raise DataError(
            f"{path} cannot be read as a table ({getattr(error, 'strerror', None) or error}): "
            "give UTF-8 text with commas, as many cells in each row as columns, and numbers in all "
            f"columns except {LABEL}"
        ) from error
    if table.shape[1] != len(columns):
        raise DataError(
            f"{path} has rows of {table.shape[1]} cells but {len(columns)} names of columns: "
            "give as many of both"
        )
    labels = np.array(list(words))[table[:, at].astype(int)]
    return columns, np.delete(table, at, axis=1), labels


def _are_pixels(table):
    return bool(((table >= 0) & (table <= 255) & (table % 1 == 0)).all())
