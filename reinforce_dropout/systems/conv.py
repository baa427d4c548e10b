"""Layers for images: convolution and pooling, from PyTensor's slices and products of matrices.

PyTensor has no fast convolution of several maps. Its ``convolve2d`` takes one image at a time to
SciPy. Here all patches of a mini-batch are the rows of one matrix, and a convolution is its product
with the weights. It works on every backend. Images are (m_b, rows, columns, maps).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt

from reinforce_dropout.initializers import glorot_uniform, parameter
from reinforce_dropout.layers import identity

POOL = 2
"""Rows and columns that pooling makes one of."""


def patches(s, size):
    """Return all ``size`` x ``size`` patches, (m_b, rows', columns', size * size * maps).

    `s` (m_b, rows, columns, maps) has a static shape, except m_b. There are ``rows - size + 1``
    rows'. A patch lists its pixels row by row, and the maps of each pixel.
    """
    rows, columns = (n - size + 1 for n in s.type.shape[1:3])
    corners = [(i, j) for i in range(size) for j in range(size)]
    return pt.concatenate([s[:, i : i + rows, j : j + columns] for i, j in corners], axis=3)


def convolve(s, W, size):
    """Return ``sum_{i, j, c} s[r + i, q + j, c] W[i, j, c, f]``, (m_b, rows', columns', n_maps).

    It is the correlation that networks call a convolution, where the patch lies inside the image.

    Parameters
    ----------
    s : tensor (m_b, rows, columns, maps)
        With a static shape, except m_b.
    W : tensor (size * size * maps, n_maps)
    size : int
        Rows and columns of a patch.
    """
    P = patches(s, size)
    rows, columns, n_in = P.type.shape[1:]
    return (P.reshape((-1, n_in)) @ W).reshape((-1, rows, columns, W.shape[1]))


def convolve_by_map(s, W, size):
    """Return the convolution of each map alone, (m_b, maps, rows' * columns' * n_maps).

    A convolution is linear in its maps: the sum of these, weighted by a factor for each map, is the
    convolution of maps that were multiplied by the factors. For the parameters see `convolve`.
    """
    P = patches(s, size)
    rows, columns, n_in = P.type.shape[1:]
    maps = s.type.shape[3]
    by_map = P.reshape((-1, n_in // maps, maps)).transpose(2, 0, 1)
    kernels = W.reshape((n_in // maps, maps, -1)).transpose(1, 0, 2)
    convolved = (by_map @ kernels).reshape((maps, s.shape[0], -1))
    return convolved.transpose(1, 0, 2)


def max_pool(h):
    """Return the largest of each 2 x 2 pixels, by map: (m_b, rows // 2, columns // 2, maps).

    `h` has static rows and columns. A last row or column without a partner is left out.
    """
    rows, columns = (n // POOL for n in h.type.shape[1:3])
    whole = h[:, : rows * POOL, : columns * POOL]
    return whole.reshape((-1, rows, POOL, columns, POOL, h.shape[3])).max(axis=(2, 4))


class Convolution(NamedTuple):
    """A layer of maps, ``act(max_pool(s * W) + b)``; between layers, images are flat.

    Attributes
    ----------
    W : shared (size * size * maps, n_maps) float32
    b : shared (n_maps,) float32
    shape : tuple of int
        Rows, columns and maps of the images it takes.
    size : int
        Rows and columns of a patch.
    activation : callable
    """

    W: Any
    b: Any
    shape: tuple
    size: int
    activation: Callable = identity

    @property
    def params(self):
        """What back-propagation learns: ``[W, b]``."""
        return [self.W, self.b]

    @property
    def weights(self):
        """What the L2 penalty counts: ``[W]``."""
        return [self.W]

    @property
    def n_maps(self):
        """Maps of the result."""
        return self.b.get_value(borrow=True).size

    @property
    def next_shape(self):
        """Rows, columns and maps of the result; a side may be 0."""
        rows, columns, _ = self.shape
        return (*(max(n - self.size + 1, 0) // POOL for n in (rows, columns)), self.n_maps)

    def images(self, s):
        """Return flat images (m_b, n_in) as (m_b, rows, columns, maps)."""
        return s.reshape((s.shape[0], *self.shape))

    def finish(self, convolved):
        """Pool the results of a convolution, add b, and activate."""
        return self.activation(max_pool(convolved) + self.b)

    def __call__(self, s):
        """Map flat images (m_b, n_in) to flat images (m_b, n_out)."""
        h = self.finish(convolve(self.images(s), self.W, self.size))
        return h.reshape((s.shape[0], int(np.prod(self.next_shape))))


def convolution(rng, shape, n_maps, size, name, activation):
    """Return a `Convolution`: weights by Glorot, drawn from `rng`, biases zero.

    The parameters are called ``W_<name>`` and ``b_<name>``.
    """
    W = parameter(glorot_uniform(rng, size * size * shape[2], n_maps), f"W_{name}")
    b = parameter(np.zeros(n_maps, "float32"), f"b_{name}")
    return Convolution(W, b, tuple(shape), size, activation)
