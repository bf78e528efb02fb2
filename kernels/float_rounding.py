"""Stochastic rounding of float32 to the codes of a smaller float dtype, in operations that every compiler has.

It is done on integers, the bits of x: XLA for CPU and a TPU flush subnormal numbers to 0. A magnitude lies between two
neighbours of the dtype, and its *fraction* is how far it is from the lower one to the upper one: 0 for a number that
the dtype holds. A draw h of 16 bits rounds it up where `floor(fraction * 65536) + h >= 65536`. Any other noise rounds
it up where the float32 sum of fraction and noise is at least 1/2, except where the fraction is 0.

A carry from the mantissa goes into the exponent, which is right: the codes of neighbours differ by 1.
"""

import jax
import jax.numpy as jnp
from jax import lax

from .generators.noise import ONE
from .spec import FloatRounding

INFINITY = 0x7F800000  # the bits of float32
MANTISSA = 23
MOST = 31  # bits: not every compiler of kernels says what int32 shifted by more is
SMALLEST = 126  # the fraction of what is farther below the neighbours is far below that of any noise


def bits_of(x: jax.Array) -> jax.Array:
    """The bits of a float32 array, as int32."""
    return lax.bitcast_convert_type(x, jnp.int32)


def draws_of(noise: jax.Array) -> jax.Array:
    """The 16-bit draws, int32, that `generators.noise.from_16_bits` made noise of: the sum is exact, from 1 to 2."""
    return (bits_of(noise + jnp.float32(1.5)) - ONE) >> 7


def numbers(codes: jax.Array, how: FloatRounding) -> jax.Array:
    """The numbers whose codes these are, in any integer dtype that holds them."""
    return lax.bitcast_convert_type(codes.astype(how.codes), how.dtype)


def rounded(x: jax.Array, noise: jax.Array, how: FloatRounding) -> jax.Array:
    """The codes, int32, of a float32 array, rounded with float32 noise."""
    return by_draws(x, draws_of(noise), how) if how.by_draws else by_noise(x, noise, how)


def by_draws(x: jax.Array, draw: jax.Array, how: FloatRounding) -> jax.Array:
    """The codes, int32, of a float32 array, rounded with int32 draws below 65536."""
    bits = bits_of(x)
    u = bits & 0x7FFFFFFF
    number, below = _aligned(u, how)
    if how.dropped < 16:  # what is beyond the largest number would not fit
        number = jnp.minimum(number, (how.largest + 1) << how.dropped) << (16 - how.dropped)
    elif how.dropped > 16:
        below = below + (how.dropped - 16)
    return _signed(bits, u, ((number >> jnp.minimum(below, MOST)) + draw) >> 16, how)


def by_noise(x: jax.Array, noise: jax.Array, how: FloatRounding) -> jax.Array:
    """The codes, int32, of a float32 array, rounded with float32 noise."""
    bits = bits_of(x)
    u = bits & 0x7FFFFFFF
    number, below = _aligned(u, how)
    places = below + how.dropped
    shift = jnp.minimum(places, MOST)
    code = number >> shift
    rest = number - (code << shift)
    unit = lax.bitcast_convert_type((127 - jnp.minimum(places, SMALLEST)) << MANTISSA, jnp.float32)
    up = (rest > 0) & (u > 0) & (rest.astype(jnp.float32) * unit + noise >= 0.5)
    return _signed(bits, u, code + jnp.where(up, 1, 0), how)


def _aligned(u: jax.Array, how: FloatRounding) -> tuple[jax.Array, jax.Array]:
    """A magnitude, from its bits, as a code with 23 bits of mantissa, and how many places that is too far to the left.

    The bits of a number that is normal in the dtype are a code but for the offset of the exponent. Of a smaller one the
    code is the significand, to be shifted. Numbers that are subnormal in float32 get a leading bit that they do not
    have: it is shifted out, or in a dtype with float32's exponents not set.
    """
    if how.least_exponent == 1:
        return u, jnp.zeros_like(u)
    leading = 1 << MANTISSA
    small = jnp.minimum(u, how.least_exponent * leading)
    significand = (small & (leading - 1)) | leading
    return significand + (u - small), how.least_exponent - (small >> MANTISSA)


def _signed(bits: jax.Array, u: jax.Array, code: jax.Array, how: FloatRounding) -> jax.Array:
    """The code with the sign of x, after a look at what is not finite."""
    last = how.largest if how.saturates else how.largest + 1
    if how.saturates and how.has_infinity:
        last = jnp.where(u == INFINITY, how.largest + 1, last)
    code = jnp.minimum(code, last)
    if how.saturates or how.has_infinity:  # otherwise all that is beyond the largest number is NaN
        code = jnp.where(u > INFINITY, how.nan, code)
    width = 8 * how.dtype.itemsize
    return code | ((bits >> (32 - width)) & (1 << (width - 1)))
