"""Single-precision tanh, sigmoid and softplus that a compiler can vectorise.

The C library's functions branch, and are called for one number at a time. These make the same few
multiplications for every argument. So LLVM computes 8 or 16 arguments at once. The errors stated
hold for every float32, including infinite and denormal ones. NaN stays NaN.
"""

import numba
import numpy as np

from reinforce_dropout.alignment import LINE_BYTES
from reinforce_dropout.native.kernels.sharing import share, threads_for

__all__ = ["FUNCTIONS", "ON_LISTS"]

# Only "contract", because reordering would undo the two-part subtraction of n ln 2. NumPy's error
# model, because Python's checks every division for zero, which cannot be vectorised.
_njit = numba.njit(fastmath={"contract"}, error_model="numpy")

_LOG2_E = np.float32(1.44269504088896341)
# ln 2 in two parts. The first has so few bits that n times it is exact.
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
#: exp rounds to zero below this.
_EXP_FLOOR = np.float32(-104)

#: A function of an element takes as long as this many multiplications; see `sharing.threads_for`.
_ELEMENT = 4

#: A compiled loop takes so many elements at once, and the rest of a row one by one.
_STRIDE = 64

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_ZERO = np.float32(0)
_TANH_SWITCH = np.float32(0.625)


@_njit
def _power_of_two(n):
    """``2.0 ** n`` for int32 n from -126 to 127, by setting the exponent's bits."""
    return np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@_njit
def exp_nonpositive(x):
    """``exp(x)`` for float32 x <= 0; at most 1.1 units in the last place off.

    exp x = 2^n exp r, with n the integer nearest to x / ln 2 and abs(r) < 0.35. exp r is the
    polynomial of Cephes' expf (S. L. Moshier).
    """
    x = _EXP_FLOOR if x < _EXP_FLOOR else x
    n = np.float32(np.rint(x * _LOG2_E))
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = (p * r * r + r) + _ONE
    # NaN must not be converted to an integer. It reaches the result through p.
    power = np.int32(n if n > _EXP_FLOOR * _TWO else _ZERO)
    # In two steps, because 2^n itself may be too small for a normal float32.
    half = np.int32(power >> np.int32(1))
    return p * _power_of_two(half) * _power_of_two(np.int32(power - half))


@_njit
def log1p_unit(y):
    """``log(1 + y)`` for float32 y from 0 to 1; at most 2 units in the last place off.

    2 artanh t with t = y / (2 + y) <= 1/3, by its Taylor series up to t^13.
    """
    t = y / (y + _TWO)
    u = t * t
    p = np.float32(2 / 13)
    p = p * u + np.float32(2 / 11)
    p = p * u + np.float32(2 / 9)
    p = p * u + np.float32(2 / 7)
    p = p * u + np.float32(2 / 5)
    p = p * u + np.float32(2 / 3)
    return p * u * t + _TWO * t


@_njit
def tanh(x):
    """Hyperbolic tangent of a float32; at most 2 units in the last place off.

    Cephes' tanhf: an odd polynomial below 0.625, else 1 - 2 / (exp(2 abs(x)) + 1).
    """
    u = x * x
    p = np.float32(-5.70498872745e-3)
    p = p * u + np.float32(2.06390887954e-2)
    p = p * u + np.float32(-5.37397155531e-2)
    p = p * u + np.float32(1.33314422036e-1)
    p = p * u + np.float32(-3.33332819422e-1)
    near = p * u * x + x
    size = abs(x)
    e = exp_nonpositive(-_TWO * size)
    far = _ONE - _TWO * e / (_ONE + e)
    far = -far if x < _ZERO else far
    return near if size < _TANH_SWITCH else far


@_njit
def sigmoid(x):
    """``1 / (1 + exp(-x))`` of a float32; at most 3 units in the last place off."""
    e = exp_nonpositive(-abs(x))
    return (_ONE if x >= _ZERO else e) / (_ONE + e)


@_njit
def softplus(x):
    """``log(1 + exp(x))`` of a float32; at most 3 units in the last place off.

    max(x, 0) + log(1 + exp(-abs(x))), which shares its exponential with :func:`sigmoid`.
    """
    return (x if x > _ZERO else _ZERO) + log1p_unit(exp_nonpositive(-abs(x)))


def _on_all(on_row):
    """Return the function of all elements of one array into another, from that of a part."""

    @numba.njit(parallel=True)
    def on_shares(n_parts, elements, results):
        for part in numba.prange(n_parts):
            first, last = share(part, n_parts, elements.size, LINE_BYTES // elements.itemsize)
            on_row(elements[first:last], results[first:last])

    @numba.njit
    def on_all(elements, results):
        n_parts = threads_for(_ELEMENT * elements.size)
        if n_parts == 1:
            on_row(elements, results)
        else:
            on_shares(n_parts, elements, results)

    return on_all


def _on_lists(on_row):
    """Return the function of ``counts[i]`` elements of row i into another matrix; then zeros."""

    @numba.njit
    def on_share(part, n_parts, values, counts, results):
        for i in range(*share(part, n_parts, len(counts), 1)):
            n = counts[i]
            stop = min((n + _STRIDE - 1) // _STRIDE * _STRIDE, values.shape[1])
            on_row(values[i, :stop], results[i, :stop])
            results[i, n:] = 0

    @numba.njit(parallel=True)
    def on_shares(n_parts, values, counts, results):
        for part in numba.prange(n_parts):
            on_share(part, n_parts, values, counts, results)

    @numba.njit
    def on_lists(values, counts, results):
        n_parts = threads_for(_ELEMENT * counts.sum())
        if n_parts == 1:
            on_share(0, 1, values, counts, results)
        else:
            on_shares(n_parts, values, counts, results)

    return on_lists


def _on_row(function):
    """Return the function of the elements of one vector into another."""

    @numba.njit
    def on_row(elements, results):
        for i in range(elements.size):
            results[i] = function(elements[i])

    return on_row


_ON_ROWS = {
    name: _on_row(one)
    for name, one in {"tanh": tanh, "sigmoid": sigmoid, "softplus": softplus}.items()
}
FUNCTIONS = {name: _on_all(on_row) for name, on_row in _ON_ROWS.items()}
"""Functions of all elements of a vector into another, by name."""
ON_LISTS = {name: _on_lists(on_row) for name, on_row in _ON_ROWS.items()}
"""The same of the values of lists, see `blocks.lists`; 0 beyond each list."""
