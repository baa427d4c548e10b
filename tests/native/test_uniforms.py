"""Uniform numbers from an array of the generator's state: NumPy's own, bit for bit."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode

from reinforce_dropout import backends, native
from reinforce_dropout.native.kernels.pcg64 import own_words
from reinforce_dropout.native.ops.uniforms import Uniforms
from reinforce_dropout.running import threads

pytestmark = pytest.mark.usefixtures("failing_rewrites_raise")


def compile_two_draws(generator, mode=None, second=pt.random.uniform):
    """A function of n that draws (n, 3) uniform numbers, then (2, n) by `second`."""
    rng, n = pytensor.shared(generator), pt.lscalar("n")
    options = {"dtype": "float32", "return_next_rng": True}
    next_rng, first = pt.random.uniform(size=(n, 3), rng=rng, **options)
    last_rng, other = second(size=(2, n), rng=next_rng, **options)
    mode = mode or native.mode()
    return rng, pytensor.function([n], [first, other], updates=[(rng, last_rng)], mode=mode)


def n_native_draws(function):
    return sum(isinstance(node.op, Uniforms) for node in function.maker.fgraph.apply_nodes)


def test_words_are_the_generators_own_memory():
    generator = np.random.default_rng(7)
    words, state = own_words(generator), generator.bit_generator.state["state"]
    assert words.dtype == "uint64" and words.shape == (4,)
    s_low, s_high, c_low, c_high = words.tolist()
    assert state == {"state": s_low + (s_high << 64), "inc": c_low + (c_high << 64)}
    generator.random()
    assert words.tolist() != [s_low, s_high, c_low, c_high]
    words[:] = s_low, s_high, c_low, c_high
    assert generator.random() == np.random.default_rng(7).random()
    assert own_words(np.random.Generator(np.random.MT19937(1))) is None


@pytest.mark.cpu
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_numbers_and_states_are_those_of_numpys_generator(n_threads):
    rng, draw = compile_two_draws(np.random.default_rng(3))
    assert n_native_draws(draw) == 2
    expected = np.random.default_rng(3)
    for n in (1, 0, 4, 1000, 12_345):
        with threads.limited(n_threads):
            numbers = draw(n)
        for drawn, shape in zip(numbers, ((n, 3), (2, n)), strict=True):
            np.testing.assert_array_equal(drawn, expected.uniform(size=shape).astype("float32"))
        assert backends.generator_state(draw, rng) == expected.bit_generator.state


def test_carries_and_turns_of_whole_words():
    """States at the ends of the range: the lower word overflows, the turn is by nothing."""
    generator = np.random.default_rng()
    rng, draw = compile_two_draws(np.random.default_rng())
    for s in (0, 1, 2**64 - 1, 2**64, 2**128 - 1, 2**122 - 1):
        for c in (1, 2**64 - 1, 2**128 - 1):
            state = generator.bit_generator.state | {"state": {"state": s, "inc": c}}
            generator.bit_generator.state = state
            backends.set_generator_state(draw, rng, state)
            first, _ = draw(20)  # more than run side by side
            np.testing.assert_array_equal(first, generator.uniform(size=(20, 3)).astype("float32"))


def test_a_state_can_be_put_back():
    rng, draw = compile_two_draws(np.random.default_rng(3))
    start = backends.generator_state(draw, rng)
    once = draw(5)
    backends.set_generator_state(draw, rng, start)
    for before, again in zip(once, draw(5), strict=True):
        np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize(
    ("generator", "second"),
    [
        (np.random.Generator(np.random.MT19937(1)), pt.random.uniform),
        (np.random.default_rng(1), pt.random.normal),
        (np.random.default_rng(1), lambda **options: pt.random.uniform(0, 2, **options)),
    ],
    ids=["another generator", "another distribution", "other bounds"],
)
def test_what_is_not_suited_is_left_to_pytensor(generator, second):
    _, draw = compile_two_draws(generator, second=second)
    assert n_native_draws(draw) == 0
    _, plain = compile_two_draws(generator, get_mode("NUMBA"), second)
    for n in (5, 2):
        for ours, theirs in zip(draw(n), plain(n), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def compile_shared(mode):
    """Return a shared generator and a function that draws 3 from it, compiled on demand."""
    rng = pytensor.shared(np.random.default_rng(3))

    def compile_draw(update=True, mode=mode):
        next_rng, numbers = pt.random.uniform(size=(1, 3), rng=rng, return_next_rng=True)
        updates = [(rng, next_rng)] if update else []
        return pytensor.function([], numbers, updates=updates, mode=mode)

    return rng, compile_draw


@pytest.mark.parametrize("mode", ["native", "NUMBA"])
def test_functions_of_one_generator_continue_its_stream(mode):
    """As PyTensor's own do, which may draw from the same generator; one is compiled in between."""
    rng, compile_draw = compile_shared(native.mode() if mode == "native" else get_mode(mode))
    first, expected = compile_draw(), np.random.default_rng(3)

    def assert_next(draw):
        np.testing.assert_array_equal(draw(), expected.uniform(size=(1, 3)))
        assert rng.get_value().bit_generator.state == expected.bit_generator.state

    assert_next(first)
    second, plain, peek = compile_draw(), compile_draw(mode=get_mode("NUMBA")), compile_draw(False)
    for draw in (second, first, plain, second, first):
        np.testing.assert_array_equal(peek(), peek())
        assert_next(draw)


@pytest.mark.parametrize("mode", ["native", "NUMBA"])
def test_a_generator_can_be_replaced(mode):
    rng, compile_draw = compile_shared(native.mode() if mode == "native" else get_mode(mode))
    draw = compile_draw()
    draw()
    for borrow in (False, True):
        generator = np.random.default_rng(8)
        rng.set_value(generator, borrow=borrow)
        expected = np.random.default_rng(8)
        for _ in range(2):
            np.testing.assert_array_equal(draw(), expected.uniform(size=(1, 3)))
        untouched = np.random.default_rng(8).bit_generator.state
        assert borrow or generator.bit_generator.state == untouched


def test_a_generator_of_another_kind_is_refused():
    rng, compile_draw = compile_shared(native.mode())
    draw = compile_draw()
    rng.set_value(np.random.Generator(np.random.MT19937(1)))
    with pytest.raises(ValueError, match="no longer a PCG64: set it to one"):
        draw()


def test_python_draws_the_same():
    rng = pytensor.shared(np.random.default_rng(3))
    _, numbers = Uniforms("float32")(rng, pt.as_tensor([2, 3]))
    drawn = pytensor.function([], numbers, mode=get_mode("FAST_COMPILE"))()
    expected = np.random.default_rng(3).uniform(size=(2, 3))
    np.testing.assert_array_equal(drawn, expected.astype("float32"))
    assert rng.get_value().bit_generator.state == np.random.default_rng(3).bit_generator.state
