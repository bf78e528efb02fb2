"""The streams against what others wrote: Random123's known answers, randomgen's Philox, NumPy, and jax.random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import streams

from intnumerics.kernels import Draw, generators
from intnumerics.kernels.generators import philox, threefry

KEY = (0x243F6A88, 0x85A308D3)
ONES = 0xFFFFFFFF
PI = (*KEY, 0x13198A2E, 0x03707344)  # its digits


def output(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """The package's Philox for one counter."""
    with jax.enable_x64(True):
        c, k = ([jnp.asarray(word, jnp.uint64) for word in words] for words in (counter, key))
        return [int(word) & ONES for word in philox.philox4x32(tuple(c), tuple(k), philox.product64)]


def words(key: tuple[int, int], first_block: int, blocks: int) -> np.ndarray:
    """The stream's words, uint32 [blocks, 4]."""
    found = philox.draws(Draw("philox", (8 * blocks,)), jnp.asarray(streams.seed(key, 8 * first_block)))
    return np.asarray(found).astype("<u2").view("<u4").reshape(-1, 4)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((ONES,) * 4, (ONES,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (PI, (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)  # fmt: skip
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, int], expected: str
) -> None:
    assert " ".join(f"{word:08x}" for word in output(counter, key)) == expected
    assert streams.philox4x32(np.asarray([counter], np.uint32), key)[0].tolist() == output(counter, key)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (0, "5d3c410b 120bf23c 7daace82 6a7644e9"),
        (1, "64284b0f 6fbfc864 33355b12 6adb8f4d"),
        (2**32, "45135295 f4775cd7 e5ee1c3a 4cde58b5"),
    ],
)
def test_the_stream_of_key_42_is_pinned(block: int, expected: str) -> None:
    assert " ".join(f"{word:08x}" for word in words((0, 42), block, 1)[0]) == expected


@pytest.mark.parametrize("first_block", [0, 1, 2**32 - 2, 2**61 - 64])
def test_the_stream_is_that_of_randomgen(first_block: int) -> None:
    randomgen = pytest.importorskip("randomgen", reason="needs randomgen, of the dependency group test")
    # Its integers hold the words lowest first, and it counts up before it draws.
    counter = (first_block | philox.DOMAIN << 96) - 1
    theirs = randomgen.Philox(counter=counter % 2**128, key=KEY[0] | KEY[1] << 32, number=4, width=32)
    expected = theirs.random_raw(4 * 64).astype(np.uint32).reshape(-1, 4)
    np.testing.assert_array_equal(words(KEY, first_block, 64), expected)


@pytest.mark.parametrize("first_block", [0, 2**32 - 2, 2**61 - 14])
def test_the_draws_are_those_of_numpy(first_block: int) -> None:
    found = philox.draws(Draw("philox", (101,)), jnp.asarray(streams.seed(KEY, 8 * first_block)))
    np.testing.assert_array_equal(found, streams.draws(101, KEY, first_block))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (0, 3), (1_000_003,)], ids=str)
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint16, jnp.uint32])
def test_threefry_gives_the_bits_of_jax_random(shape: tuple[int, ...], dtype: type) -> None:
    key = jax.random.key(7, impl="threefry2x32")
    seed = jnp.concatenate([jax.random.key_data(key), jnp.zeros(2, jnp.uint32)])
    found = jax.jit(threefry.bits, static_argnums=0)(Draw("threefry_23_bits", shape), seed).astype(dtype)
    np.testing.assert_array_equal(found, jax.random.bits(key, shape, dtype))


@pytest.mark.parametrize("first", [1, 2**32 - 5, 2**32, 2**63 + 11])
def test_threefry_begins_at_any_element_by_its_64_bit_index(first: int) -> None:
    from jax.extend.random import threefry_2x32

    index = [first + i for i in range(16)]
    counter = jnp.asarray([i >> 32 for i in index] + [i % 2**32 for i in index], jnp.uint32)
    high, low = jnp.split(threefry_2x32(jnp.asarray(KEY, jnp.uint32), counter), 2)
    found = threefry.bits(Draw("threefry_23_bits", (4, 4)), jnp.asarray(streams.seed(KEY, first)))
    np.testing.assert_array_equal(found, (high ^ low).reshape(4, 4))


def test_threefry_noise_is_uniform_of_jax_random_less_a_half() -> None:
    key = jax.random.key(3, impl="threefry2x32")
    seed = jnp.concatenate([jax.random.key_data(key), jnp.zeros(2, jnp.uint32)])
    found = generators.drawn(Draw("threefry_23_bits", (40, 5)), seed)
    np.testing.assert_array_equal(found, jax.random.uniform(key, (40, 5)) - 0.5)
