"""The fast mode: its Ops against NumPy, its rewrites on the graph of a training step."""

import os
import subprocess
import sys

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from numba.core.registry import cpu_target
from pytensor.compile.mode import get_mode
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.math import Dot
from reference import flat
from scipy import special

from reinforce_dropout import backends, native, systems
from reinforce_dropout.blocks.lists import GroupProduct, ListNonZeros
from reinforce_dropout.native.kernels import elementwise
from reinforce_dropout.native.kernels.forward_products import _product_columns, products
from reinforce_dropout.native.kernels.rank_updates import rank_updates
from reinforce_dropout.native.kernels.transposed_products import (
    masked_product_transposed,
    product_transposed,
)
from reinforce_dropout.native.llvm.vectors import VECTOR_BYTES
from reinforce_dropout.native.ops.elementwise import Elementwise, ListElementwise
from reinforce_dropout.native.ops.products import (
    MaskedProductTransposed,
    Products,
    ProductTransposed,
    RankUpdates,
)
from reinforce_dropout.running import threads
from reinforce_dropout.systems import plain, policy

pytestmark = pytest.mark.usefixtures("failing_rewrites_raise")

# Rows, inputs, outputs: single elements, odd sizes, whole vectors, narrow and wide.
SHAPES = [(1, 1, 1), (3, 5, 33), (17, 70, 129), (20, 67, 10), (20, 64, 256), (128, 31, 45)]
SHAPES += [(130, 600, 70), (301, 550, 45)]  # packed weights in two blocks; shared by rows
SHAPES += [(530, 900, 300)]  # shared by rows, several blocks and spans, fetched early
SHAPES += [(20, 550, 520)]  # weights fetched before they are needed
REGISTERS = {"zmm": 64, "ymm": 32, "xmm": 16}
DTYPES = [pytest.param("float32", marks=pytest.mark.cpu), "float64"]
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


def operands(n_rows, n_in, n_out, dtype, density=0.3):
    rng = np.random.default_rng(0)
    s = rng.normal(size=(n_rows, n_in)) * (rng.random((n_rows, n_in)) < density)
    g, W = rng.normal(size=(n_rows, n_out)), rng.normal(size=(n_in, n_out))
    return s.astype(dtype), g.astype(dtype), W.astype(dtype)


def assert_close(actual, expected):
    """Compare sums of products to an error in proportion to their size."""
    assert actual.dtype == expected.dtype
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[actual.dtype.name] * scale)


def second_operands(n_in, n_columns, dtype):
    """Operands for the policy's Z beside a layer's W: of another width, or of none."""
    return operands(1, n_in, n_columns, dtype)[2]


