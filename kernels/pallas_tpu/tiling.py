"""How the TPU kernels see an array.

An array is rows of lanes, its last axis kept as it is: on a TPU that axis is spread over tiles of 128 lanes, and
reshaping it is a copy. Leading axes merge for free where the second last is a multiple of the 8 sublanes of a tile.
A single row is the exception: in memory it is a sequence of tiles, so it is *folded* into rows of 128 lanes.
"""

import dataclasses
import math

import jax
from jax.experimental import pallas as pl

from ..spec import Draw, strides_of
from .formula import CHUNK, LANES

SUBLANES = 8
BLOCK_BYTES = 1 << 19  # of one operand: with its results, double buffered, a few MB of the 16 that every chip has
DRAW_BYTES = 1 << 21  # the same, of float32, where noise is drawn: before the first draw pass many idle cycles
MINIMUM_ROWS = 32  # of a block, where there are so many: the tile height of 8-bit results
FLAT_FROM = 1 << 15  # a shorter single row that does not divide is left a row
UNMERGED = 32  # short slabs that a block holds at most


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple that is at least n."""
    return -(-n // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How the kernels see an array.

    Attributes:
        shape: The array's shape after merging axes.
        block: The shape of one block; None is an axis of which a block has one index, and that the kernel does not see.
        folded: Whether the array is one row, so that eight rows of lanes have their mask bits in one row of bytes.
    """

    shape: tuple[int, ...]
    block: tuple[int | None, ...]
    folded: bool = False

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(-(-n // (b or 1)) for n, b in zip(self.shape, self.block, strict=True))

    @property
    def packed(self) -> "Tiling":
        """The same blocks of the packed mask."""
        axis = -2 if self.folded and len(self.shape) > 1 else -1
        shape, block = list(self.shape), list(self.block)
        shape[axis] = pl.cdiv(shape[axis], 8)
        block[axis] = pl.cdiv(block[axis] or 1, 8)
        return Tiling(tuple(shape), tuple(block), self.folded)

    def of_batch(self, examples: int) -> "Tiling":
        """The same blocks of each array of a batch."""
        return Tiling((examples, *self.shape), (None, *self.block), self.folded)

    def block_spec(self, shape: tuple[int, ...]) -> pl.BlockSpec:
        """The blocks of an operand of `shape`: each of its dimensions is the array's, or 1 and the same everywhere."""
        if len(shape) > len(self.shape):  # one number, for an array that stays one-dimensional
            return pl.BlockSpec(shape, lambda *_: (0,) * len(shape))
        block = tuple(b if n != 1 or b is None else 1 for n, b in zip(shape, self.block, strict=True))
        return pl.BlockSpec(block, lambda *at: tuple(i if n != 1 else 0 for n, i in zip(shape, at, strict=True)))


def merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Merges adjacent leading axes of `shape` where another array lies alike; both come back with rank >= 3.

    Args:
        shape: Of this array.
        strides: Of the other array, along the axes of this one: 0 where it is the same for every index.

    Example:
        >>> merged((4, 6, 16, 5), (0, 0, 5, 1))
        ((24, 16, 5), (0, 5, 1))
    """
    ours, theirs = [shape[-1]], [strides[-1]]
    for n, step in reversed([(n, step) for n, step in zip(shape[:-1], strides[:-1], strict=True) if n != 1]):
        free = len(ours) > 2 or ours[0] % SUBLANES == 0  # the second last axis is tiled, those before it are not
        if len(ours) > 1 and free and step == ours[0] * theirs[0]:
            ours[0] = n * ours[0]
        else:
            ours.insert(0, n)
            theirs.insert(0, step)
    pad = 3 - len(ours)
    return ((1,) * pad + tuple(ours)), ((0,) * pad + tuple(theirs))


def tile_row(n: int, size: int) -> Tiling:
    """Tiles one row of n numbers, of which a block holds `size`."""
    if n % CHUNK == 0:
        return Tiling((n // LANES, LANES), (min(n, size) // LANES, LANES), folded=True)
    return Tiling((n,), (size,), folded=True)


def tile_rows(shape: tuple[int, ...], size: int) -> Tiling:
    """Tiles (..., slabs, rows, lanes) so that a block holds about `size` numbers with their padding."""
    *batch, slabs, rows, lanes = shape
    widest = size // round_up(min(rows, MINIMUM_ROWS), SUBLANES) // CHUNK * CHUNK
    lane_block = min(lanes, widest)
    room = size // round_up(lane_block, LANES)
    row_block = rows if rows <= room else room // MINIMUM_ROWS * MINIMUM_ROWS
    slab_block = max(1, min(slabs, UNMERGED, room // round_up(row_block, SUBLANES))) if row_block == rows else 1
    return Tiling(shape, (*[None] * len(batch), None if slab_block == 1 else slab_block, row_block, lane_block))


def tile(x: jax.Array, noise: jax.Array | None = None, itemsize: int = 0) -> tuple[Tiling, tuple[int, ...]]:
    """The tiling of x, and the shape in which its noise goes with it."""
    size = BLOCK_BYTES // max(x.dtype.itemsize, itemsize)
    shape = x.shape if noise is None else noise.shape
    tiling, strides = tile_shape(x.shape, strides_of(shape), size)
    if tiling.folded:
        return tiling, tiling.shape if shape == x.shape else (1, 1)
    return tiling, tuple(n if step else 1 for n, step in zip(tiling.shape, strides, strict=True))


def tile_draw(draw: Draw) -> tuple[Tiling, tuple[int, ...]]:
    """The tiling with whose blocks noise is drawn, on which the noise of hardware hangs, and its axes' strides."""
    return tile_shape(draw.shape, draw.strides, DRAW_BYTES // 4)


def tile_shape(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> tuple[Tiling, tuple[int, ...]]:
    """The tiling of an array whose blocks hold about `size` numbers, and the strides of another along its axes."""
    n = shape[-1]
    if math.prod(shape) == n and (n % CHUNK == 0 or n >= FLAT_FROM):
        tiling = tile_row(n, size)
        return tiling, (strides[-1],) * len(tiling.shape)
    shape, strides = merged(shape, strides)
    return tile_rows(shape, size), strides
