"""Uniform numbers of NumPy's generator PCG64, drawn by compiled code from an array of its state.

A ``numpy.random.Generator`` as an argument of Numba's code costs 45 microseconds a call, more than
the draws of a mini-batch. So the compiled function gets an array instead: the memory in which the
generator keeps its state. This needs a shared generator with uniform draws from 0 to 1 only. The
numbers are the same, bit for bit, and the generator advances. Functions that share a generator
continue one stream. Its ``get_value`` and ``set_value`` work, as in PyTensor's own modes.
"""

import copy

import numpy as np
from pytensor import config
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import graph_rewriter
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from pytensor.link.numba.dispatch.basic import (
    numba_funcify_and_cache_key,
    numba_njit,
    register_funcify_default_op_cache_key,
)
from pytensor.link.numba.linker import NumbaLinker
from pytensor.tensor.basic import get_underlying_scalar_constant_value
from pytensor.tensor.exceptions import NotScalarConstantError
from pytensor.tensor.random.basic import UniformRV
from pytensor.tensor.random.type import RandomGeneratorType
from pytensor.tensor.type import matrix
from pytensor.tensor.type_other import NoneTypeT

from reinforce_dropout.native.adaptive import Adaptive
from reinforce_dropout.native.digest import VERSION
from reinforce_dropout.native.kernels.pcg64 import fill_with_uniforms, own_words
from reinforce_dropout.native.kernels.sharing import exchange_n_threads

__all__ = ["AdaptiveLinker", "NativeLinker", "Uniforms", "use_uniforms"]


class Uniforms(Op):
    """A matrix of uniform numbers from 0 to 1, as ``rng.uniform(size=shape)`` draws them."""

    __props__ = ("dtype",)

    def __init__(self, dtype):
        self.dtype = dtype

    def make_node(self, rng, shape):
        """Build the node; its outputs are the generator after the draw and the numbers."""
        return Apply(self, [rng, shape], [rng.type(), matrix(dtype=self.dtype)])

    def perform(self, node, inputs, output_storage):
        """Draw with NumPy, for linkers other than Numba's."""
        rng, shape = inputs
        rng = copy.deepcopy(rng)
        output_storage[1][0] = rng.uniform(size=shape).astype(self.dtype)
        output_storage[0][0] = rng


@register_funcify_default_op_cache_key(Uniforms)
def _numba_uniforms(op, node, **kwargs):
    dtype = np.dtype(op.dtype)

    @numba_njit
    def native_uniforms(words, shape):
        words, numbers = words.copy(), np.empty((shape[0], shape[1]), dtype)
        fill_with_uniforms(numbers, words)
        return words, numbers

    return native_uniforms, VERSION


def _is_uniform(node):
    """Whether a node draws a matrix of numbers from 0 to 1."""
    if not isinstance(node.op, UniformRV):
        return False
    _, size, low, high = node.inputs
    try:
        bounds = [float(get_underlying_scalar_constant_value(b)) for b in (low, high)]
    except NotScalarConstantError:
        return False
    return bounds == [0, 1] and node.outputs[1].ndim == 2 and not isinstance(size.type, NoneTypeT)


def _draws(fgraph, rng, suits):
    """Return all nodes that draw from a generator, in turn; None if one does not suit."""
    draws = []
    for node, _ in fgraph.clients[rng]:
        if node in fgraph.apply_nodes:
            following = _draws(fgraph, node.outputs[0], suits) if suits(node) else None
            if following is None:
                return None
            draws += [node, *following]
    return draws


def _is_shared_pcg64(variable):
    if not (
        isinstance(variable, SharedVariable) and isinstance(variable.type, RandomGeneratorType)
    ):
        return False
    return own_words(variable.get_value(borrow=True)) is not None


@graph_rewriter
def use_uniforms(fgraph):
    """Draw with :class:`Uniforms` from every shared generator whose draws are all uniform."""
    for rng in filter(_is_shared_pcg64, fgraph.inputs):
        for node in _draws(fgraph, rng, _is_uniform) or ():
            new = Uniforms(node.outputs[1].dtype)(*node.inputs[:2])
            fgraph.replace_all_validate(list(zip(node.outputs, new, strict=True)))


class _Words(list):
    """Storage of one element: the words of the generator in another `storage`.

    The generator there may be replaced, as ``set_value`` does.
    """

    def __init__(self, storage):
        super().__init__([None])
        self._storage = storage
        self._generator = self._words = None

    def __getitem__(self, index):
        generator = self._storage[0]
        if generator is not self._generator:
            self._words = own_words(generator)
            if self._words is None:
                raise ValueError(
                    "a compiled function draws from a generator that is no longer a PCG64: set it "
                    "to one, such as numpy.random.default_rng(seed), or compile the function again."
                )
            self._generator = generator  # it owns the memory of the words
        return self._words

    def __setitem__(self, index, words):
        self[0][:] = words


class NativeLinker(NumbaLinker):
    """Numba's linker, with arrays instead of generators that only :class:`Uniforms` reads."""

    def fgraph_convert(self, fgraph, input_storage, storage_map, **kwargs):
        """Convert the graph, after a change of its storage."""
        for i, rng in enumerate(fgraph.inputs):
            draws = _is_shared_pcg64(rng) and _draws(fgraph, rng, _reads_words)
            if draws:
                storage_map[rng] = input_storage[i] = _Words(rng.container.storage)
        return numba_funcify_and_cache_key(
            fgraph, input_storage=input_storage, storage_map=storage_map, **kwargs
        )

    def jit_compile(self, fn_and_cache):
        """Compile the graph's function.

        PyTensor's linker compiles it and then, for the cache on disk, a wrapper that contains it.
        LLVM optimises every kernel twice then. Here the function itself is cached.
        """
        fn, key = fn_and_cache
        is_cached = config.numba__cache and key is not None
        if is_cached:
            # Numba names the code on disk by the file of its source, too: here a temporary one.
            fn.py_func.__code__ = fn.py_func.__code__.replace(co_filename="native_graph")
            CACHED_SRC_FUNCTIONS[fn.py_func] = f"{key}_fastmath{int(config.numba__fastmath)}"
        return numba_njit(fn.py_func, final_function=True, cache=is_cached)


class AdaptiveLinker(NativeLinker):
    """A `NativeLinker` whose functions adapt their number of threads to the machine's load."""

    def jit_compile(self, fn_and_cache):
        """Compile the converted graph; see `adaptive.Adaptive`."""
        return Adaptive(super().jit_compile(fn_and_cache), exchange_n_threads)


def _reads_words(node):
    return isinstance(node.op, Uniforms)
