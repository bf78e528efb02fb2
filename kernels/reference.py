"""The formula as its source writes it, in plain jnp: the judge of every other implementation, never optimised.

XLA for CPU, and a TPU, take subnormal numbers for 0 in arithmetic, so that there, unlike on a GPU, the floor of the
negative ones is 0. Nothing here hides that: it is so for every implementation.

Source: `IntNumerics` in FJFormer (`fjformer/bits/int_numerics.py`), itself AQT's (`aqt/jax/v2/numerics`).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from .generators.noise import drawn
from .spec import QuantSpec, wider


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def round_to(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`x.astype(dtype)`, such that the compiler keeps the rounding.

    XLA for GPU drops a cast to a narrower dtype inside a fusion when the next operation widens again.
    `reduce_precision` rounds where nothing may be dropped, and the cast after it is exact. It flushes what is subnormal
    in `dtype`, so those numbers are rounded by a sum whose last place is the smallest subnormal.
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
def _(dtype: jnp.dtype, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return round_to(*primals, dtype), tangents[0].astype(dtype)


def add_noise(x: jax.Array, noise: jax.Array) -> jax.Array:
    """`(x + noise).astype(x.dtype)`, the sum taken in the dtype that jnp promotes the two to."""
    wide = wider(x.dtype, noise.dtype)
    return round_to(x.astype(wide) + noise.astype(wide), x.dtype)


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Adds noise, clips and rounds.

    Args:
        x: Floats of any shape of rank one or more.
        noise: None, or floats of the rank of x whose every dimension is that of x or 1; with `spec.draw` a seed.
        spec: What to do.

    Returns:
        The result, shape of x; with `spec.with_mask` also the packed clip mask, uint8 of `packed_shape(x.shape)`.
    """
    y = x.astype(spec.compute_dtype(x.dtype))
    if noise is not None:
        noise = noise if spec.draw is None else drawn(spec.draw, noise)
        y = add_noise(y, noise)
    if spec.clip:
        bound = spec.bound_in(x.dtype)
        y = jnp.clip(y, -bound, bound)
    if spec.rounding == "half_to_even":
        y = lax.round(y, lax.RoundingMethod.TO_NEAREST_EVEN)
    elif spec.rounding == "floor_plus_half":
        y = jnp.floor(y)
        if spec.integer_dtype is None:
            y = y + jnp.asarray(0.5, y.dtype)
    if spec.integer_dtype is None:
        y = round_to(y, x.dtype)
    else:
        y = jnp.where(jnp.isnan(y), 0, y).astype(spec.integer_dtype)
    return (y, pack(inside(x, spec))) if spec.with_mask else y


def pack(mask: jax.Array) -> jax.Array:
    """A mask packed to one bit per element along its last axis, low bit first."""
    return jnp.packbits(mask, axis=-1, bitorder="little")


def inside(x: jax.Array, spec: QuantSpec) -> jax.Array:
    """The clip mask: where x, before the noise, is within the bound; False for NaN."""
    wide, bound = x.astype(spec.compute_dtype(x.dtype)), spec.bound_in(x.dtype)
    return (-bound <= wide) & (wide <= bound)


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array) -> jax.Array:
    """`where(mask, g, 0)` from the packed mask that `quantize` returned for an x of the shape of g."""
    if not g.size:
        return g
    mask = jnp.unpackbits(packed, axis=-1, count=g.shape[-1], bitorder="little")
    return jnp.where(mask == 1, g, jnp.zeros_like(g))


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec) -> jax.Array:
    """`where(|x| <= bound, g, 0)`; g and x have one shape, and may differ in dtype."""
    return jnp.where(inside(x, spec), g, jnp.zeros_like(g))
