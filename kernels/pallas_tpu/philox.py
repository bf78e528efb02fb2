"""The stream of `generators/philox.py` in a TPU kernel.

One Philox block serves eight elements, so 128 lanes of Philox blocks serve 1,024 elements. Their words are arranged
so that one gather along lanes brings each of 128 elements its word; the element then uses its half of the word.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..generators.blocks import over
from ..generators.noise import from_upper_half
from ..generators.philox import DOMAIN, DRAWS, ROUNDS, Words, product_of_limbs, rounds
from ..spec import Draw
from .formula import LANES
from .numbers import rows_of_block, unsigned
from .tiling import SUBLANES, tile_draw

GROUP = 32  # lanes: a quarter, so that the four words of 32 Philox blocks fill the 128 lanes of one array
SLICE = LANES // DRAWS  # Philox blocks that serve 128 elements


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
            found.append(from_upper_half(jnp.left_shift(word, jnp.where((draw & 1) == 0, 16, 0)).astype(jnp.uint32)))
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


def noise_of_block(seed: Sequence[jax.Array], draw: Draw, shape: tuple[int, ...], steps: list[jax.Array]) -> jax.Array:
    """The noise of a block from the stream, as `noise.InKernel` describes it."""
    k0, k1, low, high = seed
    first = (k0, k1, *over((low, high), DRAWS))
    if tile_draw(draw)[0].folded:
        return stream_of_row(first, steps[0] * shape[0], shape[0])
    row, column, length = rows_of_block(draw, shape, steps)
    return stream_of_rows(first, row, column, shape[-1], length)
