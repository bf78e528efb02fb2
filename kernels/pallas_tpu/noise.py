"""Noise that a TPU kernel draws for a block of x: the stream of `generators/philox.py`, or the chip's own generator.

One Philox block serves eight elements, so 128 lanes of Philox blocks serve 1,024 elements. Their words are arranged
so that one gather along lanes brings each of 128 elements its word; the element then uses its half of the word.

To let the kernels draw from another generator, add a function and an entry of `IN_KERNEL`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..generators import Generator
from ..generators.blocks import over
from ..generators.philox import DOMAIN, DRAWS, ROUNDS, Words, product_of_limbs, rounds
from ..spec import Draw
from .formula import LANES, float_of
from .tiling import SUBLANES, round_up, tile_draw

GROUP = 32  # lanes: a quarter, so that the four words of 32 Philox blocks fill the 128 lanes of one array
SLICE = LANES // DRAWS  # Philox blocks that serve 128 elements


def unsigned(value: int) -> jax.Array:
    """A number modulo 2**32, as uint32."""
    return jnp.asarray(value % (1 << 32), jnp.uint32)


def noise_of(upper: jax.Array) -> jax.Array:
    """`(draw + 0.5) / 65536 - 0.5` for 16-bit draws in the upper halves of int32; the lower halves are ignored.

    A float32 between 64 and 128 has 17 bits after the point: they are the 16 bits of the draw, and 1 for the half.
    """
    return float_of(lax.shift_right_logical(upper, jnp.int32(15)) | 0x42800001) - 64.5


# --- the stream -------------------------------------------------------------------------------------------------------


def philox_words(seed: Words, block: jax.Array) -> list[jax.Array]:
    """The words, as int32, of Philox blocks whose numbers are counted from the block of the seed.

    The second word of a counter is that of the seed or, after a carry, one more. In the first two rounds it only meets
    words that are the same for all blocks. So these rounds are computed once for each case, and the result is selected.
    """
    k0, k1, low, high = seed
    number = low + block
    counters = ((number, second, unsigned(0), unsigned(DOMAIN)) for second in (high, high + unsigned(1)))
    (plain, key), (carried, _) = (rounds(2, counter, (k0, k1), product_of_limbs) for counter in counters)
    c2, c3 = (jnp.where(number < low, carried[i], plain[i]) for i in (2, 3))
    words, _ = rounds(ROUNDS - 2, (plain[0], plain[1], c2, c3), key, product_of_limbs)
    return [word.astype(jnp.int32) for word in words]


def arrange(words: list[jax.Array]) -> list[jax.Array]:
    """Arranges the words so that array m holds word w of the blocks of group m in group (w + m) % 4."""
    lane = lax.broadcasted_iota(jnp.int32, words[0].shape, 1)
    first_half, even_group = lane < LANES // 2, (lane & GROUP) == 0
    w0, w1, w2, w3 = words
    w2, w3 = pltpu.roll(w2, LANES // 2, 1), pltpu.roll(w3, LANES // 2, 1)
    a0, a2 = jnp.where(first_half, w0, w2), jnp.where(first_half, w2, w0)
    a1, a3 = jnp.where(first_half, w1, w3), jnp.where(first_half, w3, w1)
    a1, a3 = pltpu.roll(a1, GROUP, 1), pltpu.roll(a3, GROUP, 1)
    return [
        jnp.where(even_group, a0, a1),
        jnp.where(even_group, a1, a0),
        jnp.where(even_group, a2, a3),
        jnp.where(even_group, a3, a2),
    ]


def slices(words: list[jax.Array], phase: jax.Array | int, reach: int) -> list[jax.Array]:
    """Noise for all elements that Philox blocks serve: arrays with 128 elements in each row.

    Args:
        words: The words of the blocks. Each group of lanes begins `reach` blocks after the group before it.
        phase: The half-word, in the first block of each row, with which the row begins.
        reach: How many blocks of a group are used: all, or the first half if the other half is that of the next group.
    """
    arrays, found = arrange(words), []
    lane = lax.broadcasted_iota(jnp.int32, words[0].shape, 1)
    for m, array in enumerate(arrays):
        for start in range(0, reach * DRAWS, LANES):
            draw = start + phase + lane
            source = ((((draw & 7) >> 1) + m) & 3) * GROUP + (draw >> 3)
            word = jnp.take_along_axis(array, source, axis=1, mode="promise_in_bounds")
            found.append(noise_of(jnp.left_shift(word, jnp.where((draw & 1) == 0, 16, 0))))
    return found


def stream_of_rows(seed: Words, row: jax.Array, first: jax.Array, columns: int, length: int) -> jax.Array:
    """The noise of some columns of rows.

    Args:
        seed: As `spec.Draw` describes it, but with the number of the first block in place of the first element.
        row: The number of each row, uint32, in every lane.
        first: The first column, a multiple of 8.
        columns: How many columns.
        length: The length of a row. If it is not a multiple of 8, a row may begin with any half-word of a block.
    """
    in_eight, rest = row & unsigned(7), length % DRAWS
    start = row * unsigned(length // DRAWS)
    if rest:
        start = start + (row >> unsigned(3)) * unsigned(rest) + ((in_eight * unsigned(rest)) >> unsigned(3))
    phase = (in_eight.astype(jnp.int32) * rest) & 7 if rest else 0
    reach = SLICE if rest else 2 * SLICE
    lane = lax.broadcasted_iota(jnp.int32, row.shape, 1)
    block = start + ((first >> 3) + (lane >> 5) * reach + (lane & (GROUP - 1))).astype(jnp.uint32)
    parts = pl.cdiv(columns, 4 * reach * DRAWS)  # stacked, so that there are few operations to compile
    blocks = jnp.concatenate([block + unsigned(4 * reach * part) for part in range(parts)])
    phases = jnp.concatenate([phase] * parts) if rest else 0
    found = [jnp.split(noise, parts) for noise in slices(philox_words(seed, blocks), phases, reach)]
    in_order = [noise[part] for part in range(parts) for noise in found]
    return jnp.concatenate(in_order[: pl.cdiv(columns, LANES)], axis=1)


def stream_of_row(seed: Words, first: jax.Array, rows: int) -> jax.Array:
    """The noise of a single row that is folded into rows of 128 lanes, beginning with the folded row `first`.

    Of 64 folded rows, row 8 j + s has its Philox blocks in sublane s, lanes 16 j to 16 j + 15. Slice j is eight rows.
    """
    shape = (pl.cdiv(rows, SUBLANES * SUBLANES) * SUBLANES, LANES)
    sublane, lane = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    row = first + (sublane >> 3) * 64 + (lane >> 4) * SUBLANES + (sublane & 7)
    block = row * SLICE + (lane & (SLICE - 1))
    found = slices(philox_words(seed, block.astype(jnp.uint32)), 0, 2 * SLICE)
    tiles = [noise.reshape(-1, 1, SUBLANES, LANES) for noise in found]
    return jnp.concatenate(tiles, axis=1).reshape(-1, LANES)[:rows]


# --- the chip's own generator -----------------------------------------------------------------------------------------


def seed_of_step(seed: Words, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two words that the generator takes: they differ for every seed and every step of the grid.

    Source: the mixing function is the finalizer of MurmurHash3.
    """
    k0, k1, low, high = seed
    mixed = number = low + step.astype(jnp.uint32) * unsigned(0x9E3779B9)
    mixed = mixed ^ (high * unsigned(0x85EBCA77))
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> unsigned(shift))) * unsigned(multiplier)
    return (k0 ^ mixed ^ (mixed >> unsigned(16))).astype(jnp.int32), (k1 + number).astype(jnp.int32)


