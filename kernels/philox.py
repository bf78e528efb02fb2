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
import numpy as np
from jax import lax

from .spec import Draw

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # by which the key grows each round
ROUNDS = 10
DOMAIN = 0x494E544E  # "INTN": the counter's last word, so that no other use of a key meets the same blocks
DRAWS = 8  # of 16 bits in a block

Words = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
Product = Callable[[int, jax.Array], tuple[jax.Array, jax.Array]]


def philox4x32(counter: Words, key: tuple[jax.Array, jax.Array], product: Product) -> Words:
    """The output for a counter and a key, of one shape and dtype.

    Args:
        counter: Four words.
        key: Two words.
        product: Gives the high and the low word of the product of a constant and a word.
    """
    return rounds(ROUNDS, counter, key, product)[0]


def rounds(
    n: int, counter: Words, key: tuple[jax.Array, jax.Array], product: Product
) -> tuple[Words, tuple[jax.Array, jax.Array]]:
    """The state after n rounds, and the key of the round after them."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(n):
        high0, low0 = product(MULTIPLIERS[0], c0)
        high1, low1 = product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ (c1 ^ k0), low1, high0 ^ (c3 ^ k1), low0
        k0, k1 = k0 + jnp.asarray(WEYL[0], k0.dtype), k1 + jnp.asarray(WEYL[1], k1.dtype)
    return (c0, c1, c2, c3), (k0, k1)


def product32(multiplier: int, word: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The product of words in uint32, by way of uint64, which a GPU multiplies in one instruction.

    `lax.mulhi` is not in Pallas for GPU, and does not compile in partitioned programs.
    """
    with jax.enable_x64(True):
        whole = word.astype(jnp.uint64) * jnp.asarray(multiplier, jnp.uint64)
        return (whole >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32), whole.astype(jnp.uint32)


