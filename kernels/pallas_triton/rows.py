"""Quantization by the scale of each slice in Pallas for CUDA: x is read once, and its integers and scales are written.

A slice is a row of the array in memory, whether it is the last axis or a block of it. A program has some rows, which it
holds in registers between their maximum and their quantization.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from .. import elementwise, scaling
from ..gpu import flattened, tuning
from ..gpu.shapes import Sharing, indices, seed_of
from ..gpu.tuning import RowConfiguration
from ..spec import QuantSpec, Scaling, strides_of
from .blocks import Block, block_and_example, block_start, call
from .noise import STREAMS, rejoin

ONCE = 16384  # the elements of the longest row that a program holds in registers
GROUP = 4  # pieces of a longer row that are loaded together
NEXT_EXPONENT = 0x00800000  # what the bits of a float32 grow by from one exponent to the next


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece(Block):
    """Some columns of the rows of a program; each thread has eight of the elements, in the order that loads best.

    The elements are an array of a row for each thread. Rows of `x` whose length is a multiple of 8 give each thread
    eight neighbours, which a load of 128 bits fetches. Other rows are not aligned. So they give neighbours to
    neighbouring threads.
    """

    row: jax.Array  # the number of the first row in its example
    features: int  # the number of elements of a row
    chosen: RowConfiguration
    column: jax.Array | int = 0  # of the first element in its row
    masks_columns: bool = False  # whether the columns beyond the end of the row are masked
    first: int = 0  # of the eight elements of a thread, the first one that belongs to the piece
    width: int = 8  # and how many belong to it

    @property
    def is_aligned(self) -> bool:
        """Whether eight elements that begin at a multiple of 8 in memory are in one row."""
        return self.features % 8 == 0

    def at(self, column: jax.Array | int, masks_columns: bool) -> "Piece":
        """The piece that begins at another column of the same rows, given the first one."""
        with indices(self.start.dtype):
            start = self.start + jnp.asarray(column, self.start.dtype)
        return dataclasses.replace(self, start=start, column=column, masks_columns=masks_columns)

    def columns(self, width: int) -> list["Piece"]:
        """The piece in parts of `width` elements of each thread."""
        return [dataclasses.replace(self, first=first, width=width) for first in range(0, 8, width)]

    def local(self) -> jax.Array:
        """The index of each element, counted from `start`."""
        row, column = self._places()
        with indices(self.start.dtype):
            return column if row is None else row * self.features + column

    def address(self) -> jax.Array:
        """The indices in the flattened arrays of all elements."""
        with indices(self.start.dtype):
            return self.origin() + self.local()

    def within(self) -> jax.Array | None:
        """Which elements exist; None if all do."""
        row, column = self._places()
        with indices(self.start.dtype):
            mask = None if self.whole or row is None else self.row + row < self.n // self.features
            if self.masks_columns:
                inside = column < self.features - self.column
                mask = inside if mask is None else mask & inside
        return mask

    def eights(self, rows: int) -> tuple[jax.Array, jax.Array]:
        """See `Block`; there are `rows` rows of eight elements in each row of x."""
        with indices(self.start.dtype):
            start, i = super().eights(rows * self.chosen.rows)
            return start, lax.div(i, jnp.full_like(i, rows)) * (self.features // 8) + lax.rem(i, jnp.full_like(i, rows))

    def _places(self) -> tuple[jax.Array | None, jax.Array]:
        """Each element's row, counted from the first one, or None if there is one only, and column from `column`."""
        dtype, threads = self.start.dtype, self.chosen.threads
        with indices(dtype):
            thread, k = (lax.broadcasted_iota(dtype, (self.chosen.all_threads, self.width), axis) for axis in (0, 1))
            k = k + self.first
            row = None
            if self.chosen.rows > 1:
                row, thread = (f(thread, jnp.full_like(thread, threads)) for f in (lax.div, lax.rem))
            return row, thread * 8 + k if self.is_aligned else thread + k * threads


