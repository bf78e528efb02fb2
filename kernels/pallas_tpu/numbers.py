"""What the streams share: which rows of the whole array a block has."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..spec import Draw
from .formula import LANES
from .tiling import SUBLANES, round_up, tile_draw


def unsigned(value: int) -> jax.Array:
    """A number modulo 2**32, as uint32."""
    return jnp.asarray(value % (1 << 32), jnp.uint32)


def row_numbers(at: Sequence[jax.Array], shape: tuple[int, ...], steps: Sequence[int]) -> jax.Array:
    """The number, uint32, of each row of a block, repeated in 128 lanes; each slab is padded to whole tiles.

    The first row has the index `at` along all axes of the array but the last. The number of a row grows by `steps`
    along these axes, by 1 along the last of them. A block with two axes is one slab.
    """
    tiles = (shape[0] if len(shape) == 3 else 1, round_up(shape[-2], SUBLANES), LANES)
    slabs, within = (lax.broadcasted_iota(jnp.int32, tiles, axis).reshape(-1, LANES) for axis in (0, 1))
    first = sum((i * word(step) for i, step in zip(at, steps, strict=True)), jnp.int32(0))
    return (first + slabs * word(steps[-2]) + within).astype(jnp.uint32)


def word(value: int) -> jax.Array:
    """A number modulo 2**32, as int32."""
    return jnp.asarray((value + (1 << 31)) % (1 << 32) - (1 << 31), jnp.int32)


def rows_of_block(draw: Draw, shape: tuple[int, ...], steps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array, int]:
    """The `row_numbers` of a block, which is not folded, its first column, and the length of a row in the whole array.

    `shape` is that of the block, and `steps` its index in the grid.
    """
    tiling, strides = tile_draw(draw)
    length = draw.shape[-1] if draw.is_contiguous else draw.whole[-1]
    at = [step * (size or 1) for step, size in zip(steps, tiling.block, strict=True)]
    return row_numbers(at[:-1], shape, [stride // length for stride in strides[:-1]]), at[-1], length