def product_of_limbs(multiplier: int, word: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The high and the low word of a product; a TPU multiplies 32 bits and keeps the low ones.

    XLA emulates uint64 there, which takes half as long again.

    With the multiplier, or 2**32 less it, as `h << 16 | l`, and the word as `a << 16 | b`, the high word is h a and the
    carry from `h b + l a + (l b >> 16)`, whose low 16 bits are, up to a sign, the upper half of the low word. So `l b`
    is never computed: what is at least `l b >> 16`, and at most 65535 more, gives the same carry, and b is such a
    number. The sum fits 32 bits because h + l + 1 fits 16.
    """
    negative = (multiplier >> 16) + (multiplier & 0xFFFF) + 1 > 0xFFFF
    h, l = divmod((1 << 32) - multiplier if negative else multiplier, 1 << 16)  # noqa: E741
    upper, low = word >> jnp.uint32(16), word * jnp.uint32(multiplier)
    middle = word * jnp.uint32(h + 1) + upper * jnp.uint32((l - ((h + 1) << 16)) % (1 << 32))
    known = low >> jnp.uint32(16)
    if negative:
        return word - upper * jnp.uint32(h) - ((middle + known) >> jnp.uint32(16)), low
    return upper * jnp.uint32(h) + ((middle - known) >> jnp.uint32(16)), low


def seed_words(seed: jax.Array, rank: int) -> Words:
    """The four words of each seed, uint32, shaped for a sum with arrays of `rank` axes after the batch axes."""
    k0, k1, low, high = (seed[..., i].reshape(seed.shape[:-1] + (1,) * rank) for i in range(4))
    return k0, k1, low, high


def numbers(draw: Draw, batch_rank: int, dtype: np.dtype) -> jax.Array:
    """Each element's number after that of the first, with as many axes of 1 before as the batch has."""
    with jax.enable_x64(True):
        if draw.is_contiguous:
            number = lax.iota(dtype, math.prod(draw.shape)).reshape(draw.shape)
        else:
            number = jnp.zeros(draw.shape, dtype)
            for axis, stride in enumerate(draw.strides):
                if draw.shape[axis] > 1:
                    number = number + lax.broadcasted_iota(dtype, draw.shape, axis) * jnp.asarray(stride, dtype)
        return number.reshape((1,) * batch_rank + draw.shape)


Pair = tuple[jax.Array, jax.Array]  # the low and the high word of a number of 64 bits


def words_of(draw: Draw, batch_rank: int) -> Pair:
    """`numbers` in two words, uint32; a GPU counts in 64 bits at a price, so only where 32 do not reach."""
    if draw.span <= 1 << 32:
        return numbers(draw, batch_rank, np.dtype(np.uint32)), jnp.uint32(0)
    number = jnp.zeros(draw.shape, jnp.uint32), jnp.zeros(draw.shape, jnp.uint32)
    for axis, (size, stride) in enumerate(zip(draw.shape, draw.strides, strict=True)):
        if size > 1:  # along one axis in 64 bits, of which XLA for TPU makes arrays, and then in words
            low, high = (lax.broadcast_in_dim(word, draw.shape, (axis,)) for word in words_along(size, stride))
            number = plus(number, (low, high))
    low, high = (word.reshape((1,) * batch_rank + draw.shape) for word in number)
    return low, high


def words_along(size: int, stride: int) -> Pair:
    """The multiples of a stride, in two words."""
    with jax.enable_x64(True):
        number = lax.iota(jnp.uint64, size) * jnp.asarray(stride, jnp.uint64)
        return number.astype(jnp.uint32), (number >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32)


def plus(a: Pair, b: Pair) -> Pair:
    """The sum."""
    low = a[0] + b[0]
    return low, a[1] + b[1] + (low < a[0]).astype(jnp.uint32)


def over_8(a: Pair) -> Pair:
    """The quotient by the elements that a block serves."""
    return a[0] >> jnp.uint32(3) | a[1] << jnp.uint32(29), a[1] >> jnp.uint32(3)


def times_8(block: jax.Array) -> Pair:
    """The number of the first element that a block serves."""
    return block << jnp.uint32(3), block >> jnp.uint32(29)


def steps_of_blocks(draw: Draw) -> bool:
    """Whether all axes step over whole blocks but one, along which elements follow one another; 32 bits count those."""
    steps = (stride for size, stride in zip(draw.shape, draw.strides, strict=True) if size > 1)
    counted = draw.span <= DRAWS << 32 and max(draw.shape) <= 1 << 32
    return draw.aligned and counted and all(step == 1 or step % DRAWS == 0 for step in steps)


def block_by_axes(draw: Draw, batch_rank: int) -> tuple[jax.Array, jax.Array]:
    """`block_of`, from the block of the first element on, as sums over axes, of a draw with `steps_of_blocks`.

    XLA partitions an iota along an axis, and makes an array of one along all of them; and 32 bits reach eight times as
    far.
    """
    block = place = jnp.zeros(draw.shape, jnp.uint32)
    for axis, (size, stride) in enumerate(zip(draw.shape, draw.strides, strict=True)):
        index = lax.broadcasted_iota(jnp.uint32, draw.shape, axis)
        if size > 1 and stride == 1:
            block, place = block + (index >> jnp.uint32(3)), index & jnp.uint32(DRAWS - 1)
        elif size > 1:
            block = block + index * jnp.uint32(stride // DRAWS)
    shape = (1,) * batch_rank + draw.shape
    return block.reshape(shape), place.reshape(shape)


def block_in_part(draw: Draw, batch_rank: int) -> tuple[jax.Array, jax.Array]:
    """`block_of`, from the block of the first element on, of a part that `is_in_blocks_of_8`.

    Both hang on the element's number in the part, eight of which share a block: so XLA for GPU sees that a thread's
    elements do, as it does not in sums over axes.
    """
    number = lax.iota(jnp.uint32, math.prod(draw.shape)).reshape((1,) * batch_rank + draw.shape)
    sizes = (*draw.shape[:-1], draw.shape[-1] // DRAWS)
    strides = (*(stride // DRAWS for stride in draw.strides[:-1]), 1)
    within, inner, passed = number >> jnp.uint32(3), 1, 0
    block = jnp.zeros_like(within)
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size > 1:
            if stride != passed:  # by so much a step along this axis is more than all steps along the axes within it
                block = block + within // jnp.uint32(inner) * jnp.uint32((stride - passed) % (1 << 32))
            inner, passed = inner * size, stride * size
    return block, number & jnp.uint32(DRAWS - 1)


def block_of(draw: Draw, seed: jax.Array, by_axes: bool = False) -> tuple[Pair, jax.Array]:
    """Where each element's bits come from, in uint32: the number of the Philox block, and the index in it.

    Args:
        draw: Which elements there are.
        seed: uint32 (*batch, 4), as `spec.Draw` describes.
        by_axes: Whether to count along axes, where it can be done, and not along the flattened array.
    """
    _, _, low, high = seed_words(seed, len(draw.shape))
    # A sum of 64 bits, of the seed's words as they are: of work on them alone XLA for GPU makes a kernel of its own.
    if by_axes and steps_of_blocks(draw):
        block, place = block_by_axes(draw, seed.ndim - 1)
        return over_8(plus((low, high), times_8(block))), place
    if draw.is_in_blocks_of_8 and not draw.is_contiguous and max(draw.span >> 3, math.prod(draw.shape)) <= 1 << 32:
        block, place = block_in_part(draw, seed.ndim - 1)
        return over_8(plus((low, high), times_8(block))), place
    number = words_of(draw, seed.ndim - 1)
    if draw.aligned:  # written so, XLA sees which elements share a block
        first = number[0] & jnp.uint32(2**32 - DRAWS), number[1]
        return over_8(plus((low, high), first)), number[0] & jnp.uint32(DRAWS - 1)
    number = plus((low, high), number)
    return over_8(number), number[0] & jnp.uint32(DRAWS - 1)


def draws(draw: Draw, seed: jax.Array, product: Product = product32, by_axes: bool = False) -> jax.Array:
    """The stream's 16-bit draws for an array, a function of each element alone, so that XLA fuses it.

    XLA for GPU gives a thread four elements, whose common block it computes once.

    Args:
        draw: Which elements there are.
        seed: uint32 (*batch, 4), as `spec.Draw` describes.
        product: As `philox4x32` takes it.
        by_axes: As `block_of` takes it.

    Returns:
        uint32 of (*batch, *draw.shape), from 0 to 65535.

    Example:
        >>> import jax.numpy as jnp
        >>> from intnumerics.kernels import Draw
        >>> [hex(draw) for draw in draws(Draw("philox", (4,)), jnp.array([0, 42, 0, 0], jnp.uint32))]
        ['0x410b', '0x5d3c', '0xf23c', '0x120b']
    """
    (low, high), place = block_of(draw, seed, by_axes)
    k0, k1, _, _ = seed_words(seed, len(draw.shape))
    zero = jnp.zeros_like(k0)
    w0, w1, w2, w3 = philox4x32((low, high, zero, zero + jnp.uint32(DOMAIN)), (k0, k1), product)
    word = jnp.where(place < 4, jnp.where(place < 2, w0, w1), jnp.where(place < 6, w2, w3))
    return word >> ((place & jnp.uint32(1)) << jnp.uint32(4)) & jnp.uint32(0xFFFF)


def draws_on_tpu(draw: Draw, seed: jax.Array) -> jax.Array:
    """`draws` in words of 32 bits, a third cheaper on a TPU, and so that XLA can partition them."""
    return draws(draw, seed, product_of_limbs, by_axes=len(draw.shape) > 1)


# --- for a CPU, whose vector registers multiply lanes of 64 bits ------------------------------------------------------


def product64(multiplier: int | jax.Array, word: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The product of words in uint64, whose upper halves mean nothing: they are cut off where it matters.

    So no word is ever moved between lanes of 32 and of 64 bits, which would cost as much again as the arithmetic.
    """
    whole = (word & jnp.asarray(0xFFFFFFFF, word.dtype)) * jnp.asarray(multiplier, word.dtype)
    return whole >> jnp.asarray(32, word.dtype), whole


def half_of_output(second: jax.Array, counter: Words, key: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The first two words of the output, or where `second` the last two, in uint64 as `product64` takes them.

    The last round makes either half of one product, so the half that an element does not read costs nothing there.
    """
    (c0, c1, c2, c3), (k0, k1) = rounds(ROUNDS - 1, counter, key, product64)
    multiplier = jnp.where(second, jnp.asarray(MULTIPLIERS[0], c0.dtype), jnp.asarray(MULTIPLIERS[1], c0.dtype))
    high, low = product64(multiplier, jnp.where(second, c0, c2))
    return high ^ jnp.where(second, c3 ^ k1, c1 ^ k0), low


def draws_on_cpu(draw: Draw, seed: jax.Array) -> jax.Array:
    """`draws`, twice as fast on a CPU."""
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
