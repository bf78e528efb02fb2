"""Stochastic rounding of float32 to the codes of a smaller float dtype, in operations that every compiler has.

It is done on integers, the bits of x: XLA for CPU and a TPU flush subnormal numbers to 0. A magnitude lies between two
neighbours of the dtype, and its *fraction* is how far it is from the lower one to the upper one: 0 for a number that
the dtype holds. Draws h of 16 bits round it up where `floor(fraction * 65536) + h >= 65536`. Any other noise does where
the float32 sum of fraction and noise is at least 1/2, but not where the fraction is 0.

A carry from the mantissa goes into the exponent, which is right: the codes of neighbours differ by 1.
"""

import jax
import jax.numpy as jnp
from jax import lax

from .generators.noise import ONE
from .spec import FloatRounding

INFINITY = 0x7F800000  # the bits of float32
MANTISSA = 23
MOST = 31  # bits that a shift of int32 can be by
SMALLEST = 126  # the fraction of what is farther below the neighbours is far below that of any noise


def bits_of(x: jax.Array) -> jax.Array:
    """The bits of a float32 array, as int32."""
    return lax.bitcast_convert_type(x, jnp.int32)


def draws_of(noise: jax.Array) -> jax.Array:
    """The 16-bit draws, int32, that `generators.noise.from_16_bits` made noise of: the sum is exact, from 1 to 2."""
    return (bits_of(noise + jnp.float32(1.5)) - ONE) >> 7


def rounded(x: jax.Array, noise: jax.Array, how: FloatRounding) -> jax.Array:
    """The codes of a float32 array, rounded with float32 noise."""
    return by_draws(x, draws_of(noise), how) if how.by_draws else by_noise(x, noise, how)


def by_draws(x: jax.Array, draw: jax.Array, how: FloatRounding) -> jax.Array:
    """The codes of a float32 array, rounded with int32 draws below 65536."""
    bits = bits_of(x)
    u = bits & 0x7FFFFFFF
    least, number, below = _aligned(u, how)
    kept = 16 - (MANTISSA - how.mantissa)  # of the 16 bits of fraction, those that are shifted in
    number = number << kept if kept >= 0 else number >> -kept
    return _signed(bits, u, least + (((number >> jnp.minimum(below, MOST)) + draw) >> 16), how)


def by_noise(x: jax.Array, noise: jax.Array, how: FloatRounding) -> jax.Array:
    """The codes of a float32 array, rounded with float32 noise."""
    bits = bits_of(x)
    u = bits & 0x7FFFFFFF
    least, number, below = _aligned(u, how)
    places = below + (MANTISSA - how.mantissa)
    shift = jnp.minimum(places, MOST)
    whole = number >> shift
    rest = number - (whole << shift)
    unit = lax.bitcast_convert_type((127 - jnp.minimum(places, SMALLEST)) << MANTISSA, jnp.float32)
    up = (rest > 0) & (rest.astype(jnp.float32) * unit + noise >= 0.5)
    return _signed(bits, u, least + whole + jnp.where(up, 1, 0), how)


def _aligned(u: jax.Array, how: FloatRounding) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A magnitude, from its bits, in three integers.

    They are the code to which the significand is to be added, less what its leading bit adds; the significand, with
    that bit; and how many places it is below the smallest normal number. In a dtype with float32's exponents, the bits
    are both code and significand.
    """
    zero = jnp.zeros_like(u)
    if how.least_exponent == 1:
        return zero, u, zero
    exponent = jnp.maximum(u >> MANTISSA, 1)
    above = exponent - how.least_exponent
    return jnp.maximum(above, 0) << how.mantissa, u - ((exponent - 1) << MANTISSA), jnp.maximum(-above, 0)


def _signed(bits: jax.Array, u: jax.Array, code: jax.Array, how: FloatRounding) -> jax.Array:
    """The code with the sign of x, after a look at what is not finite."""
    last = how.largest if how.saturates else how.largest + 1
    if how.saturates and how.has_infinity:
        last = jnp.where(u == INFINITY, how.largest + 1, last)
    code = jnp.where(u > INFINITY, how.nan, jnp.minimum(code, last))
    width = 8 * how.dtype.itemsize
    return (code | ((bits >> (32 - width)) & (1 << (width - 1)))).astype(how.codes)
