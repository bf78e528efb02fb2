"""Which block of a generator serves each element: element i has the draw i % size of block i // size.

The size is a power of 2. The cheapest form depends on the compiler. XLA for GPU fuses numbers that are counted along
the flattened array; XLA for TPU and XLA's partitioner handle numbers better that are counted along each axis.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ..spec import Draw
from .counters import Pair, plus, seed_words, words_of


def over(a: Pair, size: int) -> Pair:
    """The number of the block that serves an element, from the number of the element."""
    shift = _log2(size)
    return a[0] >> jnp.uint32(shift) | a[1] << jnp.uint32(32 - shift), a[1] >> jnp.uint32(shift)


def times(block: jax.Array, size: int) -> Pair:
    """The number of the first element that a block serves."""
    shift = _log2(size)
    return block << jnp.uint32(shift), block >> jnp.uint32(32 - shift)


def place_of(number: jax.Array, size: int) -> jax.Array:
    """Which of the draws of its block an element has, from the low word of its number."""
    return number & jnp.uint32(size - 1)


def steps_of_blocks(draw: Draw, size: int) -> bool:
    """Whether 32 bits count the blocks, and every axis steps over whole blocks, or over consecutive numbers."""
    if not draw.spans_at_most(size << 32):
        return False
    steps = (stride for n, stride in zip(draw.shape, draw.strides, strict=True) if n > 1)
    return draw.aligned and max(draw.shape) <= 1 << 32 and all(step == 1 or step % size == 0 for step in steps)


def block_by_axes(draw: Draw, batch_rank: int, size: int) -> tuple[jax.Array, jax.Array]:
    """`block_of`, from the block of the first element, as a sum over axes; the draw must have `steps_of_blocks`.

    XLA can partition an iota along one axis, but stores an iota along all of them. Counting blocks, 32 bits reach
    farther than counting elements.
    """
    block = place = jnp.zeros(draw.shape, jnp.uint32)
    for axis, (n, stride) in enumerate(zip(draw.shape, draw.strides, strict=True)):
        index = lax.broadcasted_iota(jnp.uint32, draw.shape, axis)
        if n > 1 and stride == 1:
            block, place = block + (index >> jnp.uint32(_log2(size))), place_of(index, size)
        elif n > 1:
            block = block + index * jnp.uint32(stride // size)
    shape = (1,) * batch_rank + draw.shape
    return block.reshape(shape), place.reshape(shape)


def block_in_part(draw: Draw, batch_rank: int, size: int) -> tuple[jax.Array, jax.Array]:
    """`block_of`, counted from the block of the first element, of a part of an array that `is_in_blocks_of_8`.

    The block is a function of the element's number in the part divided by the size. From this form, but not from a sum
    over axes, XLA for GPU sees that the elements of a thread share a block, and computes the block once.
    """
    number = lax.iota(jnp.uint32, math.prod(draw.shape)).reshape((1,) * batch_rank + draw.shape)
    sizes = (*draw.shape[:-1], draw.shape[-1] // size)
    strides = (*(stride // size for stride in draw.strides[:-1]), 1)
    within, inner, passed = number >> jnp.uint32(_log2(size)), 1, 0
    block = jnp.zeros_like(within)
    for n, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if n > 1:
            if stride != passed:  # a step along this axis, less all steps along the inner axes
                block = block + within // jnp.uint32(inner) * jnp.uint32((stride - passed) % (1 << 32))
            inner, passed = inner * n, stride * n
    return block, place_of(number, size)


def block_in_draw(draw: Draw, batch_rank: int, size: int, by_axes: bool = False) -> tuple[jax.Array, jax.Array] | None:
    """`block_of`, counted from the block of the first element in 32 bits; None if it is not to be counted so.

    If the draw allows it, `by_axes` counts along each axis, instead of along the flattened array.
    """
    if by_axes and steps_of_blocks(draw, size):
        return block_by_axes(draw, batch_rank, size)
    in_blocks = draw.is_in_blocks_of_8 and not draw.is_contiguous and draw.spans_at_most((size << 32) + size - 1)
    if in_blocks and math.prod(draw.shape) <= 1 << 32:
        return block_in_part(draw, batch_rank, size)
    return None


def block_of(draw: Draw, seed: jax.Array, size: int, by_axes: bool = False) -> tuple[Pair, jax.Array]:
    """Where each element's bits come from, in uint32: the number of the block, and the draw in the block.

    `by_axes` is that of `block_in_draw`.
    """
    _, _, low, high = seed_words(seed, len(draw.shape))
    # The seed's words enter the sum unchanged: XLA for GPU would compute anything from them alone in an extra kernel.
    found = block_in_draw(draw, seed.ndim - 1, size, by_axes)
    if found is not None:
        block, place = found
        return over(plus((low, high), times(block, size)), size), place
    number = words_of(draw, seed.ndim - 1)
    if draw.aligned:  # written so, XLA sees which elements share a block
        first = number[0] & jnp.uint32(2**32 - size), number[1]
        return over(plus((low, high), first), size), place_of(number[0], size)
    number = plus((low, high), number)
    return over(number, size), place_of(number[0], size)


def _log2(size: int) -> int:
    return size.bit_length() - 1
