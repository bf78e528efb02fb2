"""The stream of `HashUniform` against its vectors and NumPy, wherever it begins and however far it reaches."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import streams
from jax import export

from intnumerics.kernels import Draw
from intnumerics.kernels.generators import hashed

KEY = (0x243F6A88, 0x85A308D3)
HALF = hashed.SERVED  # the first element of the second pair of subkeys
FORMS = (hashed.draws, hashed.draws_on_cuda, hashed.draws_on_tpu)
every_form = pytest.mark.parametrize("form", FORMS, ids=["by elements", "by elements, of known subkeys", "by axes"])

VECTORS = {  # of the words: of plain Python and XLA in the sketch that the generator was found with
    ((0, 42), 0): (0x7A15845C, 0xBD6D858A, 0xF8D67B9F),
    ((0, 42), 1): (0x7A15845C, 0xBD6D858A, 0xC51B3961),
    ((0, 42), 2): (0x7A15845C, 0xBD6D858A, 0x7AEF8B40),
    ((0, 42), 3): (0x7A15845C, 0xBD6D858A, 0x2224B538),
    ((0, 42), 2**32 - 1): (0x7A15845C, 0xBD6D858A, 0x6F632830),
    ((0, 42), 2**32): (0x4E7BD162, 0x5763E79C, 0x1A8A83BB),
    ((0, 0), 0): (0x24436DB7, 0x6FDF6F68, 0xD48409A3),
}

Form = Callable[[Draw, jax.Array], jax.Array]


def drawn(form: Form, draw: Draw, first: int, key: tuple[int, int] = KEY) -> np.ndarray:
    """The draws, in a compiled program that does not know where they begin."""
    return np.asarray(jax.jit(form, static_argnums=0)(draw, jnp.asarray(streams.seed(key, first))))


def by_number(draw: Draw, first: int) -> np.ndarray:
    """The draws in NumPy, one by one from the elements' numbers."""
    steps = [np.arange(n).reshape(-1, *[1] * (len(draw.shape) - axis - 1)) for axis, n in enumerate(draw.shape)]
    numbers = sum((step * stride for step, stride in zip(steps, draw.strides, strict=True)), np.int64(first))
    numbers = np.broadcast_to(numbers, draw.shape)
    return np.asarray([streams.hashed(1, KEY, int(i))[0] for i in numbers.reshape(-1)]).reshape(draw.shape)


@pytest.mark.parametrize(("key", "block"), VECTORS)
def test_subkeys_and_words_are_the_vectors(key: tuple[int, int], block: int) -> None:
    a, b, expected = VECTORS[key, block]
    words = hashed.schedule(jnp.asarray(streams.seed(key, 2 * block)))
    assert [int(word) for word in words[:2]] == [a, b]
    assert [int(word) for word in words[4:]] == [block % 2**32, 0]
    assert int(hashed.word(words[4], words[0], words[1])) == expected
    assert streams.hashed_words([block], key).tolist() == [expected]


def test_a_kernel_is_given_the_subkeys_after_a_carry() -> None:
    words = hashed.schedule(jnp.asarray(streams.seed((0, 42), 2**33 - 1)))
    assert [int(word) for word in words[2:]] == [*VECTORS[(0, 42), 2**32][:2], 2**32 - 1, 1]


@every_form
@pytest.mark.parametrize("first", [0, 1, 2**32 - 9, 2**33 - 16, 2**33 - 13, 2**60 + 3])
def test_the_draws_are_those_of_numpy_wherever_they_begin(form: Form, first: int) -> None:
    draw = Draw("hash", (101,), (2**61,), aligned=first % 8 == 0)
    np.testing.assert_array_equal(drawn(form, draw, first), streams.hashed(101, KEY, first))


@every_form
def test_the_draws_of_parts_of_small_and_large_arrays(form: Form) -> None:
    for draw, first in [
        (Draw("hash", (3, 5)), 0),
        (Draw("hash", (3, 4), (8, 6), aligned=False), 13),
        (Draw("hash", (2, 16), (4, 64)), 80),
        (Draw("hash", (3, 1, 4), (3, 1, 8)), 0),
        (Draw("hash", (2, 8), (4, 2**32 - 8)), 2**32 - 8),  # numbers of 33 bits, of one pair of subkeys or two
        (Draw("hash", (2, 7), (4, 2**31 - 1), aligned=False), 2**32 - 2),
        (Draw("hash", (3, 8), (8, 2**32)), 2**33 - 2**32 + 16),
        (Draw("hash", (5, 3), (8, 3 * 2**33), aligned=False), 7),  # and of many
        (Draw("hash", (4, 2, 8), (4, 2**30, 2**20)), 2**52 - 8),
    ]:
        np.testing.assert_array_equal(drawn(form, draw, first), by_number(draw, first), str(draw))


@every_form
def test_each_example_of_a_batch_has_its_own_seed(form: Form) -> None:
    keys, firsts = [(1, 2), (3, 4)], [0, 2**33 - 8]
    seeds = np.stack([streams.seed(key, first) for key, first in zip(keys, firsts, strict=True)])
    found = jax.jit(form, static_argnums=0)(Draw("hash", (4, 8), (2**40, 8)), jnp.asarray(seeds))
    for row, key, first in zip(np.asarray(found), keys, firsts, strict=True):
        np.testing.assert_array_equal(row.reshape(-1), streams.hashed(32, key, first))


@every_form
def test_no_rank_or_dtype_is_promoted(form: Form) -> None:
    draws = Draw("hash", (3, 5)), Draw("hash", (3, 8), (8, 2**32)), Draw("hash", (3, 7), (8, 2**31 - 1), aligned=False)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for batch in ((), (2,), (2, 1)):
            seeds = jax.ShapeDtypeStruct((*batch, 4), jnp.uint32)
            assert jax.eval_shape(hashed.schedule, seeds).shape == (*batch, 6)
            for draw in draws:
                assert jax.eval_shape(functools.partial(form, draw), seeds).shape == (*batch, *draw.shape)


@every_form
def test_a_size_may_be_a_symbol(form: Form) -> None:
    b, seed = export.symbolic_shape("b"), jax.ShapeDtypeStruct((4,), jnp.uint32)
    # Arrays that are known to have one pair of subkeys, and arrays that may have several.
    for size in (3, 2**32 + 1):
        of = jax.jit(lambda x, seed, size=size: form(Draw("hash", (*x.shape, 3), (*x.shape, size)), seed))
        program = export.export(of)(jax.ShapeDtypeStruct(b, jnp.float32), seed)
        for n in (1, 5):
            found = program.call(jnp.zeros(n), jnp.asarray(streams.seed(KEY)))
            np.testing.assert_array_equal(found, by_number(Draw("hash", (n, 3), (n, size)), 0))
