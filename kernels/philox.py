"""Philox4x32-10, the counter-based generator, and the stream of 16-bit draws that stochastic rounding reads.

Block b of the stream is the output for the counter (low word of b, high word of b, 0, `DOMAIN`) and the words of the
key; it serves elements 8 b to 8 b + 7, half-word after half-word, low half first. So a draw depends on the key and on
the element's row-major index alone.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # by which the key grows each round
ROUNDS = 10
DOMAIN = 0x494E544E  # "INTN": the counter's last word, so that no other use of a key meets the same blocks
DRAWS = 8  # of 16 bits in a block

Words = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
Product = Callable[[int, jax.Array], tuple[jax.Array, jax.Array]]


def rounds(
    n: int, counter: Words, key: tuple[jax.Array, jax.Array], product: Product
) -> tuple[Words, tuple[jax.Array, jax.Array]]:
    """The state after n rounds, and the two words of the key for the round after them."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(n):
        high0, low0 = product(MULTIPLIERS[0], c0)
        high1, low1 = product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + jnp.asarray(WEYL[0], k0.dtype), k1 + jnp.asarray(WEYL[1], k1.dtype)
    return (c0, c1, c2, c3), (k0, k1)


def philox4x32(counter: Words, key: tuple[jax.Array, jax.Array], product: Product) -> Words:
    """The output for a counter and a key, of one shape and dtype.

    Args:
        counter: Four words.
        key: Two words.
        product: Gives the high and the low word of the product of a constant and a word.
    """
    return rounds(ROUNDS, counter, key, product)[0]


def half_of_output(second: jax.Array, counter: Words, key: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The first two words of the output, or where `second` the last two, for words in uint64 (see `product64`).

    The last round makes either half of one product, so a half that nobody reads costs nothing there.
    """
    (c0, c1, c2, c3), (k0, k1) = rounds(ROUNDS - 1, counter, key, product64)
    multiplier = jnp.where(second, jnp.asarray(MULTIPLIERS[0], c0.dtype), jnp.asarray(MULTIPLIERS[1], c0.dtype))
    high, low = product64(multiplier, jnp.where(second, c0, c2))
    return high ^ jnp.where(second, c3 ^ k1, c1 ^ k0), low


def product64(multiplier: int | jax.Array, word: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The product of words that lie in uint64, whose upper halves mean nothing: they are cut off where it matters.

    So a word is never moved between lanes of 32 and of 64 bits. On a CPU that is twice as fast as words in uint32, and
    on a GPU the upper halves are never computed.
    """
    whole = (word & jnp.asarray(0xFFFFFFFF, word.dtype)) * jnp.asarray(multiplier, word.dtype)
    return whole >> jnp.asarray(32, word.dtype), whole


def index_in(shape: tuple[int, ...]) -> jax.Array:
    """Each element's row-major index, uint64; a sum over axes, which XLA partitions. Under `enable_x64` only."""
    index = jnp.zeros(shape, jnp.uint64)
    for axis, size in enumerate(shape):
        stride = math.prod(shape[axis + 1 :])
        if size > 1:
            index = index + lax.broadcasted_iota(jnp.uint64, shape, axis) * jnp.asarray(stride, jnp.uint64)
    return index


def seed_words(seed: jax.Array, rank: int) -> Words:
    """The four words of each seed, uint32, shaped for a sum with arrays of `rank` axes after the batch axes."""
    k0, k1, low, high = (seed[..., i].reshape(seed.shape[:-1] + (1,) * rank) for i in range(4))
    return k0, k1, low, high


def draws(shape: tuple[int, ...], seed: jax.Array) -> jax.Array:
    """The stream's 16-bit draws for an array of `shape`, a function of each element alone, so XLA fuses it.

    Args:
        shape: The array's.
        seed: uint32 (*batch, 4), as `spec.Draw` describes; the number counts blocks of eight elements.

    Returns:
        uint32 of (*batch, *shape), from 0 to 65535.

    Example:
        >>> import jax.numpy as jnp
        >>> [hex(draw) for draw in draws((4,), jnp.array([0, 42, 0, 0], jnp.uint32))]
        ['0x410b', '0x5d3c', '0xf23c', '0x120b']
    """
    with jax.enable_x64(True):

        def word(value: int) -> jax.Array:
            return jnp.asarray(value, jnp.uint64)

        k0, k1, low, high = (w.astype(jnp.uint64) for w in seed_words(seed, len(shape)))
        index = index_in((1,) * (seed.ndim - 1) + shape)
        block = (high << word(32) | low) + (index >> word(3))
        zero = jnp.zeros_like(block)
        counter = (block, block >> word(32), zero, zero + word(DOMAIN))
        draw = index & word(DRAWS - 1)
        even, odd = half_of_output(draw >= word(4), counter, (k0, k1))
        chosen = jnp.where(draw & word(2) == word(0), even, odd)
        return (chosen >> ((draw & word(1)) << word(4)) & word(0xFFFF)).astype(jnp.uint32)
