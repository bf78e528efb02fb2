"""Noise that a TPU kernel draws for a block of x: the stream of `philox.py`, or the chip's own generator.

One Philox block serves eight elements, so 128 lanes of Philox blocks serve 1,024 elements. Their words are arranged
in such a way that one gather along lanes brings a word to each of 128 elements, which takes the half that is its own.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..generators.philox import DOMAIN, ROUNDS, Words, product_of_limbs, rounds
from ..generators.philox_blocks import DRAWS, over_8
from ..spec import Draw
from .formula import LANES, float_of
from .tiling import SUBLANES, round_up, tile_draw

GROUP = 32  # lanes: a quarter, so that the four words of so many Philox blocks fill the lanes of one array
SLICE = LANES // DRAWS  # Philox blocks that serve 128 elements


def unsigned(value: int) -> jax.Array:
    """A word of 32 bits."""
    return jnp.asarray(value % (1 << 32), jnp.uint32)


def noise_of(upper: jax.Array) -> jax.Array:
    """`(draw + 0.5) / 65536 - 0.5` for the 16-bit draws in the upper halves of int32, whatever is in the lower ones.

    Above 64 a float32 has 17 bits for its fraction: the draw, and the half, which is the one.
    """
    return float_of(lax.shift_right_logical(upper, jnp.int32(15)) | 0x42800001) - 64.5


# --- the stream -------------------------------------------------------------------------------------------------------


def philox_words(seed: Words, block: jax.Array) -> list[jax.Array]:
    """The words of Philox blocks, as int32, from the number of each after the seed's first.

    The second word of a counter is the seed's or, after a carry, one more. In two rounds it has only met the words that
    are the same for all blocks, so what becomes of either is computed once, and chosen.
    """
    k0, k1, low, high = seed
    number = low + block
    counters = ((number, second, unsigned(0), unsigned(DOMAIN)) for second in (high, high + unsigned(1)))
    (plain, key), (carried, _) = (rounds(2, counter, (k0, k1), product_of_limbs) for counter in counters)
    c2, c3 = (jnp.where(number < low, carried[i], plain[i]) for i in (2, 3))
    words, _ = rounds(ROUNDS - 2, (plain[0], plain[1], c2, c3), key, product_of_limbs)
    return [word.astype(jnp.int32) for word in words]


def arrange(words: list[jax.Array]) -> list[jax.Array]:
    """Array m of the result holds, of the blocks in the lanes of group m, word w in group w + m, modulo 4."""
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
    """Noise for all the elements that Philox blocks serve, 128 a row and array.

    Args:
        words: Of the blocks; a group of lanes has the blocks from where the one before it began, and `reach` on.
        phase: The draw in its block from which a row begins.
        reach: How many blocks of a group are its own: all, or half, where those of a row's last draws are the next's.
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
        seed: As `spec.Draw` describes it.
        row: The number of each row, uint32, in every lane.
        first: The first column, a multiple of 8.
        columns: How many.
        length: Of a row. Where it is not a multiple of 8, a row may begin at any draw of a block.
    """
    in_eight, rest = row & unsigned(7), length % DRAWS
    start = row * unsigned(length // DRAWS)
    if rest:
        start = start + (row >> unsigned(3)) * unsigned(rest) + ((in_eight * unsigned(rest)) >> unsigned(3))
    phase = (in_eight.astype(jnp.int32) * rest) & 7 if rest else 0
    reach = SLICE if rest else 2 * SLICE
    lane = lax.broadcasted_iota(jnp.int32, row.shape, 1)
    block = start + ((first >> 3) + (lane >> 5) * reach + (lane & (GROUP - 1))).astype(jnp.uint32)
    parts = pl.cdiv(columns, 4 * reach * DRAWS)  # one below the other, so that there are few operations to compile
    blocks = jnp.concatenate([block + unsigned(4 * reach * part) for part in range(parts)])
    phases = jnp.concatenate([phase] * parts) if rest else 0
    found = [jnp.split(noise, parts) for noise in slices(philox_words(seed, blocks), phases, reach)]
    in_order = [noise[part] for part in range(parts) for noise in found]
    return jnp.concatenate(in_order[: pl.cdiv(columns, LANES)], axis=1)


def stream_of_row(seed: Words, first: jax.Array, rows: int) -> jax.Array:
    """The noise of a row that is folded into rows of 128 lanes, from the row `first` on.

    The Philox blocks of rows 8 j + s of 64 are those of sublane s, lanes 16 j to 16 j + 15: slice j is eight rows.
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
    """The two words that the generator takes, for a step of the grid: other ones for every seed and step.

    Source: the mixing function is the finalizer of MurmurHash3.
    """
    k0, k1, low, high = seed
    mixed = number = low + step.astype(jnp.uint32) * unsigned(0x9E3779B9)
    mixed = mixed ^ (high * unsigned(0x85EBCA77))
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> unsigned(shift))) * unsigned(multiplier)
    return (k0 ^ mixed ^ (mixed >> unsigned(16))).astype(jnp.int32), (k1 + number).astype(jnp.int32)


