"""Quantization by the largest magnitude of each slice, which reads x once: whole rows are in a block.

A maximum over lanes is a column, one number for each sublane, and arithmetic on a column takes a register for every
eight numbers. So maxima are transposed: scales are computed, and leave the kernel, with the rows along lanes, and their
reciprocals are transposed back into every lane of their slice, which may be a part of a tile.

What XLA does instead: blocks that are neither 8, 16, 32 or 64 elements nor whole tiles of 128 lanes, a single row,
rows of one element, and rows of which 32 do not fit into the chip's memory, which are longer than 45,824 for bfloat16
to int8, and than 22,912 for float32 to float32. Blocks of such long rows are for the kernel.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .. import scaling as scales
from .. import xla
from ..spec import Draw, QuantSpec, Scaling, strides_of
from .formula import LANES, f16_from_bits, narrow, quantize_block, widen
from .noise import IN_KERNEL, noise_block
from .operations import check, drawn_before, run, words_of
from .tiling import MINIMUM_ROWS, SUBLANES, UNMERGED, Tiling, merged, round_up, tile_draw

F16_INFINITY = 0x7C00  # its bits

BLOCK_BYTES = 3 << 20  # of all operands and results of a block: double buffered, they take 6 MB of the chip's 16
WIDE = 4096  # lanes: longer rows are cut into pieces, if a slice is shorter than the piece
ROWS_BYTES = 14 << 20  # of the fewest rows that a block can have, with both buffers, and float32 numbers in between


@dataclasses.dataclass(frozen=True)
class ScaleTiling(Tiling):
    """The tiling of the scales: a block, (..., slices, rows in whole tiles of lanes), for each block of x."""

    def block_spec(self, shape: tuple[int, ...]) -> pl.BlockSpec:
        """The blocks, in the grid of x, whose last two axes are the other way round."""
        return pl.BlockSpec(self.block, lambda *at: (*at[:-2], at[-1], at[-2]))


def tiling_of_scales(tiling: Tiling, slices: int) -> ScaleTiling:
    """The tiling of the scales for that of x, whose blocks along the lanes have equal numbers of slices."""
    in_lanes = round_up(tiling.block[-2] or 1, LANES)
    shape = (*tiling.shape[:-2], slices, in_lanes * tiling.grid[-2])
    in_block = slices if tiling.grid[-1] == 1 else slices * (tiling.block[-1] or 1) // tiling.shape[-1]
    return ScaleTiling(shape, (*tiling.block[:-2], in_block, in_lanes))


def in_whole_tiles(tiling: Tiling) -> Tiling:
    """The tiling with blocks of whole tiles of 8 rows and 128 lanes, which may reach beyond the array."""
    *outer, rows, lanes = tiling.block
    return dataclasses.replace(tiling, block=(*outer, round_up(rows or 1, SUBLANES), round_up(lanes or 1, LANES)))


def tile_slices(shape: tuple[int, ...], itemsize: int, block: int | None) -> Tiling | None:
    """Tiles (..., slabs, rows, lanes) into blocks of whole slices; None if the slices are too long.

    For each element, all operands and results have `itemsize` bytes.
    """
    *batch, slabs, rows, lanes = shape
    lane_block = round_up(lanes, LANES)
    if block is not None and lane_block > WIDE:  # eight slices or more, since their scales are in whole tiles
        lane_block = min(lane_block, SUBLANES * max(block, LANES))
    if MINIMUM_ROWS * lane_block * (2 * itemsize + 4) > ROWS_BYTES:
        return None
    room = max(MINIMUM_ROWS, 1 << (BLOCK_BYTES // (lane_block * itemsize)).bit_length() - 1)
    row_block = min(rows, room)  # if blocks of 128 rows or more divide the rows, XLA need not copy the scales
    slab_block = max(1, min(slabs, UNMERGED, room // round_up(rows, SUBLANES))) if row_block == rows else 1
    return Tiling(shape, (*[None] * len(batch), None if slab_block == 1 else slab_block, row_block, lane_block))


# --- the kernel -------------------------------------------------------------------------------------------------------


def magnitudes(x: jax.Array, dtype: np.dtype) -> jax.Array:
    """|x| for numbers of `dtype` as a kernel gets them, 0 if not finite: float32, or the bits of float16 as int32."""
    magnitude, infinity = jnp.abs(x.astype(jnp.float32)), jnp.inf
    if dtype == jnp.float16:
        magnitude, infinity = x.astype(jnp.int32) & 0x7FFF, F16_INFINITY
    return jnp.where(magnitude < infinity, magnitude, jnp.zeros_like(magnitude))


def by_slice(by_lane: jax.Array, slices: int) -> jax.Array:
    """The maximum of each slice of the lanes of [rows, 128], as [slices, rows]."""
    rows = by_lane.shape[0]
    return jnp.max(by_lane.T.reshape(slices, LANES // slices, rows), axis=1)


def by_lane(of_slices: jax.Array) -> jax.Array:
    """[slices, rows] as [rows, 128], each number repeated in the lanes of its slice."""
    slices, rows = of_slices.shape
    return jnp.broadcast_to(of_slices[:, None], (slices, LANES // slices, rows)).reshape(LANES, rows).T


@dataclasses.dataclass(frozen=True)
class Rows:
    """How whole rows are quantized."""

    spec: QuantSpec
    scaling: Scaling
    block: int | None
    length: int  # how many columns are defined
    dtype: np.dtype

    def quantize(self, x_ref: jax.Ref, noise: jax.Array | None, y_ref: jax.Ref, scale_ref: jax.Ref) -> None:
        """Quantizes a block of whole tiles, with noise that broadcasts."""
        rows, lanes = x_ref.shape
        slices = LANES // min(self.block or LANES, LANES)  # in a tile
        tiles = max(self.block or lanes, LANES) // LANES  # of a slice
        magnitude = magnitudes(x_ref[...], self.dtype)
        if self.block is None and self.length < lanes:  # else the slices that are undefined are wholly so
            is_defined = lax.broadcasted_iota(jnp.int32, magnitude.shape, 1) < self.length
            magnitude = jnp.where(is_defined, magnitude, jnp.zeros_like(magnitude))
        parts = jnp.split(magnitude, lanes // LANES, axis=1)
        of_slices = [functools.reduce(jnp.maximum, parts[i : i + tiles]) for i in range(0, len(parts), tiles)]
        if self.dtype == jnp.float16:
            of_slices = [f16_from_bits(part) for part in of_slices]
        scale = scales.scale_of(jnp.concatenate([by_slice(part, slices) for part in of_slices]), self.scaling)
        scale_ref[:, :rows] = scale[: scale_ref.shape[0]]
        inverse = scales.inverse_of(scale)
        factors, units = ([by_lane(a[i : i + slices]) for i in range(0, len(a), slices)] for a in (inverse, scale))
        found = list[jax.Array]()
        for tile in range(lanes // LANES):  # one by one, so that the compiler keeps what it computes in registers
            here = slice(tile * LANES, (tile + 1) * LANES)
            y = widen(x_ref[:, here], self.dtype) * factors[tile // tiles]
            added = noise if noise is None or noise.shape[1] == 1 else noise[:, here]
            found.append(self.rounded(y, added, units[tile // tiles]))
        y_ref[...] = jnp.concatenate(found, axis=1)

    def rounded(self, y: jax.Array, noise: jax.Array | None, unit: jax.Array) -> jax.Array:
        """The result for numbers in buckets, in units of x if it is not integers, as the kernel writes it."""
        if noise is not None or not self.spec.clip:
            y = scales.pinned(y)  # else the interpreter, which is XLA for CPU, would add without rounding y
        y = quantize_block(y, noise, self.spec, np.dtype(np.float32))
        return y if self.spec.integer_dtype is not None else narrow(y * unit, self.dtype)


def slab(ref: jax.Ref, i: int) -> jax.Ref:
    """A slab of a block: all of the block if that has two axes, or the only slab of what all slabs share."""
    return ref if len(ref.shape) == 2 else ref.at[i if ref.shape[0] != 1 else 0]


def slabs_of(ref: jax.Ref) -> int:
    """How many slabs are in a block."""
    return ref.shape[0] if len(ref.shape) == 3 else 1


# --- the operation ----------------------------------------------------------------------------------------------------


def is_in_tiles(block: int) -> bool:
    """Whether slices are whole tiles, or a tile has a number of them that are whole tiles in its transpose."""
    return block % SUBLANES == 0 and (LANES % block == 0 or block % LANES == 0)


def tile_to_draw(x: jax.Array, draw: Draw) -> tuple[Tiling, int] | None:
    """The tiling of x in which the kernel draws the noise, and how many examples it has; None if it does not draw."""
    batch = x.shape[: x.ndim - len(draw.shape)]
    generator, examples = IN_KERNEL.get(draw.generator), math.prod(batch)
    if generator is None or not draw.shape or (*batch, *draw.shape) != x.shape or not generator.serves(draw):
        return None
    tiling = tile_draw(draw)[0]
    if tiling.folded or tiling.grid[-1] != 1:  # the rows are in pieces
        return None
    return tiling if examples == 1 else tiling.of_batch(examples), examples


def quantize_by_absmax(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    scaling: Scaling,
    block: int | None,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """See `reference.quantize_by_absmax`; one pass over x."""
    check(x=x.dtype, noise=None if noise is None or spec.draw else noise.dtype)
    is_for_a_kernel = x.size not in (0, x.shape[-1]) and x.shape[-1] > 1 and (block is None or is_in_tiles(block))
    rows = Rows(spec, scaling, block, x.shape[-1], x.dtype)
    if noise is not None and spec.draw is not None:
        found = tile_to_draw(x, spec.draw) if is_for_a_kernel else None
        if found is not None:
            return with_draw(x, noise, rows, spec.draw, *found, interpret)
        noise, spec = drawn_before(spec.draw, noise, interpret), dataclasses.replace(spec, draw=None)
    shape, strides = merged(x.shape, strides_of(x.shape if noise is None else noise.shape))
    itemsize = x.dtype.itemsize + spec.result_dtype(x.dtype).itemsize + (0 if noise is None else noise.dtype.itemsize)
    tiling = tile_slices(shape, itemsize, block) if is_for_a_kernel else None
    if tiling is None:
        return xla.quantize_by_absmax(x, noise, spec, scaling, block, platform="tpu")
    return with_array(
        x, noise, tuple(n if step else 1 for n, step in zip(shape, strides, strict=True)), rows, tiling, interpret
    )


def with_array(
    x: jax.Array, noise: jax.Array | None, noise_shape: tuple[int, ...], rows: Rows, tiling: Tiling, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs the kernel with an array of noise or without noise."""
    tiling = in_whole_tiles(tiling)
    operands = [(x, tiling, tiling.shape)]
    if noise is not None:
        operands.append((noise, tiling, noise_shape))

    def kernel(x_ref: jax.Ref, *refs: jax.Ref) -> None:
        *noise_refs, y_ref, scale_ref = refs
        for i in range(slabs_of(x_ref)):
            added = None
            if noise is not None:
                added = widen(slab(noise_refs[0], i)[...], noise.dtype)
            rows.quantize(slab(x_ref, i), added, slab(y_ref, i), slab(scale_ref, i))

    return finished(x, rows, operands, kernel, interpret)


