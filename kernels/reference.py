"""The formula as its source writes it, in plain jnp: the judge of every other implementation, never optimised.

Arithmetic on a TPU, and in XLA for CPU, flushes subnormal numbers to 0. So there, unlike on a GPU, the floor of a
negative subnormal number is 0 instead of -1, in every implementation.

Source: `IntNumerics` in FJFormer (`fjformer/bits/int_numerics.py`), itself AQT's (`aqt/jax/v2/numerics`).
"""

import jax
import jax.numpy as jnp
from jax import lax

from . import scaling as scales
from .clip_mask import pack, unpack
from .generators import drawn
from .rounding import round_to
from .spec import FloatRounding, QuantSpec, Scaling, wider


def add_noise(x: jax.Array, noise: jax.Array) -> jax.Array:
    """`(x + noise).astype(x.dtype)`, the sum taken in the dtype that jnp promotes the two to."""
    wide = wider(x.dtype, noise.dtype)
    return round_to(x.astype(wide) + noise.astype(wide), x.dtype)


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Adds noise, clips and rounds.

    Args:
        x: Floats of any shape of rank one or more.
        noise: None, or floats with the rank of x, each of whose sizes is that of x or 1; with `spec.draw` a seed.
        spec: The static description.

    Returns:
        The result, shape of x; with `spec.with_mask` also the packed clip mask, uint8 of `packed_shape(x.shape)`.
        With `spec.to_float` it is that of `round_to_float`.
    """
    if noise is not None and spec.draw is not None:
        noise = drawn(spec.draw, noise)
    if noise is not None and spec.to_float is not None:
        return round_to_float(x, noise, spec.to_float)
    y = x.astype(spec.compute_dtype(x.dtype))
    if noise is not None:
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


def round_to_float(x: jax.Array, noise: jax.Array, how: FloatRounding) -> jax.Array:
    """Rounds to a smaller float dtype stochastically.

    A finite float32 is `significand * 2**(exponent - 150)`, and a number of the dtype has the last `places` bits of the
    significand 0. They are the fraction of the gap between two neighbours, whose codes differ by 1.
    """
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    magnitude = bits & 0x7FFFFFFF
    is_normal = magnitude >= 1 << 23
    exponent = jnp.where(is_normal, magnitude >> 23, 1)
    significand = (magnitude & 0x7FFFFF) + jnp.where(is_normal, 1 << 23, 0)
    is_normal_there = exponent >= how.least_exponent
    places = how.dropped + jnp.where(is_normal_there, 0, how.least_exponent - exponent)
    kept = significand >> jnp.minimum(places, 24)
    code = kept + jnp.where(is_normal_there, exponent - how.least_exponent << how.mantissa, 0)
    rest = significand - (kept << jnp.minimum(places, 24))
    if how.by_draws:
        draw = jnp.floor((noise.astype(jnp.float32) + 0.5) * 65536).astype(jnp.int32)
        few, many = jnp.maximum(16 - places, 0), jnp.clip(places - 16, 0, 24)
        up = (rest << few >> many) + draw >= 65536
    else:
        fraction = rest.astype(jnp.float32) * 2.0 ** -jnp.minimum(places, 126).astype(jnp.float32)
        up = (rest > 0) & (fraction + noise.astype(jnp.float32) >= 0.5)
    code = jnp.minimum(code + up.astype(jnp.int32), how.largest if how.saturates else how.largest + 1)
    if how.has_infinity:
        code = jnp.where(magnitude == 0x7F800000, how.largest + 1, code)
    code = jnp.where(magnitude > 0x7F800000, how.nan, code)
    sign = 1 << (8 * how.dtype.itemsize - 1)
    return lax.bitcast_convert_type(jnp.where(bits < 0, code + sign, code).astype(how.codes), how.dtype)


def quantize_by_scale(
    x: jax.Array, scale: jax.Array, noise: jax.Array | None, spec: QuantSpec
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Divides by a scale, adds noise, clips and rounds, all in float32, or in float64 for float64.

    Args:
        x: Floats of any shape of rank one or more.
        scale: Floats with the rank of x. Each of its sizes is that of x or 1; the last one may also be the number of
            equal blocks of the last axis that have a scale each.
        noise: As in `quantize`.
        spec: The static description. `noise_dtype` changes nothing.

    Returns:
        As `quantize`: integers, or values in the units of x, which are multiplied by the scale before they are rounded
        to the dtype of x. The mask is that of x in buckets.
    """
    y = scales.in_buckets(x, scale)
    result = quantize(y if noise is None else scales.pinned(y), noise, spec)
    y, *mask = result if isinstance(result, tuple) else (result,)
    if spec.integer_dtype is None:
        y = round_to(scales.in_units(y, scale), x.dtype)
    return (y, mask[0]) if mask else y


def absmax(x: jax.Array, axes: tuple[int, ...], block: int | None) -> jax.Array:
    """The largest finite magnitude of each slice, in the dtype of a scale; 0 if there is none.

    Args:
        x: Floats of any shape of rank one or more.
        axes: The axes of a slice, counted from the last. They are kept with size 1.
        block: How many elements of the last axis, the only one of `axes`, are a slice; None if the whole axis is one.
    """
    return scales.absmax(x, axes, block)


def quantize_by_absmax(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, scaling: Scaling, block: int | None
) -> tuple[jax.Array, jax.Array]:
    """`quantize_by_scale` with the scale of each slice's largest magnitude.

    Args:
        x: As in `quantize_by_scale`.
        noise: As in `quantize`.
        spec: The static description, without a mask.
        scaling: How the largest finite magnitude of a slice becomes its scale.
        block: How many elements of the last axis, which it divides, are a slice; None if the whole axis is one.

    Returns:
        The result, and the scales, float32, or float64 for float64: the shape of x with the number of slices for the
        last axis.
    """
    scale = scales.scale_of(scales.absmax(x, (-1,), block), scaling)
    return quantize_by_scale(x, scale, noise, spec), scale  # type: ignore[return-value]


def inside(x: jax.Array, spec: QuantSpec) -> jax.Array:
    """The clip mask: where x, before the noise, is within the bound; False for NaN."""
    wide, bound = x.astype(spec.compute_dtype(x.dtype)), spec.bound_in(x.dtype)
    return (-bound <= wide) & (wide <= bound)


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array) -> jax.Array:
    """`where(mask, g, 0)` from the packed mask that `quantize` returned for an x of the shape of g."""
    if not g.size:
        return g
    return jnp.where(unpack(packed, g.shape[-1]), g, jnp.zeros_like(g))


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec) -> jax.Array:
    """`where(|x| <= bound, g, 0)`; g and x have one shape, and may differ in dtype."""
    return jnp.where(inside(x, spec), g, jnp.zeros_like(g))


def clip_gradient_by_scale(g: jax.Array, x: jax.Array, scale: jax.Array, spec: QuantSpec) -> jax.Array:
    """`where(|y| <= bound, g, 0)`, where y is x in buckets, as in `quantize_by_scale`."""
    return clip_gradient_from_x(g, scales.in_buckets(x, scale), spec)
