"""The stream is random as far as tests see, and a broken one is not: the same tests turn it down."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import stream_tests as judge
import streams
from oracle import quantize as formula

from bench import baselines
from intnumerics.kernels import Draw, QuantSpec, generators, xla
from intnumerics.kernels.generators import hashed, philox

KEY = (0x243F6A88, 0x85A308D3)
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
HALVES = QuantSpec(127.5, clip=True, rounding="floor_plus_half")
FLOAT32 = np.dtype(np.float32)
IN_FLOAT32 = QuantSpec(127.0, clip=True, rounding="half_to_even", noise_dtype=FLOAT32)
EVERY = ((np.arange(65536) + 0.5) / 65536 - 0.5).astype(np.float32)
LAGS = (*range(1, 17), 64, 1024)
FRACTIONS = (0.0, 2**-12, 0.01, 0.1, 0.25, 1 / 3, 0.499, 0.5, 0.501, 0.6, 2 / 3, 0.75, 0.9, 0.99, 1 - 2**-12, 0.125)
SAMPLES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Stream:
    """The draws of a generator of the package, and how many of them a block has."""

    generator: generators.Generator
    block: int

    def __call__(self, n: int, keys: Sequence[tuple[int, int]], first_block: int = 0) -> np.ndarray:
        """Draws, uint16 [keys, n]; a new jit each time, for a test changes what is compiled."""
        seeds = np.stack([streams.seed(key, first_block * self.block) for key in keys])
        row, draw = generators.TABLE[self.generator], Draw(self.generator, (n,))
        assert row is not None
        return np.asarray(jax.jit(lambda seed: row.bits(draw, seed).astype(jnp.uint16))(seeds))


PHILOX, HASH = Stream("philox", philox.DRAWS), Stream("hash", hashed.DRAWS)


@pytest.fixture(scope="module", params=[PHILOX, HASH], ids=["philox", "hash"])
def stream(request: pytest.FixtureRequest) -> Stream:
    return request.param


def neighbours() -> list[tuple[int, int]]:
    """A key, and the 64 keys that differ from it in one bit."""
    return [KEY, *((KEY[0] ^ 1 << i, KEY[1]) for i in range(32)), *((KEY[0], KEY[1] ^ 1 << i) for i in range(32))]


def derived() -> list[tuple[int, int]]:
    """Keys as users make them, by split and fold_in."""
    root = jax.random.key(0, impl="threefry2x32")
    # From 32 on, for jax's threefry gives the same key to `fold_in(root, i)` and `split(root, n)[i]`.
    keys = [*jax.random.split(root, 32), *(jax.random.fold_in(root, i) for i in range(32, 64))]
    return [(int(k[0]), int(k[1])) for k in map(np.asarray, map(jax.random.key_data, keys))]


@pytest.fixture(scope="module")
def draws(stream: Stream) -> np.ndarray:
    return stream(1 << 24, [KEY])[0]


def test_every_draw_is_as_likely_as_every_other(draws: np.ndarray) -> None:
    assert judge.accept(judge.uniformity(np.bincount(draws, minlength=65536)))
    for half in (draws & np.uint16(255), draws >> np.uint16(8)):
        assert judge.accept(judge.uniformity(np.bincount(half, minlength=256)))


def test_every_bit_is_set_half_of_the_time(draws: np.ndarray) -> None:
    assert judge.accept(judge.bit_frequencies(draws))


def test_a_draw_says_nothing_of_those_after_it(draws: np.ndarray) -> None:
    assert judge.accept(judge.serial_correlation(draws[: 1 << 22], LAGS))


def test_neighbouring_blocks_differ_in_half_of_their_bits(stream: Stream, draws: np.ndarray) -> None:
    blocks = draws[: 1 << 22].reshape(-1, stream.block).T
    assert judge.accept(judge.flips(blocks[:, :-1], blocks[:, 1:]))
    high = stream(1 << 16, [KEY], 2**32)  # the same low word of the counter
    assert judge.accept(judge.flips(draws[None, : 1 << 16], high))


@pytest.mark.parametrize("keys", [neighbours, derived])
def test_keys_have_streams_that_say_nothing_of_one_another(
    stream: Stream, keys: Callable[[], list[tuple[int, int]]]
) -> None:
    found = stream(1 << 16, keys())
    assert judge.accept(judge.correlation(found[:1], found[1:]))
    assert judge.accept(judge.flips(np.broadcast_to(found[:1], found[1:].shape), found[1:]))
    assert judge.accept(judge.correlation(found[:-1], found[1:]))


def test_one_round_of_philox_is_turned_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(philox, "ROUNDS", 1)
    found = PHILOX(1 << 20, [KEY])[0]
    assert not judge.accept(judge.uniformity(np.bincount(found, minlength=65536)))
    assert not judge.accept(judge.bit_frequencies(found))
    assert not judge.accept(judge.serial_correlation(found, LAGS))
    blocks = found.reshape(-1, 8).T
    assert not judge.accept(judge.flips(blocks[:, :-1], blocks[:, 1:]))
    keyed = PHILOX(1 << 14, neighbours())
    assert not judge.accept(judge.flips(np.broadcast_to(keyed[:1], keyed[1:].shape), keyed[1:]))


def test_a_hash_with_one_multiplication_is_turned_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashed, "MULTIPLIERS", (*hashed.MULTIPLIERS[:1], 1, 1))
    found = HASH(1 << 20, [KEY])[0]
    assert not judge.accept(judge.uniformity(np.bincount(found, minlength=65536)))
    assert not judge.accept(judge.serial_correlation(found, LAGS))
    blocks = found.reshape(-1, 2).T
    assert not judge.accept(judge.flips(blocks[:, :-1], blocks[:, 1:]))
    assert not judge.accept(judge.pairs(*blocks))
    keyed = HASH(1 << 14, neighbours())
    assert not judge.accept(judge.flips(np.broadcast_to(keyed[:1], keyed[1:].shape), keyed[1:]))


# --- where hashes that are as cheap, or cheaper, give way -------------------------------------------------------------


def lowbias32(n: int, keys: list[tuple[int, int]]) -> np.ndarray:
    """The words of the hash that a user writes, as draws, uint16 [keys, n]."""
    k0, k1 = np.asarray(keys, np.uint32).T[..., None]
    words = baselines.lowbias32(jnp.arange(n // 2, dtype=jnp.uint32), jnp.asarray(k0), jnp.asarray(k1))
    return np.asarray(words).astype("<u4").view("<u2")


def in_reverse(word: Callable[..., jax.Array], *keys: jax.Array) -> np.ndarray:
    """The draws of 2**21 blocks, whose numbers have the bits of a counter in reverse."""
    numbers = np.zeros(1, np.uint32)
    for bit in range(21):
        numbers = np.concatenate([numbers, numbers | np.uint32(1 << 31 - bit)])
    return np.asarray(jax.jit(word)(jnp.asarray(numbers), *keys)).astype("<u4").view("<u2")


def test_blocks_whose_numbers_differ_in_upper_bits_are_independent() -> None:
    key = jnp.uint32(0), jnp.uint32(42)
    found = in_reverse(hashed.word, *hashed.subkeys(key, jnp.uint32(0)))
    users = in_reverse(baselines.lowbias32, *key)
    assert judge.accept(judge.pairs(found[:-2], found[2:]))
    assert not judge.accept(judge.pairs(users[:-2], users[2:]))
    assert judge.accept(judge.uniformity(np.bincount(found, minlength=65536)))
    assert judge.accept(judge.bit_frequencies(found))
    assert judge.accept(judge.serial_correlation(found, LAGS))


def test_draws_of_one_element_by_ten_thousand_keys_in_turn_are_independent() -> None:
    keys = [(0, k) for k in range(10_000)]
    found, users = HASH(512, keys), lowbias32(512, keys)
    assert judge.accept(judge.pairs(found[:-1], found[1:]))
    assert not judge.accept(judge.pairs(users[:-1], users[1:]))
    assert judge.accept(judge.correlation(found[:-1].T, found[1:].T))
    assert not judge.accept(judge.correlation(users[:-1].T, users[1:].T))
    assert judge.accept(judge.flips(found[:-1].reshape(1, -1), found[1:].reshape(1, -1)))
    assert not judge.accept(judge.flips(users[:-1].reshape(1, -1), users[1:].reshape(1, -1)))


def test_a_key_that_is_not_used_is_turned_down() -> None:
    found = PHILOX(1 << 12, [(0, 0)] * 65)
    assert not judge.accept(judge.correlation(found[:1], found[1:]))
    assert not judge.accept(judge.flips(found[:-1], found[1:]))


def test_a_counter_that_is_used_again_is_turned_down() -> None:
    again = np.tile(PHILOX(1 << 10, [KEY])[0], 64)
    assert not judge.accept(judge.serial_correlation(again, LAGS))
    too_even = np.tile(np.arange(65536, dtype=np.uint16), 16)
    assert not judge.accept(judge.uniformity(np.bincount(too_even, minlength=65536)))


def inputs(dtype: np.dtype) -> np.ndarray:
    """64 values in buckets at all distances from their neighbours."""
    return np.asarray([b + f for b in (-100, -3, 0, 90) for f in FRACTIONS], np.float64).astype(dtype)


def rounded_up(x: np.ndarray, low: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """How many of the samples of each value lie above `low`."""
    noisy = Draw("philox", (len(x) * SAMPLES,))

    def count(x: jax.Array, low: jax.Array, seed: jax.Array) -> jax.Array:
        y = xla.quantize(x[:, None], generators.drawn(noisy, seed).reshape(len(x), SAMPLES), spec)
        return (y.astype(jnp.float32) > low[:, None]).sum(1, dtype=jnp.int32)

    return np.asarray(jax.jit(count)(x, low.astype(np.float32), streams.seed(KEY)))


def chances(x: np.ndarray, spec: QuantSpec) -> tuple[np.ndarray, np.ndarray]:
    """The lower result of each value, and how likely the upper is by NumPy's count over all draws."""
    every = np.stack([formula(np.full(EVERY.shape, v), EVERY, spec).astype(np.float64) for v in x])
    low = every.min(1)
    assert ((every == low[:, None]) | (every == low[:, None] + 1)).all()
    return low, (every != low[:, None]).mean(1)


