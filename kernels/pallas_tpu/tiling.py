"""How the TPU kernels see an array.

On a TPU, the last axis of an array is spread over tiles of 128 lanes, and reshaping it is a copy. So the kernels keep
the last axis, and see an array as rows of lanes. Merging leading axes costs nothing if the second last axis is a
multiple of the 8 sublanes of a tile. A single row is stored as a sequence of tiles, so it is *folded* into rows of 128
lanes.
"""

import dataclasses
import math

import jax
from jax.experimental import pallas as pl

from ..spec import Draw, strides_of
from .formula import CHUNK, LANES

SUBLANES = 8
BLOCK_BYTES = 1 << 19  # of one operand: all operands and results, double buffered, take a few MB of the chip's 16
DRAW_BYTES = 1 << 21  # of float32, if noise is drawn: there are many idle cycles before the first draw of a block
MINIMUM_ROWS = 32  # of a block, if the array has as many: the height of a tile of 8-bit results
FLAT_FROM = 1 << 15  # a shorter single row is not folded, unless whole rows of packed bytes divide it
UNMERGED = 32  # slabs in a block, at most


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple that is at least n."""
    return -(-n // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the kernels see an array."""

    shape: tuple[int, ...]  # the array's shape after merging axes
    block: tuple[int | None, ...]  # along an axis with None, a block has one index, and the kernel does not see it
    folded: bool = False  # whether it is one row: eight rows of lanes then have their mask bits in one row of bytes

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks there are along each axis."""
        return tuple(-(-n // (b or 1)) for n, b in zip(self.shape, self.block, strict=True))

    @property
    def packed(self) -> "Tiling":
        """The tiling of the packed mask, with the same grid."""
        axis = -2 if self.folded and len(self.shape) > 1 else -1
        shape, block = list(self.shape), list(self.block)
        shape[axis] = pl.cdiv(shape[axis], 8)
        block[axis] = pl.cdiv(block[axis] or 1, 8)
        return Tiling(tuple(shape), tuple(block), self.folded)

    def of_batch(self, examples: int) -> "Tiling":
        """The tiling of a batch of such arrays."""
        return Tiling((examples, *self.shape), (None, *self.block), self.folded)

    def block_spec(self, shape: tuple[int, ...]) -> pl.BlockSpec:
        """The blocks of an operand of `shape`, each of whose sizes is that of the array, or 1 where it broadcasts."""
        if len(shape) > len(self.shape):  # a single number, for an array of one axis
            return pl.BlockSpec(shape, lambda *_: (0,) * len(shape))
        block = tuple(b if n != 1 or b is None else 1 for n, b in zip(shape, self.block, strict=True))
        return pl.BlockSpec(block, lambda *at: tuple(i if n != 1 else 0 for n, i in zip(shape, at, strict=True)))


def merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Merges adjacent leading axes, if they can be merged in another array too; the results have rank 3 or more.

    Along the same axes the other array has `strides`, 0 where it broadcasts.

    Example:
        >>> merged((4, 6, 16, 5), (0, 0, 5, 1))
        ((24, 16, 5), (0, 5, 1))
    """
    ours, theirs = [shape[-1]], [strides[-1]]
    for n, step in reversed([(n, step) for n, step in zip(shape[:-1], strides[:-1], strict=True) if n != 1]):
        free = len(ours) > 2 or ours[0] % SUBLANES == 0  # of the leading axes, only the second last is tiled
        if len(ours) > 1 and free and step == ours[0] * theirs[0]:
            ours[0] = n * ours[0]
        else:
            ours.insert(0, n)
            theirs.insert(0, step)
    pad = 3 - len(ours)
    return ((1,) * pad + tuple(ours)), ((0,) * pad + tuple(theirs))


def tile_row(n: int, size: int) -> Tiling:
    """Tiles one row of n numbers into blocks of `size`."""
    if n % CHUNK == 0:
        return Tiling((n // LANES, LANES), (min(n, size) // LANES, LANES), folded=True)
    return Tiling((n,), (size,), folded=True)


def tile_rows(shape: tuple[int, ...], size: int) -> Tiling:
    """Tiles (..., slabs, rows, lanes) into blocks of about `size` numbers, including padding."""
    *batch, slabs, rows, lanes = shape
    widest = size // round_up(min(rows, MINIMUM_ROWS), SUBLANES) // CHUNK * CHUNK
    lane_block = min(lanes, widest)
    room = size // round_up(lane_block, LANES)
    row_block = rows if rows <= room else room // MINIMUM_ROWS * MINIMUM_ROWS
    slab_block = max(1, min(slabs, UNMERGED, room // round_up(row_block, SUBLANES))) if row_block == rows else 1
    return Tiling(shape, (*[None] * len(batch), None if slab_block == 1 else slab_block, row_block, lane_block))


def tile(x: jax.Array, noise: jax.Array | None = None, itemsize: int = 0) -> tuple[Tiling, tuple[int, ...]]:
    """The tiling of x, and the shape of its noise after merging axes."""
    size = BLOCK_BYTES // max(x.dtype.itemsize, itemsize)
    shape = x.shape if noise is None else noise.shape
    tiling, strides = tile_shape(x.shape, strides_of(shape), size)
    if tiling.folded:
        return tiling, tiling.shape if shape == x.shape else (1, 1)
    return tiling, tuple(n if step else 1 for n, step in zip(tiling.shape, strides, strict=True))


def tile_draw(draw: Draw) -> tuple[Tiling, tuple[int, ...]]:
    """The tiling with which noise is drawn, and its strides; the noise of the hardware depends on this tiling."""
    return tile_shape(draw.shape, draw.strides, DRAW_BYTES // 4)


def tile_shape(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> tuple[Tiling, tuple[int, ...]]:
    """The tiling into blocks of about `size` numbers, and the strides of another array along its axes."""
    n = shape[-1]
    if math.prod(shape) == n and (n % CHUNK == 0 or n >= FLAT_FROM):
        tiling = tile_row(n, size)
        return tiling, (strides[-1],) * len(tiling.shape)
    shape, strides = merged(shape, strides)
    return tile_rows(shape, size), strides
