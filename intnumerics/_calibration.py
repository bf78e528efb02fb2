"""What a scale is made of: the largest magnitude of each slice, or a bound that is given; or a scale that is given."""

import dataclasses
import functools
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import _checks, _shape_checks
from ._absmax_scale import scaling_of
from ._error_values import shown
from ._scaled_pass import Slices, wide_type
from .int_numerics import IntNumerics
from .kernels import Scaling, scaling
from .kernels.spec import is_static

LEAST = 2.0**-20  # of a maximum
BLOCKS = (16, 32, 64, 128, 256)  # elements of the last axis that may share a scale

Axis = int | Sequence[int] | None


@dataclasses.dataclass(frozen=True)
class AbsMax:
    """Scales that map the largest magnitude of each slice to the last bucket, as `absmax_scale` does.

    Attributes:
        fraction: What the largest magnitude is multiplied by, from 2^-20 to 1. Below 1, elements beyond the product are
            clipped.
        axis: The axis or axes that one scale covers; None for all of x.
        block: How many elements of the last axis one scale covers: 16, 32, 64, 128 or 256, in place of `axis`.
        power_of_two: Whether scales are rounded up to powers of 2.

    Raises:
        TypeError: fraction is not a number, or power_of_two is not a bool.
        ValueError: fraction is not from 2^-20 to 1, block is another number, or both axis and block are given.

    Source: `AbsMaxCalibration` in `aqt/jax/v2/calibration.py`, and `absmax` in Qwix.

    Example:
        >>> import jax.numpy as jnp
        >>> from intnumerics import IntNumerics, quantize
        >>> int4 = IntNumerics.symmetric(4)
        >>> quantize(jnp.array([[3.75, 1.1, -0.6], [0.0, 0.0, 0.0]]), int4, scale=AbsMax(axis=-1))
        Array([[ 3.5,  1. , -0.5],
               [ 0. ,  0. ,  0. ]], dtype=float32)
    """

    fraction: float = 1.0
    _: dataclasses.KW_ONLY
    axis: Axis = None
    block: int | None = None
    power_of_two: bool = False

    def __post_init__(self) -> None:
        fraction = self.fraction
        if isinstance(fraction, bool | np.bool_) or not isinstance(fraction, numbers.Real):
            raise TypeError(f"fraction={shown(fraction)} is not a number: give what the maximum is multiplied by")
        if not LEAST <= fraction <= 1:
            raise ValueError(
                f"fraction={shown(fraction)} is not at least 2**-20 and at most 1: 1 maps the largest magnitude to the "
                "last bucket, and less clips the largest elements"
            )
        object.__setattr__(self, "fraction", float(fraction))
        _check_slices(self)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fixed:
    """Scales that map a bound that is given to the last bucket: x is not looked at, and what is beyond it is clipped.

    Attributes:
        bound: The magnitude that is mapped to the last bucket, in the units of x: a number above 0, or an array of
            floats that broadcasts to x, for which `axis` and `block` change nothing. It gets no gradient.
        axis: What one of the scales that `quantize_tensor` keeps covers, if the bound is a number, as in `AbsMax`.
        block: As in `AbsMax`.
        power_of_two: As in `AbsMax`.

    Raises:
        TypeError: bound is neither a number nor an array of floats, or power_of_two is not a bool.
        ValueError: bound is a number that is not above 0 or not finite; or as in `AbsMax`.

    Source: `ConstantCalibration` in `aqt/jax/v2/calibration.py`.

    Example:
        >>> import jax.numpy as jnp
        >>> from intnumerics import IntNumerics, quantize
        >>> quantize(jnp.array([0.3, 1.0, 9.0]), IntNumerics.symmetric(4), scale=Fixed(3.75))
        Array([0.5, 1. , 3.5], dtype=float32)
    """

    bound: float | jax.Array
    _: dataclasses.KW_ONLY
    axis: Axis = None
    block: int | None = None
    power_of_two: bool = False

    def __post_init__(self) -> None:
        _checks.positive("bound", self.bound)
        _checks.real_array("bound", self.bound)
        _check_slices(self)

    def __repr__(self) -> str:
        """Without the numbers of an array."""
        fields = (f"{field.name}={shown(getattr(self, field.name))}" for field in dataclasses.fields(self))
        return f"Fixed({', '.join(fields)})"


def _check_slices(calibration: AbsMax | Fixed) -> None:
    _checks.switch("power_of_two", calibration.power_of_two)
    if calibration.block is not None:
        check_block(calibration.block)
        if calibration.axis is not None:
            raise ValueError(
                f"axis={shown(calibration.axis)} and block={calibration.block} are both given, and each says what a "
                "scale covers: give block alone for blocks of the last axis"
            )
    elif isinstance(calibration.axis, list):
        object.__setattr__(calibration, "axis", tuple(calibration.axis))  # which can be hashed


