"""Layers for images: convolution and pooling, from PyTensor's indexing and products of matrices.

PyTensor has no fast convolution of several maps. Its ``convolve2d`` takes one image at a time to
SciPy. Here all patches of a mini-batch are the columns of one matrix, and a convolution is the
product of the weights with it. It works on every backend. Images are (maps, rows, columns, m_b): a
pixel of all images is contiguous in memory, so patches are gathered in long pieces.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from reinforce_dropout.initializers import glorot_uniform, parameter
from reinforce_dropout.layers import identity

POOL = 2
"""Rows and columns that pooling makes one of."""


def positions(shape, size):
    """Return rows' and columns', the numbers of patches beside each other in images of a shape."""
    return tuple(n - size + 1 for n in shape[1:3])


def patches(s, size):
    """Return all ``size`` x ``size`` patches, (size * size * maps, rows' * columns' * m_b).

    `s` (maps, rows, columns, m_b) has a static shape, except m_b. There are ``rows - size + 1``
    rows'. A patch lists its pixels row by row, and the maps of each pixel.
    """
    shape = s.type.shape[:3]
    pixels = np.arange(np.prod(shape)).reshape(shape)
    inside = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    maps, rows, columns, i, j = range(5)
    order = inside.transpose(i, j, maps, rows, columns).ravel()
    n_in, n_positions = size * size * shape[0], np.prod(positions(shape, size))
    return s.reshape((pixels.size, s.shape[3]))[order].reshape((n_in, n_positions * s.shape[3]))


def convolve(s, W, size):
    """Return ``sum_{i, j, c} W[i, j, c, f] s[c, r + i, q + j]``, (n_maps, rows', columns', m_b).

    It is the correlation that networks call a convolution, where the patch lies inside the image.

    Parameters
    ----------
    s : tensor (maps, rows, columns, m_b)
        With a static shape, except m_b.
    W : tensor (size * size * maps, n_maps)
    size : int
        Rows and columns of a patch.
    """
    convolved = W.T @ patches(s, size)
    return convolved.reshape((W.shape[1], *positions(s.type.shape, size), s.shape[3]))


def convolve_by_map(s, W, size):
    """Return the convolution of each map alone, (m_b, n_maps * rows' * columns', maps).

    A convolution is linear in its maps: the sum of these, weighted by a factor for each map, is the
    convolution of maps that were multiplied by the factors. For the parameters see `convolve`.
    """
    maps, n_pixels = s.type.shape[0], size * size
    by_map = patches(s, size).reshape((n_pixels, maps, -1)).transpose(1, 0, 2)
    kernels = W.reshape((n_pixels, maps, -1)).transpose(1, 2, 0)
    shape = (maps, W.shape[1], np.prod(positions(s.type.shape, size)), s.shape[3])
    convolved = (kernels @ by_map).reshape(shape).transpose(3, 1, 2, 0)
    return convolved.reshape((s.shape[3], -1, maps))


def max_pool(h):
    """Return the largest of each 2 x 2 pixels, (..., rows // 2, columns // 2, n).

    `h` (..., rows, columns, n) has static rows and columns. A last row or column without a partner
    is left out.
    """
    rows, columns = (n // POOL for n in h.type.shape[-3:-1])
    whole = h[..., : rows * POOL, : columns * POOL, :]
    others = [h.shape[i] for i in range(h.ndim - 3)]
    return whole.reshape((*others, rows, POOL, columns, POOL, h.shape[-1])).max(axis=(-4, -2))


class Convolution(NamedTuple):
    """A layer of maps, ``act(max_pool(s * W) + b)``; between layers, images are flat.

    Attributes
    ----------
    W : shared (size * size * maps, n_maps) float32
    b : shared (n_maps,) float32
    shape : tuple of int
        Maps, rows and columns of the images it takes.
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
        """Maps, rows and columns of the result; a side may be 0."""
        return (self.n_maps, *(max(n, 0) // POOL for n in positions(self.shape, self.size)))

    def images(self, s):
        """Return flat images (m_b, n_in) as (maps, rows, columns, m_b)."""
        return s.T.reshape((*self.shape, s.shape[0]))

    def finish(self, convolved):
        """Pool the results of a convolution, (..., n_maps, rows', columns', n), add b, activate."""
        return self.activation(max_pool(convolved) + self.b[:, None, None, None])

    def __call__(self, s):
        """Map flat images (m_b, n_in) to flat images (m_b, n_out)."""
        h = self.finish(convolve(self.images(s), self.W, self.size))
        return h.reshape((int(np.prod(self.next_shape)), s.shape[0])).T


def convolution(rng, shape, n_maps, size, name, activation):
    """Return a `Convolution`: weights by Glorot, drawn from `rng`, biases zero.

    The parameters are called ``W_<name>`` and ``b_<name>``.
    """
    W = parameter(glorot_uniform(rng, size * size * shape[0], n_maps), f"W_{name}")
    b = parameter(np.zeros(n_maps, "float32"), f"b_{name}")
    return Convolution(W, b, tuple(shape), size, activation)
