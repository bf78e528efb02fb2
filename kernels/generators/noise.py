"""Uniform noise in [-0.5, 0.5] from random bits, exactly: the bits are placed in the mantissa of a float32."""

import jax
import jax.numpy as jnp
from jax import lax

ONE = 0x3F800000  # the bits of 1.0 in float32


def from_16_bits(draw: jax.Array) -> jax.Array:
    """`(draw + 0.5) / 65536 - 0.5` for uint32 below 65536."""
    return _from_one_to_two(draw << jnp.uint32(7)) - jnp.float32(1.5 - 2.0**-17)


def from_upper_half(bits: jax.Array) -> jax.Array:
    """`from_16_bits` for the upper halves of uint32, whatever the lower halves are; for a TPU this is less arithmetic.

    A float32 between 64 and 128 has 17 bits after the point: they are the 16 bits of the draw, and 1 for the half.
    """
    return lax.bitcast_convert_type(bits >> jnp.uint32(15) | jnp.uint32(0x42800001), jnp.float32) - jnp.float32(64.5)


def from_16_bits_on_cuda(draw: jax.Array) -> jax.Array:
    """`from_16_bits` by a conversion, which reads either half of a word, and does not take the ALU's time."""
    half = draw.astype(jnp.uint16).astype(jnp.float32)
    return half * jnp.float32(2.0**-16) - jnp.float32(0.5 - 2.0**-17)


def from_23_bits(bits: jax.Array) -> jax.Array:
    """`jax.random.uniform(...) - 0.5` from the uint32 that `jax.random.uniform` draws: it uses their upper 23 bits."""
    return _from_one_to_two(bits >> jnp.uint32(9)) - jnp.float32(1.5)


def _from_one_to_two(mantissa: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(mantissa | jnp.uint32(ONE), jnp.float32)
