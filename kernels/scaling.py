"""The size of a bucket from the largest magnitude, in arithmetic that gives the same bits on every device.

A product is rounded the same everywhere, and a quotient is not: XLA for CPU multiplies by the reciprocal of a constant,
and on a GPU XLA divides with `div.full.f32` and `rcp.approx.f32`, which are off by two units in the last place and by
one. So the scale is a product, and so much larger that no device's quotient exceeds the bound.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Units in the last place that a scale grows by: the fewest with which, for every mantissa and every bound, neither a
# quotient nor a reciprocal that is two units too large takes the maximum beyond the bound.
GROWTH = 6


def scale_of(maximum: jax.Array, bound: float, fits: bool) -> jax.Array:
    """The size of a bucket such that a largest magnitude is `bound` buckets.

    Args:
        maximum: Finite numbers that are not negative, float32 or float64.
        bound: How many buckets the maximum is mapped to.
        fits: Whether neither `maximum / scale` nor `maximum * (1 / scale)` may exceed `bound` on any device.

    Returns:
        `maximum * (1 / bound)`. With `fits` it is `GROWTH` units in the last place larger, except where the product is
        a power of 2 and, times `bound`, exactly the maximum. With `tiny` the smallest normal number, the scale is 1 for
        a maximum below `bound * tiny * 2`, and at most `1 / tiny`.

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
