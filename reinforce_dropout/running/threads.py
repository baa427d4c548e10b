"""The number of threads that matrix products use, in BLAS and in our own kernels."""

import contextlib

from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def limited(n_threads):
    """Use at most `n_threads` threads while the context lasts; None changes nothing."""
    if n_threads is None:
        yield
        return
    numba = _numba()
    before = numba and numba.get_num_threads()
    with threadpool_limits(n_threads, "blas"):
        use_in_kernels(n_threads)
        try:
            yield
        finally:
            if numba:
                numba.set_num_threads(before)


def use_in_kernels(n_threads):
    """Let our own kernels use at most `n_threads` threads from now on; BLAS keeps its number.

    No bit of the kernels' results depends on it.
    """
    if numba := _numba():
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))


def _numba():
    """Return Numba, or None if it cannot be imported: the other backends work without it."""
    try:
        import numba
    except Exception:
        return None
    return numba
