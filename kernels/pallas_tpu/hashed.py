"""The stream of `generators/hashed.py` in a TPU kernel.

One word serves two elements, so 128 lanes of words serve 256 elements: the lower half of the lanes 128 of them, and the
upper half the other 128. A gather along lanes brings each element its word, and the element uses its half of the word.
If a row begins with the second draw of a word, its elements 127 and 255 use words that follow those of their half.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..generators.hashed import DRAWS, is_of_one_pair, is_of_two_pairs, word
from ..generators.noise import from_upper_half
from ..generators.shifts import product_on_tpu
from ..spec import Draw
from .formula import LANES
from .numbers import rows_of_block, unsigned
from .tiling import SUBLANES, tile_draw

HALF = LANES // DRAWS  # words that serve 128 elements


def serves(draw: Draw) -> bool:
    """Whether 32 bits hold the number of each row, and of each word, counted from the first; XLA draws others."""
    return is_of_two_pairs(draw) and math.prod(draw.whole[:-1]) <= 1 << 32


def words_of(schedule: Sequence[jax.Array], draw: Draw, number: jax.Array) -> jax.Array:
    """The words, as int32, of blocks from the low words of their numbers."""
    a, b, carried_a, carried_b, low, _ = schedule
    if not is_of_one_pair(draw):
        is_carried = number < low
        a, b = jnp.where(is_carried, carried_a, a), jnp.where(is_carried, carried_b, b)
    return word(number, a, b, product_on_tpu).astype(jnp.int32)


def halves(words: jax.Array, following: tuple[jax.Array, jax.Array] | None, phase: jax.Array | int) -> list[jax.Array]:
    """The noise of the 128 elements that each half of the lanes of some words serves.

    Args:
        words: int32 [rows, 128].
        following: The words that follow, for the lower half in lane 64, for the upper half in lane 0; None if the phase
            is always 0.
        phase: The draw of the first word, 0 or 1, with which each row begins.
    """
    lane = lax.broadcasted_iota(jnp.int32, words.shape, 1)
    draw, is_lower, found = lane + phase, lane < HALF, list[jax.Array]()
    for half in range(2):
        source = words
        if following is not None:
            source = jnp.where(is_lower == (half == 0), words, following[half])
        at = ((draw >> 1) + half * HALF) & (LANES - 1)
        own = jnp.take_along_axis(source, at, axis=1, mode="promise_in_bounds")
        found.append(from_upper_half(jnp.left_shift(own, jnp.where((draw & 1) == 0, 16, 0)).astype(jnp.uint32)))
    return found


def stream_of_rows(
    schedule: Sequence[jax.Array], draw: Draw, row: jax.Array, first: jax.Array, columns: int, length: int
) -> jax.Array:
    """The noise of some columns of rows.

    Args:
        schedule: As `generators.hashed.schedule` describes it.
        draw: What is drawn.
        row: The number of each row, uint32, in every lane.
        first: The first column, an even number.
        columns: How many columns.
        length: The length of a row.
    """
    start, phase = row * unsigned(length // DRAWS), None if draw.aligned else schedule[5].astype(jnp.int32)
    if length % DRAWS:
        in_two = (row & unsigned(1)) + (unsigned(0) if draw.aligned else schedule[5])
        start, phase = start + (row >> unsigned(1)) + (in_two >> unsigned(1)), (in_two & unsigned(1)).astype(jnp.int32)
    lane = lax.broadcasted_iota(jnp.int32, row.shape, 1)
    start = schedule[4] + start + (first >> 1).astype(jnp.uint32)
    if phase is None and columns <= LANES and row.shape[0] % (2 * SUBLANES) == 0:
        lower, upper = jnp.split(start, 2)  # a row needs half of the lanes, so that two rows share them
        lane = lane[: len(lower)]
        number = jnp.where(lane < HALF, lower, upper) + (lane & (HALF - 1)).astype(jnp.uint32)
        return jnp.concatenate(halves(words_of(schedule, draw, number), None, 0))
    parts, rows = pl.cdiv(columns, DRAWS * LANES), row.shape[0]
    first_of_part = [unsigned(LANES * part) for part in range(parts + (phase is not None))]
    # Stacked, so that there are few operations to compile.
    words = words_of(schedule, draw, jnp.concatenate([start + lane.astype(jnp.uint32) + at for at in first_of_part]))
    following, used = None, words[: parts * rows]
    if phase is None:
        phase = 0
    else:
        following = used, words[rows:]
        phase = jnp.concatenate([phase] * parts) if phase.ndim else phase
    found = [jnp.split(noise, parts) for noise in halves(used, following, phase)]
    in_order = [noise[part] for part in range(parts) for noise in found]
    return jnp.concatenate(in_order[: pl.cdiv(columns, LANES)], axis=1)


def stream_of_row(schedule: Sequence[jax.Array], draw: Draw, first: jax.Array, rows: int) -> jax.Array:
    """The noise of a single row that is folded into rows of 128 lanes, beginning with the folded row `first`.

    The lower half of the lanes has the words of the first half of the folded rows, the upper half those of the others.
    """
    half = pl.cdiv(rows, 2 * SUBLANES)
    shape = half if draw.aligned else half + 1, SUBLANES, LANES
    tile, row, lane = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in range(3))
    block = (first + row[:1] + (lane[:1] >> 6) * (half * SUBLANES)) * HALF + (lane[:1] & (HALF - 1))
    number = (schedule[4] + block.astype(jnp.uint32)) + (tile * (SUBLANES * HALF)).astype(jnp.uint32)
    words = words_of(schedule, draw, number.reshape(-1, LANES))
    if draw.aligned:
        return jnp.concatenate(halves(words, None, 0))[:rows]
    following = pltpu.roll(pltpu.roll(words, words.shape[0] - 1, 0), HALF, 1)[: half * SUBLANES]
    words = words[: half * SUBLANES]
    return jnp.concatenate(halves(words, (following, following), schedule[5].astype(jnp.int32)))[:rows]


def noise_of_block(
    schedule: Sequence[jax.Array], draw: Draw, shape: tuple[int, ...], steps: list[jax.Array]
) -> jax.Array:
    """The noise of a block from the stream, as `noise.InKernel` describes it."""
    if tile_draw(draw)[0].folded:
        return stream_of_row(schedule, draw, steps[0] * shape[0], shape[0])
    row, column, length = rows_of_block(draw, shape, steps)
    return stream_of_rows(schedule, draw, row, column, shape[-1], length)
