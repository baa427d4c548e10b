"""How threads share the work of a kernel.

Every element is summed in the same order whatever their number, so that it makes no difference to
a single bit.
"""

import numba

from reinforce_dropout.native.vectors import n_threads

__all__ = ["share", "threads_for"]

#: Multiplications by a weight below which waking another thread costs more than it saves.
_WORTH_A_THREAD = 200_000

numba.get_num_threads()  # This call makes Numba register the symbol that `n_threads` uses.


@numba.njit
def threads_for(work):
    """Return how many threads to use for so many multiplications by a weight."""
    return n_threads() if work > _WORTH_A_THREAD else 1


@numba.njit
def share(part, n_parts, size, step):
    """Return the first and the last (excluded) of a part's rows or columns, in whole steps."""
    width = ((size + n_parts - 1) // n_parts + step - 1) // step * step
    return min(size, part * width), min(size, (part + 1) * width)
