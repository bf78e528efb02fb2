"""The operations in plain jnp, in the form that XLA compiles best.

XLA for CPU emulates each operation on bfloat16 and float16. Computing in float32 is several times faster, and exact
here. LLVM turns a `round` of a widened float16 back into one of float16, so that is done in bits. XLA for CPU also
starts threads only for programs with enough operations, so this form has few: for small arrays, threads do not pay.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .. import elementwise, scaling
from ..clip_mask import inside, pack, unpack
from ..generators import drawn
from ..rounding import round_to
from ..spec import QuantSpec, Scaling, wider

# The platforms where the sum with the noise is rounded to bfloat16 by a cast, which is one instruction on a GPU. XLA
# keeps this cast, because its bits are used.
CASTS_TO_BFLOAT16 = ("cuda",)

# The roundings and bounds whose integers are all of int8, but for -128.
FULL_INT8 = (("half_to_even", 127.0), ("floor_plus_half", 127.5))


def quantize(
    x: jax.Array, noise: jax.Array | None, spec: QuantSpec, *, platform: str | None = None
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize`, in float32 or float64, in the form for a platform as JAX names it."""
    if noise is not None and spec.draw is not None:
        noise = drawn(spec.draw, noise, platform)
    compute, bound = spec.compute_dtype(x.dtype), spec.bound_in(x.dtype)
    y = x.astype(wider(compute, np.dtype(np.float32)))
    rounds_in_bits = platform == "cpu" and x.dtype == jnp.float16 and spec.rounding == "half_to_even"
    if noise is not None:
        in_bits = rounds_in_bits and spec.draw is not None
        y = _rounded_sum(y, noise, compute, platform in CASTS_TO_BFLOAT16, in_bits)
    if spec.integer_dtype is not None:
        y = _to_integers(y, bound, spec, None if rounds_in_bits else platform)
    else:
        in_bits = rounds_in_bits and y.dtype == jnp.float32
        y = elementwise.clip_and_round(y, bound, spec) if in_bits else _clip_and_round(y, bound, spec)
        if _is_exact(spec, bound, x.dtype):
            y = _narrow(y, x.dtype)
        else:
            y = _rounded(y, x.dtype, may_be_subnormal=spec.rounding is None)
    return (y, pack(inside(x, spec))) if spec.with_mask else y


