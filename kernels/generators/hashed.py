"""A keyed hash of 32 bits for each two elements: 16 random bits per element for less than a Philox round costs.

Block b of the stream is one word. It serves elements 2 b and 2 b + 1, low half first. The low word of b is hashed with
two subkeys, the first two words of Philox4x32-10 for the counter (high word of b, 0, 0, `DOMAIN`) and the two words of
the key. So up to 2**33 elements share one pair of subkeys, and nothing of 64 bits is computed for an element.

The hash is triple32, a permutation of 32 bits, with a subkey added before and another one within. The exclusive or
with its input at the end makes it a function whose words repeat as random ones do. What was tested of it is in
`tools/results`; nothing is claimed beyond that.

Source: triple32 and its multipliers are from C. Wellons' hash-prospector; the composition is this package's own.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..spec import Draw
from .blocks import block_in_draw, over, place_of
from .counters import numbers, plus, product, seed_words, words_of
from .philox import philox4x32, product_of_limbs

MULTIPLIERS = (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB)
SHIFTS = (17, 11, 15, 14)
DOMAIN = 0x494E5448  # "INTH": the last word of the counter, so that no other use of a key meets the same subkeys
DRAWS = 2  # of 16 bits, in one block
SERVED = DRAWS << 32  # elements that share a pair of subkeys
FEW = 16  # pairs of subkeys that an element selects from; for a part that spans more, it computes its own

Pair = tuple[jax.Array, jax.Array]


def subkeys(key: Pair, high: jax.Array) -> Pair:
    """The two subkeys, uint32, for the two words of a key and the high word of block numbers, which broadcast."""
    zero = jnp.zeros_like(high)
    a, b, _, _ = philox4x32((high, zero, zero, zero + jnp.uint32(DOMAIN)), key, product_of_limbs)
    return a, b


def word(low: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """The word of each block, uint32, from the low words of their numbers and the subkeys for their high words."""
    w = low ^ a
    x = (w ^ w >> jnp.uint32(SHIFTS[0])) * jnp.uint32(MULTIPLIERS[0])
    x = (x ^ x >> jnp.uint32(SHIFTS[1]) ^ b) * jnp.uint32(MULTIPLIERS[1])
    x = (x ^ x >> jnp.uint32(SHIFTS[2])) * jnp.uint32(MULTIPLIERS[2])
    return x ^ x >> jnp.uint32(SHIFTS[3]) ^ w


def is_of_one_pair(draw: Draw) -> bool:
    """Whether the whole array is so small that all elements share one pair of subkeys."""
    return draw.whole_has_at_most(SERVED)


def draws(draw: Draw, seed: jax.Array, by_axes: bool = False) -> jax.Array:
    """The stream's 16-bit draws for an array, each computed from the element's number alone, so that XLA fuses them.

    XLA for GPU gives each thread four elements, and computes the word that two of them share once. The draws are uint32
    below 65536 of (*batch, *draw.shape).

    Example:
        >>> import jax.numpy as jnp
        >>> from intnumerics.kernels import Draw
        >>> [hex(draw) for draw in draws(Draw("hash", (4,)), jnp.array([0, 42, 0, 0], jnp.uint32))]
        ['0x7b9f', '0xf8d6', '0x3961', '0xc51b']
    """
    low, high, place = _block_of(draw, seed, by_axes)
    a, b = _subkeys_of(draw, seed, high)
    return word(low, a, b) >> (place << jnp.uint32(4)) & jnp.uint32(0xFFFF)


def draws_on_tpu(draw: Draw, seed: jax.Array) -> jax.Array:
    """`draws` in a form that XLA for TPU does not store, and that XLA can partition."""
    return draws(draw, seed, by_axes=len(draw.shape) > 1)


def schedule(seed: jax.Array) -> jax.Array:
    """What a kernel takes in place of a seed, of (*batch, 6): nothing that all of its blocks would compute alike.

    The words are the subkeys of the block of the first element, those of the next high word, to which a carry leads,
    the low word of the number of the first element's block, and which of its two draws the first element has.
    """
    first = over((seed[..., 2], seed[..., 3]), DRAWS)
    key = seed[..., 0], seed[..., 1]
    now, carried = subkeys(key, first[1]), subkeys(key, first[1] + jnp.uint32(1))
    return jnp.stack([*now, *carried, first[0], place_of(seed[..., 2], DRAWS)], axis=-1)


def _block_of(draw: Draw, seed: jax.Array, by_axes: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The low and the high word of the number of each element's block, and which of its draws the element has."""
    _, _, low, high = seed_words(seed, len(draw.shape))
    rank, first = seed.ndim - 1, over((low, high), DRAWS)
    found = block_in_draw(draw, rank, DRAWS, by_axes)
    if found is None and draw.aligned and draw.spans_at_most(1 << 32):
        number = numbers(draw, rank, np.dtype(np.uint32))
        found = number >> jnp.uint32(1), place_of(number, DRAWS)
    if found is None and draw.whole_has_at_most(1 << 32):
        number = low + numbers(draw, rank, np.dtype(np.uint32))
        return number >> jnp.uint32(1), first[1], place_of(number, DRAWS)
    if found is None:
        number = plus((low, high), words_of(draw, rank))
        return *over(number, DRAWS), place_of(number[0], DRAWS)
    block, place = found
    return *plus(first, (block, jnp.zeros_like(block))), place


def _subkeys_of(draw: Draw, seed: jax.Array, high: jax.Array) -> Pair:
    """The subkeys for the high word of the number of each element's block."""
    k0, k1, _, last = seed_words(seed, len(draw.shape))
    least = last >> jnp.uint32(1)  # the high word of the first element's block
    if is_of_one_pair(draw):
        return subkeys((k0, k1), least)
    if draw.is_static:
        count = 1 + -(-draw.span // SERVED)
        return _one_of_several((k0, k1), least, high, count) if count <= FEW else subkeys((k0, k1), high)
    with jax.enable_x64(True):
        few = product(draw.whole, np.dtype(np.uint64)) <= jnp.asarray(SERVED, jnp.uint64)
    alike = [jnp.broadcast_to(subkey, high.shape) for subkey in subkeys((k0, k1), least)]
    a, b = lax.cond(few, lambda: tuple(alike), lambda: subkeys((k0, k1), high))
    return a, b


def _one_of_several(key: Pair, least: jax.Array, high: jax.Array, count: int) -> Pair:
    """The subkeys for high words, each one of `count` numbers from `least` on."""
    numbers = least[..., None] + jnp.arange(count, dtype=jnp.uint32)
    # Without the barrier XLA for CPU copies this arithmetic into the loop over the elements, and takes minutes for it.
    every = lax.optimization_barrier(subkeys((key[0][..., None], key[1][..., None]), numbers))
    found = [subkey[..., 0] for subkey in every]
    for step in range(1, count):
        is_next = high == numbers[..., step]
        found = [jnp.where(is_next, subkey[..., step], old) for subkey, old in zip(every, found, strict=True)]
    a, b = found
    return a, b
