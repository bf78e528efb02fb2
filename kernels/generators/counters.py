"""The numbers of elements, by which every generator counts, in forms that XLA fuses and never stores as an array.

An element's number is its row-major index in the whole array; `spec.Draw` says which elements are drawn for. Numbers
have 64 bits. A GPU pays for arithmetic in 64 bits, and a TPU does not have it, so most functions here return the two
words of 32 bits.

If a size is a symbol (see `spec.is_static`), elements are counted along each axis in 64 bits, which is right for every
size.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..spec import Draw, is_static

Pair = tuple[jax.Array, jax.Array]  # the low and the high word of a number of 64 bits


def seed_words(seed: jax.Array, rank: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The four words of each seed, uint32, with `rank` axes of size 1 after the batch axes."""
    k0, k1, low, high = (seed[..., i].reshape(seed.shape[:-1] + (1,) * rank) for i in range(4))
    return k0, k1, low, high


def product(sizes: Sequence[int], dtype: np.dtype) -> jax.Array:
    """The product of sizes, some of which may be symbols.

    JAX represents a symbol, and a product of symbols, in 32 bits, so symbols are multiplied here, in `dtype`.
    """
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
    """Each element's number minus that of the first element, with `batch_rank` leading axes of size 1."""
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
    """`numbers` in two words, uint32. The high word is computed only if 32 bits do not hold every number."""
    if draw.spans_at_most(1 << 32):
        return numbers(draw, batch_rank, np.dtype(np.uint32)), jnp.uint32(0)
    number = jnp.zeros(draw.shape, jnp.uint32), jnp.zeros(draw.shape, jnp.uint32)
    for axis in axes_of(draw):  # XLA for TPU stores 64-bit numbers, so only vectors have them
        low, high = (lax.broadcast_in_dim(word, draw.shape, (axis,)) for word in words_along(draw, axis))
        number = plus(number, (low, high))
    low, high = (word.reshape((1,) * batch_rank + draw.shape) for word in number)
    return low, high


def words_along(draw: Draw, axis: int) -> Pair:
    """The multiples of the stride along an axis, in two words of uint32."""
    with jax.enable_x64(True):
        number = lax.iota(jnp.uint64, draw.shape[axis]) * product(draw.sizes_within(axis), np.dtype(np.uint64))
        return number.astype(jnp.uint32), (number >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32)


def plus(a: Pair, b: Pair) -> Pair:
    """The sum of two numbers of 64 bits."""
    low = a[0] + b[0]
    return low, a[1] + b[1] + (low < a[0]).astype(jnp.uint32)