@pytest.mark.parametrize("density", [0, 0.3, 1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_Z", [0, 7, 70])
@pytest.mark.parametrize("shape", SHAPES)
def test_products_equal_numpys(shape, n_Z, dtype, density):
    s, _, W = operands(*shape, dtype, density)
    Z = second_operands(shape[1], n_Z, dtype)
    s_W, s_Z = products(s, W, Z)
    assert_close(s_W, s @ W)
    assert s_Z.shape == (shape[0], n_Z)
    if n_Z:
        assert_close(s_Z, s @ Z)


@pytest.mark.parametrize("density", [0, 0.3, 1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_transposed_products_equal_numpys(shape, dtype, density):
    s, g, W = operands(*shape, dtype, density)
    assert_close(product_transposed(g, W), g @ W.T)
    u = (s != 0).astype(dtype)
    assert_close(masked_product_transposed(g, W, u) * u, (g @ W.T) * u)


@pytest.mark.parametrize("beta", [1, 0.75])
@pytest.mark.parametrize("density", [0, 0.3, 1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_Z", [0, 7, 70])
@pytest.mark.parametrize("shape", SHAPES)
def test_rank_updates_equal_numpys(shape, n_Z, dtype, density, beta):
    s, g, W = operands(*shape, dtype, density)
    Z, h = second_operands(shape[1], n_Z, dtype), second_operands(shape[0], n_Z, dtype)
    beta, beta_Z = np.asarray([beta, 0.5], dtype)
    expected = beta * W + s.T @ g, beta_Z * Z + s.T @ h
    rank_updates(s, W, g, beta, Z, h, beta_Z)
    assert_close(W, expected[0])
    if n_Z:
        assert_close(Z, expected[1])


@pytest.mark.cpu
def test_products_touch_nothing_beyond_their_operands():
    """The last vector of a row is masked: what lies behind the array stays as it is."""
    s, g, W = operands(20, 50, 45, "float32")
    buffer = np.full(W.size + 64, 7, "float32")
    inside = buffer[32 : 32 + W.size].reshape(W.shape)
    inside[...] = W
    half = np.float32(0.5)
    rank_updates(s, inside, g, half, W, g, half)
    assert (buffer[:32] == 7).all() and (buffer[-32:] == 7).all()


@pytest.mark.parametrize(("density", "skips"), [(0.3, True), (0.9, False)])
@pytest.mark.parametrize("n_Z", [0, 9])
@pytest.mark.parametrize(("n_rows", "n_columns"), [(20, 45), (300, 145)])
def test_zeros_are_skipped_where_they_are_many(n_rows, n_columns, n_Z, density, skips):
    s, _, W = operands(n_rows, 50, n_columns, "float32", density)
    s[:, 7] = 0
    W[7] = np.inf  # 0 * inf would be NaN
    s_W, _ = products(s, W, second_operands(50, n_Z, "float32"))
    assert np.isfinite(s_W).all() == skips
    assert np.isnan(s_W).all() != skips


def test_a_sample_that_misleads_costs_time_but_no_term():
    """Every fifth row of 640 is empty, and only these are counted."""
    s, _, W = operands(640, 50, 145, "float32", density=1)
    s[::5] = 0
    assert_close(products(s, W, W[:, :0])[0], s @ W)


@pytest.mark.parametrize(("n_rows", "n_in"), [(20, 0), (300, 0), (0, 50)])
def test_a_product_of_nothing(n_rows, n_in):
    s, _, W = operands(n_rows, n_in, 145, "float32")
    s_W, s_Z = products(s, W, W)
    assert s_W.shape == s_Z.shape == (n_rows, 145)
    assert not s_W.any() and not s_Z.any()


@pytest.mark.parametrize("n_out", [10, 45])
def test_nan_in_comes_out_as_nan(n_out):
    s, g, W = operands(20, 50, n_out, "float32")
    s[3, 7] = g[5, 2] = np.nan
    s_W, s_V = products(s, W, W.copy())
    assert np.isnan(s_W[3]).all() and np.isnan(s_V[3]).all()
    assert np.isnan(product_transposed(g, W)[5]).all()
    masked = masked_product_transposed(g, W, s)
    assert np.isnan(masked[5, s[5] != 0]).all()
    one, V = np.float32(1), W.copy()
    rank_updates(s, W, g, one, V, g, one)
    for updated in (W, V):
        assert np.isnan(updated[7]).all()
        assert np.isnan(updated[s[5] != 0, 2]).all()


def every_nth_float32(step):
    bits = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32)
    special_values = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, -1e-45], "float32")
    near_zero = np.linspace(-20, 20, 200_001, dtype="float32")
    return np.concatenate([bits.view("float32"), special_values, near_zero])


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("name", "reference", "ulp"),
    [
        ("tanh", np.tanh, 2),
        ("sigmoid", special.expit, 3),
        ("softplus", lambda x: np.logaddexp(0, x), 3),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_elementwise_errors_in_units_in_the_last_place(name, reference, ulp):
    x = every_nth_float32(9973)
    v = pt.fvector()
    y = pytensor.function([v], Elementwise(name)(v), mode=native.mode())(x)
    exact = reference(x.astype("float64"))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    finite = np.isfinite(exact)
    np.testing.assert_array_equal(y[np.isinf(exact)], exact[np.isinf(exact)])
    errors = np.abs(y[finite] - exact[finite])
    assert (errors / np.spacing(np.abs(exact[finite].astype("float32")))).max() <= ulp


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("op_mode", ["FAST_COMPILE", "native"])
def test_functions_of_lists_stop_at_their_ends(op_mode, n_threads):
    """Lists of no value, of all, and of any number; 0 beyond, where nothing has a meaning."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1200, 150)).astype("float32")
    counts = np.r_[0, 150, 1, 64, 65, rng.integers(0, 151, 1195)]
    beyond = np.arange(150) >= counts[:, None]
    values[beyond] = np.nan
    v, n = pt.fmatrix(), pt.lvector()
    mode = native.mode() if op_mode == "native" else get_mode(op_mode)
    for name, expected in (("tanh", np.tanh), ("sigmoid", special.expit)):
        function = pytensor.function([v, n], ListElementwise(name)(v, n), mode=mode)
        with threads.limited(n_threads):
            result = function(values, counts)
        assert (result[beyond] == 0).all()
        np.testing.assert_allclose(result[~beyond], expected(values[~beyond]), rtol=1e-6)


def test_functions_of_the_values_of_lists_know_the_lists():
    s, g, W = pt.fmatrices("s", "g", "W")
    lists = GroupProduct(16)(*ListNonZeros()(s), W[None], pt.zeros(16, "float32"), g > 0)
    function = pytensor.function([s, g, W], pt.tanh(lists[0]), mode=native.mode())
    assert any(isinstance(op, ListElementwise) for op in compiled_ops(function))
    assert not any(isinstance(op, Elementwise) for op in compiled_ops(function))


def test_the_loops_are_vectorised():
    """A branch or a library call in these functions would make them several times slower."""
    import numba

    @numba.njit
    def loop(x, y):
        for i in range(x.size):
            y[i] = elementwise.softplus(x[i]) + elementwise.tanh(x[i])

    x = np.zeros(4, "float32")
    loop(x, x.copy())
    (llvm,) = loop.inspect_llvm().values()
    assert "x float> @llvm.rint" in llvm


@pytest.mark.cpu
def test_code_is_for_the_processor_that_numba_names():
    """Vectors are as wide as the registers: zmm has 64 bytes, ymm 32, xmm 16."""
    s, _, W = operands(20, 50, 45, "float32")
    products(s, W, W)
    code = "".join(_product_columns.inspect_asm().values())
    widest = next((width for name, width in REGISTERS.items() if f"%{name}" in code), 0)
    name = cpu_target.target_context.codegen().magic_tuple()[1]
    expected = {"generic": 16, "haswell": 32, "skylake-avx512": 64, "znver4": 64}.get(name, widest)
    assert widest == expected
    assert VECTOR_BYTES == max(32, widest)


def compiled_ops(function):
    return [node.op for node in function.maker.fgraph.toposort()]


def every_op(s, g, W, u):
    """Outputs of all Ops of the package and what they should be, by the same expressions."""
    b, c = (pt.constant(v, dtype="float32") for v in (0.75, 0.5))
    outputs = [
        Products()(s, W),
        *Products()(s, W, W[:, ::2]),
        ProductTransposed()(g, W),
        MaskedProductTransposed()(g, W, u) * u,
        RankUpdates(1)(s, W, g, b),
        *RankUpdates(2)(s, W, g, b, W[:, ::2], g[:, ::2], c),
        *(Elementwise(name)(W) for name in ("tanh", "sigmoid", "softplus")),
    ]

    def expected(s, g, W, u):
        return [
            s @ W,
            s @ W,
            s @ W[:, ::2],
            g @ W.T,
            (g @ W.T) * u,
            np.float32(0.75) * W + s.T @ g,
            np.float32(0.75) * W + s.T @ g,
            np.float32(0.5) * W[:, ::2] + s.T @ g[:, ::2],
            np.tanh(W),
            special.expit(W),
            np.logaddexp(0, W),
        ]

    return outputs, expected


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("op_mode", ["FAST_COMPILE", "native"])
def test_python_and_numba_agree_on_every_op_and_layout(op_mode, order):
    s, g, W = (np.asarray(a, order=order) for a in operands(20, 50, 45, "float32"))
    u = (s > 0).astype("float32")
    inputs = pt.fmatrices("s", "g", "W", "u")
    outputs, expected = every_op(*inputs)
    mode = native.mode() if op_mode == "native" else get_mode(op_mode)
    function = pytensor.function(inputs, outputs, mode=mode)
    before = W.copy()
    for result, wanted in zip(function(s, g, W, u), expected(s, g, W, u), strict=True):
        assert_close(result, wanted)
    np.testing.assert_array_equal(W, before)


def test_every_way_to_write_the_update_is_recognised():
    rate = np.float32(0.1)
    for l2 in (0, np.float32(0.01)):
        W = pytensor.shared(np.ones((50, 40), "float32"))
        s, g = pt.fmatrices("s", "g")
        gradient = pt.dot(s.T, g) + 2 * l2 * W
        for new in (W - rate * gradient, W + -rate * gradient, -gradient * rate + W):
            function = pytensor.function([s, g], updates=[(W, new)], mode=native.mode())
            ops = [op for op in compiled_ops(function) if not isinstance(op, Elemwise)]
            assert ops == [RankUpdates(1, inplace=True)]


def test_two_updates_with_the_same_input_become_one():
    s_, g_, W_ = operands(20, 50, 45, "float32")
    s, g, h = pt.fmatrices("s", "g", "h")
    W = pytensor.shared(W_.copy())
    step = W - np.float32(0.1) * (pt.dot(s.T, g) + np.float32(0.5) * pt.dot(s.T, h))
    function = pytensor.function([s, g, h], updates=[(W, step)], mode=native.mode())
    assert sum(isinstance(op, RankUpdates) for op in compiled_ops(function)) == 1
    function(s_, g_, 2 * g_)
    assert_close(W.get_value(), W_ - np.float32(0.2) * (s_.T @ g_))


def test_an_update_of_an_update_is_not_joined_to_it():
    """One node for both would need its own result, and PyTensor would never finish sorting."""
    s_, g_, W_ = operands(20, 50, 45, "float32")
    s, g, h, W = pt.fmatrices("s", "g", "h", "W")
    once = W - np.float32(0.1) * pt.dot(s.T, g)
    twice = once - np.float32(0.2) * pt.dot(s.T, h)
    function = pytensor.function([s, g, h, W], [once, twice], mode=native.mode())
    assert sum(isinstance(op, RankUpdates) for op in compiled_ops(function)) == 2
    for rate, found in zip((0.1, 0.5), function(s_, g_, 2 * g_, W_), strict=True):
        assert_close(found, W_ - np.float32(rate) * (s_.T @ g_))


def test_other_sums_of_products_stay_right():
    """PyTensor's optimiser makes a Gemm of these too, but not one that updates a weight."""
    s_, g_, W_ = operands(20, 50, 45, "float32")
    s, W, V = pt.fmatrices("s", "W", "V")
    function = pytensor.function([s, W, V], V + 2 * pt.dot(s, W), mode=native.mode())
    assert_close(function(s_, W_, g_), g_ + 2 * (s_ @ W_))


def test_a_product_of_a_transposed_matrix_stays_right():
    """It updates no weight, so it is first a Dot22, then a Dot again."""
    s_, g_, _ = operands(20, 50, 45, "float32")
    s, g = pt.fmatrices("s", "g")
    function = pytensor.function([s, g], pt.dot(s.T, g), mode=native.mode())
    assert sum(isinstance(op, Dot) for op in compiled_ops(function)) == 1
    assert_close(function(s_, g_), s_.T @ g_)


MASKS = {
    "matrix": (2, lambda q: (q < 0.3).astype("float32")),
    "row": (1, lambda q: (q.dimshuffle("x", 0) < 0.3).astype("float32")),
    "column": (1, lambda q: (q.dimshuffle(0, "x") < 0.3).astype("float32")),
    "lifted row": (1, lambda q: (q < 0.3).astype("float32")[None]),
    "lifted column": (1, lambda q: (q < 0.3).astype("float32")[:, None]),
}


@pytest.mark.parametrize("kind", MASKS)
def test_only_masks_of_the_products_shape_spare_work(kind):
    """A decision for a whole row or column does not say which entries the kernel can skip."""
    _, g_, W_ = operands(20, 50, 45, "float32")
    ndim, mask = MASKS[kind]
    size = {"matrix": (20, 50), "row": 50, "column": 20}[kind.removeprefix("lifted ")]
    q_ = np.random.default_rng(1).random(size, dtype="float32")
    g, W, q = (
        pt.fmatrix("g"),
        pt.fmatrix("W"),
        pt.tensor("q", shape=(None,) * ndim, dtype="float32"),
    )
    function = pytensor.function([g, W, q], pt.dot(g, W.T) * mask(q), mode=native.mode())
    masked = any(isinstance(op, MaskedProductTransposed) for op in compiled_ops(function))
    assert masked == (kind == "matrix")
    u = (q_ < 0.3).astype("float32")
    assert_close(function(g_, W_, q_), (g_ @ W_.T) * (u[:, None] if "column" in kind else u))


@pytest.mark.parametrize("inplace", [True, False])
def test_a_weight_used_after_its_update_keeps_its_old_value(inplace):
    """Both outputs read the old W; one of them is W itself, which then must not be overwritten."""
    s_, g_, W_ = operands(20, 50, 45, "float32")
    W = pytensor.shared(W_.copy())
    s, g = pt.fmatrices("s", "g")
    new = W - np.float32(0.1) * pt.dot(s.T, g)
    outputs = [pt.dot(s, W), pt.dot(s, new)] if inplace else [W, new]
    function = pytensor.function([s, g], outputs, updates=[(W, new)], mode=native.mode())
    updated = W_ - np.float32(0.1) * (s_.T @ g_)
    expected = [s_ @ W_, s_ @ updated] if inplace else [W_, updated]
    for result, wanted in zip(function(s_, g_), expected, strict=True):
        assert_close(result, wanted)
    assert_close(W.get_value(), updated)


def compile_step(mode, experiment):
    """Return the parameters, the generator and the function of a training step."""
    system = systems.build_for_training(experiment, (64,), 4)
    rng = pytensor.shared(np.random.default_rng(1), name="mask_rng")
    x, y = pt.fmatrix("x"), pt.ivector("y")
    step = system.step(x, y, rng)
    function = pytensor.function(
        [x, y], pt.stack(flat(step.statistics)), updates=list(step.updates.items()), mode=mode
    )
    return system.parameters, rng, function


def batches(n_batches):
    rng = np.random.default_rng(0)
    for k in range(n_batches):
        n = 20 if k < n_batches - 1 else 7
        x = rng.random((n, 64), dtype="float32") * (rng.random((n, 64)) < 0.2)
        yield x.astype("float32"), rng.integers(0, 4, n).astype("int32")


EXPERIMENTS = {
    "policy": policy.Settings(n_units=(50, 40), lam=0.001),
    "plain": plain.Settings(n_units=(50, 40)),
}


@pytest.fixture(scope="module", params=EXPERIMENTS)
def steps(request):
    """The same training step in this package's mode and in PyTensor's own."""
    experiment = EXPERIMENTS[request.param]
    return [compile_step(mode, experiment) for mode in (native.mode(), get_mode("NUMBA"))]


def test_a_training_step_holds_no_product_and_no_update_of_pytensors(steps):
    (parameters, _, function), _ = steps
    nodes = function.maker.fgraph.toposort()
    assert not any(isinstance(node.op, Dot) for node in nodes)
    n_matrices = sum(p.ndim == 2 for p in parameters.values())
    updates = [node for node in nodes if isinstance(node.op, RankUpdates)]
    assert all(node.op.inplace for node in updates)
    matrices = {W for node in updates for W in node.inputs[1::3]}
    assert len(matrices) == n_matrices and matrices <= set(function.maker.fgraph.inputs)
    elementwise_nodes = [node for node in nodes if isinstance(node.op, Elemwise)]
    assert not any(matrices & set(node.inputs) for node in elementwise_nodes)


def test_a_layer_and_its_policy_share_one_node_and_masks_spare_work(steps):
    (parameters, _, function), _ = steps
    nodes = function.maker.fgraph.toposort()
    pairs = sum(name.startswith("Z") for name in parameters)
    for op, outputs in ((Products, 2), (RankUpdates, 2)):
        found = [node for node in nodes if isinstance(node.op, op) and len(node.outputs) == outputs]
        assert len(found) == pairs
    masked = [node for node in nodes if isinstance(node.op, MaskedProductTransposed)]
    assert len(masked) == pairs


def test_three_steps_give_the_parameters_of_pytensors_own_mode(steps):
    for x, y in batches(3):
        statistics = [function(x, y) for _, _, function in steps]
        np.testing.assert_allclose(*statistics, rtol=1e-5)
    (fast, *_), (own, *_) = steps
    for name, p in fast.items():
        expected = own[name].get_value()
        np.testing.assert_allclose(p.get_value(), expected, rtol=0, atol=2e-6, err_msg=name)
    states = [backends.generator_state(function, rng) for _, rng, function in steps]
    assert states[0] == states[1]


def test_two_runs_agree_bit_for_bit():
    runs = []
    for _ in range(2):
        parameters, _, function = compile_step(native.mode(), policy.Settings(n_units=(50, 40)))
        for x, y in batches(3):
            function(x, y)
        runs.append({name: p.get_value() for name, p in parameters.items()})
    for name, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][name], err_msg=name)


def test_a_graph_is_compiled_once_and_read_from_the_disk_afterwards():
    """Its own function, not also a wrapper that contains it."""
    x, y = pt.fmatrices("x", "y")
    arguments = np.eye(2, dtype="float32"), np.full((2, 2), 3, "float32")
    found = []
    for _ in range(2):
        function = pytensor.function([x, y], 7 * pt.dot(x, y) + 19, mode=native.mode())
        assert_close(function(*arguments), np.full((2, 2), 40, "float32"))
        compiled_graph = function.vm.jit_fn
        assert compiled_graph.py_func.__code__.co_argcount == len(arguments)  # a wrapper has *args
        found.append(compiled_graph.stats)
    assert sum(found[1].cache_hits.values()) == 1 and not found[1].cache_misses


def test_pytensors_own_modes_are_left_alone():
    x, y = pt.fmatrices("x", "y")
    function = pytensor.function([x, y], pt.tanh(pt.dot(x, y)), mode="NUMBA")
    ours = (Products, ProductTransposed, RankUpdates, Elementwise)
    assert not any(isinstance(op, ours) for op in compiled_ops(function))


@pytest.mark.parametrize("density", [0.3, 1])
@pytest.mark.parametrize("n_rows", [20, 100, 301])
@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads_make_no_difference_to_a_bit(n_threads, n_rows, density):
    import numba

    if n_threads > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("this machine has fewer cores")
    s, g, W = operands(n_rows, 500, 403, "float32", density)
    results = []
    for n in (1, n_threads):
        with threads.limited(n):
            V, Z = W.copy(), W.copy()
            rank_updates(s, V, g, np.float32(0.75), Z, g, np.float32(1))
            transposed = [
                product_transposed(g, W),
                masked_product_transposed(g, W, s),
            ]
            results.append([*products(s, W, Z), *transposed, V, Z])
    for one, several in zip(*results, strict=True):
        np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize(
    ("own", "found"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(own, found):
    program = """
import os, numba
before = dict(os.environ)
import reinforce_dropout.native
assert dict(os.environ) == before
print(numba.threading_layer())
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    environment |= own | {"OMP_DISPLAY_ENV": "VERBOSE"}
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    if "GOMP_SPINCOUNT" not in process.stderr:
        pytest.skip("Numba's threads are not GNU OpenMP's")
    assert f"GOMP_SPINCOUNT = '{found}'" in process.stderr
