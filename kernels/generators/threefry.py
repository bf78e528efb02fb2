"""Threefry2x32-20, unrolled: the bits that `jax.random` gives for a threefry key, in a form that XLA fuses.

On a CPU, `jax.random` runs the rounds as a loop, which XLA neither fuses nor vectorizes.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the
counter and the folding of the two words are those of `jax.random.bits` with `jax_threefry_partitionable`.
"""

import jax
import jax.numpy as jnp

from ..spec import Draw
from .counters import plus, seed_words, words_of

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry2x32(counter: tuple[jax.Array, jax.Array], key: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The two output words, uint32, for a counter and a key of two words each."""
    schedule = (*key, key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x0, x1 = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << jnp.uint32(rotation) | x1 >> jnp.uint32(32 - rotation)) ^ x0
        x0 = x0 + schedule[(group + 1) % 3]
        x1 = x1 + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1


def bits(draw: Draw, seed: jax.Array) -> jax.Array:
    """`jax.random.bits(key, shape)`, uint32 of (*batch, *draw.shape); narrower draws of jax are the low bits of these.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from intnumerics.kernels import Draw
        >>> key = jax.random.key(7, impl="threefry2x32")
        >>> seed = jnp.concatenate([jax.random.key_data(key), jnp.zeros(2, jnp.uint32)])
        >>> bool((bits(Draw("threefry_23_bits", (3, 5)), seed) == jax.random.bits(key, (3, 5))).all())
        True
    """
    k0, k1, *first = seed_words(seed, len(draw.shape))
    low, high = plus((first[0], first[1]), words_of(draw, seed.ndim - 1))
    x0, x1 = threefry2x32((high, low), (k0, k1))
    return x0 ^ x1
