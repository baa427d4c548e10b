"""Uniform numbers from an array of the generator's state: NumPy's own, bit for bit."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import get_mode

from reinforce_dropout import backends, native, pcg64, threads
from reinforce_dropout.native.uniforms import Uniforms


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


def test_a_state_survives_the_way_to_words_and_back():
    state = np.random.default_rng(7).bit_generator.state
    words = pcg64.words_of(state)
    assert words.dtype == "uint64" and words.shape == (4,)
    assert pcg64.state_of(words) == state


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
    for s in (0, 1, 2**64 - 1, 2**64, 2**128 - 1, 2**122 - 1):
        for c in (1, 2**64 - 1, 2**128 - 1):
            state = generator.bit_generator.state | {"state": {"state": s, "inc": c}}
            generator.bit_generator.state = state
            rng, draw = compile_two_draws(np.random.default_rng())
            backends.set_generator_state(draw, rng, state)
            first, _ = draw(2)
            np.testing.assert_array_equal(first, generator.uniform(size=(2, 3)).astype("float32"))


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


def test_python_draws_the_same():
    rng = pytensor.shared(np.random.default_rng(3))
    _, numbers = Uniforms("float32")(rng, pt.as_tensor([2, 3]))
    drawn = pytensor.function([], numbers, mode=get_mode("FAST_COMPILE"))()
    expected = np.random.default_rng(3).uniform(size=(2, 3))
    np.testing.assert_array_equal(drawn, expected.astype("float32"))
    assert rng.get_value().bit_generator.state == np.random.default_rng(3).bit_generator.state
