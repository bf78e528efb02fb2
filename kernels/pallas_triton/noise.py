"""Noise in the CUDA kernels: drawn in the kernel from a seed, or read from an array that broadcasts.

To let the kernels draw from another generator, add a class and an entry of `STREAMS`.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from ..generators import Generator, philox
from ..gpu.shapes import FLIP, UNIT, Sharing
from ..spec import Draw
from .blocks import Block


class Stream(Protocol):
    """The noise of the example that a block belongs to, from the beginning of the block."""

    def uniform(self, turn: int, width: int) -> list[jax.Array]:
        """The noise of part `turn` of the block: float32 [rows, width] for each of its `columns(part, width)`."""
        ...


class PhiloxStream:
    """The stream of `generators/philox.py`.

    A thread draws from one Philox block at a time and uses its eight draws itself, so they never leave its registers.
    A part must have `rows` rows of eight elements, one per thread. With another number of rows Triton joins the draws
    in shared memory.
    """

    def __init__(self, block: Block, seed: philox.Words, draw: Draw, rows: int) -> None:
        self.rows = rows
        k0, k1, low, high = seed
        self.key = (k0, k1)
        # This is FLIP, because no array has 2**63 elements. The compiler does not know that and so keeps FLIP in a
        # register: an instruction takes one constant, and the upper halves also need a mask.
        self.flip = jnp.uint32(FLIP) ^ (high & jnp.uint32(0x80000000))
        with jax.enable_x64(True):
            first = high.astype(jnp.uint64) << jnp.asarray(29, jnp.uint64) | (low >> jnp.uint32(3)).astype(jnp.uint64)
            start, row = block.eights(rows)
            if draw.is_contiguous:
                self.part, self.number = None, first + start.astype(jnp.uint64) + row.astype(jnp.uint64)
            else:
                self.part, self.number = (Sharing.of_blocks(draw), start + row), first
            self.low = self.number.astype(jnp.uint32)

    def uniform(self, turn: int, width: int) -> list[jax.Array]:
        """See `Stream`."""
        words = self._words(turn)
        low = [(word << jnp.uint32(16)) + self.flip for word in words]
        high = [(word & jnp.uint32(0xFFFF0000)) ^ self.flip for word in words]
        draws = [half for halves in zip(low, high, strict=True) for half in halves]
        joined = [join(draws[first : first + width]) for first in range(0, philox.DRAWS, width)]
        return [lax.bitcast_convert_type(draw, jnp.int32).astype(jnp.float32) * jnp.float32(UNIT) for draw in joined]

    def _counter(self, turn: int) -> tuple[jax.Array, jax.Array]:
        """The numbers of the Philox blocks of part `turn`, in two words."""
        with jax.enable_x64(True):
            if self.part is None:
                number = self.number + jnp.asarray(turn * self.rows, jnp.uint64)
                # This is the low word of `number`. From `number` itself, the compiler would make a product of 64 bits.
                low = self.low + jnp.uint32(turn * self.rows)
            else:
                sharing, place = self.part
                place = place + jnp.full((), turn * self.rows, place.dtype)
                place = place.astype(jnp.int64) if sharing.is_wide else place
                number = self.number + sharing.index(place).astype(jnp.uint64)
                low = number.astype(jnp.uint32)
            return low, (number >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32)

    def _words(self, turn: int) -> philox.Words:
        c0, c1 = self._counter(turn)
        zero = jnp.zeros_like(c0)
        return philox.philox4x32((c0, c1, zero, zero + jnp.uint32(philox.DOMAIN)), self.key, philox.product32)


STREAMS: Mapping[Generator, Callable[[Block, philox.Words, Draw, int], Stream]] = {"philox": PhiloxStream}


def join(columns: list[jax.Array]) -> jax.Array:
    """[rows, n] from n columns, in registers; n is a power of 2, and a single column is returned as it is."""
    if len(columns) == 1:
        return columns[0]
    even, odd = join(columns[::2]), join(columns[1::2])
    return jnp.stack([even, odd], -1).reshape(-1, len(columns))


def rejoin(parts: list[jax.Array]) -> jax.Array:
    """[rows, n] from the parts that it was cut into along its second axis."""
    return join([column for part in parts for column in split(part)])


def split(x: jax.Array) -> list[jax.Array]:
    """The inverse of `join`."""
    rows, n = x.shape
    if n == 1:
        return [x.reshape(rows)]
    even, odd = jnp.unstack(x.reshape(rows, n // 2, 2), axis=-1)
    return [column for pair in zip(split(even), split(odd), strict=True) for column in pair]
