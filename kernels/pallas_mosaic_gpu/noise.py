"""Noise that the Mosaic GPU kernels draw, from a seed.

To let the kernels draw from another generator, add a class and an entry of `STREAMS`.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..generators import Generator, hashed, philox
from ..gpu.shapes import FLIP, UNIT, Sharing
from ..spec import Draw


class Eights(Protocol):
    """A tile of which each thread has eight consecutive elements of an example: see `tiles.Tile`."""

    def eights(self, first: jax.Array) -> jax.Array:
        """The number of each thread's eight elements, if those of the example are counted from `first`."""
        ...

    def columns(self) -> jax.Array:
        """Each element's place among the eight of its thread, int32."""
        ...

    def spread(self, rows: jax.Array, /) -> jax.Array:
        """One number per thread, for each of its elements."""
        ...

    @property
    def index_dtype(self) -> np.dtype:
        """The dtype that the numbers of all eights fit."""
        ...


class Stream(Protocol):
    """The noise of an example."""

    def uniform(self, tile: Eights) -> jax.Array:
        """The noise of a tile, float32."""
        ...


class PhiloxStream:
    """The stream of `generators/philox.py`: a thread draws one Philox block for its eight elements of a tile."""

    def __init__(self, seed: tuple[jax.Array, ...], draw: Draw) -> None:
        k0, k1, low, high = seed
        self.key = (k0, k1)
        self.flip = _flip(high)
        self.sharing = _sharing(draw)
        with jax.enable_x64(True):
            high, low = high.astype(jnp.uint64), low.astype(jnp.uint64)
            self.first = high << jnp.asarray(29, jnp.uint64) | low >> jnp.asarray(3, jnp.uint64)

    def uniform(self, tile: Eights) -> jax.Array:
        """See `Stream`."""
        words, place = [tile.spread(word) for word in self._words(tile)], tile.columns()
        word = jnp.where(place < 4, jnp.where(place < 2, words[0], words[1]), jnp.where(place < 6, words[2], words[3]))
        return _noise(jnp.where(_is_even(place), _low(word, self.flip), _high(word, self.flip)))

    def _words(self, tile: Eights) -> philox.Words:
        c0, c1 = self._counter(tile)
        zero = jnp.zeros_like(c0)
        return philox.philox4x32((c0, c1, zero, zero + jnp.uint32(philox.DOMAIN)), self.key, philox.product32)

    def _counter(self, tile: Eights) -> tuple[jax.Array, jax.Array]:
        """The number of each thread's Philox block, in two words."""
        with jax.enable_x64(True):
            number = _counted(tile, self.first, self.sharing)
            return number.astype(jnp.uint32), (number >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32)


class HashStream:
    """The stream of `generators/hashed.py`: four words for a thread's eight elements, or five from an odd element on.

    Each element's word is written as a function of its pair of elements, and the compiler computes it once per pair.
    """

    def __init__(self, words: tuple[jax.Array, ...], draw: Draw) -> None:
        self.now, self.carried = (words[0], words[1]), (words[2], words[3])  # subkeys
        self.first, self.parity = words[4:]
        self.flip = _flip(self.parity)
        self.sharing = _sharing(draw)
        self.is_aligned, self.carries = draw.aligned, not hashed.is_of_one_pair(draw)

    def uniform(self, tile: Eights) -> jax.Array:
        """See `Stream`."""
        with jax.enable_x64(True):
            eights = _counted(tile, jnp.zeros((), jnp.uint32), self.sharing)
        low, place = tile.spread(self.first + (eights << jnp.uint32(2))), tile.columns()
        pair, is_even = (place >> 1).astype(jnp.uint32), _is_even(place)
        # After a multiple of 4 this is the sum. The hash begins with shifts, of which the four words share the result.
        word = self._word(low ^ pair if self.is_aligned else low + pair)
        upper = jnp.where(is_even, _low(word, self.flip), _high(word, self.flip))
        if not self.is_aligned:
            after = self._word(low + pair + jnp.uint32(1))
            from_odd = jnp.where(is_even, _high(word, self.flip), _low(after, self.flip))
            upper = jnp.where(self.parity == jnp.uint32(0), upper, from_odd)
        return _noise(upper)

    def _word(self, low: jax.Array) -> jax.Array:
        """The words of blocks, from the low words of their numbers, which wrap around at most once."""
        if not self.carries:
            return hashed.word(low, *self.now)
        has_carried = low < self.first
        a, b = (jnp.where(has_carried, after, before) for before, after in zip(self.now, self.carried, strict=True))
        return hashed.word(low, a, b)


STREAMS: Mapping[Generator, Callable[[tuple[jax.Array, ...], Draw], Stream]] = {
    "philox": PhiloxStream,
    "hash": HashStream,
}


def _sharing(draw: Draw) -> Sharing | None:
    """Where each eight elements of a draw stand in the whole array; None if they are consecutive."""
    return None if draw.is_contiguous else Sharing.of_blocks(draw)


def _counted(tile: Eights, first: jax.Array, sharing: Sharing | None) -> jax.Array:
    """The number of each thread's eight elements in the whole array, if those of the example begin at `first`."""
    if sharing is None:
        return tile.eights(first)
    place = tile.eights(jnp.zeros((), tile.index_dtype))
    place = place.astype(jnp.int64) if sharing.is_wide else place
    return first + sharing.index(place).astype(first.dtype)


def _is_even(place: jax.Array) -> jax.Array:
    return (place & 1) == 0


def _flip(small: jax.Array) -> jax.Array:
    """FLIP, from a word that is below 2**31, which the compiler does not know.

    So it keeps FLIP in a register: an instruction takes one constant, and the upper half of a word also needs a mask.
    """
    return jnp.uint32(FLIP) ^ (small & jnp.uint32(0x80000000))


def _low(word: jax.Array, flip: jax.Array) -> jax.Array:
    """The draw in the lower half of a word, moved to the upper half and combined with FLIP."""
    return (word << jnp.uint32(16)) + flip


def _high(word: jax.Array, flip: jax.Array) -> jax.Array:
    """The draw in the upper half of a word, combined with FLIP."""
    return (word & jnp.uint32(0xFFFF0000)) ^ flip


def _noise(upper: jax.Array) -> jax.Array:
    # `astype` and not a bitcast, which Mosaic GPU drops: it would convert uint32 to float32.
    return upper.astype(jnp.int32).astype(jnp.float32) * jnp.float32(UNIT)
