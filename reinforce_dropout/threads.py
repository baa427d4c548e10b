"""The number of threads that products of matrices use, in BLAS and in our own kernels."""

import contextlib

from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def limited(n_threads):
    """Use at most so many threads while the context lasts; None leaves things as they are.

    Parameters
    ----------
    n_threads : int or None
    """
    if n_threads is None:
        yield
        return
    with threadpool_limits(n_threads, "blas"), _kernels_limited(n_threads):
        yield


@contextlib.contextmanager
def _kernels_limited(n_threads):
    try:
        import numba
    except Exception:  # the other backends work without it, or with one that does not suit NumPy
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)
