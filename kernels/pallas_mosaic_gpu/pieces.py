"""Pieces of rows for the Mosaic GPU kernels: what a warpgroup handles at a time of one row, or of several short ones.

An array is [rows, eights, 8]. From 2 to 128 threads hold a piece of a row, eight elements per thread, and a row is a
few such pieces. Mosaic GPU has no masks: the last piece of a row overlaps the piece before it if the row does not end
with a piece, and so do the rows of the last program. What is computed twice has the same bits.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from ..gpu.shapes import INT32_END, index_dtype, indices
from ..gpu.tuning import BUSY, PER_THREAD, WARP
from .tiles import ELEMENTS, THREADS, TILE, Interpret, load, store

PIECES = 4  # of a row, if that makes enough programs: 32 elements share the arithmetic on their scale
FEWEST = 4  # threads for a row, if it has so many eights: they store 32 bytes of int8, the least that memory moves
KEPT = 16 * TILE  # elements, of a row that a warpgroup keeps in registers
AT_ONCE = 8  # pieces of a longer row, whose loads are under way together


@dataclasses.dataclass(frozen=True)
class Rows:
    """How an array [count, eights, 8] is divided.

    Attributes:
        count: How many rows it has.
        eights: How many times eight elements a row has.
        lanes: How many threads have a piece of a row.
        examples: How many examples, with a seed each, the rows belong to.
    """

    count: int
    eights: int
    lanes: int
    examples: int = 1

    @property
    def together(self) -> int:
        """How many rows a program handles."""
        return THREADS // self.lanes

    @property
    def starts(self) -> list[int]:
        """Where the pieces of a row begin."""
        whole = range(0, self.eights - self.lanes + 1, self.lanes)
        return [*whole, *([self.eights - self.lanes] if self.eights % self.lanes else [])]

    @property
    def programs(self) -> int:
        """How many programs handle all rows."""
        return -(-self.count // self.together)

    @property
    def turns(self) -> int:
        """How many times `AT_ONCE` pieces of a row are read twice; the others stay in registers."""
        return (len(self.starts) - 1) // AT_ONCE if self.eights * PER_THREAD > KEPT else 0

    @property
    def index_dtype(self) -> np.dtype:
        """The dtype of the numbers of eights in an example."""
        return index_dtype(self.count * self.eights * PER_THREAD)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a piece in a kernel: without the axis of the rows, if there is one row."""
        return (*([self.together] if self.together > 1 else []), self.lanes, PER_THREAD)

    @property
    def layout(self) -> Any:
        """Where the threads have the elements of a piece."""
        rows, lanes = self.together, self.lanes
        if rows == 1:
            return ELEMENTS
        whole = (rows, lanes, PER_THREAD)
        if lanes < WARP:  # a warp has several rows
            tiles, warps, threads = (whole, (rows // 4, lanes, PER_THREAD)), (-6,), (-3, -2)
        elif lanes == WARP:
            tiles, warps, threads = (whole,), (-3,), (-2,)
        else:  # several warps have a row
            tiles, warps, threads = (whole, (WARP, PER_THREAD)), (-5, -4), (-2,)
        return plgpu.Layout.TILED(plgpu.Tiling(tiles), warp_dims=warps, lane_dims=threads, vector_dim=-1)


def rows_of(count: int, size: int, examples: int = 1) -> Rows | None:
    """How to divide `count` rows of `size` elements; None if a kernel cannot.

    The fewest threads per row are chosen that have at most `PIECES` pieces and make enough programs; or else the most.
    The rows of a program are in one of the `examples`.

    Example:
        >>> [rows_of(1 << 14, size).lanes for size in (16, 128, 1024, 65536)]
        [2, 4, 32, 128]
        >>> rows_of(128, 1024).lanes, rows_of(1, 1000)
        (128, None)
    """
    eights = size // PER_THREAD
    if size % PER_THREAD or eights < 2 or not 0 < count < INT32_END:
        return None
    lanes = [1 << power for power in range(1, THREADS.bit_length()) if 1 << power <= eights]
    few = [n for n in lanes if n >= FEWEST and eights <= n * PIECES]
    most = count if examples == 1 else math.gcd(count // examples, THREADS)
    choices = [Rows(count, eights, n, examples) for n in dict.fromkeys((*few, lanes[-1])) if THREADS // n <= most]
    busy = (one for one in choices if count >= BUSY * one.together)
    return next(busy, choices[-1] if choices else None)


@dataclasses.dataclass(frozen=True)
class Piece:
    """The elements of some rows that the threads of a program have at a time, as arrays of `rows.shape`.

    The methods that a `noise.Stream` uses are those of `tiles.Tile`.
    """

    rows: Rows
    row: jax.Array  # the number of the first row
    first: jax.Array  # the number of the first eight elements of that row within the example
    start: jax.Array | int  # where the piece begins in its rows, in eights
    interpret: Interpret

    def load(self, ref: Any) -> jax.Array:
        """The elements of `ref`."""
        part = ref.at[self._place]
        return self._in_layout(part[...], self.rows.layout) if self.interpret else load(part, self.rows.layout)

    def store(self, ref: Any, value: jax.Array) -> None:
        """Writes the elements of `ref`."""
        part = ref.at[self._place]
        if self.interpret:
            part[...] = value
        else:
            store(part, value)

    def store_of_rows(self, ref: Any, value: jax.Array) -> None:
        """Writes a number of each row."""
        part = ref.at[pl.ds(self.row, self.rows.together)]
        if not value.ndim:
            ref[self.row] = value
        elif self.interpret:
            part[...] = value
        else:
            store(part, value)

    @property
    def _place(self) -> tuple[Any, ...]:
        row = pl.ds(self.row, self.rows.together) if self.rows.together > 1 else self.row
        return row, pl.ds(self.start, self.rows.lanes)

    def eights(self, first: jax.Array) -> jax.Array:
        """The number of each thread's eight elements, if those of the example are counted from `first`."""
        shape = self.rows.shape[:-1]
        layout = self.rows.layout.reduce((len(shape),))
        with indices(first.dtype):
            number = first + self.first.astype(first.dtype) + jnp.asarray(self.start).astype(first.dtype)
            number = number + self._in_layout(lax.broadcasted_iota(first.dtype, shape, len(shape) - 1), layout)
            if self.rows.together > 1:
                row = self._in_layout(lax.broadcasted_iota(first.dtype, shape, 0), layout)
                number = number + row * jnp.full((), self.rows.eights, first.dtype)
            return number

    @property
    def index_dtype(self) -> np.dtype:
        """The dtype that the numbers of all eights fit."""
        return self.rows.index_dtype

    def columns(self) -> jax.Array:
        """Each element's place among the eight of its thread, int32."""
        shape = self.rows.shape
        return self._in_layout(lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1), self.rows.layout)

    def spread(self, values: jax.Array) -> jax.Array:
        """Numbers of rows, or of threads, for each of their elements."""
        shape = self.rows.shape
        spread = lax.broadcast_in_dim(values, shape, tuple(range(values.ndim)))
        return self._in_layout(spread, self.rows.layout) if values.ndim else spread

    def _in_layout(self, x: jax.Array, layout: Any) -> jax.Array:
        return x if self.interpret is True else plgpu.layout_cast(x, layout)
