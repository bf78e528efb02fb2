"""The clip mask in plain jnp, and its packing to one bit per element."""

import jax
import jax.numpy as jnp
import numpy as np

from .spec import QuantSpec, wider


def inside(x: jax.Array, spec: QuantSpec) -> jax.Array:
    """The clip mask: where x, before the noise, is within the bound; False for NaN.

    It compares in float32 or float64, which hold x and the bound exactly, because XLA for CPU emulates 16-bit floats.
    """
    wide = wider(spec.compute_dtype(x.dtype), np.dtype(np.float32))
    return jnp.abs(x.astype(wide)) <= spec.bound_in(x.dtype)


def pack(mask: jax.Array) -> jax.Array:
    """A mask packed along its last axis, low bit first: uint8 of `packed_shape(mask.shape)`."""
    return jnp.packbits(mask, axis=-1, bitorder="little")


def unpack(packed: jax.Array, count: int) -> jax.Array:
    """The mask, whose last axis has `count` elements; the inverse of `pack`."""
    return jnp.unpackbits(packed, axis=-1, count=count, bitorder="little") == 1