@pytest.mark.parametrize("spec", [NEAREST, HALVES], ids=["nearest", "floor plus half"])
def test_values_are_rounded_up_as_often_as_their_fraction_says(spec: QuantSpec) -> None:
    x = inputs(FLOAT32)
    low, chance = chances(x, spec)
    # The chance is the fraction itself, to the resolution of a draw and of a float32 near 100.
    expected_mean = low + chance
    np.testing.assert_allclose(expected_mean, x.astype(np.float64), rtol=0, atol=2.0**-16)
    assert judge.accept(judge.binomial(rounded_up(x, low, spec), SAMPLES, chance))


def test_bfloat16_is_unbiased_in_float32_and_not_with_the_cast_kept() -> None:
    x = np.asarray([b + f for b in (-100, 64, 90, 101) for f in (0.0, 0.5)], ml_dtypes.bfloat16)
    wide = x.astype(np.float64)
    low, fraction = np.floor(wide), wide - np.floor(wide)
    assert judge.accept(judge.binomial(rounded_up(x, low, IN_FLOAT32), SAMPLES, fraction))
    assert not judge.accept(judge.binomial(rounded_up(x, low, NEAREST), SAMPLES, fraction))


def test_sums_of_rounded_thirds_vary_as_sums_of_independent_ones() -> None:
    n, elements = 2000, 4096  # keys, as the steps of a training take them
    x = np.asarray([1 / 3], np.float32)
    low, [chance] = chances(x, NEAREST)
    noisy = Draw("hash", (elements,))

    def rounded(noise: Callable[[jax.Array], jax.Array], keys: np.ndarray) -> np.ndarray:
        y = jax.jit(lambda keys: xla.quantize(jnp.asarray(x), jax.vmap(noise)(keys), NEAREST) > low[0])(keys)
        return np.asarray(y)

    keys = [(0, k) for k in range(n)]
    up = rounded(lambda seed: generators.drawn(noisy, seed), np.stack([streams.seed(key) for key in keys]))
    users = rounded(lambda words: baselines.uniform("hash", words, (elements,)), np.asarray(keys, np.uint32))
    assert judge.accept(judge.binomial(up.sum(), up.size, chance))
    assert judge.accept(judge.dispersion(up.sum(0), n, chance))
    assert judge.accept(judge.dispersion(up.sum(1), elements, chance))
    assert not judge.accept(judge.dispersion(users.sum(0), n, chance))