def quantize_by_scale(
    x: jax.Array, scale: jax.Array, noise: jax.Array | None, spec: QuantSpec, *, platform: str | None = None
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`reference.quantize_by_scale`, in the form for a platform as JAX names it."""
    y = scaling.in_buckets(x, scale)
    result = quantize(y if noise is None else scaling.pinned(y), noise, spec, platform=platform)
    y, *mask = result if isinstance(result, tuple) else (result,)
    if spec.integer_dtype is None:
        y = _rounded(scaling.in_units(y, scale), x.dtype)
    return (y, mask[0]) if mask else y


def absmax(x: jax.Array, axes: tuple[int, ...], block: int | None, *, platform: str | None = None) -> jax.Array:
    """`reference.absmax`, in the form for a platform as JAX names it."""
    return scaling.absmax(x, axes, block, platform)


def quantize_by_absmax(
    x: jax.Array,
    noise: jax.Array | None,
    spec: QuantSpec,
    how: Scaling,
    block: int | None,
    *,
    platform: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`reference.quantize_by_absmax`: XLA reads x twice.

    On a CPU x is in memory for a branch of the maximum. Without the barrier XLA would compute x once more for the
    integers, and keep in memory what that takes too; arrays of over 32 MiB cost more than the arithmetic.
    """
    if platform == "cpu":
        x = lax.optimization_barrier(x)
    scale = scaling.scale_of(scaling.absmax(x, (-1,), block, platform), how)
    return quantize_by_scale(x, scale, noise, spec, platform=platform), scale  # type: ignore[return-value]


def clip_gradient_from_mask(g: jax.Array, packed: jax.Array) -> jax.Array:
    """`reference.clip_gradient_from_mask`."""
    return jnp.where(unpack(packed, g.shape[-1]), g, jnp.zeros_like(g)) if g.size else g


def clip_gradient_from_x(g: jax.Array, x: jax.Array, spec: QuantSpec) -> jax.Array:
    """`reference.clip_gradient_from_x`, in float32 or float64."""
    return jnp.where(inside(x, spec), g, jnp.zeros_like(g))


def clip_gradient_by_scale(g: jax.Array, x: jax.Array, scale: jax.Array, spec: QuantSpec) -> jax.Array:
    """`reference.clip_gradient_by_scale`."""
    return clip_gradient_from_x(g, scaling.in_buckets(x, scale), spec)


def _rounded_sum(y: jax.Array, noise: jax.Array, dtype: np.dtype, casts: bool, in_bits: bool) -> jax.Array:
    """The sum, rounded to `dtype`, in the dtype of y.

    If float16 is rounded `in_bits`, numbers that are subnormal in it are not rounded, as they all become 0 later, and
    the noise must not be NaN.
    """
    wide = wider(y.dtype, noise.dtype)
    total = y.astype(wide) + noise.astype(wide)
    if in_bits and (wide, dtype) == (jnp.float32, jnp.float16):
        return elementwise.rounded_to_float16(total)
    if casts and (wide, dtype) == (jnp.float32, jnp.bfloat16):
        return elementwise.widen(total.astype(dtype))
    return _rounded(total, dtype).astype(y.dtype)


def _to_integers(y: jax.Array, bound: float, spec: QuantSpec, platform: str | None) -> jax.Array:
    """Clips and rounds to integers; NaN gives 0."""
    if y.dtype == jnp.float32:
        fills_int8 = spec.integer_dtype == jnp.int8 and (spec.rounding, bound) in FULL_INT8
        return _saturated(y, spec) if platform == "cpu" and fills_int8 else elementwise.to_integers(y, bound, spec)
    whole = _clip_and_round(y, bound, spec)
    return jnp.where(jnp.isnan(whole), 0, whole).astype(spec.integer_dtype)


def _saturated(y: jax.Array, spec: QuantSpec) -> jax.Array:
    """int8 by a cast, which on a CPU clips to -128 and 127 and makes 0 of NaN.

    XLA gives a reduction, such as a layer norm's, to YNNPACK, together with operations around it that YNNPACK has. It
    has no clamp, selection or bitcast, and its minimum of floats loses NaN.
    """
    if spec.rounding == "floor_plus_half":
        return jnp.floor(y).astype(jnp.int8)
    whole = lax.round(y, lax.RoundingMethod.TO_NEAREST_EVEN)
    return jnp.maximum(whole.astype(jnp.int8), jnp.asarray(-127, jnp.int8))


def _clip_and_round(y: jax.Array, bound: float, spec: QuantSpec) -> jax.Array:
    """Clips and rounds, with one operation for each; for an integer result, `"floor_plus_half"` is the floor."""
    if spec.clip:
        y = lax.clamp(jnp.asarray(-bound, y.dtype), y, jnp.asarray(bound, y.dtype))
    if spec.rounding == "half_to_even":
        return lax.round(y, lax.RoundingMethod.TO_NEAREST_EVEN)
    if spec.rounding == "floor_plus_half":
        y = jnp.floor(y)
        return y + jnp.asarray(0.5, y.dtype) if spec.integer_dtype is None else y
    return y


def _is_exact(spec: QuantSpec, bound: float, dtype: np.dtype) -> bool:
    """Whether `dtype` holds every result of `_clip_and_round` exactly."""
    if spec.compute_dtype(dtype) == dtype and spec.rounding != "floor_plus_half":
        return True  # x after the noise and the bound are of this dtype, and so is what they round to
    step = {"half_to_even": 1.0, "floor_plus_half": 0.5, None: 0.0}[spec.rounding]
    return spec.clip and bound + step <= step * 2.0 ** (jnp.finfo(dtype).nmant + 1)


def _rounded(y: jax.Array, dtype: np.dtype, may_be_subnormal: bool = True) -> jax.Array:
    """y rounded to `dtype`; XLA may drop a plain cast if the next operation widens again."""
    if y.dtype != jnp.float32 or (dtype == jnp.float16 and may_be_subnormal):
        return round_to(y, dtype)
    kind = jnp.finfo(dtype)
    return y if dtype == jnp.float32 else _narrow(lax.reduce_precision(y, kind.nexp, kind.nmant), dtype)


def _narrow(y: jax.Array, dtype: np.dtype) -> jax.Array:
    """Casts numbers that `dtype` holds exactly; from float32 to bfloat16 by the upper half of the bits."""
    if (y.dtype, dtype) != (jnp.float32, jnp.bfloat16):
        return y.astype(dtype)
    return lax.bitcast_convert_type((elementwise.bits_of(y) >> jnp.uint32(16)).astype(jnp.uint16), jnp.bfloat16)
