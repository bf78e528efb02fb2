"""Noise in the CUDA kernels: drawn in the kernel from a seed, or read from an array that broadcasts.

To let the kernels draw from another generator, add a class and an entry of `STREAMS`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

from ..generators import Generator, hashed, philox
from ..gpu.shapes import FLIP, UNIT, Sharing
from ..spec import Draw
from .blocks import Block


class Stream(Protocol):
    """The noise of the example that a block belongs to, from the beginning of the block."""

    def uniform(self, turn: int, width: int) -> list[jax.Array]:
        """The noise of part `turn` of the block: float32 [rows, width] for each of its `columns(part, width)`."""
        ...


class _Counted:
    """What the streams have in common whose draws have 16 bits: how eights are counted, and noise is made of words.

    A thread computes the four words of eight consecutive draws and uses these draws itself, so they never leave its
    registers. A part must have `rows` rows of eight elements, one per thread. With another number of rows Triton joins
    the draws in shared memory.
    """

    def __init__(self, block: Block, unknown: jax.Array, draw: Draw, rows: int) -> None:
        self.rows = rows
        # This is FLIP, because the sign bit of `unknown` is never set. The compiler does not know that and so keeps
        # FLIP in a register: an instruction takes one constant, and the upper halves also need a mask.
        self.flip = jnp.uint32(FLIP) ^ (unknown & jnp.uint32(0x80000000))
        with jax.enable_x64(True):
            self.start, self.row = block.eights(rows)
        self.sharing = None if draw.is_contiguous else Sharing.of_blocks(draw)

    def uniform(self, turn: int, width: int) -> list[jax.Array]:
        """See `Stream`."""
        words = self._words(turn)
        low = [(word << jnp.uint32(16)) + self.flip for word in words]
        high = [(word & jnp.uint32(0xFFFF0000)) ^ self.flip for word in words]
        draws = [half for halves in zip(low, high, strict=True) for half in halves]
        joined = [join(draws[first : first + width]) for first in range(0, len(draws), width)]
        return [lax.bitcast_convert_type(draw, jnp.int32).astype(jnp.float32) * jnp.float32(UNIT) for draw in joined]

    def _eights(self, turn: int) -> jax.Array:
        """The numbers of the eights of part `turn`, counted from the first one of the example."""
        with jax.enable_x64(True):
            place = self.start + self.row + jnp.full((), turn * self.rows, self.start.dtype)
            if self.sharing is None:
                return place
            return self.sharing.index(place.astype(jnp.int64) if self.sharing.is_wide else place)

    def _words(self, turn: int) -> Sequence[jax.Array]:
        """The four words of each eight of part `turn`."""
        raise NotImplementedError


class PhiloxStream(_Counted):
    """The stream of `generators/philox.py`: a thread draws from one Philox block at a time."""

    def __init__(self, block: Block, words: tuple[jax.Array, ...], draw: Draw, rows: int) -> None:
        k0, k1, low, high = words
        super().__init__(block, high, draw, rows)  # no array has 2**63 elements
        self.key = (k0, k1)
        with jax.enable_x64(True):
            first = high.astype(jnp.uint64) << jnp.asarray(29, jnp.uint64) | (low >> jnp.uint32(3)).astype(jnp.uint64)
            here = self.start.astype(jnp.uint64) + self.row.astype(jnp.uint64)
            self.number = first + here if self.sharing is None else first
            self.low = self.number.astype(jnp.uint32)

    def _words(self, turn: int) -> philox.Words:
        c0, c1 = self._counter(turn)
        zero = jnp.zeros_like(c0)
        return philox.philox4x32((c0, c1, zero, zero + jnp.uint32(philox.DOMAIN)), self.key, philox.product32)

    def _counter(self, turn: int) -> tuple[jax.Array, jax.Array]:
        """The numbers of the Philox blocks of part `turn`, in two words."""
        with jax.enable_x64(True):
            if self.sharing is None:
                number = self.number + jnp.asarray(turn * self.rows, jnp.uint64)
                # This is the low word of `number`. From `number` itself, the compiler would make a product of 64 bits.
                low = self.low + jnp.uint32(turn * self.rows)
            else:
                number = self.number + self._eights(turn).astype(jnp.uint64)
                low = number.astype(jnp.uint32)
            return low, (number >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32)


class HashStream(_Counted):
    """The stream of `generators/hashed.py`: a thread hashes the numbers of four blocks, or five if draws straddle them.

    All numbers are low words. The one carry that there may be shows by a number below the first.
    """

    def __init__(self, block: Block, words: tuple[jax.Array, ...], draw: Draw, rows: int) -> None:
        a, b, carried_a, carried_b, self.first, self.parity = words
        super().__init__(block, self.parity, draw, rows)
        self.now, self.carried = (a, b), (carried_a, carried_b)
        self.carries, self.aligned = not hashed.is_of_one_pair(draw), draw.aligned

    def _words(self, turn: int) -> Sequence[jax.Array]:
        first = self.first + self._eights(turn).astype(jnp.uint32) * jnp.uint32(4)
        if self.aligned:  # the first number is a multiple of 4, so no carry separates the four
            a, b = self._subkeys(first)
            return [hashed.word(first ^ jnp.uint32(i), a, b) for i in range(4)]
        numbers = [first + jnp.uint32(i) for i in range(5)]
        words = [hashed.word(number, *self._subkeys(number)) for number in numbers]
        with jax.enable_x64(True):  # each shift of two words becomes one instruction
            shift = (self.parity << jnp.uint32(4)).astype(jnp.uint64) & jnp.asarray(31, jnp.uint64)
            wide = [word.astype(jnp.uint64) for word in words]
            both = [right | left << jnp.asarray(32, jnp.uint64) for right, left in itertools.pairwise(wide)]
            return [(pair >> shift).astype(jnp.uint32) for pair in both]

    def _subkeys(self, number: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The subkeys for the low words of numbers of blocks."""
        if not self.carries:
            return self.now
        wrapped = number < self.first
        a, b = (jnp.where(wrapped, new, old) for new, old in zip(self.carried, self.now, strict=True))
        return a, b


STREAMS: Mapping[Generator, Callable[[Block, tuple[jax.Array, ...], Draw, int], Stream]] = {
    "philox": PhiloxStream,
    "hash": HashStream,
}


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
