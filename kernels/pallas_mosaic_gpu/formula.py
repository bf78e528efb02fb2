"""What the Mosaic GPU kernels compute on a tile: the formula, and the packed mask.

The formula differs from that of `elementwise.py` because this compiler has other operations: it rounds to even, has
`min` and `max` that propagate NaN, and does pairs of 16-bit floats at once; but it has no floor.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import float_rounding, scaling
from ..elementwise import SIGNED_WHOLE, SIGNED_WHOLE_BITS, low_bits
from ..spec import QuantSpec
from .tiles import Tile


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array:
    """Adds noise, which is None or float32, clips and rounds a tile; the result is in `spec.result_dtype(x.dtype)`."""
    if noise is not None and spec.to_float is not None:
        return float_rounding.rounded(x.astype(jnp.float32), noise, spec.to_float).astype(spec.to_float.codes)
    y = x.astype(spec.compute_dtype(x.dtype))
    if noise is not None:
        y = (x.astype(jnp.float32) + noise).astype(y.dtype)
    is_number = y == y  # before the clip: the compiler then needs fewer instructions for it, if it is used
    if spec.clip:
        bound = spec.bound_in(x.dtype)
        y = jnp.minimum(jnp.maximum(y, -bound), bound)
    wide = y.astype(jnp.float32)
    if spec.integer_dtype is not None:
        return _to_integers(wide, is_number, spec.integer_dtype, spec)
    if spec.rounding == "half_to_even":
        wide = lax.round(wide, lax.RoundingMethod.TO_NEAREST_EVEN)
    elif spec.rounding == "floor_plus_half":
        wide = floor(wide) + 0.5
    return wide.astype(x.dtype)


def quantize_by_scale(
    x: jax.Array, scale: jax.Array, inverse: jax.Array, noise: jax.Array | None, spec: QuantSpec
) -> jax.Array:
    """`quantize` of the product of x and `inverse`, in the units of `scale` if the result is not an integer.

    The noise is added to a product that is rounded: a step between the two keeps the compiler from making one operation
    of both. It is the clip if the noise is drawn. Such noise is between -1/2 and 1/2 by at least 2**-17, so if the sum
    of the bound and the noise is exact, the result is that of a clip of the sum.
    """
    y = x.astype(jnp.float32) * inverse
    if noise is not None:
        bound = spec.bound_in(y.dtype)
        if spec.draw is not None and spec.clip and spec.rounding is not None and bound < 128:
            y, spec = jnp.minimum(jnp.maximum(y, -bound), bound), dataclasses.replace(spec, clip=False)
        elif spec.clip:
            y = jnp.maximum(y, jnp.float32(-3e38))
        else:
            y = scaling.pinned(y)
    elif spec.integer_dtype is not None and not spec.clip:  # which rounds by a sum: `pinned` would not keep it apart
        y = jnp.maximum(y, jnp.float32(-3e38))
    y = quantize(y, noise, spec)
    return y if spec.integer_dtype is not None else (y * scale).astype(x.dtype)


def lifted(x: jax.Array) -> jax.Array:
    """Unsigned integers in the order of the magnitudes of finite numbers, and lower for NaN and infinities.

    The sum wraps around for what is not finite. The compiler needs one operation for the two steps on 32 bits, and one
    for each step on two times 16 bits.
    """
    return _magnitude(lax.bitcast_convert_type(x, _unsigned(x.dtype))) + _lift(x.dtype)


def highest(values: Sequence[jax.Array]) -> jax.Array:
    """The maximum of some arrays."""
    return functools.reduce(jnp.maximum, values)


def largest_finite(lifts: jax.Array, dtype: np.dtype) -> jax.Array:
    """The largest magnitude of finite numbers of a dtype along all axes but that of rows, from `lifted`; 0 if none."""
    top, lift = jnp.max(jnp.max(lifts, axis=-1).astype(jnp.uint32), axis=-1), _lift(dtype).astype(jnp.uint32)
    magnitude = (jnp.maximum(top, lift) - lift) >> jnp.uint32(1 if dtype.itemsize == 4 else 0)
    return lax.bitcast_convert_type(magnitude.astype(_unsigned(dtype)), dtype).astype(jnp.float32)


def _magnitude(bits: jax.Array) -> jax.Array:
    """The bits of a float without its sign; of 32 bits shifted."""
    return bits + bits if bits.dtype.itemsize == 4 else bits & jnp.uint16(0x7FFF)


def _lift(dtype: np.dtype) -> jax.Array:
    """What wraps around to 0 if it is added to the `_magnitude` of infinity."""
    return jnp.zeros((), _unsigned(dtype)) - _magnitude(jnp.asarray(np.asarray(np.inf, dtype).view(_unsigned(dtype))))


def _unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"uint{8 * dtype.itemsize}")


def _to_integers(y: jax.Array, is_number: jax.Array, dtype: np.dtype, spec: QuantSpec) -> jax.Array:
    """Rounds clipped numbers; NaN gives 0."""
    if spec.rounding == "floor_plus_half":
        y = floor(y)
    if dtype != jnp.int32:
        return low_bits(y, dtype)
    bits = lax.bitcast_convert_type(jnp.where(is_number, y, 0.0) + SIGNED_WHOLE, jnp.int32)
    return bits - SIGNED_WHOLE_BITS


def floor(x: jax.Array) -> jax.Array:
    """The largest whole number that is not above x."""
    nearest = lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)
    return jnp.where(nearest > x, nearest - 1, nearest)


def inside(x: jax.Array, spec: QuantSpec) -> jax.Array:
    """The clip mask of a tile, compared in the dtype of x; False for NaN."""
    return jnp.abs(x) <= largest_within(spec.bound_in(x.dtype), x.dtype)


def largest_within(bound: float, dtype: np.dtype) -> float:
    """The largest number of a float dtype that is not above a bound, which is not negative.

    Example:
        >>> import jax.numpy as jnp
        >>> largest_within(255.5, jnp.bfloat16), largest_within(1e9, jnp.float16), largest_within(np.inf, jnp.float16)
        (255.0, 65504.0, inf)
    """
    if bound == np.inf:
        return bound
    nearest = np.asarray(min(bound, float(jnp.finfo(dtype).max)), dtype)
    return float(nearest if float(nearest) <= bound else np.nextafter(nearest, np.asarray(0, dtype)))


def pack(tile: Tile, mask: jax.Array) -> jax.Array:
    """The eight elements of each thread in one byte, low bit first."""
    return jnp.sum(jnp.where(mask, jnp.int32(1) << tile.columns(), 0), axis=1).astype(jnp.uint8)


def unpack(tile: Tile, packed: jax.Array) -> jax.Array:
    """The inverse of `pack`."""
    return (tile.spread(packed.astype(jnp.int32)) >> tile.columns()) & 1 == 1
