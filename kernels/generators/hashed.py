"""A keyed hash of 32 bits for each two elements, which are 16 random bits for each of them.

Block b of the stream is one word. It serves elements 2 b and 2 b + 1, low half first. The low word of b is hashed with
two subkeys, the first two words of Philox4x32-10 for the counter (high word of b, 0, 0, `DOMAIN`) and the two words of
the key. So up to 2**33 elements share one pair of subkeys, and nothing of 64 bits is computed for an element.

The hash is triple32, a permutation of 32 bits, with a subkey added before and another one within. The exclusive or
with its input at the end makes it a function whose words repeat as random ones do. What was tested of it is in
`tools/results`; nothing is claimed beyond that.

Source: triple32 and its multipliers are from C. Wellons' hash-prospector; the composition is this package's own.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..spec import Draw
from . import counters
from .blocks import block_by_axes, block_in_draw, over, place_of, steps_of_blocks
from .counters import numbers, plus, seed_words, words_of
from .noise import from_upper_half
from .philox import philox4x32, product_of_limbs
from .shifts import product_on_tpu

MULTIPLIERS = (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB)
SHIFTS = (17, 11, 15, 14)
DOMAIN = 0x494E5448  # "INTH": the last word of the counter, so that no other use of a key meets the same subkeys
DRAWS = 2  # of 16 bits, in one block
SERVED = DRAWS << 32  # elements that share a pair of subkeys
FEW = 16  # pairs of subkeys that an element selects from; for a part that spans more, it computes its own

Pair = tuple[jax.Array, jax.Array]
LowProduct = Callable[[int, jax.Array], jax.Array]


def low_product(multiplier: int, word: jax.Array) -> jax.Array:
    """The low word of a product."""
    return word * jnp.uint32(multiplier)


def subkeys(key: Pair, high: jax.Array) -> Pair:
    """The two subkeys, uint32, for the two words of a key and the high word of block numbers, which broadcast."""
    zero = jnp.zeros_like(high)
    a, b, _, _ = philox4x32((high, zero, zero, zero + jnp.uint32(DOMAIN)), key, product_of_limbs)
    return a, b


def word(low: jax.Array, a: jax.Array, b: jax.Array, times: LowProduct = low_product) -> jax.Array:
    """The word of each block, uint32, from the low words of their numbers and the subkeys for their high words."""
    w = low ^ a
    x = times(MULTIPLIERS[0], w ^ w >> jnp.uint32(SHIFTS[0]))
    x = times(MULTIPLIERS[1], x ^ x >> jnp.uint32(SHIFTS[1]) ^ b)
    x = times(MULTIPLIERS[2], x ^ x >> jnp.uint32(SHIFTS[2]))
    return x ^ x >> jnp.uint32(SHIFTS[3]) ^ w


def is_of_one_pair(draw: Draw) -> bool:
    """Whether the whole array is so small that all elements share one pair of subkeys."""
    return draw.whole_has_at_most(SERVED)


def is_of_two_pairs(draw: Draw) -> bool:
    """Whether `schedule` has the subkeys of all elements; from an odd number on, a kernel uses one more block."""
    return draw.spans_at_most(SERVED - (not draw.aligned))


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
    return _half(word(low, a, b), place)


def draws_on_cuda(draw: Draw, seed: jax.Array) -> jax.Array:
    """`draws`, for which XLA computes what elements share in one small kernel, and a thread loads it from one array."""
    if not is_of_one_pair(draw) or not draw.spans_at_most((1 << 32) - 1):
        return draws(draw, seed)
    rank = len(draw.shape)
    words = schedule(seed)
    known = lax.optimization_barrier(jnp.concatenate([words[..., :2], words[..., 4:]], axis=-1))
    a, b, first, parity = seed_words(known, rank)
    found = block_in_draw(draw, seed.ndim - 1, DRAWS)
    if found is None:
        number = numbers(draw, seed.ndim - 1, np.dtype(np.uint32))
        number = number if draw.aligned else parity + number
        found = number >> jnp.uint32(1), place_of(number, DRAWS)
    block, place = found
    return _half(word(first + block, a, b), place)


def draws_on_tpu(draw: Draw, seed: jax.Array) -> jax.Array:
    """`draws` in a form that XLA for TPU does not store, and that XLA can partition."""
    return _half(*_words_on_tpu(draw, seed))


def noise_on_tpu(draw: Draw, seed: jax.Array) -> jax.Array:
    """The noise of `draws_on_tpu`."""
    words, place = _words_on_tpu(draw, seed)
    return from_upper_half(words << ((place ^ jnp.uint32(1)) << jnp.uint32(4)))


def _words_on_tpu(draw: Draw, seed: jax.Array) -> Pair:
    """The word of each element's block, and which of its draws the element has."""
    low, high, place = _block_of(draw, seed, by_axes=len(draw.shape) > 1)
    if is_of_one_pair(draw):
        k0, k1, _, last = seed_words(seed, len(draw.shape))
        a, b = (subkey[..., 0] for subkey in _several((k0, k1), last >> jnp.uint32(1), 2))  # vectors, as it needs them
    else:
        a, b = _subkeys_of(draw, seed, high)
    return word(low, a, b, product_on_tpu), place


