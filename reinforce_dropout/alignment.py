"""Arrays that begin where a line of the processor's cache begins.

NumPy's begin anywhere. A vector that straddles two lines takes two reads, and the products of a
training step read little else than rows of weights: 800 float32 fill 50 lines exactly, or touch 51.
"""

import numpy as np

LINE_BYTES = 64


def aligned(array):
    """Copy an array to the beginning of a line.

    Parameters
    ----------
    array : array_like

    Returns
    -------
    ndarray
        In C order, with the shape and dtype of `array`.
    """
    array = np.asarray(array)
    room = np.empty(array.nbytes + LINE_BYTES, np.uint8)
    start = -room.ctypes.data % LINE_BYTES
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
