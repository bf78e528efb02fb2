"""Noise in the CUDA kernels: drawn in the kernel from a seed, or read from an array that broadcasts.

A thread draws from one Philox block at a time and uses its eight draws itself, so that they never leave its registers.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..generators import philox
from ..generators.philox_blocks import DRAWS
from ..gpu.shapes import FLIP, INT32_END, UNIT, kept_groups
from ..spec import Draw, strides_of
from .blocks import Block, indices


class Stream:
    """The Philox stream of the example that a block belongs to, from where the block begins.

    Args:
        block: The block.
        seeds: Reference to the flattened seeds.
        batch: Batch axes of x.
        seed_batch: Those of the seeds, which broadcast to them.
        draw: What is drawn for an example.
        rows: Of eight elements, that are drawn at a time: a thread each, or Triton joins them in shared memory.
    """

    def __init__(
        self, block: Block, seeds: Any, batch: tuple[int, ...], seed_batch: tuple[int, ...], draw: Draw, rows: int
    ) -> None:
        self.rows = rows
        at, strides = jnp.int32(0), strides_of(seed_batch)
        if block.example is not None:
            at = 4 * broadcast_index(block.example, batch, strides)
        k0, k1, low, high = (seeds[at + i] for i in range(4))
        self.key = (k0, k1)
        # Nothing but FLIP, for no array has 2**63 elements. The compiler cannot see that, and so keeps it in a
        # register: an instruction takes one constant, and the upper halves need a mask too.
        self.flip = jnp.uint32(FLIP) ^ (high & jnp.uint32(0x80000000))
        with jax.enable_x64(True):
            first = high.astype(jnp.uint64) << jnp.asarray(29, jnp.uint64) | (low >> jnp.uint32(3)).astype(jnp.uint64)
            start = lax.div(block.start, jnp.full((), DRAWS, block.start.dtype))
            if draw.is_contiguous:
                self.part, self.number = None, first + start.astype(jnp.uint64) + lax.iota(jnp.uint64, rows)
            else:
                self.part, self.number = (draw, start + lax.iota(start.dtype, rows)), first
            self.low = self.number.astype(jnp.uint32)

    def uniform(self, turn: int, width: int) -> list[jax.Array]:
        """The noise of the part `turn` of the block, float32 [rows, width] for each of its `columns(part, width)`."""
        words = self._words(turn)
        low = [(word << jnp.uint32(16)) + self.flip for word in words]
        high = [(word & jnp.uint32(0xFFFF0000)) ^ self.flip for word in words]
        draws = [half for halves in zip(low, high, strict=True) for half in halves]
        joined = [join(draws[first : first + width]) for first in range(0, DRAWS, width)]
        return [lax.bitcast_convert_type(draw, jnp.int32).astype(jnp.float32) * jnp.float32(UNIT) for draw in joined]

    def _counter(self, turn: int) -> tuple[jax.Array, jax.Array]:
        """The low and the high word of the numbers of the Philox blocks of a part."""
        with jax.enable_x64(True):
            if self.part is None:
                number = self.number + jnp.asarray(turn * self.rows, jnp.uint64)
                # The lower half of `number`, from which the compiler would make a product of 64 bits.
                low = self.low + jnp.uint32(turn * self.rows)
            else:
                draw, place = self.part
                number = self.number + block_number(place + jnp.full((), turn * self.rows, place.dtype), draw)
                low = number.astype(jnp.uint32)
            return low, (number >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32)

    def _words(self, turn: int) -> philox.Words:
        c0, c1 = self._counter(turn)
        zero = jnp.zeros_like(c0)
        return philox.philox4x32((c0, c1, zero, zero + jnp.uint32(philox.DOMAIN)), self.key, philox.product32)


def join(columns: list[jax.Array]) -> jax.Array:
    """[rows, n] from its n columns, a power of 2, in registers; a single column stays as it is."""
    if len(columns) == 1:
        return columns[0]
    even, odd = join(columns[::2]), join(columns[1::2])
    return jnp.stack([even, odd], -1).reshape(-1, len(columns))


def split(x: jax.Array) -> list[jax.Array]:
    """`join` undone."""
    rows, n = x.shape
    if n == 1:
        return [x.reshape(rows)]
    even, odd = jnp.unstack(x.reshape(rows, n // 2, 2), axis=-1)
    return [column for pair in zip(split(even), split(odd), strict=True) for column in pair]


def block_number(i: jax.Array, draw: Draw) -> jax.Array:
    """The number, uint64, of the Philox block that eight elements of a part read, after that of the first.

    Args:
        i: Which eight, counted from the beginning of the part.
        draw: The part, `is_in_blocks_of_8`.
    """
    shape = (*draw.shape[:-1], draw.shape[-1] // DRAWS)
    strides = (*(stride // DRAWS for stride in draw.strides[:-1]), 1)
    wide = i if draw.span <= DRAWS * INT32_END else i.astype(jnp.int64)
    return broadcast_index(wide, shape, strides).astype(jnp.uint64)


def broadcast_index(i: jax.Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> jax.Array:
    """Where element `i` of a flattened array of `shape` stands in another one, which has `strides` along its axes."""
    with indices(i.dtype):
        index = jnp.zeros_like(i)
        for group_stride, size, other_stride in kept_groups(shape, strides):
            along = lax.div(i, jnp.full_like(i, group_stride)) if group_stride > 1 else i
            if group_stride * size < math.prod(shape):
                along = lax.rem(along, jnp.full_like(i, size))
            index = index + along * jnp.full_like(i, other_stride)
        return index
