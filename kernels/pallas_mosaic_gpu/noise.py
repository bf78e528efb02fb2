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
from .tiles import Tile


class Stream(Protocol):
    """The noise of an example."""

    def uniform(self, tile: Tile) -> jax.Array:
        """The noise of a tile, float32 [THREADS, PER_THREAD]."""
        ...


class PhiloxStream:
    """The stream of `generators/philox.py`: a thread draws one Philox block for its eight elements of a tile."""

    def __init__(self, seed: philox.Words, draw: Draw) -> None:
        k0, k1, low, high = seed
        self.key = (k0, k1)
        self.sharing = None if draw.is_contiguous else Sharing.of_blocks(draw)
        with jax.enable_x64(True):
            high, low = high.astype(jnp.uint64), low.astype(jnp.uint64)
            self.first = high << jnp.asarray(29, jnp.uint64) | low >> jnp.asarray(3, jnp.uint64)

    def uniform(self, tile: Tile) -> jax.Array:
        """See `Stream`."""
        words, place = [tile.spread(word) for word in self._words(tile)], tile.columns()
        word = jnp.where(place < 4, jnp.where(place < 2, words[0], words[1]), jnp.where(place < 6, words[2], words[3]))
        upper = jnp.where((place & 1) == 0, word << jnp.uint32(16), word & jnp.uint32(0xFFFF0000)) ^ jnp.uint32(FLIP)
        # `astype` and not a bitcast, which Mosaic GPU drops: it would convert uint32 to float32.
        return upper.astype(jnp.int32).astype(jnp.float32) * jnp.float32(UNIT)

    def _words(self, tile: Tile) -> philox.Words:
        c0, c1 = self._counter(tile)
        zero = jnp.zeros_like(c0)
        return philox.philox4x32((c0, c1, zero, zero + jnp.uint32(philox.DOMAIN)), self.key, philox.product32)

    def _counter(self, tile: Tile) -> tuple[jax.Array, jax.Array]:
        """The number of each thread's Philox block, in two words."""
        with jax.enable_x64(True):
            if self.sharing is None:
                number = self.first + tile.index.astype(jnp.uint64) + tile.threads(np.dtype(np.uint64))
            else:
                place = tile.index + tile.threads(tile.index.dtype)
                place = place.astype(jnp.int64) if self.sharing.is_wide else place
                number = self.first + self.sharing.index(place).astype(jnp.uint64)
            return number.astype(jnp.uint32), (number >> jnp.asarray(32, jnp.uint64)).astype(jnp.uint32)


STREAMS: Mapping[Generator, Callable[[philox.Words, Draw], Stream]] = {"philox": PhiloxStream}