def quantize_by_absmax(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    how: Scaling,
    block: int | None,
    *,
    interpret: bool = False,
    configuration: RowConfiguration | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`reference.quantize_by_absmax`; rows are divided by `configuration`, or by default as `tuning` says."""
    features, dtype = block or x.shape[-1], spec.result_dtype(x.dtype)
    shape = (*x.shape[:-1], x.shape[-1] // features if features else 1)  # of the scales
    if not x.size:
        return jnp.zeros(x.shape, dtype), jnp.ones(shape, jnp.float32)
    noise, spec = flattened.noise_for_kernel(x, noise, spec, () if features % 8 else STREAMS)
    n, examples = flattened.examples_of(x, noise, spec)
    rows = n // features
    chosen = configuration or tuning.of_rows(features, rows, examples)
    blocks = pl.cdiv(rows, chosen.rows)
    kernel = _kernel(x, noise, spec, how)

    def program(*refs: Any) -> None:
        i, example = block_and_example(blocks, examples)
        row = block_start(i, chosen.rows, x.size)
        with indices(row.dtype):
            start = row * features
        size, whole = 8 * chosen.all_threads, rows % chosen.rows == 0
        kernel(Piece(i, start, size, n, example, whole, row=row, features=features, chosen=chosen), *refs)

    inputs = [x.reshape(-1)] if noise is None else [x.reshape(-1), noise.reshape(-1)]
    outputs = [jax.ShapeDtypeStruct((x.size,), dtype), jax.ShapeDtypeStruct((rows * examples,), jnp.float32)]
    name = "intnumerics_quantize_by_absmax" + ("_with_noise" if spec.draw is not None and noise is not None else "")
    y, scale = call(program, blocks * examples, inputs, outputs, name, interpret, chosen.warps, 16 * x.size)
    return y.reshape(x.shape), scale.reshape(shape)


def _kernel(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, how: Scaling) -> Callable[..., None]:
    """The kernel: it finds the largest magnitude of each row, then the scale, then the quantized values."""
    noise_of = _noise(x, noise, spec)
    result = spec.result_dtype(x.dtype)
    in_float32 = dataclasses.replace(spec, noise_dtype=None)
    # Noise that is drawn is below 1/2, so a number that rounds to 0 still does so with its noise.
    keeps_zero = spec.draw is not None and spec.rounding == "half_to_even" and spec.integer_dtype is not None

    def quantized(y: jax.Array, noise: jax.Array | None, zero: jax.Array) -> jax.Array:
        if noise is None or not keeps_zero:
            return elementwise.quantize(y if noise is None else scaling.pinned(y), noise, in_float32, zero)
        # This is `pinned` too. To replace NaN here, and not again after the sum, saves two instructions per element.
        return elementwise.quantize(jnp.where(y == y, y, zero), noise, in_float32, zero=None)

    def kernel(rows: Piece, x_ref: Any, *refs: Any) -> None:
        *noise_refs, y_ref, scale_ref = refs
        width = 16 // max(x.dtype.itemsize, result.itemsize) if rows.is_aligned else 8  # 128 bits at once
        joins = width < 8 and result.itemsize < x.dtype.itemsize
        draw = noise_of(rows, width, *noise_refs)

        def load(pieces: list[Piece]) -> list[list[jax.Array]]:
            return [[part.load(x_ref) for part in piece.columns(width)] for piece in pieces]

        def write(pieces: list[Piece], values: list[list[jax.Array]], scale: jax.Array, inverse: jax.Array) -> None:
            for piece, value, added in zip(pieces, values, draw(pieces), strict=True):
                results: list[jax.Array] = []
                for one, u in zip(value, added, strict=True):
                    y = quantized(elementwise.widen(one) * inverse, u, rows.unknown_zero())
                    results.append(y if spec.integer_dtype is not None else (y * scale).astype(result))
                results = [rejoin(results)] if joins else results
                for part, y in zip(piece.columns(8 if joins else width), results, strict=True):
                    part.store(y_ref, y)

        if rows.features <= ONCE:
            pieces = _pieces(rows, 0, rows.features)
            values = load(pieces)
            write(pieces, values, *_scales(rows, _largest(values), how, scale_ref))
            return

        # Registers do not hold the rows, so x is loaded twice, the second time from a cache.
        def larger(pieces: list[Piece], largest: jax.Array) -> jax.Array:
            return jnp.maximum(largest, _largest(load(pieces)))

        largest = _sweep(rows, larger, jnp.zeros((rows.chosen.all_threads,), jnp.int32))
        scale, inverse = _scales(rows, largest, how, scale_ref)

        def written(pieces: list[Piece], nothing: jax.Array) -> jax.Array:
            write(pieces, load(pieces), scale, inverse)
            return nothing

        _sweep(rows, written, jnp.int32(0))

    return kernel


def _pieces(rows: Piece, column: jax.Array | int, length: int) -> list[Piece]:
    """The pieces of so many columns of rows."""
    size = 8 * rows.chosen.threads
    with indices(rows.start.dtype):
        return [rows.at(column + offset, offset + size > length) for offset in range(0, length, size)]


def _sweep(rows: Piece, visit: Callable[[list[Piece], jax.Array], jax.Array], carry: jax.Array) -> jax.Array:
    """Calls `visit` for groups of pieces, with what it returned for the group before."""
    size = GROUP * 8 * rows.chosen.threads
    groups, rest = divmod(rows.features, size)

    def step(i: jax.Array, carry: jax.Array) -> jax.Array:
        return visit(_pieces(rows, block_start(i, size, rows.features), size), carry)

    carry = lax.fori_loop(0, groups, step, carry) if groups else carry
    return visit(_pieces(rows, groups * size, rest), carry) if rest else carry


def _largest(values: list[list[jax.Array]]) -> jax.Array:
    """For each thread the largest `_order` of its elements."""
    return jnp.max(functools.reduce(jnp.maximum, (_order(one) for each in values for one in each)), axis=1)


def _order(x: jax.Array) -> jax.Array:
    """Integers in the order of magnitudes: their bits plus `NEXT_EXPONENT`, or a negative number if x is not finite.

    Integers are compared, because the maximum of floats in Triton drops NaN. The sum overflows for infinities and NaN,
    whose exponent is the largest one.
    """
    magnitude = lax.bitcast_convert_type(elementwise.widen(x), jnp.int32) & jnp.int32(0x7FFFFFFF)
    return magnitude + jnp.int32(NEXT_EXPONENT)


def _scales(rows: Piece, largest: jax.Array, how: Scaling, scale_ref: Any) -> tuple[jax.Array, jax.Array]:
    """Writes the scales, and returns each thread's scale and its reciprocal, as columns."""
    count, threads = rows.chosen.rows, rows.chosen.threads
    largest = jnp.max(largest) if count == 1 else jnp.max(largest.reshape(count, threads), axis=1)
    finite = jnp.maximum(largest, jnp.int32(NEXT_EXPONENT)) - jnp.int32(NEXT_EXPONENT)
    scale = scaling.scale_of(lax.bitcast_convert_type(finite, jnp.float32), how)
    inverse = scaling.inverse_of(scale)
    n = rows.n // rows.features
    with indices(rows.start.dtype):
        before = 0 if rows.example is None else rows.example.astype(rows.row.dtype) * n
        if count == 1:
            scale_ref[before + rows.row] = scale
            return scale, inverse
        scale, inverse = (lax.broadcast_in_dim(s, (count, threads), (0,)).reshape(-1) for s in (scale, inverse))
        # Each thread writes the scale of its row. Threads that wrote a scale each would have to be given it first.
        i = lax.iota(rows.row.dtype, count * threads)
        row = rows.row + lax.div(i, jnp.full_like(i, threads))
        plt.store(scale_ref.at[before + row], scale, mask=None if rows.whole else row < n)
    return scale[:, None], inverse[:, None]


Noise = Callable[[list[Piece]], list[list[jax.Array | None]]]  # the noise of each part of pieces that follow each other


def _noise(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> Callable[..., Noise]:
    """What a kernel calls for its noise, with its rows, the width of parts, and the reference to noise or seeds."""
    if noise is None:
        return lambda rows, width: lambda pieces: [[None] * (8 // width)] * len(pieces)
    if spec.draw is None:
        sharing = None if noise.shape == x.shape else Sharing.of(x.shape, strides_of(noise.shape))

        def read(part: Piece, ref: Any) -> jax.Array:
            return elementwise.widen(part.load(ref, None if sharing is None else sharing.index(part.index())))

        return lambda rows, width, ref: (
            lambda pieces: [[read(p, ref) for p in piece.columns(width)] for piece in pieces]
        )
    draw, rank = spec.draw, noise.ndim - 1

    def drawing(rows: Piece, width: int, ref: Any) -> Noise:
        seed = seed_of(rows.example, ref, x.shape[:rank], noise.shape)

        def drawn(pieces: list[Piece]) -> list[list[jax.Array | None]]:
            stream = STREAMS[draw.generator](pieces[0], seed, draw, rows.chosen.threads)
            return [[*stream.uniform(turn, width)] for turn in range(len(pieces))]

        return drawn

    return drawing
