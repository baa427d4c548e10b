"""Lists of the non-zero entries of a matrix, for kernels that skip the zeros."""

import numba
import numpy as np

from reinforce_dropout.native.llvm.places import BITS, PLACES, put_compressed, put_places
from reinforce_dropout.native.llvm.vectors import (
    HAS_AVX512,
    VECTOR_BYTES,
    address,
    count_bits,
    lowest_bit,
    non_zero_bits,
    prefetch,
)

__all__ = [
    "AHEAD",
    "DENSE",
    "FEW_COLUMNS",
    "PUTS_VALUES",
    "ROOM",
    "count_by_column",
    "count_non_zeros",
    "list_may_pay",
    "non_zeros_by_block",
    "non_zeros_by_column",
    "put_vector",
]

#: For products with fewer columns, a list costs more than it saves.
FEW_COLUMNS = 32
#: The same for many rows, whose dense product reads the weights from the first-level cache.
_FEW_COLUMNS_OF_MANY_ROWS = 100
_MANY_ROWS = 256
#: The same for even more rows, such as all patches of a mini-batch of images.
_FEW_COLUMNS_OF_PATCHES = 256
_PATCHES = 2000
#: Above this density it is faster to compute everything.
DENSE = 0.6
#: Bytes from what is read to what is fetched meanwhile. Without it a loop over images waits for the
#: memory.
AHEAD = 2048
#: Whether `put_vector` writes the values, too.
PUTS_VALUES = HAS_AVX512
#: Entries behind the last one listed that are written over: no more than a vector has, or a byte.
ROOM = max(VECTOR_BYTES // 4, BITS)


@numba.njit
def list_may_pay(n_rows, n_columns):
    """Whether a product with few enough non-zero entries is faster by their list."""
    few = FEW_COLUMNS
    if n_rows >= _PATCHES:
        few = _FEW_COLUMNS_OF_PATCHES
    elif n_rows > _MANY_ROWS:
        few = _FEW_COLUMNS_OF_MANY_ROWS
    return n_columns >= few


@numba.njit
def _bits(s, i, k, stop):
    """Bits of one vector of row i of s: which entries from column k to `stop` are not 0."""
    return non_zero_bits(address(s) + (i * s.shape[1] + k) * s.itemsize, stop - k, s.dtype.type(0))


@numba.njit
def _put_vector_by_bytes(at, count, first, values, numbers, itemsize, lanes, zero, number):
    """See `put_vector`."""
    bits, n = non_zero_bits(at, count, zero), 0
    for j in range(0, lanes, BITS):
        byte = (bits >> j) % 2**BITS
        put_places(address(PLACES), byte, first + j, numbers + n * itemsize, number)
        n += count_bits(byte)
    return n


@numba.njit
def _put_vector_by_compression(at, count, first, values, numbers, itemsize, lanes, zero, number):
    """See `put_vector`."""
    return put_compressed(at, count, first, values, numbers, zero, number)


#: List what is not zero in the vector at an address; return how many. Up to `ROOM` entries are
#: written; those too many say nothing. It writes no values unless `PUTS_VALUES`.
#:
#: Parameters
#: ----------
#: at, count : int
#:     Elements from `count` on are taken as zero.
#: first : int
#:     Number of the first element.
#: values, numbers : int
#:     Addresses of the results.
#: itemsize : int
#:     Bytes of a number.
#: lanes : int
#:     Elements of the vector.
#: zero, number : scalar
#:     Tell the dtypes of values and numbers.
put_vector = _put_vector_by_compression if PUTS_VALUES else _put_vector_by_bytes


@numba.njit
def count_non_zeros(s, step):
    """Count the non-zero entries of each `step`-th row of a C-ordered matrix; NaN counts."""
    n_rows, n_columns = s.shape
    lanes = VECTOR_BYTES // s.itemsize
    n = 0
    for i in range(0, n_rows, step):
        for k in range(0, n_columns, lanes):
            prefetch(address(s) + (i * n_columns + k) * s.itemsize + AHEAD)
            n += count_bits(_bits(s, i, k, n_columns))
    return n


@numba.njit
def count_by_column(s):
    """Count the non-zero entries before each column of s, (n_columns + 1,) int64."""
    counts = np.zeros(s.shape[1] + 1, np.int64)
    for i in range(s.shape[0]):
        row, after = s[i], counts[1:]
        for k in range(row.size):
            after[k] += row[k] != 0
    for k in range(s.shape[1]):
        counts[k + 1] += counts[k]
    return counts


@numba.njit
def non_zeros_by_block(s, length, room):
    """List the non-zero entries of `s` by blocks of `length` columns, and in each row by row.

    There is `room` for so many: at least their number, see `count_non_zeros`.

    Returns
    -------
    columns : ndarray (room + ROOM,) int64
        Several are written at once: the last ones say nothing.
    factors : ndarray (room + ROOM,) of s.dtype
    firsts : ndarray (n_blocks, n_rows + 1) int64
        Block B and row i own the entries ``firsts[B, i] <= t < firsts[B, i + 1]``.
    """
    n_rows, n_columns = s.shape
    n_blocks = (n_columns + length - 1) // length
    columns, factors = np.empty(room + ROOM, np.int64), np.empty(room + ROOM, s.dtype)
    firsts = np.empty((n_blocks, n_rows + 1), np.int64)
    lanes, zero = VECTOR_BYTES // s.itemsize, s.dtype.type(0)
    t = 0
    for block in range(n_blocks):
        stop = min(n_columns, (block + 1) * length)
        for i in range(n_rows):
            firsts[block, i] = t
            start = t
            for k in range(block * length, stop, lanes):
                t += put_vector(
                    address(s) + (i * n_columns + k) * s.itemsize, stop - k, k,
                    address(factors) + t * s.itemsize, address(columns) + t * columns.itemsize,
                    columns.itemsize, lanes, zero, np.int64(0),
                )  # fmt: skip
            if not PUTS_VALUES:
                for entry in range(start, t):
                    factors[entry] = s[i, np.uint64(columns[entry])]
        firsts[block, n_rows] = t
    return columns, factors, firsts


@numba.njit
def non_zeros_by_column(s, firsts):
    """List the rows (int64) and factors of the non-zero entries of `s`, column by column.

    Column k owns the entries ``firsts[k] <= t < firsts[k + 1]``, see `count_by_column`.
    """
    n_rows, n_columns = s.shape
    rows, factors = np.empty(firsts[-1], np.int64), np.empty(firsts[-1], s.dtype)
    places = firsts.copy()
    lanes = VECTOR_BYTES // s.itemsize
    for i in range(n_rows):
        for k in range(0, n_columns, lanes):
            bits = _bits(s, i, k, n_columns)
            while bits != 0:
                column = k + lowest_bit(bits)
                t = places[column]
                rows[t], factors[t] = i, s[i, column]
                places[column] = t + 1
                bits &= bits - 1
    return rows, factors
