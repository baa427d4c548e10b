"""How threads share the work of a kernel.

Every element is summed in the same order for any number of threads. So no bit depends on it.
"""

import os

import numba

from reinforce_dropout.native.llvm.vectors import n_threads

__all__ = ["exchange_n_threads", "share", "threads_for"]

#: For fewer multiplications by a weight, waking another thread costs more than it saves.
_WORTH_A_THREAD = 200_000

#: A thread of GNU OpenMP watches for work for so many rounds before it sleeps. The default takes a
#: millisecond, which is lost for other programs, and for our threads that share a core with them.
_ROUNDS = "10000"


def _load_threads():
    """Have Numba load its threads, and register the symbol that `n_threads` uses.

    GNU OpenMP reads its settings when it is loaded. The user's own settings hold. Other programs
    that this process starts do not inherit ours.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        numba.get_num_threads()
        return
    os.environ["GOMP_SPINCOUNT"] = _ROUNDS
    try:
        numba.get_num_threads()
    finally:
        del os.environ["GOMP_SPINCOUNT"]


_load_threads()


@numba.njit
def exchange_n_threads(number):
    """Set the number of threads of the kernels, and return the number before."""
    before = n_threads()
    numba.set_num_threads(number)
    return before


@numba.njit
def threads_for(work):
    """Return the number of threads to use for `work` multiplications by a weight."""
    return n_threads() if work > _WORTH_A_THREAD else 1


@numba.njit
def share(part, n_parts, size, step):
    """Return the first and last (excluded) row or column of a part, in whole steps."""
    width = ((size + n_parts - 1) // n_parts + step - 1) // step * step
    return min(size, part * width), min(size, (part + 1) * width)
