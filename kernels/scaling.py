"""Scales: the size of a bucket from the largest magnitude, and division by it, with the same bits on every device.

Every device rounds a product in the same way, but not a quotient. XLA for CPU multiplies by the reciprocal of a
constant. XLA for GPU divides with `div.full.f32` and `rcp.approx.f32`, whose errors are up to two units in the last
place, and one. So a scale is a product, and it is increased such that no device's quotient exceeds the bound. And
numbers are divided by a scale as products with its reciprocal, which is rounded correctly here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .spec import Scaling, wider

# By how many units in the last place a scale is increased. It is the smallest number such that, for every mantissa and
# bound, the maximum stays within the bound even if the quotient or the reciprocal is two units too large.
GROWTH = 6


def scale_of(maximum: jax.Array, scaling: Scaling) -> jax.Array:
    """The size of a bucket such that a largest magnitude is `scaling.in_buckets` buckets.

    Args:
        maximum: Finite numbers that are not negative, float32 or float64.
        scaling: How many buckets the maximum is mapped to, and how the scale is rounded.

    Returns:
        `maximum * fraction * (1 / in_buckets)`. With `fits` it is `GROWTH` units in the last place larger, unless the
        product is a power of 2 and `in_buckets` times the product is exactly the maximum. With `power_of_two` it is
        then rounded up to a power of 2. If `tiny` is the smallest normal number, the scale is 1 for a maximum below
        `in_buckets * tiny * 2`, and never above `1 / tiny`.

    Example:
        >>> import jax.numpy as jnp
        >>> scale_of(jnp.asarray([254.0, 0.0]), Scaling(127.0, fits=True))
        Array([2., 1.], dtype=float32)
    """
    dtype, kind = maximum.dtype, jnp.finfo(maximum.dtype)
    tiny, integer = float(kind.smallest_normal), jnp.dtype(f"int{kind.bits}")
    if scaling.fraction != 1:
        maximum = maximum * jnp.asarray(scaling.fraction, dtype)
    in_buckets = jnp.asarray(scaling.in_buckets, dtype)
    scale = maximum * jnp.asarray(np.ones((), dtype) / np.asarray(scaling.in_buckets, dtype), dtype)
    scale = jnp.minimum(scale, jnp.asarray(1 / tiny, dtype))
    if scaling.fits:
        bits = lax.bitcast_convert_type(scale, integer)
        fraction = bits & jnp.asarray((1 << kind.nmant) - 1, bits.dtype)
        is_exact = (fraction == 0) & (scale * in_buckets == maximum)
        larger = lax.bitcast_convert_type(bits + jnp.asarray(GROWTH, bits.dtype), dtype)
        scale = jnp.where(is_exact, scale, jnp.minimum(larger, jnp.asarray(1 / tiny, dtype)))
    if scaling.power_of_two:
        below = jnp.asarray((1 << kind.nmant) - 1, integer)
        scale = lax.bitcast_convert_type((lax.bitcast_convert_type(scale, integer) + below) & ~below, dtype)
    return jnp.where(maximum < jnp.asarray(scaling.in_buckets * tiny * 2, dtype), jnp.ones_like(scale), scale)


def inverse_of(scale: jax.Array) -> jax.Array:
    """`1 / scale`, rounded correctly from any reciprocal that is within two units in the last place.

    A scale whose magnitude is below the smallest normal number, 0 among them, counts as that number, and one above the
    reciprocal of that number as this reciprocal. So the result is never infinite, subnormal or 0. It is NaN for NaN.

    Args:
        scale: float32, or float64, whose quotients are rounded correctly by every device.
    """
    dtype, kind = scale.dtype, jnp.finfo(scale.dtype)
    tiny, integer = float(kind.smallest_normal), jnp.dtype(f"int{kind.bits}")
    lowest, highest = (jnp.asarray(np.asarray(limit, dtype).view(integer)) for limit in (tiny, 1 / tiny))
    bits = lax.bitcast_convert_type(scale, integer)
    magnitude = bits & jnp.asarray(jnp.iinfo(integer).max, integer)
    clamped = jnp.where(magnitude < lowest, lowest, jnp.where(magnitude > highest, highest, magnitude))
    # 1 / scale is in the range of normal numbers from here on.
    positive = lax.bitcast_convert_type(clamped, dtype)
    inverse = jnp.asarray(1, dtype) / positive
    if dtype == jnp.float32:
        inverse = corrected(inverse, positive)
    inverse = lax.bitcast_convert_type(lax.bitcast_convert_type(inverse, integer) | (bits ^ magnitude), dtype)
    return jnp.where(scale == scale, inverse, scale)


def corrected(reciprocal: jax.Array, scale: jax.Array) -> jax.Array:
    """`1 / scale` rounded correctly, from a reciprocal within two units in the last place; normal positive float32."""
    found, divisor = (lax.bitcast_convert_type(number, jnp.int32) for number in (reciprocal, scale))
    whole = jnp.asarray(1 << jnp.finfo(jnp.float32).nmant, jnp.int32)
    fraction = whole - jnp.asarray(1, jnp.int32)
    # In whole mantissas, found * divisor is a power of 2 that 32 bits do not hold, plus the error of the product.
    divisor = (divisor & fraction) | whole
    for _ in range(2):
        error = ((found & fraction) | whole) * divisor * jnp.asarray(-2, jnp.int32)
        up, same, down = (jnp.full_like(error, step) for step in (1, 0, -1))
        found = found + jnp.where(error > divisor, up, jnp.where(error < -divisor, down, same))
    return lax.bitcast_convert_type(found, jnp.float32)


def in_buckets(x: jax.Array, scale: jax.Array) -> jax.Array:
    """x in buckets, in float32 or float64: its product with the reciprocal of the scale, which broadcasts by blocks."""
    wide = wider(x.dtype, np.dtype(np.float32))
    return x.astype(wide) * expanded(inverse_of(scale.astype(wide)), x.shape)


def in_units(y: jax.Array, scale: jax.Array) -> jax.Array:
    """Numbers of buckets, float32 or float64, in the units of the scale, which broadcasts by blocks."""
    return pinned(y * expanded(scale.astype(y.dtype), y.shape))


def pinned(product: jax.Array) -> jax.Array:
    """A product that is rounded before it is added to something: no compiler makes one operation of both.

    XLA for CPU would, within one fusion, and then two programs would give different bits.
    """
    return jnp.where(product == product, product, jnp.full_like(product, jnp.nan))


def expanded(scale: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A scale of the rank of `shape`, one for each block of the last axis, such that it broadcasts to `shape`."""
    if not shape or scale.shape[-1] in (1, shape[-1]):
        return scale
    blocks, n = scale.shape[-1], shape[-1]
    repeated = lax.broadcast_in_dim(scale, (*scale.shape, n // blocks), tuple(range(scale.ndim)))
    return repeated.reshape(*scale.shape[:-1], n)


def largest_finite(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The largest magnitude of finite elements along some axes, which are kept, in the dtype of a scale; 0 if none."""
    magnitude = magnitude_of(x)
    finite = jnp.where(magnitude < jnp.inf, magnitude, jnp.zeros_like(magnitude))  # NaN compares as False too
    return jnp.max(finite, axis=axes, keepdims=True, initial=0)


def largest_finite_on_a_cpu(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """`largest_finite` for XLA for CPU, which reduces magnitudes quickly if they come of few operations.

    It reduces large arrays with YNNPACK, whose maximum loses NaN, and with it other elements. But a sum is not finite
    if an element is not; if it overflows, only time is lost. The sum is that of -x, because XLA would write x, cast to
    float32, to memory for all that reads it.
    """
    if x.dtype == jnp.float16:  # which YNNPACK does not have
        x = x.astype(jnp.float32)
    wide = wider(x.dtype, np.dtype(np.float32))
    largest = jnp.max(jnp.abs(x), axis=axes, keepdims=True, initial=0).astype(wide)
    is_finite = jnp.all(jnp.abs(jnp.sum((-x).astype(wide), axis=axes)) < jnp.inf)
    return lax.cond(is_finite, lambda _: largest, functools.partial(_largest_by_bits, axes=axes), x)


def _largest_by_bits(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """`largest_finite` in one reduction, without an array of magnitudes; LLVM vectorizes a maximum of integers."""
    x = x.astype(wider(x.dtype, np.dtype(np.float32)))
    integer = np.dtype(f"int{jnp.finfo(x.dtype).bits}")
    infinity = np.asarray(np.inf, x.dtype).view(integer)

    def finite(x: jax.Array) -> jax.Array:
        magnitude = lax.bitcast_convert_type(x, integer) & jnp.asarray(jnp.iinfo(integer).max, integer)
        return jnp.where(magnitude < infinity, magnitude, jnp.zeros_like(magnitude))

    def larger(a: jax.Array, b: jax.Array) -> jax.Array:
        return lax.bitcast_convert_type(jnp.maximum(finite(a), finite(b)), x.dtype)

    axes = tuple(axis % x.ndim for axis in axes)
    largest = jnp.expand_dims(lax.reduce(x, np.zeros((), x.dtype), larger, axes), axes)
    return lax.bitcast_convert_type(finite(largest), x.dtype)  # an axis of size 1 is not compared with anything


def absmax(x: jax.Array, axes: tuple[int, ...], block: int | None, platform: str | None = None) -> jax.Array:
    """`reference.absmax`, in the form for a platform as JAX names it."""
    largest = largest_finite_on_a_cpu if platform == "cpu" and _has_one_cpu() else largest_finite
    if block is None:
        return largest(x, axes)
    return largest(x.reshape(*x.shape[:-1], x.shape[-1] // block, block), (-1,))[..., 0]


def _has_one_cpu() -> bool:
    """Whether no program for CPUs is split over devices: XLA does not split a reduction of its own operation."""
    try:
        return len(jax.devices("cpu")) == 1
    except RuntimeError:  # JAX raises it if JAX_PLATFORMS does not have cpu
        return False


def magnitude_of(x: jax.Array) -> jax.Array:
    """|x| in the dtype of a scale."""
    return jnp.abs(x.astype(wider(x.dtype, np.dtype(np.float32))))
