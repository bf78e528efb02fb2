"""Plain jnp for XLA to fuse: on CPU, and wherever a fusion with the neighbours is worth more than a kernel.

XLA for CPU emulates bfloat16 and float16 an operation at a time; one trip through float32 and back is several times
faster, and exact here. It counts operations to tell whether threads are worth their start, so there are few: for small
arrays they are not. float64 takes the reference's way.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import elementwise, reference
from ..generators import philox
from ..generators.noise import Draws, drawn
from ..reference import clip_gradient_from_mask as clip_gradient_from_mask
from ..spec import QuantSpec

Sum = Callable[[jax.Array, jax.Array, np.dtype], jax.Array]


def rounded_sum(y: jax.Array, noise: jax.Array, dtype: np.dtype) -> jax.Array:
    """float32 of the sum of two arrays of float32, rounded to `dtype`."""
    return _rounded(y + noise, dtype).astype(jnp.float32)


def quantize(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    *,
    draws: Draws = philox.draws,
    rounded_sum: Sum = rounded_sum,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize`, in float32; `draws` and `rounded_sum` may have a form that suits the platform."""
    if noise is not None and spec.draw is not None:
        noise, spec = drawn(spec.draw, noise, draws), dataclasses.replace(spec, draw=None)
    if x.dtype == jnp.float64 or (noise is not None and noise.dtype == jnp.float64):
        return reference.quantize(x, noise, spec)
    compute, bound = spec.compute_dtype(x.dtype), spec.bound_in(x.dtype)
    y = x.astype(jnp.float32)
    if noise is not None:
        y = rounded_sum(y, noise.astype(jnp.float32), compute)
    if spec.integer_dtype is not None:
        y = elementwise.to_integers(y, bound, spec)
    else:
        y = _clip_and_round(y, bound, spec)
        if _is_exact(spec, bound, x.dtype):
            y = _narrow(y, x.dtype)
        else:
            y = _rounded(y, x.dtype, may_be_subnormal=spec.rounding is None)
    return (y, reference.pack(_inside(x, spec))) if spec.with_mask else y


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec) -> jax.Array:
    """`reference.clip_gradient_from_x`, in float32."""
    if x.dtype == jnp.float64:
        return reference.clip_gradient_from_x(g, x, spec)
    return jnp.where(_inside(x, spec), g, jnp.zeros_like(g))


def _inside(x: jax.Array, spec: QuantSpec) -> jax.Array:
    """The clip mask; False for NaN."""
    return jnp.abs(x.astype(jnp.float32)) <= spec.bound_in(x.dtype)


def _clip_and_round(y: jax.Array, bound: float, spec: QuantSpec) -> jax.Array:
    """Clips and rounds float32 as the reference does, in an operation each."""
    if spec.clip:
        y = lax.clamp(jnp.float32(-bound), y, jnp.float32(bound))
    if spec.rounding == "half_to_even":
        return lax.round(y, lax.RoundingMethod.TO_NEAREST_EVEN)
    return jnp.floor(y) + jnp.float32(0.5) if spec.rounding == "floor_plus_half" else y


def _is_exact(spec: QuantSpec, bound: float, dtype: np.dtype) -> bool:
    """Whether `dtype` holds every result of `_clip_and_round` exactly."""
    if spec.compute_dtype(dtype) == dtype and spec.rounding != "floor_plus_half":
        return True  # what is clipped was of this dtype, and so is its bound, and what it is rounded to
    step = {"half_to_even": 1.0, "floor_plus_half": 0.5, None: 0.0}[spec.rounding]
    return spec.clip and bound + step <= step * 2.0 ** (jnp.finfo(dtype).nmant + 1)


def _rounded(y: jax.Array, dtype: jnp.dtype, may_be_subnormal: bool = True) -> jax.Array:
    """float32 rounded to `dtype`; XLA may drop a plain cast if the next operation widens again."""
    if dtype == jnp.float16 and may_be_subnormal:
        return reference.round_to(y, dtype)
    kind = jnp.finfo(dtype)
    return y if dtype == jnp.float32 else _narrow(lax.reduce_precision(y, kind.nexp, kind.nmant), dtype)


def _narrow(y: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Casts float32 that `dtype` holds exactly; to bfloat16 by its upper half."""
    if dtype != jnp.bfloat16:
        return y.astype(dtype)
    return lax.bitcast_convert_type((elementwise.bits_of(y) >> jnp.uint32(16)).astype(jnp.uint16), jnp.bfloat16)
