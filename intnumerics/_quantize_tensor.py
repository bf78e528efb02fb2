"""Integers and their scales in one object, from one read of x."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer

from . import _checks, _eager
from ._arguments import check_noise, checked
from ._calibration import AbsMax, Axis, Fixed, absmax_slices, fixed_scale, given_scale, keepdims_shape, slices_of
from ._dispatch import Choice
from ._error_values import shown
from ._global_position import part_of
from ._integer_dtypes import smallest
from ._qtensor import QTensor
from ._quantize import VALUES
from ._quantize_to_int import bucket_range
from ._scaled_pass import Slices, scaled_pass, wide_type
from .int_numerics import IntNumerics, is_eager
from .kernels import Interpreted, Name

ABSMAX = AbsMax()


def quantize_tensor(
    x: jax.Array,
    numerics: IntNumerics,
    *,
    axis: Axis = -1,
    block: int | None = None,
    calibration: AbsMax | Fixed = ABSMAX,
    scale: float | jax.Array | None = None,
    key: jax.Array | None = None,
    offset: Sequence[int | jax.Array] | None = None,
    global_shape: Sequence[int] | None = None,
    implementation: Name | None = None,
    interpret: Interpreted | None = None,
) -> QTensor:
    """Quantizes x to integers and their scales, which it makes of x itself.

    If one scale covers the last axis, or a block of it, a GPU or a TPU reads x once, in one kernel, unless rows are
    very long: `docs/implementations.md` has the limits. For any other `axis` x is read twice: for the maxima, and for
    the integers. The arithmetic is in float32, whatever the dtype of x is. Not differentiable: the result is integers,
    and no gradient goes through their scales.

    Args:
        x: float32, bfloat16, float16 or (under x64) float64 of any shape. NaN gives the integer 0, and infinities clip;
            both are left out of the maximum.
        numerics: What to round to; it must clip and round.
        axis: The axis or axes that one scale covers; None for one scale for all of x.
        block: How many elements of the last axis one scale covers, in place of `axis`: 16, 32, 64, 128 or 256.
        calibration: What scales are made of: `AbsMax()`, or `Fixed(bound)`.
        scale: Scales that are there already, in place of `axis`, `block` and `calibration`; as in `quantize`.
        key: As in `quantize`.
        offset: As in `quantize`; it places the noise. Inside `jax.shard_map` the maxima are those of the local shard.
        global_shape: As in `quantize`.
        implementation: As in `quantize`.
        interpret: As in `quantize`.

    Returns:
        A `QTensor` with the integers, of the smallest of int2, int4, int8, int16 and int32 that holds every bucket, and
        the scales, float32, or float64 for float64 x, as `absmax_scale` gives them. Its `numerics` has no noise
        function, so that tensors which were rounded with different noise are pytrees of one structure.

    Raises:
        TypeError: As in `quantize`.
        ValueError: As in `quantize`; or numerics does not clip or does not round, block does not divide the last axis,
            or arguments contradict each other.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[3.0, -1.0, 0.2], [0.5, 0.25, 0.0]], jnp.bfloat16)
        >>> q = quantize_tensor(x, IntNumerics.symmetric(8, preserve_max_val=True))
        >>> q.qvalue
        Array([[127, -42,   8],
               [127,  63,   0]], dtype=int8)
        >>> q.scale.shape, q.dequantize()[1]
        ((2, 1), Array([0.5, 0.248047, 0], dtype=bfloat16))
    """
    choice = Choice(implementation, interpret)
    x = checked(x, numerics, choice)
    by, slices = _scales(x, numerics, axis, block, calibration, scale)
    part = part_of(offset, global_shape, x.shape)
    integers = smallest(*bucket_range(numerics, wide_type(x).dtype))
    if part is None and is_eager(numerics, x, key) and not isinstance(by, Tracer):
        key = None if numerics.noise_fn is None else _checks.key(key)
        qvalue, scales = _eager.quantize_scaled(x, by, key, numerics, slices, integers, choice)
    else:
        noise, spec = numerics.noise_and_spec(wide_type(x), key, part)
        check_noise(noise, spec, choice)
        qvalue, scales = scaled_pass(x, noise, spec, by, slices, integers, choice)
        qvalue, scales = checkpoint_name(qvalue, VALUES), checkpoint_name(scales, VALUES)
    return QTensor(qvalue, scales, numerics if numerics.noise_fn is None else numerics.replace(noise_fn=None), x.dtype)


def _scales(
    x: jax.Array, numerics: IntNumerics, axis: Axis, block: int | None, calibration: object, scale: object
) -> tuple[jax.Array | None, Slices | None]:
    """The scale that is given, or what the maxima of which slices are for."""
    if scale is not None:
        if axis != -1 or block is not None or calibration is not ABSMAX:
            raise ValueError(
                "scale is given, and so is axis, block or calibration, which say how scales are made: give scale alone "
                "for scales that are there, or leave it out"
            )
        if isinstance(scale, AbsMax | Fixed):
            raise TypeError(
                f"scale={scale!r} says what scales are made of, and scale is for scales that are there: give it as "
                "calibration, and its axis or block as arguments of their own"
            )
        return given_scale(scale, x), None
    if not isinstance(calibration, AbsMax | Fixed):
        raise TypeError(f"calibration={shown(calibration)} is not a calibration: use AbsMax() or Fixed(bound)")
    if calibration.axis is not None or calibration.block is not None:
        raise ValueError(
            f"calibration={calibration!r} has axis={shown(calibration.axis)} and block={calibration.block}, and "
            "quantize_tensor has arguments of its own for them: give axis or block to quantize_tensor"
        )
    if block is not None and axis != -1:
        raise ValueError(
            f"axis={shown(axis)} and block={shown(block)} are both given: blocks are of the last axis; leave axis out, "
            "or block"
        )
    if not x.ndim and block is None and axis == -1:
        axis = None
    if isinstance(calibration, AbsMax):
        return None, absmax_slices(x, numerics, calibration, axis, block)
    shape = keepdims_shape(x.shape, *slices_of(x, axis, block))
    fixed = fixed_scale(x, numerics, calibration)
    return (jnp.broadcast_to(fixed, shape) if fixed.size == 1 else fixed), None
