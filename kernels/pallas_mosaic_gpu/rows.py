"""Integers and scales from one read: `quantize_by_absmax` in Pallas' Mosaic GPU.

A slice is a row of an array [rows, eights, 8]. A warpgroup handles one row, or several short ones: 2 to 128 threads
hold a piece of each row, eight elements per thread, and a row is a few such pieces. The last piece of a row overlaps the
piece before it if the row does not end with a piece, and so do the last rows of an array: what is computed twice has the
same bits. So there are no masks, which Mosaic GPU does not have.

Rows of up to `KEPT` elements stay in registers between the maximum and the quantization. Longer ones are read again, from
the end, and so that the cache still holds them: with at most two programs per core, the rows of an H100's 132 cores take
35 of its 50 MB of cache at 65,536 elements of bfloat16.

XLA handles slices that are not whole eights or have fewer than 16 elements, arrays of so few short slices that they do
not fill a warpgroup, seeds that change within it, and noise that a kernel neither draws nor reads in the shape of x.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from .. import scaling, xla
from ..gpu.flattened import examples_of
from ..gpu.shapes import draws_in_kernel, index_dtype, indices, seed_of
from ..gpu.tuning import BUSY, PER_THREAD, WARP
from ..spec import Draw, QuantSpec, Scaling
from . import formula, interpreter
from .noise import STREAMS
from .tiles import ELEMENTS, THREADS, TILE, Interpret, ahead, launch, load, store, unknown_zero

PIECES = 4  # of a row, if that makes enough programs: 32 elements share the arithmetic on their scale
FEWEST = 4  # threads for a row, if it has so many eights: they store 32 bytes of int8, the least that memory moves
KEPT = 16 * TILE  # elements, of a row that a warpgroup keeps in registers
AT_ONCE = 8  # pieces of a longer row, whose loads are under way together
FILLING = 76 * 1024  # bytes of the 228 KB of shared memory of a core: two programs fit
ALIGNED = 256  # bytes, as Mosaic GPU takes every array to be


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
    """How to divide `count` rows of `size` elements, in `examples` that have a seed each; None if a kernel cannot.

    The fewest threads per row are chosen that have at most `PIECES` pieces and make enough programs; or else the most.

    Example:
        >>> [rows_of(1 << 14, size).lanes for size in (16, 128, 1024, 65536)], rows_of(128, 1024).lanes, rows_of(1, 1000)
        ([2, 4, 32, 128], 64, None)
    """
    eights = size // PER_THREAD
    if size % PER_THREAD or eights < 2 or not count:
        return None
    lanes = [1 << power for power in range(1, THREADS.bit_length()) if 1 << power <= eights]
    few = [n for n in lanes if n >= FEWEST and eights <= n * PIECES]
    choices = [Rows(count, eights, n, examples) for n in dict.fromkeys((*few, lanes[-1]))]
    choices = [one for one in choices if one.together <= (count if examples == 1 else math.gcd(count // examples, THREADS))]
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


def quantize_by_absmax(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    how: Scaling,
    block: int | None,
    *,
    interpret: Interpret = False,
) -> tuple[jax.Array, jax.Array]:
    """`reference.quantize_by_absmax`."""
    rows = _rows(x, noise, spec, x.shape[-1] if block is None else block)
    if rows is None:
        return xla.quantize_by_absmax(x, noise, spec, how, block, platform="cuda")
    shape = (rows.count, rows.eights, PER_THREAD)
    inputs, noise_of = [x.reshape(shape)], _no_noise
    if noise is not None and spec.draw is not None:
        inputs.append(noise.reshape(-1))
        noise_of = _drawing(x, noise, spec.draw)
    elif noise is not None:
        inputs.append(noise.reshape(shape))
        noise_of = _reading

    def kernel(i: jax.Array, x_ref: Any, *refs: Any) -> None:
        *others, y_ref, scale_ref = refs
        example, piece_at = _pieces(i, rows, interpret)
        noise = noise_of(example, *others)

        def pieces(turn: jax.Array) -> list[Piece]:
            first = turn * jnp.int32(AT_ONCE * rows.lanes)
            return [piece_at(first + jnp.int32(k * rows.lanes)) for k in range(AT_ONCE)]

        def highest(turn: jax.Array, top: jax.Array) -> jax.Array:
            return formula.highest([top, *(formula.lifted(piece.load(x_ref)) for piece in pieces(turn))])

        last = [piece_at(start) for start in rows.starts[rows.turns * AT_ONCE :]]
        kept = [piece.load(x_ref) for piece in last]
        top = formula.highest([formula.lifted(value) for value in kept])
        scale = scaling.scale_of(formula.largest_finite(_loop(rows.turns, highest, top), x.dtype), how)
        last[0].store_of_rows(scale_ref, scale)
        units, inverse = last[0].spread(scale), last[0].spread(scaling.inverse_of(scale))

        def finish(these: Sequence[Piece], values: Sequence[jax.Array]) -> None:
            for (piece, added), value in zip(ahead(noise, these), values, strict=True):
                y = formula.quantize_by_scale(value, units, inverse, added, spec, unknown_zero(i))
                piece.store(y_ref, y)

        def again(turn: jax.Array, carry: jax.Array) -> jax.Array:
            these = pieces(jnp.int32(rows.turns - 1) - turn)  # what was read last is in the cache most likely
            finish(these, [piece.load(x_ref) for piece in these])
            return carry

        _loop(rows.turns, again, jnp.int32(0), y_ref)
        finish(last, kept)

    outputs = [jax.ShapeDtypeStruct(shape, spec.result_dtype(x.dtype)), jax.ShapeDtypeStruct(shape[:1], jnp.float32)]
    name = "intnumerics_quantize_by_absmax" + "_with_noise" * (noise is not None and spec.draw is not None)
    y, scale = launch(kernel, rows.programs, inputs, outputs, name, interpret, FILLING if rows.turns else 0)
    return y.reshape(x.shape), scale.reshape(*x.shape[:-1], -1)


def _rows(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, size: int) -> Rows | None:
    """How a kernel divides x into slices of `size` elements; None if it cannot: see above."""
    if noise is None or spec.draw is None:
        return rows_of(x.size // max(size, 1), size) if noise is None or noise.shape == x.shape else None
    if not draws_in_kernel(x, noise, spec, STREAMS):
        return None
    return rows_of(x.size // max(size, 1), size, examples_of(x, noise, spec)[1])


def _pieces(i: jax.Array, rows: Rows, interpret: Interpret) -> tuple[jax.Array | None, Callable[[Any], Piece]]:
    """The example of a program's rows, if there are several, and a piece of the rows from its first eight elements."""
    row, example, within = i * jnp.int32(rows.together), None, None
    if rows.count % rows.together:
        row = jnp.minimum(row, jnp.int32(rows.count - rows.together))
    if rows.count * 4 <= ALIGNED:
        # From the size of the grid, LLVM would know that no scale is so far from the first. It would then put the
        # number of the row into the low bits of the address by `or`. But XLA aligns some arrays to fewer bytes.
        row = lax.optimization_barrier(row)
    if rows.examples > 1:
        example = lax.div(row, jnp.int32(rows.count // rows.examples))
        within = lax.rem(row, jnp.int32(rows.count // rows.examples))
    with indices(rows.index_dtype):
        within = (row if within is None else within).astype(rows.index_dtype)
        first = within * jnp.full((), rows.eights, rows.index_dtype)
    return example, lambda start: Piece(rows, row, first, start, interpret)


def _loop(turns: int, body: Callable[[jax.Array, jax.Array], jax.Array], carry: jax.Array, *refs: Any) -> jax.Array:
    """The carry after some turns of a body, which writes to references."""
    if not turns:
        return carry
    if any(isinstance(ref, interpreter.Ref) for ref in refs):
        return interpreter.loop(turns, body, carry, refs)
    return lax.fori_loop(0, turns, body, carry)


NoiseOf = Callable[..., Callable[[Piece], jax.Array | None]]  # of an example, and the reference to noise or to seeds


def _no_noise(example: jax.Array | None) -> Callable[[Piece], None]:
    return lambda piece: None


def _reading(example: jax.Array | None, ref: Any) -> Callable[[Piece], jax.Array]:
    return lambda piece: piece.load(ref).astype(jnp.float32)


def _drawing(x: jax.Array, seed: jax.Array, draw: Draw) -> NoiseOf:
    rank = seed.ndim - 1

    def noise_of(example: jax.Array | None, ref: Any) -> Callable[[Piece], jax.Array]:
        return STREAMS[draw.generator](seed_of(example, ref, x.shape[:rank], seed.shape[:rank]), draw).uniform

    return noise_of
