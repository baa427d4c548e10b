"""Weights, and what the kernels read again and again, begin where lines of the cache begin."""

import numpy as np
import pytest
from reference import gated_network

from reinforce_dropout import native, systems
from reinforce_dropout.alignment import LINE_BYTES, aligned
from reinforce_dropout.blocks.forward import block_sparse, transposed
from reinforce_dropout.blocks.sharing import Sharing
from reinforce_dropout.native.llvm.aligned_rows import with_aligned_rows
from reinforce_dropout.running import datasets
from reinforce_dropout.running.epochs import Epochs
from reinforce_dropout.systems import block_policy
from reinforce_dropout.systems.learner import compile_learner

SHAPES = [(20, 500), (784, 800), (3, 7), (1, 1), (0, 5), (4, 0)]


def _misaligned(rng, shape, dtype):
    """Return a matrix that does not begin at a line."""
    values = rng.normal(size=shape).astype(dtype)
    room = aligned(np.zeros(values.nbytes + values.itemsize, np.uint8))
    matrix = room[values.itemsize :].view(dtype).reshape(shape)
    matrix[...] = values
    return matrix


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("copy", [aligned, with_aligned_rows])
def test_copies_are_the_same_numbers_at_the_beginning_of_a_line(copy, shape, dtype):
    matrix = _misaligned(np.random.default_rng(1), shape, dtype)
    result = copy(matrix)
    assert result.dtype == matrix.dtype
    np.testing.assert_array_equal(result, matrix)
    assert not np.shares_memory(result, matrix)
    if matrix.size:
        assert matrix.ctypes.data % LINE_BYTES != 0
        assert result.ctypes.data % LINE_BYTES == 0


def test_every_row_of_the_kernels_copies_begins_a_line():
    copy = with_aligned_rows(np.ones((3, 7), "float32"))
    assert copy.strides == (LINE_BYTES, 4)


def test_a_transposed_matrix_is_laid_out_in_C_order():
    matrix = np.arange(6.0).reshape(2, 3)
    assert aligned(matrix.T).flags.c_contiguous
    np.testing.assert_array_equal(aligned(matrix.T), matrix.T)


def assert_aligned(variables):
    for variable in variables:
        assert variable.get_value(borrow=True).ctypes.data % LINE_BYTES == 0, variable.name


@pytest.mark.parametrize("execution", ["dense", "block-sparse"])
def test_weights_are_aligned_from_the_start_and_stay_so(execution, small_data):
    experiment = block_policy.Settings(
        n_units=(13, 7), batch_size=20, instances_per_block=20, baseline="moving-average"
    )
    dataset = datasets.load(small_data, experiment.validation_fraction)
    system = systems.build_for_training(
        experiment, dataset.image_shape, dataset.n_classes, execution
    )
    matrices = [p for p in system.parameters.values() if p.ndim == 2]
    assert len(matrices) == 5
    assert_aligned(matrices)
    learner = compile_learner(system, experiment, native.mode())
    before, generators = learner.state()
    Epochs(learner, dataset.train, experiment).run()
    assert not np.array_equal(learner.parameters()["W_1"], before["W_1"])
    assert_aligned(matrices)
    learner.restore(before, generators)
    assert_aligned(matrices)


def test_transposed_copies_are_aligned():
    network = gated_network(np.random.default_rng(1), (30, 13, 7, 4))
    assert_aligned(transposed(network) + block_sparse(network, Sharing()).Wt)
