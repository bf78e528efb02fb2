"""Noise from a seed, in plain jnp: what a kernel that draws noise itself must give, bit for bit."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ..spec import Draw, Generator
from . import philox, threefry

ONE = 0x3F800000  # the bits of 1.0 in float32


def from_16_bits(draw: jax.Array) -> jax.Array:
    """`(draw + 0.5) / 65536 - 0.5` for uint32 below 65536, exactly: the draw is placed in the mantissa of a number."""
    return _from_one_to_two(draw << jnp.uint32(7)) - jnp.float32(1.5 - 2.0**-17)


def from_23_bits(bits: jax.Array) -> jax.Array:
    """`jax.random.uniform(...) - 0.5` from the uint32 that it takes: their upper 23 bits as a mantissa."""
    return _from_one_to_two(bits >> jnp.uint32(9)) - jnp.float32(1.5)


def _from_one_to_two(mantissa: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(mantissa | jnp.uint32(ONE), jnp.float32)


Draws = Callable[[Draw, jax.Array], jax.Array]

FROM_THREEFRY: dict[Generator, Callable[[jax.Array], jax.Array]] = {
    "threefry_23_bits": from_23_bits,
    "threefry_16_bits": lambda bits: from_16_bits(bits & jnp.uint32(0xFFFF)),
}
PLAIN: tuple[Generator, ...] = ("philox", *FROM_THREEFRY)  # what `drawn` draws


def drawn(draw: Draw, seed: jax.Array, philox_draws: Draws = philox.draws) -> jax.Array:
    """The noise of a draw: float32 of (*batch, *draw.shape), the batch axes being those of the seed.

    Args:
        draw: Which generator, and which elements there are.
        seed: As `spec.Draw` describes it.
        philox_draws: `philox.draws`, or a form of it that suits the platform.
    """
    if draw.generator == "philox":
        return from_16_bits(philox_draws(draw, seed))
    return FROM_THREEFRY[draw.generator](threefry.bits(draw, seed))