def check_block(block: Any) -> None:
    """Refuses a size of blocks that is not supported."""
    if isinstance(block, bool) or not isinstance(block, numbers.Integral) or block not in BLOCKS:
        raise ValueError(f"block={shown(block)} is none of {', '.join(map(str, BLOCKS))}: use one of them, or axis")


def slices_of(x: jax.Array, axis: Any, block: Any) -> tuple[tuple[int, ...], int | None]:
    """The axes of x that one scale covers, and the size of blocks of the last axis, from what the user gave."""
    if block is None:
        return _shape_checks.reduced_axes(axis, x.ndim), None
    check_block(block)
    if not x.ndim or x.shape[-1] % block != 0:  # a symbolic size may be a multiple too
        last = f"x has {x.shape[-1]} elements" if x.ndim else "x has no axes, and so none"
        raise ValueError(
            f"block={block} does not divide the last axis: {last} there; use a block that divides it, or axis=-1, or "
            "jnp.pad"
        )
    return (x.ndim - 1,), int(block)


def absmax_slices(x: jax.Array, numerics: IntNumerics, calibration: AbsMax, axis: Any, block: Any) -> Slices:
    """What `AbsMax` says for x."""
    how = scaling_of(numerics, calibration.fraction, bool(calibration.power_of_two))
    return Slices(how, *slices_of(x, axis, block))


def fixed_scale(x: jax.Array, numerics: IntNumerics, calibration: Fixed) -> jax.Array:
    """The scale that `Fixed` says for x, in the rank of x."""
    how, dtype = scaling_of(numerics, power_of_two=bool(calibration.power_of_two)), wide_type(x).dtype
    given, lowest = calibration.bound, how.in_buckets * float(jnp.finfo(dtype).smallest_normal) * 2
    if isinstance(given, numbers.Real) and given < lowest:
        raise ValueError(
            f"bound={shown(given)} is below {lowest:.3g}, and {dtype} does not hold the reciprocal of its scale: give "
            "a larger bound, after multiplying x and the bound by the same number"
        )
    return _of_bound(_in_rank_of(x, "bound", _checks.real_array("bound", given)), how, dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _of_bound(bound: jax.Array, how: Scaling, dtype: np.dtype) -> jax.Array:
    return scaling.scale_of(jnp.abs(jax.lax.stop_gradient(bound).astype(dtype)), how)


def given_scale(value: Any, x: jax.Array) -> jax.Array:
    """A scale of the user, float32, or float64 for float64 x, in the rank of x; without a gradient."""
    dtype = wide_type(x).dtype
    _checks.positive("scale", value, dtype)
    if isinstance(value, float | int) and not isinstance(value, bool):
        return jnp.asarray(np.full((1,) * x.ndim, value, dtype))  # which compiles nothing
    scale = _in_rank_of(x, "scale", _checks.real_array("scale", value))
    scale = scale if scale.dtype == dtype else scale.astype(dtype)
    return jax.lax.stop_gradient(scale) if isinstance(scale, Tracer) else scale


def _in_rank_of(x: jax.Array, name: str, array: jax.Array) -> jax.Array:
    """An array that broadcasts to x, or has an element for each block of its last axis, in the rank of x."""
    shape = (1,) * (x.ndim - array.ndim) + tuple(array.shape)
    fits = len(shape) == x.ndim and all(n in (1, size) for n, size in list(zip(shape, x.shape, strict=True))[:-1])
    if not fits or (x.ndim and not _fits_last(shape[-1], x.shape[-1], array.ndim == x.ndim)):
        raise ValueError(
            f"{name} has shape {tuple(array.shape)}, and x has shape {tuple(x.shape)}: give each axis of x its size or "
            f"1, as keepdims=True makes it, or for the last axis its number of blocks of {', '.join(map(str, BLOCKS))}"
        )
    return array if array.ndim == x.ndim else array.reshape(shape)


def _fits_last(n: int, size: int, may_be_blocks: bool) -> bool:
    if n in (1, size):
        return True
    return may_be_blocks and is_static((n, size)) and n > 0 and size % n == 0 and size // n in BLOCKS


def resolved(scale: Any, x: jax.Array, numerics: IntNumerics) -> tuple[jax.Array | None, Slices | None]:
    """The argument `scale=` of `quantize`: a scale, or what scales are made of; or neither."""
    if scale is None:
        return None, None
    if isinstance(scale, AbsMax):
        return None, absmax_slices(x, numerics, scale, scale.axis, scale.block)
    if isinstance(scale, Fixed):
        slices_of(x, scale.axis, scale.block)
        return fixed_scale(x, numerics, scale), None
    if isinstance(scale, type) and scale in (AbsMax, Fixed):
        raise TypeError(f"scale={shown(scale)} is a class: make an object of it, as in scale=AbsMax(axis=-1)")
    return given_scale(scale, x), None


def keepdims_shape(shape: tuple[int, ...], axes: tuple[int, ...], block: int | None) -> tuple[int, ...]:
    """The shape of the scales of an array of `shape`: 1 for the axes that one covers, or the number of blocks."""
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    return kept if block is None else (*kept[:-1], shape[-1] // block)
