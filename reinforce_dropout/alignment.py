"""Arrays that begin where a line of the processor's cache begins.

NumPy's arrays begin anywhere. A vector that straddles two lines takes two reads. The products of a
training step mostly read rows of weights: 800 float32 fill 50 lines exactly, or touch 51.
"""

import numpy as np

LINE_BYTES = 64


def aligned(array):
    """Return a copy of an array, in C order, that begins where a line begins."""
    array = np.asarray(array)
    room = np.empty(array.nbytes + LINE_BYTES, np.uint8)
    start = -room.ctypes.data % LINE_BYTES
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
