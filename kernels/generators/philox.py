"""Philox4x32-10, the counter-based generator, and the stream of 16-bit draws that stochastic rounding reads.

Block b of the stream is the output for the counter (low word of b, high word of b, 0, `DOMAIN`) and the two words of
the key. It serves elements 8 b to 8 b + 7, half-word after half-word, low half first. So a draw depends only on the key
and on the element's row-major index.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ..spec import Draw
from .blocks import block_of
from .counters import numbers, seed_words

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key in each round
ROUNDS = 10
DRAWS = 8  # of 16 bits, in one block
DOMAIN = 0x494E544E  # "INTN": the counter's last word, so that no other use of a key meets the same blocks

Words = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
Product = Callable[[int, jax.Array], tuple[jax.Array, jax.Array]]


def philox4x32(counter: Words, key: tuple[jax.Array, jax.Array], product: Product) -> Words:
    """The output for a counter and a key, whose words have one dtype and broadcast.

    `product` gives the high and the low word of the product of a constant and a word.
    """
    return rounds(ROUNDS, counter, key, product)[0]


def rounds(
    n: int, counter: Words, key: tuple[jax.Array, jax.Array], product: Product
) -> tuple[Words, tuple[jax.Array, jax.Array]]:
    """The state after n rounds, and the key of the next round."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(n):
        high0, low0 = product(MULTIPLIERS[0], c0)
        high1, low1 = product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ (c1 ^ k0), low1, high0 ^ (c3 ^ k1), low0
        k0, k1 = k0 + jnp.asarray(WEYL[0], k0.dtype), k1 + jnp.asarray(WEYL[1], k1.dtype)
    return (c0, c1, c2, c3), (k0, k1)


def product32(multiplier: int, word: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The product of words in uint32, through uint64; on a GPU it is one instruction.

    Pallas for GPU does not have `lax.mulhi`, and partitioned programs with `lax.mulhi` do not compile.
    """
    with jax.enable_x64(True):
        whole = word.astype(jnp.uint64) * jnp.asarray(multiplier, jnp.uint64)
        return (whole >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32), whole.astype(jnp.uint32)


def product_of_limbs(multiplier: int, word: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The high and the low word of a product, for a TPU, which computes only the low 32 bits of a product.

    XLA for TPU emulates uint64, which takes half as long again.

    Write the multiplier, or 2**32 minus the multiplier, as `h << 16 | l`, and the word as `a << 16 | b`. The high word
    is `h a` plus the carry from `h b + l a + (l b >> 16)`. The low 16 bits of that sum are, up to a sign, the upper
    half of the low word, which is known. So `l b` need not be computed: every number from `l b >> 16` to
    `(l b >> 16) + 65535` gives the same carry, and b is such a number. The sum fits 32 bits because h + l + 1 fits 16.
    """
    negative = (multiplier >> 16) + (multiplier & 0xFFFF) + 1 > 0xFFFF
    h, l = divmod((1 << 32) - multiplier if negative else multiplier, 1 << 16)  # noqa: E741
    upper, low = word >> jnp.uint32(16), word * jnp.uint32(multiplier)
    middle = word * jnp.uint32(h + 1) + upper * jnp.uint32((l - ((h + 1) << 16)) % (1 << 32))
    known = low >> jnp.uint32(16)
    if negative:
        return word - upper * jnp.uint32(h) - ((middle + known) >> jnp.uint32(16)), low
    return upper * jnp.uint32(h) + ((middle - known) >> jnp.uint32(16)), low


def draws(draw: Draw, seed: jax.Array, product: Product = product32, by_axes: bool = False) -> jax.Array:
    """The stream's 16-bit draws for an array, each computed from the element's number alone, so that XLA fuses them.

    XLA for GPU gives each thread four elements, and computes their common block once. The draws are uint32 below 65536
    of (*batch, *draw.shape).

    Example:
        >>> import jax.numpy as jnp
        >>> from intnumerics.kernels import Draw
        >>> [hex(draw) for draw in draws(Draw("philox", (4,)), jnp.array([0, 42, 0, 0], jnp.uint32))]
        ['0x410b', '0x5d3c', '0xf23c', '0x120b']
    """
    (low, high), place = block_of(draw, seed, DRAWS, by_axes)
    k0, k1, _, _ = seed_words(seed, len(draw.shape))
    zero = jnp.zeros_like(k0)
    w0, w1, w2, w3 = philox4x32((low, high, zero, zero + jnp.uint32(DOMAIN)), (k0, k1), product)
    word = jnp.where(place < 4, jnp.where(place < 2, w0, w1), jnp.where(place < 6, w2, w3))
    return word >> ((place & jnp.uint32(1)) << jnp.uint32(4)) & jnp.uint32(0xFFFF)


def draws_on_tpu(draw: Draw, seed: jax.Array) -> jax.Array:
    """`draws` in words of 32 bits, which costs a third less on a TPU, and in a form that XLA can partition."""
    return draws(draw, seed, product_of_limbs, by_axes=len(draw.shape) > 1)


# --- for a CPU, whose vector registers multiply lanes of 64 bits ------------------------------------------------------


def product64(multiplier: int | jax.Array, word: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The product of words in the lower halves of uint64; the upper halves of arguments and results are arbitrary.

    With this, no word moves between lanes of 32 and 64 bits, which would cost as much as the arithmetic.
    """
    whole = (word & jnp.asarray(0xFFFFFFFF, word.dtype)) * jnp.asarray(multiplier, word.dtype)
    return whole >> jnp.asarray(32, word.dtype), whole


def half_of_output(second: jax.Array, counter: Words, key: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The first two words of the output, or the last two where `second` is True, in uint64 as in `product64`.

    Each half of the output comes from one product of the last round, so an element computes only one of the products.
    """
    (c0, c1, c2, c3), (k0, k1) = rounds(ROUNDS - 1, counter, key, product64)
    multiplier = jnp.where(second, jnp.asarray(MULTIPLIERS[0], c0.dtype), jnp.asarray(MULTIPLIERS[1], c0.dtype))
    high, low = product64(multiplier, jnp.where(second, c0, c2))
    return high ^ jnp.where(second, c3 ^ k1, c1 ^ k0), low


def draws_on_cpu(draw: Draw, seed: jax.Array) -> jax.Array:
    """`draws` in the form that is twice as fast on a CPU."""
    with jax.enable_x64(True):

        def word(value: int) -> jax.Array:
            return jnp.asarray(value, jnp.uint64)

        k0, k1, low, high = (w.astype(jnp.uint64) for w in seed_words(seed, len(draw.shape)))
        number = (high << word(32) | low) + numbers(draw, seed.ndim - 1, np.dtype(np.uint64))
        block, place = number >> word(3), number & word(DRAWS - 1)
        zero = jnp.zeros_like(block)
        counter = (block, block >> word(32), zero, zero + word(DOMAIN))
        even, odd = half_of_output(place >= word(4), counter, (k0, k1))
        chosen = jnp.where(place & word(2) == word(0), even, odd)
        return (chosen >> ((place & word(1)) << word(4)) & word(0xFFFF)).astype(jnp.uint32)
