"""What our operations are measured beside: the formula as FJFormer and AQT write it, with noise that a user can draw.

Nothing here comes from the package. The noise is that of `jax.random.uniform` with each of jax's generators, and that
of a cheap hash of the index, the quickest noise that a few lines of jnp can draw.
"""

import jax
import jax.numpy as jnp
from jax import lax

BOUND, HALVES_BOUND = 127.0, 127.5  # of 8 bits: with zero kept, and with bucket centres at halves

# What a baseline's noise is called, and what `jax.random.key(..., impl=...)` calls its generator.
JAX_GENERATORS = {"threefry": "threefry2x32", "rbg": "rbg", "philox4x32": "philox4x32"}
HASH = "hash"
GENERATORS = (*JAX_GENERATORS, HASH)


def uniform(generator: str, words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Noise between -0.5 and 0.5, float32 of `shape`, from the two words of a key, uint32 [2].

    A generator with a longer key is given them twice.
    """
    if generator == HASH:
        return _hashed(words, shape)
    impl = JAX_GENERATORS[generator]
    length = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).size
    key = jax.random.wrap_key_data(jnp.resize(words, (length,)), impl=impl)
    return jax.random.uniform(key, shape) - 0.5


def _hashed(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The low 32 bits of each index, hashed with the words of a key.

    It is as cheap as it is weak: the last word of a key changes the hash by one exclusive or, and the noise is its
    upper 24 bits. So `key(0)` to `key(255)`, whose last words differ in the low 8 bits alone, give the same noise.
    """
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):  # an iota that fuses, where one of the size would be reshaped
        index = index + lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return (lowbias32(index, words[0], words[1]) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24) - 0.5


def lowbias32(index: jax.Array, k0: jax.Array, k1: jax.Array) -> jax.Array:
    """The hash of each index with the two words of a key, all uint32.

    Source: `lowbias32` of C. Wellons' hash-prospector.
    """
    h = index ^ k0
    h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(0x7FEB352D)
    h = (h ^ (h >> jnp.uint32(15))) * jnp.uint32(0x846CA68B)
    return h ^ (h >> jnp.uint32(16)) ^ k1


def nearest(x: jax.Array, noise: jax.Array | None = None) -> jax.Array:
    """FJFormer's formula for 8 bits with `preserve_zero` and `preserve_max_val`: noise, clip, round half to even."""
    y = x if noise is None else (x + noise).astype(x.dtype)
    return lax.round(jnp.clip(y, -BOUND, BOUND), lax.RoundingMethod.TO_NEAREST_EVEN)


def by_rows(x: jax.Array, noise: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """int8 and one scale per row, from the largest magnitude of each, as it is often written: in float32."""
    wide = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=-1, keepdims=True) / BOUND
    y = wide / scale if noise is None else wide / scale + noise
    return jnp.clip(jnp.round(y), -BOUND, BOUND).astype(jnp.int8), scale


def halves(x: jax.Array) -> jax.Array:
    """`nearest` without `preserve_zero` and noise: floor + 0.5."""
    return jnp.floor(jnp.clip(x, -HALVES_BOUND, HALVES_BOUND)) + 0.5


def backward(g: jax.Array, x: jax.Array) -> jax.Array:
    """FJFormer's backward, which keeps x for it."""
    return g * ((x >= -BOUND) * (x <= BOUND))


def cast(x: jax.Array, noise: jax.Array, dtype: str) -> jax.Array:
    """A stochastic cast as optimizers have it: random bits are added below those that are kept.

    It is right for numbers that are normal in the dtype and not beyond its largest.
    """
    kind = jnp.finfo(dtype)
    dropped = 23 - kind.nmant
    drawn = ((noise + 0.5) * 65536).astype(jnp.uint32) << (dropped - 16)
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32) + drawn
    kept = lax.bitcast_convert_type(bits >> dropped << dropped, jnp.float32)
    return jnp.clip(kept, float(kind.min), float(kind.max)).astype(dtype)
