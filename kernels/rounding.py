"""Rounding to a narrower float dtype, such that the compiler keeps the rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def round_to(x: jax.Array, dtype: np.dtype) -> jax.Array:
    """`x.astype(dtype)`, such that the compiler keeps the rounding.

    XLA for GPU drops a cast to a narrower dtype inside a fusion if the next operation widens again.
    `reduce_precision` is never dropped, and the cast after it is exact. `reduce_precision` flushes numbers that are
    subnormal in `dtype`, so those are rounded by a sum whose last place is the smallest subnormal number.
    """
    wide, narrow = jnp.finfo(x.dtype), jnp.finfo(dtype)
    if wide.nmant <= narrow.nmant:
        return x.astype(dtype)
    y = lax.reduce_precision(x, narrow.nexp, narrow.nmant)
    if wide.nexp > narrow.nexp:
        unit = float(narrow.smallest_subnormal) * 2.0**wide.nmant
        small = jnp.copysign(jnp.abs(jnp.abs(x) + unit) - unit, x)
        y = jnp.where(jnp.abs(x) < float(narrow.smallest_normal), small, y)
    return y.astype(dtype)


@round_to.defjvp
def _(dtype: np.dtype, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return round_to(*primals, dtype), tangents[0].astype(dtype)
