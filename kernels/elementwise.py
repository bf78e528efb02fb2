"""The elementwise maths of the GPU kernels, and of integers in the room `xla`, in operations that every compiler has.

Pallas for GPU has neither `lax.round` nor a clip that propagates NaN. So both are written in arithmetic that is exact
here: float32 holds every float16 and bfloat16, and a sum with 2**23 rounds to a whole number, ties to even.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import float_rounding
from .spec import QuantSpec

SIGN = 0x80000000
WHOLE = 2.0**23  # from here to 2**24, consecutive float32 numbers differ by 1
SIGNED_WHOLE = 1.5 * 2.0**23  # the sum with a number of either sign, up to 2**22, is in that range
SIGNED_WHOLE_BITS = 0x4B400000


def bits_of(x: jax.Array) -> jax.Array:
    """The bits of a float32 array, as uint32."""
    return lax.bitcast_convert_type(x, jnp.uint32)


def widen(x: jax.Array) -> jax.Array:
    """float32 from any float of at most 32 bits; from bfloat16 by a shift, which is fewer instructions than a cast."""
    if x.dtype != jnp.bfloat16:
        return x.astype(jnp.float32)
    bits = lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32)
    return lax.bitcast_convert_type(bits << jnp.uint32(16), jnp.float32)


def rounded_to_float16(x: jax.Array) -> jax.Array:
    """float32 rounded to the precision of float16, except for numbers that are subnormal in float16.

    The result is still float32, and numbers that are too large for float16 become 65536 or more, not infinity. A NaN
    must be one that was widened from float16: the sum could take another one to 0.
    """
    bits = bits_of(x)
    even = bits >> jnp.uint32(13) & jnp.uint32(1)
    return lax.bitcast_convert_type((bits + jnp.uint32(0xFFF) + even) & jnp.uint32(0xFFFFE000), jnp.float32)


def with_sign_of(magnitude: jax.Array, x: jax.Array) -> jax.Array:
    """`magnitude`, which is not negative, with the sign bit of x, including that of -0.0 and NaN."""
    return lax.bitcast_convert_type((bits_of(x) & jnp.uint32(SIGN)) | bits_of(magnitude), jnp.float32)


def add_noise(x: jax.Array, noise: jax.Array | None, spec: QuantSpec) -> jax.Array:
    """x, or the float32 sum of x and the noise, in the dtype of the clip."""
    compute = spec.compute_dtype(x.dtype)
    if noise is None:
        return x if compute == x.dtype else widen(x)
    return (widen(x) + noise).astype(compute)


def to_integers(y: jax.Array, bound: float, spec: QuantSpec, zero: jax.Array | float | None = 0.0) -> jax.Array:
    """Clips and rounds: the integer is the low bits of the sum with `SIGNED_WHOLE`. NaN gives 0.

    `zero` is a number that rounds to 0, and replaces NaN; None promises that there is no NaN.
    """
    clipped = widen(jnp.minimum(jnp.maximum(y, -bound), bound))
    if spec.rounding == "floor_plus_half":
        clipped = jnp.floor(clipped)
    number = clipped if zero is None else jnp.where(y == y, clipped, zero)
    bits = lax.bitcast_convert_type(number + SIGNED_WHOLE, jnp.int32)
    return (bits - SIGNED_WHOLE_BITS if spec.integer_dtype == jnp.int32 else bits).astype(spec.integer_dtype)


def to_narrow_integers(y: jax.Array, bound: float, spec: QuantSpec) -> jax.Array:
    """`to_integers` of at most 16 bits, by minima and maxima that propagate NaN."""
    clipped = jnp.minimum(jnp.maximum(y, -bound), bound)
    return low_bits(jnp.floor(clipped) if spec.rounding == "floor_plus_half" else clipped, spec.integer_dtype)


def low_bits(y: jax.Array, dtype: np.dtype | None) -> jax.Array:
    """Rounds numbers to integers of at most 16 bits, which hold them; NaN gives 0.

    As an unsigned integer NaN of either sign is above each sum of `SIGNED_WHOLE` and such a number. So a minimum, which
    is one instruction, replaces it by bits that are also above, and that end with zeros.
    """
    return jnp.minimum(bits_of(y + SIGNED_WHOLE), jnp.uint32(SIGNED_WHOLE_BITS + (1 << 16))).astype(dtype)


def clip_and_round(y: jax.Array, bound: float, spec: QuantSpec) -> jax.Array:
    """Clips and rounds a block of float32, and keeps NaN and the sign of -0.0."""
    magnitude = jnp.abs(y)
    if spec.clip:
        magnitude = jnp.where(magnitude > bound, bound, magnitude)
    if spec.rounding == "floor_plus_half":
        return jnp.floor(with_sign_of(magnitude, y)) + 0.5
    if spec.rounding == "half_to_even":
        # The second abs changes nothing and costs nothing. Without it XLA, which runs the interpret mode, would add the
        # two constants first (JAX 0.10.2 and 0.11.2).
        rounded = jnp.abs(magnitude + WHOLE) - WHOLE
        if not spec.clip:  # a number of 2**23 or more is whole, but the sum would round it
            rounded = jnp.where(magnitude < WHOLE, rounded, magnitude)
        magnitude = rounded
    return with_sign_of(magnitude, y)


def quantize(x: jax.Array, noise: jax.Array | None, spec: QuantSpec, zero: jax.Array | float | None = 0.0) -> jax.Array:
    """Adds noise, clips and rounds a block; the result is in `spec.result_dtype(x.dtype)`.

    `noise` is None, or float32 that broadcasts to x. `zero` is that of `to_integers`.
    """
    if noise is not None and spec.to_float is not None:
        return float_rounding.rounded(widen(x), noise, spec.to_float).astype(spec.to_float.codes)
    y, bound = add_noise(x, noise, spec), spec.bound_in(x.dtype)
    if spec.integer_dtype is not None:
        return to_integers(y, bound, spec, zero)
    return clip_and_round(widen(y), bound, spec).astype(x.dtype)


def inside(x: jax.Array, spec: QuantSpec) -> jax.Array:
    """The clip mask of a block of x; False for NaN."""
    return jnp.abs(widen(x)) <= spec.bound_in(x.dtype)
