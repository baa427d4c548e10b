"""Convolution, pooling and a small convolutional network once more, by SciPy and NumPy.

They take complex arrays, so `reference.gradient` can differentiate them.
"""

import numpy as np
import scipy.signal


def convolved(s, W, size):
    """Convolve images (n, maps, rows, columns), map by map, by SciPy.

    SciPy turns the kernel around, and a network does not.
    """
    kernels = W.reshape(size, size, s.shape[1], -1)[::-1, ::-1]
    return np.array(
        [
            [
                sum(
                    scipy.signal.convolve2d(own, kernels[:, :, c, f], mode="valid")
                    for c, own in enumerate(image)
                )
                for f in range(kernels.shape[3])
            ]
            for image in s
        ]
    )


def pooled(h):
    """Return the largest of each 2 x 2 pixels, pixel by pixel."""
    rows, columns = h.shape[2] // 2, h.shape[3] // 2
    out = np.empty((*h.shape[:2], rows, columns), h.dtype)
    for r in range(rows):
        for q in range(columns):
            out[:, :, r, q] = h[:, :, 2 * r : 2 * r + 2, 2 * q : 2 * q + 2].max(axis=(2, 3))
    return out


def relu(a):
    """Rectified linear units."""
    return np.where(a.real > 0, a, 0)


def layer(P, name, s, size, act=relu):
    """Return the maps of a layer; `P` maps names to arrays."""
    return act(pooled(convolved(s, P[f"W_{name}"], size)) + P[f"b_{name}"][:, None, None])
