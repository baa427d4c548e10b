"""Operands of the native Ops that do not fit each other are refused before anything is written."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode

from reinforce_dropout import native
from reinforce_dropout.blocks.submatrix import PutSubmatrix, Submatrix
from reinforce_dropout.native.kernels.forward_products import products
from reinforce_dropout.native.kernels.rank_updates import rank_updates
from reinforce_dropout.native.kernels.transposed_products import (
    masked_product_transposed,
    product_transposed,
)
from reinforce_dropout.native.ops.products import (
    MaskedProductTransposed,
    Products,
    ProductTransposed,
    RankUpdates,
)

MODES = {"native": native.mode, "python": lambda: get_mode("FAST_COMPILE")}
HALF = np.float32(0.5)


def ones(*shape):
    return np.ones(shape, "float32")


def update(s, W, g):
    rank_updates(s, W, g, HALF, W[:, :0], g[:, :0], HALF)


def update_with_policy(s, W, g, Z, h):
    rank_updates(s, W, g, HALF, Z, h, HALF)


WRONG = {
    "rows of W": (products, [(20, 50), (40, 50), (50, 9)]),
    "more rows of W": (products, [(20, 50), (60, 50), (50, 9)]),
    "rows of Z": (products, [(20, 50), (50, 50), (49, 9)]),
    "rows of Z without columns": (products, [(20, 50), (50, 50), (49, 0)]),
    "many rows": (products, [(300, 50), (40, 50), (50, 0)]),
    "columns of g": (product_transposed, [(20, 45), (50, 40)]),
    "narrow": (product_transposed, [(20, 5), (50, 4)]),
    "columns of g with a mask": (masked_product_transposed, [(20, 45), (50, 40), (20, 50)]),
    "rows of the mask": (masked_product_transposed, [(20, 45), (50, 45), (21, 50)]),
    "one row of the mask": (masked_product_transposed, [(20, 45), (50, 45), (1, 50)]),
    "one column of the mask": (masked_product_transposed, [(20, 45), (50, 45), (20, 1)]),
    "mask of a narrow product": (masked_product_transposed, [(20, 5), (50, 5), (20, 1)]),
    "rows of s and g": (update, [(20, 50), (50, 45), (19, 45)]),
    "rows of the updated W": (update, [(20, 4000), (4, 45), (20, 45)]),
    "columns of the updated W": (update, [(20, 50), (50, 44), (20, 45)]),
    "one column of g": (update, [(20, 50), (50, 45), (20, 1)]),
    "rows of the updated Z": (
        update_with_policy,
        [(20, 50), (50, 45), (20, 45), (49, 7), (20, 7)],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_kernels_refuse_operands_of_other_shapes(wrong):
    kernel, shapes = WRONG[wrong]
    with pytest.raises(ValueError, match="wrong shape"):
        kernel(*(ones(*shape) for shape in shapes))


GRAPHS = {
    "product": (lambda s, W, g, u: Products()(s, W), 1),
    "product with a policy": (lambda s, W, g, u: Products()(s, W, W[:, ::2])[1], 1),
    "transposed": (lambda s, W, g, u: ProductTransposed()(g, W), 1),
    "masked": (lambda s, W, g, u: MaskedProductTransposed()(g, W, u) * u, 3),
    "update": (lambda s, W, g, u: RankUpdates(1)(s, W, g, pt.constant(HALF)), 2),
    "updates": (
        lambda s, W, g, u: RankUpdates(2)(s, *2 * (W, g, pt.constant(HALF)))[1],
        2,
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_refuse_them(graph, mode):
    """Also shapes that NumPy would broadcast."""
    build, position = GRAPHS[graph]
    variables = pt.fmatrices("s", "W", "g", "u")
    output = build(*variables)
    function = pytensor.function(variables, output, mode=MODES[mode](), on_unused_input="ignore")
    right = [ones(20, 50), ones(50, 45), ones(20, 45), ones(20, 50)]
    function(*right)
    right[position] = ones(1, 1)
    with pytest.raises(ValueError):
        function(*right)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (3, 3), (2, 4)])
def test_parts_of_another_shape_are_refused(shape, mode):
    W, V, half = pt.fmatrix(), pt.fmatrix(), pt.constant(HALF)
    put = PutSubmatrix()(W, [0, 2], [1, 3, 4], V, half)
    function = pytensor.function([W, V], put, mode=MODES[mode]())
    function(ones(3, 5), ones(2, 3))
    with pytest.raises(ValueError, match="a part of a matrix has the wrong shape"):
        function(ones(3, 5), ones(*shape))


@pytest.mark.parametrize("shape", [(2, 5), (3, 4)])
def test_numbers_beyond_a_matrix_are_refused(shape):
    W, rows, columns, half = pt.fmatrix(), pt.lvector(), pt.lvector(), pt.constant(HALF)
    part = Submatrix()(W, rows, columns, half)
    outputs = [part, PutSubmatrix()(W, rows, columns, part, half)]
    take, put = (pytensor.function([W, rows, columns], o, mode=native.mode()) for o in outputs)
    for function in (take, put):
        function(ones(3, 5), [0, 2], [1, 3, 4])
        with pytest.raises(ValueError, match="a submatrix has the wrong numbers"):
            function(ones(*shape), [0, 2], [1, 3, 4])
        for numbers in ([-1, 2], [0, -4]):
            with pytest.raises(ValueError, match="a submatrix has the wrong numbers"):
                function(ones(3, 5), numbers, [1, 3, 4])
