"""Memory that the arrays of a mini-batch have freed, kept for those of the next."""

import contextlib
import ctypes

# Options of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

#: The largest array that is kept; glibc allows no more.
_ARRAY_BYTES = 2**25
#: At most so much free memory is kept.
_KEPT_BYTES = 2**28


def keep_freed():
    """Let the C library keep what is freed. Without glibc, do nothing.

    By default glibc gives large arrays back to the system, which must clear each page anew for the
    next one. That took a quarter of the time of an evaluation by batches of 1000 images.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _ARRAY_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
