"""FJFormer's numerics as FJFormer writes them in jnp, and numerics and noise to try."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from jax import lax

from intnumerics import IntNumerics
from intnumerics.kernels import QuantSpec

SWITCHES = ("preserve_zero", "preserve_max_val", "clip", "clip_gradient", "round")


def dither(shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """Uniform in (-0.5, 0.5), in steps of 2**-16: every operation is exact, so no compiler can change the noise."""
    return (jax.random.bits(key, shape, jnp.uint16).astype(jnp.float32) + 0.5) / 65536 - 0.5


def numerics(bits: int = 8, **fields: Any) -> IntNumerics:
    return IntNumerics(bits, **(dict.fromkeys(SWITCHES, True) | {"noise_fn": None} | fields))


def bound_of(n: IntNumerics) -> float:
    return oracle.edge(n.bits, n.preserve_zero) - (0.5 if n.round else 0.0)


def original(x: jax.Array, n: IntNumerics, noise: jax.Array | None = None) -> jax.Array:
    """The forward as FJFormer writes it, one jnp operation after the other."""
    if noise is not None:
        x = (x + noise).astype(x.dtype)
    if n.clip:
        x = jnp.clip(x, -bound_of(n), bound_of(n))
    if n.round:
        x = lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN) if n.preserve_zero else jnp.floor(x) + 0.5
    return x


def original_gradient(x: jax.Array, g: jax.Array, n: IntNumerics) -> jax.Array:
    b = jnp.asarray(bound_of(n), x.dtype)
    return jnp.where((-b <= x) & (x <= b), g, jnp.zeros_like(g)) if n.clip_gradient else g


def numbers(n: IntNumerics, dtype: Any) -> jax.Array:
    """Bucket edges, ties, their neighbours and extremes; no float32 subnormals, which platforms take differently."""
    return jnp.asarray(oracle.flushed(oracle.values(QuantSpec(bound_of(n), True, None), np.dtype(dtype))))


def spec_of(n: IntNumerics, **fields: Any) -> QuantSpec:
    """What the oracle needs, from the fields alone."""
    bound = oracle.edge(n.bits, n.preserve_zero) - (0.5 if n.round else 0.0)
    rounding = ("half_to_even" if n.preserve_zero else "floor_plus_half") if n.round else None
    return QuantSpec(bound, n.clip, rounding, **({"noise_dtype": n.noise_dtype} | fields))


def given(noise: Any) -> Callable[[tuple[int, ...], jax.Array], Any]:
    return lambda shape, key: noise
