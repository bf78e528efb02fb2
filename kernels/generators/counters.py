"""The numbers of elements and of the Philox blocks that serve them, in forms that XLA makes no array of.

Which form is cheap depends on the compiler: XLA for GPU fuses what is counted along the flattened array, XLA for TPU,
and a partitioner, what is counted along axes; a GPU counts in 64 bits at a price, and a TPU has none.

Where a size is a symbol (see `spec.is_static`), elements are counted along axes in 64 bits, which is right for every
size.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..spec import Draw, is_static

DRAWS = 8  # of 16 bits in a block

Pair = tuple[jax.Array, jax.Array]  # the low and the high word of a number of 64 bits


def seed_words(seed: jax.Array, rank: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The four words of each seed, uint32, shaped for a sum with arrays of `rank` axes after the batch axes."""
    k0, k1, low, high = (seed[..., i].reshape(seed.shape[:-1] + (1,) * rank) for i in range(4))
    return k0, k1, low, high


def product(sizes: Sequence[int], dtype: np.dtype) -> jax.Array:
    """The product of sizes, some of which may be symbols; JAX has a symbol in 32 bits, and so their product."""
    if is_static(sizes):
        return jnp.asarray(np.asarray(math.prod(sizes), dtype))
    number = jnp.asarray(1, dtype)
    for size in sizes:
        number = number * jnp.asarray(size).astype(dtype)
    return number


def axes_of(draw: Draw) -> list[int]:
    """The axes along which the numbers of a draw grow."""
    return [axis for axis, size in enumerate(draw.shape) if size not in (0, 1)]


def numbers(draw: Draw, batch_rank: int, dtype: np.dtype) -> jax.Array:
    """Each element's number after that of the first, with as many axes of 1 before as the batch has."""
    with jax.enable_x64(True):
        if draw.is_contiguous and draw.is_static:
            number = lax.iota(dtype, math.prod(draw.shape)).reshape(draw.shape)
        else:
            number = jnp.zeros(draw.shape, dtype)
            for axis in axes_of(draw):
                index = lax.broadcasted_iota(dtype, draw.shape, axis)
                number = number + index * product(draw.sizes_within(axis), dtype)
        return number.reshape((1,) * batch_rank + draw.shape)


def words_of(draw: Draw, batch_rank: int) -> Pair:
    """`numbers` in two words, uint32; a GPU counts in 64 bits at a price, so only where 32 do not reach."""
    if draw.spans_at_most(1 << 32):
        return numbers(draw, batch_rank, np.dtype(np.uint32)), jnp.uint32(0)
    number = jnp.zeros(draw.shape, jnp.uint32), jnp.zeros(draw.shape, jnp.uint32)
    for axis in axes_of(draw):  # along one axis in 64 bits, of which XLA for TPU makes arrays, and then in words
        low, high = (lax.broadcast_in_dim(word, draw.shape, (axis,)) for word in words_along(draw, axis))
        number = plus(number, (low, high))
    low, high = (word.reshape((1,) * batch_rank + draw.shape) for word in number)
    return low, high


def words_along(draw: Draw, axis: int) -> Pair:
    """The multiples of the stride along an axis, in two words."""
    with jax.enable_x64(True):
        number = lax.iota(jnp.uint64, draw.shape[axis]) * product(draw.sizes_within(axis), np.dtype(np.uint64))
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
    if not draw.spans_at_most(DRAWS << 32):
        return False
    steps = (stride for size, stride in zip(draw.shape, draw.strides, strict=True) if size > 1)
    return draw.aligned and max(draw.shape) <= 1 << 32 and all(step == 1 or step % DRAWS == 0 for step in steps)


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

    Both depend on the element's number in the part, eight of which share a block: so XLA for GPU sees that a thread's
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
    in_blocks = draw.is_in_blocks_of_8 and not draw.is_contiguous and draw.spans_at_most((DRAWS << 32) + DRAWS - 1)
    if in_blocks and math.prod(draw.shape) <= 1 << 32:
        block, place = block_in_part(draw, seed.ndim - 1)
        return over_8(plus((low, high), times_8(block))), place
    number = words_of(draw, seed.ndim - 1)
    if draw.aligned:  # written so, XLA sees which elements share a block
        first = number[0] & jnp.uint32(2**32 - DRAWS), number[1]
        return over_8(plus((low, high), first)), number[0] & jnp.uint32(DRAWS - 1)
    number = plus((low, high), number)
    return over_8(number), number[0] & jnp.uint32(DRAWS - 1)
