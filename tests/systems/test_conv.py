"""Convolution and pooling: SciPy's values, gradients, and the linearity that dasNet uses."""

import convolutions
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import reference
from reference import compiled

from reinforce_dropout import backends
from reinforce_dropout.layers import relu
from reinforce_dropout.systems import conv

SHAPES = [((1, 6, 5), 3, 2), ((3, 7, 6), 2, 4), ((2, 5, 5), 5, 1), ((2, 4, 4), 1, 3)]
"""Maps, rows and columns of the images; size of the patches; maps of the result."""


def drawn(shape, size, n_maps, seed=0):
    """Return images (3, maps, rows, columns) and weights."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, *shape)), rng.normal(size=(size * size * shape[0], n_maps))


def last(images):
    """Return the images one beside the other, (maps, rows, columns, 3), as the layers take them."""
    return np.moveaxis(images, 0, -1)


def images_of(shape, dtype="float64"):
    """Return symbolic images with static maps, rows and columns."""
    return pt.tensor("s", dtype=dtype, shape=(*shape, None))


@pytest.mark.parametrize(("shape", "size", "n_maps"), SHAPES)
def test_convolution_is_scipys(shape, size, n_maps):
    (s, W), s_in, W_in = drawn(shape, size, n_maps), images_of(shape), pt.dmatrix("W")
    found = compiled([s_in, W_in], conv.convolve(s_in, W_in, size))(last(s), W)
    expected = last(convolutions.convolved(s, W, size))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "size", "n_maps"), SHAPES)
def test_maps_apart_add_up(shape, size, n_maps):
    """The weighted sum of the maps' own convolutions is that of the weighted maps."""
    (s, W), s_in, W_in = drawn(shape, size, n_maps), images_of(shape), pt.dmatrix("W")
    apart = compiled([s_in, W_in], conv.convolve_by_map(s_in, W_in, size))(last(s), W)
    factors = np.random.default_rng(2).normal(size=(3, shape[0]))
    found = np.einsum("nc,nqc->nq", factors, apart)
    expected = convolutions.convolved(s * factors[:, :, None, None], W, size)
    assert apart.shape == (3, expected[0].size, shape[0])
    np.testing.assert_allclose(found, expected.reshape(3, -1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(3, 6, 4), (2, 5, 7), (1, 2, 2), (1, 3, 3)])
def test_pooling_takes_the_largest(shape):
    """A last row or column without a partner is left out."""
    s, s_in = drawn(shape, 1, 1)[0], images_of(shape)
    found = compiled([s_in], conv.max_pool(s_in))(last(s))
    np.testing.assert_array_equal(found, last(convolutions.pooled(s)))


def layer_of(shape, size, n_maps, activation=relu):
    """Return a layer in float64 whose biases are not 0."""
    rng = np.random.default_rng(7)
    layer = conv.convolution(rng, shape, n_maps, size, "1", activation)
    W, b = (
        pytensor.shared(rng.normal(size=v.get_value().shape), v.name) for v in (layer.W, layer.b)
    )
    return layer._replace(W=W, b=b)


def numpy_layer(P, s, layer, act):
    """Return flat results; `P` maps names to arrays."""
    maps = convolutions.layer(P, "1", s.reshape(-1, *layer.shape), layer.size, act)
    return maps.reshape(len(s), -1)


@pytest.mark.parametrize(("shape", "size", "n_maps"), SHAPES[:2])
def test_a_layer_maps_flat_images(shape, size, n_maps):
    """Convolution, pooling, bias, activation; the next shape is that of the result."""
    layer, x = layer_of(shape, size, n_maps), pt.dmatrix("x")
    s = drawn(shape, size, n_maps)[0].reshape(3, -1)
    P = {p.name: p.get_value() for p in layer.params}
    found = compiled([x], layer(x))(s)
    expected = numpy_layer(P, s, layer, convolutions.relu)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert found.shape[1] == np.prod(layer.next_shape) and layer.next_shape[0] == n_maps
    assert layer.weights == [layer.W]


def test_next_shape():
    """That of the issue's network for MNIST; nothing is left of small images."""
    rng = np.random.default_rng(0)
    first = conv.convolution(rng, (1, 28, 28), 16, 5, "1", relu)
    second = conv.convolution(rng, first.next_shape, 32, 5, "2", relu)
    assert (first.next_shape, second.next_shape) == ((16, 12, 12), (32, 4, 4))
    assert conv.convolution(rng, (1, 4, 9), 2, 5, "1", relu).next_shape == (2, 0, 2)


def test_gradients():
    """Of weights, biases and images, by complex steps through NumPy."""
    shape, size, n_maps = (2, 7, 6), 3, 2
    layer, x = layer_of(shape, size, n_maps, pt.tanh), pt.dmatrix("x")
    s = drawn(shape, size, n_maps)[0].reshape(3, -1)
    weights = np.random.default_rng(9).normal(size=(3, int(np.prod(layer.next_shape))))
    P = {p.name: p.get_value() for p in layer.params} | {"x": s}

    def value(P):
        return (numpy_layer(P, P["x"], layer, np.tanh) * weights).sum()

    found = compiled([x], pytensor.grad((layer(x) * weights).sum(), [*layer.params, x]))(s)
    exact = reference.gradient(value, P, P)
    for name, gradient in zip(P, found, strict=True):
        np.testing.assert_allclose(gradient, exact[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("backend", ["numba", "c", "jax"])
def test_backends_agree(backend):
    """A layer, its maps apart, and the gradients, in float32."""
    shape, size = (2, 5, 4), 2
    layer = conv.convolution(np.random.default_rng(1), shape, 3, size, "1", relu)
    x = pt.fmatrix("x")
    h = layer(x)
    apart = conv.convolve_by_map(layer.images(x), layer.W, size)
    outputs = [h, apart, *pytensor.grad((h**2).sum(), [*layer.params, x])]
    s = drawn(shape, size, 3)[0].reshape(3, -1).astype("float32")
    found = backends.function([x], outputs, mode=backends.mode(backend))(s)
    for value, expected in zip(found, compiled([x], outputs)(s), strict=True):
        assert np.asarray(value).dtype == "float32"
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