def schedule(seed: jax.Array) -> jax.Array:
    """What a kernel takes in place of a seed, of (*batch, 6): nothing that all of its blocks would compute alike.

    The words are the subkeys of the block of the first element, those of the next high word, to which a carry leads,
    the low word of the number of the first element's block, and which of its two draws the first element has.
    """
    first = over((seed[..., 2:3], seed[..., 3:]), DRAWS)
    i = lax.broadcasted_iota(jnp.uint32, (1,) * (seed.ndim - 1) + (6,), seed.ndim - 1)
    a, b = subkeys((seed[..., :1], seed[..., 1:2]), first[1] + (i >> jnp.uint32(1) & jnp.uint32(1)))
    others = jnp.where(i == jnp.uint32(4), first[0], place_of(seed[..., 2:3], DRAWS))
    return jnp.where(i < jnp.uint32(4), jnp.where(i & jnp.uint32(1) == jnp.uint32(0), a, b), others)


def _half(word: jax.Array, place: jax.Array) -> jax.Array:
    return word >> (place << jnp.uint32(4)) & jnp.uint32(0xFFFF)


def _block_of(draw: Draw, seed: jax.Array, by_axes: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The low and the high word of the number of each element's block, and which of its draws the element has."""
    _, _, low, high = seed_words(seed, len(draw.shape))
    rank, first = seed.ndim - 1, over((low, high), DRAWS)
    if by_axes and is_of_one_pair(draw) and steps_of_blocks(draw, DRAWS):
        block, place = block_by_axes(draw, rank, DRAWS, first[0])
        return block, first[1], place
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
        few = counters.product(draw.whole, np.dtype(np.uint64)) <= jnp.asarray(SERVED, jnp.uint64)
    alike = [jnp.broadcast_to(subkey, high.shape) for subkey in subkeys((k0, k1), least)]
    a, b = lax.cond(few, lambda: tuple(alike), lambda: subkeys((k0, k1), high))
    return a, b


def _several(key: Pair, least: jax.Array, count: int) -> Pair:
    """The subkeys for `count` high words from `least` on, along the last axis.

    XLA for TPU makes a program of each operation on a single number, and one fusion of those on vectors, except if it
    sees that these repeat a number. XLA for CPU copies this arithmetic into the loop over the elements, and takes
    minutes for it, except if a barrier follows.
    """
    steps = lax.broadcasted_iota(jnp.uint32, (1,) * least.ndim + (count,), least.ndim)
    words = *(word[..., None] for word in key), least[..., None] + steps
    k0, k1, high = lax.optimization_barrier(jnp.broadcast_arrays(*words))
    return lax.optimization_barrier(subkeys((k0, k1), high))


def _one_of_several(key: Pair, least: jax.Array, high: jax.Array, count: int) -> Pair:
    """The subkeys for high words, each one of `count` numbers from `least` on."""
    every = _several(key, least, count)
    found = [subkey[..., 0] for subkey in every]
    for step in range(1, count):
        is_next = high == least + jnp.uint32(step)
        found = [jnp.where(is_next, subkey[..., step], old) for subkey, old in zip(every, found, strict=True)]
    a, b = found
    return a, b
