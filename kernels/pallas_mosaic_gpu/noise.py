"""Noise that the Mosaic GPU kernels draw, from a seed.

To let the kernels draw from another generator, add a class and an entry of `STREAMS`.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..generators import Generator, philox
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
        self.sharing = None if draw.is_contiguous else Sharing.of_blocks(draw)
        with jax.enable_x64(True):
            high, low = high.astype(jnp.uint64), low.astype(jnp.uint64)
            self.first = high << jnp.asarray(29, jnp.uint64) | low >> jnp.asarray(3, jnp.uint64)

    def uniform(self, tile: Eights) -> jax.Array:
        """See `Stream`."""
        words, place = [tile.spread(word) for word in self._words(tile)], tile.columns()
        word = jnp.where(place < 4, jnp.where(place < 2, words[0], words[1]), jnp.where(place < 6, words[2], words[3]))
        upper = jnp.where((place & 1) == 0, word << jnp.uint32(16), word & jnp.uint32(0xFFFF0000)) ^ jnp.uint32(FLIP)
        # `astype` and not a bitcast, which Mosaic GPU drops: it would convert uint32 to float32.
        return upper.astype(jnp.int32).astype(jnp.float32) * jnp.float32(UNIT)

    def _words(self, tile: Eights) -> philox.Words:
        c0, c1 = self._counter(tile)
        zero = jnp.zeros_like(c0)
        return philox.philox4x32((c0, c1, zero, zero + jnp.uint32(philox.DOMAIN)), self.key, philox.product32)

    def _counter(self, tile: Eights) -> tuple[jax.Array, jax.Array]:
        """The number of each thread's Philox block, in two words."""
        with jax.enable_x64(True):
            if self.sharing is None:
                number = tile.eights(self.first)
            else:
                place = tile.eights(jnp.zeros((), tile.index_dtype))
                place = place.astype(jnp.int64) if self.sharing.is_wide else place
                number = self.first + self.sharing.index(place).astype(jnp.uint64)
            return number.astype(jnp.uint32), (number >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32)


STREAMS: Mapping[Generator, Callable[[tuple[jax.Array, ...], Draw], Stream]] = {"philox": PhiloxStream}