def hardware(seed: Words, step: jax.Array, rows: int, columns: int) -> jax.Array:
    """Noise of rows and columns in whole tiles, from 32 bits an element; 16 would save draws and cost more shifts."""
    pltpu.prng_seed(*seed_of_step(seed, step))
    bits = pltpu.bitcast(pltpu.prng_random_bits((rows, columns)), jnp.int32)
    return bits.astype(jnp.float32) * 2.0**-32


# --- a block ----------------------------------------------------------------------------------------------------------


def row_major(index: Sequence[jax.Array], sizes: Sequence[int]) -> jax.Array:
    """The row-major number of an index; it wraps where 32 bits do not hold it."""
    number = jnp.int32(0)
    for i, n in zip(index, sizes, strict=True):
        number = number * n + i
    return number


def row_numbers(at: Sequence[jax.Array], shape: tuple[int, ...], steps: Sequence[int]) -> jax.Array:
    """The number, uint32, of each row of a block in rows of 128 lanes, with whole tiles for every slab.

    Args:
        at: Where the block begins, along all axes of the array but the last.
        shape: The block's; of two axes, it is of one slab.
        steps: By how much a row's number grows along those axes; it is 1 along the last of them.
    """
    tiles = (shape[0] if len(shape) == 3 else 1, round_up(shape[-2], SUBLANES), LANES)
    slabs, within = (lax.broadcasted_iota(jnp.int32, tiles, axis).reshape(-1, LANES) for axis in (0, 1))
    first = sum((i * word(step) for i, step in zip(at, steps, strict=True)), jnp.int32(0))
    return (first + slabs * word(steps[-2]) + within).astype(jnp.uint32)


def word(value: int) -> jax.Array:
    """A number that wraps where 32 bits do not hold it."""
    return jnp.asarray((value + (1 << 31)) % (1 << 32) - (1 << 31), jnp.int32)


def noise_block(seed_ref: jax.Ref, shape: tuple[int, ...], draw: Draw, outer: int) -> jax.Array:
    """The noise of the block where the grid stands, float32.

    Args:
        seed_ref: The example's seed, uint32 (1, 4).
        shape: The block's, as the kernel sees it.
        draw: What is drawn for the example, by Philox or by the hardware.
        outer: How many axes the grid has before those of the tiling.
    """
    tiling, strides = tile_draw(draw)
    k0, k1, low, high = (seed_ref[0, i] for i in range(4))
    steps = [pl.program_id(outer + i) for i in range(len(tiling.grid))]
    at = [step * (size or 1) for step, size in zip(steps, tiling.block, strict=True)]
    first = (k0, k1, *over_8((low, high)))
    if draw.generator == "hardware":
        rows = math.prod(shape[:-2]) * round_up(shape[-2], SUBLANES)
        noise = hardware((k0, k1, low, high), row_major(steps, tiling.grid), rows, round_up(shape[-1], LANES))
    elif tiling.folded:
        noise = stream_of_row(first, steps[0] * shape[0], shape[0])
    else:
        length = draw.shape[-1] if draw.is_contiguous else draw.whole[-1]
        row = row_numbers(at[:-1], shape, [stride // length for stride in strides[:-1]])
        noise = stream_of_rows(first, row, at[-1], shape[-1], length)
    return noise.reshape(*shape[:-2], -1, noise.shape[-1])[..., : shape[-2], : shape[-1]]
