"""The scale that brings an array into buckets."""

import jax

from . import _checks, _shape_checks
from ._scaled_pass import scale_by_absmax
from .int_numerics import IntNumerics, check_numerics
from .kernels import Scaling


def absmax_scale(x: jax.Array, numerics: IntNumerics, *, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """The size of a bucket: the largest magnitude of x is `numerics.abs_val_mapped_to()` buckets.

    `quantize` and `quantize_to_int` take `x / scale`, and their result times `scale` is in the units of x again. The
    scale is float32 for bfloat16 and float16 too, and so is the quotient, which bfloat16 would round. With strict dtype
    promotion write `x.astype(jnp.float32) / scale`.

    With `preserve_max_val=True` neither `x / scale` nor `x * (1 / scale)` exceeds the clip's bound on any device, so no
    element loses its gradient: the scale is six units in the last place larger than the exact quotient. Up to 20 bits
    the largest magnitude is still rounded to the last bucket. With `round=False` nothing exceeds the bound either,
    whatever `preserve_max_val` is.

    With `preserve_max_val=False` and `round=True` the largest magnitude is at the edge of the last bucket, half a
    bucket beyond the bound. With `clip_gradient=True` every slice then loses the gradient of its largest element, as in
    AQT: use `preserve_max_val=True` or `clip_gradient=False`.

    No gradient goes through the scale. In `quantize(x / scale, numerics) * scale` the gradient of x is multiplied by
    the scale and divided by it again: it is lost where the product underflows, and infinite where it overflows.

    Under `jit` a sharded x takes one all-reduce of maxima if a reduced axis is split. Inside
    `jax.shard_map` only the local shard is seen: `docs/sharding.md` shows how to have one scale for all shards.

    Args:
        x: float32, bfloat16, float16 or (under x64) float64 of any shape. NaN and infinities are left out of the
            maximum.
        numerics: What x will be rounded to.
        axis: The axis or axes that share one scale; None for one scale for all of x.

    Returns:
        The scale, float32, or float64 for float64 x, in the shape of x with 1 for the axes that share a scale. It is 1
        where a slice is empty or all zeros, or where its largest magnitude is too small to divide by, which is below
        `abs_val_mapped_to() * 2**-125` (`2**-1021` in float64). With `preserve_zero=False` a slice of zeros is thus
        quantized to 0.5. The scale is at most `2**126` (`2**1022`), so at 1 to 3 bits magnitudes above
        `abs_val_mapped_to() * 2**126` may be clipped.

    Raises:
        TypeError: x is not an array of floats, numerics is not an IntNumerics, or axis is not an integer, a tuple of
            integers or None.
        ValueError: x does not have the axis, an axis is repeated, or numerics maps everything to one bucket, as 1 bit
            does with both `preserve_zero` and `preserve_max_val`.

    Example:
        >>> import jax.numpy as jnp
        >>> from intnumerics import quantize
        >>> int4 = IntNumerics.symmetric(4)
        >>> x = jnp.array([[3.75, 1.1, -0.6], [0.0, 0.0, 0.0]])
        >>> scale = absmax_scale(x, int4, axis=-1)
        >>> scale
        Array([[0.5],
               [1. ]], dtype=float32)
        >>> quantize(x / scale, int4) * scale
        Array([[ 3.5,  1. , -0.5],
               [ 0. ,  0. ,  0. ]], dtype=float32)
    """
    check_numerics(numerics, x)
    x = _checks.floats("x", x)
    axes = _shape_checks.reduced_axes(axis, x.ndim)
    return scale_by_absmax(x, scaling_of(numerics), axes)


def scaling_of(numerics: IntNumerics, fraction: float = 1.0, power_of_two: bool = False) -> Scaling:
    """How the largest magnitude of a slice becomes its scale, for some numerics."""
    in_buckets = numerics.abs_val_mapped_to()
    if in_buckets == 0:
        raise ValueError(
            f"numerics has bits={numerics.bits}, preserve_zero=True and preserve_max_val=True, and so one bucket, to "
            "which no scale maps x: use preserve_zero=False or more bits"
        )
    fits = in_buckets <= numerics.spec().bound  # else the largest magnitude is beyond the bound of the clip on purpose
    return Scaling(in_buckets, fits, fraction, power_of_two)
