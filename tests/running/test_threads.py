import numba
import pytest
import threadpoolctl

from reinforce_dropout.running import threads


def blas_threads():
    pools = threadpoolctl.threadpool_info()
    return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}


def test_a_limit_holds_for_blas_and_kernels_and_ends():
    before = blas_threads(), numba.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads.limited(1):
        inside = blas_threads(), numba.get_num_threads()
        raise ZeroDivisionError
    assert inside == ({1}, 1)
    assert (blas_threads(), numba.get_num_threads()) == before


def test_kernels_use_another_number_until_the_limit_ends():
    before = numba.get_num_threads()
    with threads.limited(1):
        blas = blas_threads()
        threads.use_in_kernels(10_000)
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
        threads.use_in_kernels(1)
        assert numba.get_num_threads() == 1
        assert blas_threads() == blas
    assert numba.get_num_threads() == before


def test_none_and_more_than_there_are_change_nothing():
    before = numba.get_num_threads()
    with threads.limited(None):
        assert numba.get_num_threads() == before
    with threads.limited(10_000):
        assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
