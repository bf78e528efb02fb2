"""The size of a bucket from the largest magnitude, in arithmetic that gives the same bits on every device.

Every device rounds a product in the same way, but not a quotient. XLA for CPU multiplies by the reciprocal of a
constant. XLA for GPU divides with `div.full.f32` and `rcp.approx.f32`, whose errors are up to two units in the last
place, and one. So the scale is a product, and it is increased such that no device's quotient exceeds the bound.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# By how many units in the last place a scale is increased. It is the smallest number such that, for every mantissa and
# bound, the maximum stays within the bound even if the quotient or the reciprocal is two units too large.
GROWTH = 6


def scale_of(maximum: jax.Array, bound: float, fits: bool) -> jax.Array:
    """The size of a bucket such that a largest magnitude is `bound` buckets.

    Args:
        maximum: Finite numbers that are not negative, float32 or float64.
        bound: How many buckets the maximum is mapped to.
        fits: Whether `maximum / scale` and `maximum * (1 / scale)` must not exceed `bound` on any device.

    Returns:
        `maximum * (1 / bound)`. With `fits` it is `GROWTH` units in the last place larger, unless the product is a
        power of 2 and `bound` times the product is exactly the maximum. If `tiny` is the smallest normal number, the
        scale is 1 for a maximum below `bound * tiny * 2`, and never above `1 / tiny`.

    Example:
        >>> import jax.numpy as jnp
        >>> scale_of(jnp.asarray([254.0, 0.0]), 127.0, fits=True)
        Array([2., 1.], dtype=float32)
    """
    dtype, kind = maximum.dtype, jnp.finfo(maximum.dtype)
    tiny = float(kind.smallest_normal)
    in_buckets = jnp.asarray(bound, dtype)
    scale = maximum * jnp.asarray(np.ones((), dtype) / np.asarray(bound, dtype), dtype)
    scale = jnp.minimum(scale, jnp.asarray(1 / tiny, dtype))
    if fits:
        bits = lax.bitcast_convert_type(scale, jnp.dtype(f"int{kind.bits}"))
        fraction = bits & jnp.asarray((1 << kind.nmant) - 1, bits.dtype)
        is_exact = (fraction == 0) & (scale * in_buckets == maximum)
        larger = lax.bitcast_convert_type(bits + jnp.asarray(GROWTH, bits.dtype), dtype)
        scale = jnp.where(is_exact, scale, jnp.minimum(larger, jnp.asarray(1 / tiny, dtype)))
    return jnp.where(maximum < jnp.asarray(bound * tiny * 2, dtype), jnp.ones_like(scale), scale)
