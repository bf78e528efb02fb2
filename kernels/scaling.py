"""The size of a bucket from the largest magnitude, in arithmetic that gives the same bits on every device.

A product is rounded the same everywhere, and a division is not: XLA for CPU multiplies by the reciprocal of a constant,
and a GPU's division may be off by two units in the last place. So quotients are checked in integers here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MANTISSA = 0x7FFFFF  # the fraction of a float32
IMPLICIT_ONE = 0x800000
LARGEST = 2.0**126  # of a scale in float32: the reciprocal of a larger one is subnormal, and many devices flush those
STEPS = 2  # units in the last place by which a scale may have to grow: no mantissa needs more with any bound


def scale_of(maximum: jax.Array, bound: float, fits: bool) -> jax.Array:
    """The size of a bucket such that a largest magnitude is `bound` buckets.

    Args:
        maximum: Finite numbers that are not negative, float32 or float64.
        bound: How many buckets the maximum is mapped to; 2 * bound is an integer from 1 to 2**22.
        fits: Whether neither `maximum / scale` nor `maximum * (1 / scale)`, each operation rounded to nearest, may
            exceed `bound`.

    Returns:
        `maximum * (1 / bound)`, and with `fits` the first number from there on that fits. 1 for a maximum below
        `bound * tiny * 2`, where `tiny` is the smallest normal number; at most the reciprocal of `tiny`, where a
        maximum that is larger than `bound` times that does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> scale_of(jnp.asarray([254.0, 0.0]), 127.0, fits=True)
        Array([2., 1.], dtype=float32)
    """
    dtype = maximum.dtype
    tiny = float(jnp.finfo(dtype).smallest_normal)
    largest = jnp.asarray(1 / tiny, dtype)
    scale = jnp.minimum(maximum * jnp.asarray(1 / np.asarray(bound, dtype), dtype), largest)
    for _ in range(STEPS if fits else 0):
        is_beyond = (maximum * reciprocal(scale) > jnp.asarray(bound, dtype)) | _quotient_exceeds(maximum, scale, bound)
        scale = jnp.where(is_beyond, _next_up(scale), scale)
    too_small = maximum < jnp.asarray(bound * tiny * 2, dtype)
    return jnp.where(too_small, jnp.ones_like(scale), jnp.minimum(scale, largest))


def reciprocal(scale: jax.Array) -> jax.Array:
    """`1 / scale` rounded to nearest, for normal numbers up to the reciprocal of the smallest."""
    quotient = jnp.ones_like(scale) / scale
    return corrected_reciprocal(quotient, scale) if scale.dtype == jnp.float32 else quotient


def corrected_reciprocal(quotient: jax.Array, scale: jax.Array) -> jax.Array:
    """`1 / scale` rounded to nearest, from a quotient that is off by two units in the last place at most.

    `2**47 - q m` is what the 24-bit mantissas q of the quotient and m of the scale leave of the dividend. It is small,
    so its lowest 32 bits tell all of it, and the first power of two drops out of them.
    """
    m = _mantissa(scale)
    bits = lax.bitcast_convert_type(quotient, jnp.int32)
    for _ in range(2):
        twice_left = -2 * (_mantissa(lax.bitcast_convert_type(bits, jnp.float32)) * m)
        bits = bits + (twice_left > m).astype(jnp.int32) - (twice_left < -m).astype(jnp.int32)
    return lax.bitcast_convert_type(bits, jnp.float32)


def _quotient_exceeds(maximum: jax.Array, scale: jax.Array, bound: float) -> jax.Array:
    """Whether `maximum / scale`, rounded to nearest, is more than `bound`; it must be near it.

    The exact quotient must be more than half a unit in the last place above `bound`, whose last bit is 0. In mantissas:
    what `scale * bound` leaves of the maximum is more than half the scale.
    """
    if maximum.dtype != jnp.float32:
        return maximum / scale > jnp.asarray(bound, maximum.dtype)
    b = np.float32(bound).view(np.int32)
    shift = _exponent(maximum) - _exponent(scale) - int(b >> 23) + 127 + 23
    left = (_mantissa(maximum) << shift) - _mantissa(scale) * jnp.int32(b & MANTISSA | IMPLICIT_ONE)
    return 2 * left > _mantissa(scale)


def _mantissa(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, jnp.int32) & MANTISSA | IMPLICIT_ONE


def _exponent(x: jax.Array) -> jax.Array:
    """The biased exponent of positive float32."""
    return lax.bitcast_convert_type(x, jnp.int32) >> 23


def _next_up(x: jax.Array) -> jax.Array:
    """The next larger number of positive ones."""
    integer = jnp.dtype(f"int{8 * x.dtype.itemsize}")
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, integer) + jnp.ones((), integer), x.dtype)
