"""Which Philox block serves each element: element i reads half-word i % 8 of block i // 8.

The cheapest form depends on the compiler. XLA for GPU fuses numbers that are counted along the flattened array; XLA for
TPU and XLA's partitioner handle numbers better that are counted along each axis.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ..spec import Draw
from .counters import Pair, plus, seed_words, words_of

DRAWS = 8  # of 16 bits, in one Philox block


def over_8(a: Pair) -> Pair:
    """The number of the block that serves an element, from the number of the element."""
    return a[0] >> jnp.uint32(3) | a[1] << jnp.uint32(29), a[1] >> jnp.uint32(3)


def times_8(block: jax.Array) -> Pair:
    """The number of the first element that a block serves."""
    return block << jnp.uint32(3), block >> jnp.uint32(29)


def steps_of_blocks(draw: Draw) -> bool:
    """Whether 32 bits count the blocks, and every axis steps over whole blocks, or over consecutive numbers."""
    if not draw.spans_at_most(DRAWS << 32):
        return False
    steps = (stride for size, stride in zip(draw.shape, draw.strides, strict=True) if size > 1)
    return draw.aligned and max(draw.shape) <= 1 << 32 and all(step == 1 or step % DRAWS == 0 for step in steps)


def block_by_axes(draw: Draw, batch_rank: int) -> tuple[jax.Array, jax.Array]:
    """`block_of`, from the block of the first element, as a sum over axes; the draw must have `steps_of_blocks`.

    XLA can partition an iota along one axis, but stores an iota along all of them. Counting blocks, 32 bits reach eight
    times as far as counting elements.
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
    """`block_of`, counted from the block of the first element, of a part of an array that `is_in_blocks_of_8`.

    The block is a function of the element's number in the part divided by 8. From this form, but not from a sum over
    axes, XLA for GPU sees that the elements of a thread share a block, and computes the block once.
    """
    number = lax.iota(jnp.uint32, math.prod(draw.shape)).reshape((1,) * batch_rank + draw.shape)
    sizes = (*draw.shape[:-1], draw.shape[-1] // DRAWS)
    strides = (*(stride // DRAWS for stride in draw.strides[:-1]), 1)
    within, inner, passed = number >> jnp.uint32(3), 1, 0
    block = jnp.zeros_like(within)
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size > 1:
            if stride != passed:  # a step along this axis, less all steps along the inner axes
                block = block + within // jnp.uint32(inner) * jnp.uint32((stride - passed) % (1 << 32))
            inner, passed = inner * size, stride * size
    return block, number & jnp.uint32(DRAWS - 1)


def block_of(draw: Draw, seed: jax.Array, by_axes: bool = False) -> tuple[Pair, jax.Array]:
    """Where each element's bits come from, in uint32: the number of the Philox block, and the half-word in the block.

    If the draw allows it, `by_axes` counts along each axis, instead of along the flattened array.
    """
    _, _, low, high = seed_words(seed, len(draw.shape))
    # The seed's words enter the sum unchanged: XLA for GPU would compute anything from them alone in an extra kernel.
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