def with_draw(
    x: jax.Array, seed: jax.Array, rows: Rows, draw: Draw, tiling: Tiling, examples: int, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs the kernel that draws the noise."""
    outer, tiling = 1 if examples > 1 else 0, in_whole_tiles(tiling)

    def kernel(words_ref: jax.Ref, x_ref: jax.Ref, y_ref: jax.Ref, scale_ref: jax.Ref) -> None:
        noise = noise_block(words_ref, x_ref.shape, draw, outer).reshape(slabs_of(x_ref), *x_ref.shape[-2:])
        for i in range(slabs_of(x_ref)):
            rows.quantize(slab(x_ref, i), noise[i], slab(y_ref, i), slab(scale_ref, i))

    interpreted = (
        pltpu.InterpretParams() if interpret and IN_KERNEL[draw.generator].needs_tpu_interpreter else interpret
    )
    words = words_of(draw, seed, x.shape[: x.ndim - len(draw.shape)])
    return finished(x, rows, [(x, tiling, tiling.shape)], kernel, interpreted, words)


def finished(
    x: jax.Array,
    rows: Rows,
    operands: list[tuple[jax.Array, Tiling, tuple[int, ...]]],
    kernel: Callable[..., None],
    interpret: bool | pltpu.InterpretParams,
    words: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The results of a kernel; the scales are only seen in another order, if blocks are whole tiles of lanes."""
    tiling, slices = operands[0][1], x.shape[-1] // (rows.block or x.shape[-1])
    scale_tiling = tiling_of_scales(tiling, slices)
    y_and_scale = [
        (tiling, x.shape, rows.spec.result_dtype(x.dtype)),
        (scale_tiling, scale_tiling.shape, jnp.dtype(jnp.float32)),
    ]
    y, scale = run(kernel, operands, y_and_scale, "quantize_by_absmax", interpret, words)
    scale = scale.reshape(*scale.shape[:-1], tiling.grid[-2], -1)[..., : tiling.block[-2]]
    scale = scale.reshape(*scale.shape[:-2], -1)[..., : tiling.shape[-2]]
    return y, jnp.swapaxes(scale, -1, -2).reshape(*x.shape[:-1], slices)
