"""Formats of data sets: one file each, with ``matches(path)`` and ``read(path) -> Parts``.

============ ==========================================================================
format       what
============ ==========================================================================
`arrays`     NumPy arrays ``(X, y)`` or ``(X, y, X_test, y_test)``
`npz`        an ``.npz`` file of such arrays
`table`      a ``.csv`` file, or a folder with ``train.csv`` and ``test.csv``
`pictures`   a folder with a folder of PNG files for each class
`idx`        a folder of four IDX files, as the original MNIST
============ ==========================================================================
"""

from pathlib import Path

from reinforce_dropout.errors import DataError
from reinforce_dropout.running.formats import arrays, idx, npz, pictures, table

__all__ = ["read"]

FORMATS = (npz, table, idx, pictures)
"""The first one that matches reads."""


def read(source):
    """Return the `arrays.Parts` of a tuple of arrays, or of a file or folder.

    Raises
    ------
    DataError
        The source cannot be read, or is not what its format asks for.
    """
    if isinstance(source, tuple):
        return arrays.read(source)
    path = Path(source)
    try:
        path.stat()
        form = next((form for form in FORMATS if form.matches(path)), idx)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): give a name such as mnist, or a file or "
            "folder that you may read"
        ) from error
    return form.read(path)