# --- a block ----------------------------------------------------------------------------------------------------------


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


def philox_noise(seed: Words, draw: Draw, shape: tuple[int, ...], steps: list[jax.Array]) -> jax.Array:
    """The noise of a block from the stream."""
    tiling, strides = tile_draw(draw)
    k0, k1, low, high = seed
    first = (k0, k1, *over((low, high), DRAWS))
    if tiling.folded:
        return stream_of_row(first, steps[0] * shape[0], shape[0])
    length = draw.shape[-1] if draw.is_contiguous else draw.whole[-1]
    at = [step * (size or 1) for step, size in zip(steps, tiling.block, strict=True)]
    row = row_numbers(at[:-1], shape, [stride // length for stride in strides[:-1]])
    return stream_of_rows(first, row, at[-1], shape[-1], length)


def hardware_noise(seed: Words, draw: Draw, shape: tuple[int, ...], steps: list[jax.Array]) -> jax.Array:
    """The noise of a block from the chip's own generator, from 32 bits per element: 16 would need more shifts."""
    step = jnp.int32(0)  # the number of the block in the grid
    for i, n in zip(steps, tile_draw(draw)[0].grid, strict=True):
        step = step * n + i
    pltpu.prng_seed(*seed_of_step(seed, step))
    tiles = math.prod(shape[:-2]) * round_up(shape[-2], SUBLANES), round_up(shape[-1], LANES)
    return pltpu.bitcast(pltpu.prng_random_bits(tiles), jnp.int32).astype(jnp.float32) * 2.0**-32


@dataclasses.dataclass(frozen=True)
class InKernel:
    """How the kernels draw from a generator."""

    # The noise of a block in whole tiles, float32, from the seed of its example, the draw, the shape of the block, and
    # its index in the grid of the example.
    noise: Callable[[Words, Draw, tuple[int, ...], list[jax.Array]], jax.Array]
    serves: Callable[[Draw], bool]  # whether the kernels can draw the noise of a draw
    needs_tpu_interpreter: bool = False  # whether only Pallas' interpreter of TPUs interprets it; its bits are 0 there


IN_KERNEL: Mapping[Generator, InKernel] = {
    "philox": InKernel(philox_noise, lambda draw: draw.is_in_rows_of_blocks),
    "hardware": InKernel(hardware_noise, lambda _: True, needs_tpu_interpreter=True),
}


def noise_block(seed_ref: jax.Ref, shape: tuple[int, ...], draw: Draw, outer: int) -> jax.Array:
    """The noise of the current block, float32; `outer` is how many axes the grid has before those of the tiling."""
    k0, k1, low, high = (seed_ref[0, i] for i in range(4))
    steps = [pl.program_id(outer + i) for i in range(len(tile_draw(draw)[0].grid))]
    noise = IN_KERNEL[draw.generator].noise((k0, k1, low, high), draw, shape, steps)
    return noise.reshape(*shape[:-2], -1, noise.shape[-1])[..., : shape[-2], : shape[-1]]
