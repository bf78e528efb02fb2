"""Quantization to integers, and back."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer
from jax.typing import DTypeLike

from . import _checks, _eager, _operations
from ._arguments import check_noise, checked
from ._calibration import AbsMax, Fixed, resolved
from ._dispatch import Choice
from ._global_position import part_of
from ._integer_dtypes import integer_dtype, written_as
from ._quantize import VALUES
from ._scaled_pass import scaled_pass, wide_type
from .int_numerics import IntNumerics, check_numerics, is_eager
from .kernels import Interpreted, Name
from .kernels.spec import wider

_HASHABLE = (np.dtype, type, str, type(None))  # what a dtype may be written as, of what can be hashed


def quantize_to_int(
    x: jax.Array,
    numerics: IntNumerics,
    *,
    scale: float | jax.Array | None = None,
    key: jax.Array | None = None,
    offset: Sequence[int | jax.Array] | None = None,
    global_shape: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    implementation: Name | None = None,
    interpret: Interpreted | None = None,
) -> jax.Array:
    """Quantizes x to integers in the same single pass; `from_int` is the inverse.

    The integer is the rounded value, or with `preserve_zero=False` the bucket number `floor(x)`, whose centre is half a
    bucket above it. NaN gives 0. Not differentiable: the result is integers.

    Args:
        x: As in `quantize`.
        numerics: What to round to; it must clip and round.
        scale: As in `quantize`, but a number or an array: `quantize_tensor` returns the scales that it makes.
        key: As in `quantize`.
        offset: As in `quantize`.
        global_shape: As in `quantize`.
        dtype: int2, int4, int8, int16 or int32, if it holds every bucket; or None for the smallest that does from int8
            on. For int2 and int4 the pass writes int8, which XLA narrows.
        implementation: As in `quantize`.
        interpret: As in `quantize`.

    Returns:
        Integers of the shape of x.

    Raises:
        TypeError: As in `quantize`.
        ValueError: As in `quantize`; or numerics does not clip or does not round, or dtype is too small.

    Example:
        >>> import jax.numpy as jnp
        >>> binary = IntNumerics.symmetric(1)
        >>> q = quantize_to_int(jnp.array([-0.3, 0.1, 7.0]), binary)
        >>> q
        Array([-1,  0,  0], dtype=int8)
        >>> from_int(q, binary, jnp.float32)
        Array([-0.5,  0.5,  0.5], dtype=float32)
    """
    choice = Choice(implementation, interpret)
    x = checked(x, numerics, choice)
    if isinstance(scale, AbsMax | Fixed):
        raise ValueError(
            f"scale={scale!r} makes a scale, without which the integers are of no use: use quantize_tensor, which "
            "returns both, or give a scale that is there, as absmax_scale makes it"
        )
    by, _ = resolved(scale, x, numerics)
    part = part_of(offset, global_shape, x.shape)
    can_be_hashed = isinstance(dtype, _HASHABLE)
    of_x = x.dtype if by is None else wide_type(x).dtype
    if part is None and can_be_hashed and is_eager(numerics, x, key) and not isinstance(by, Tracer):
        key = None if numerics.noise_fn is None else _checks.key(key)
        integers = _kept_integers(numerics, of_x, dtype)
        if by is None:
            return _eager.quantize(x, key, numerics, integers, choice)
        return _eager.quantize_scaled(x, by, key, numerics, None, integers, choice)[0]
    noise, spec = numerics.noise_and_spec(x if by is None else wide_type(x), key, part)
    check_noise(noise, spec, choice)
    integers = integers_of(numerics, of_x, dtype)
    if by is not None:
        return checkpoint_name(scaled_pass(x, noise, spec, by, None, integers, choice)[0], VALUES)
    spec = dataclasses.replace(spec, integer_dtype=written_as(integers))
    return checkpoint_name(_operations.quantize(x, noise, spec, choice).astype(integers), VALUES)


def integers_of(numerics: IntNumerics, of_x: np.dtype, dtype: DTypeLike | None) -> np.dtype:
    """The dtype of the integers that an x of a dtype is quantized to."""
    return integer_dtype(dtype, *bucket_range(numerics, of_x))


def bucket_range(numerics: IntNumerics, of_x: np.dtype) -> tuple[float, float]:
    """The lowest and the highest integer that an x of a dtype is quantized to."""
    for name in ("clip", "round"):
        if not getattr(numerics, name):
            raise ValueError(
                f"numerics.{name}=False, and integers hold only values that were clipped and rounded: "
                f"use numerics.replace({name}=True), or quantize() for floats"
            )
    bound = numerics.spec().bound_in(of_x)
    lowest = -bound if numerics.preserve_zero else np.floor(-bound)
    highest = bound if numerics.preserve_zero else np.floor(bound)
    return float(lowest), float(highest)


_kept_integers = functools.lru_cache(1024)(integers_of)  # for numerics of the package's own class, which do not change


def from_int(q: jax.Array, numerics: IntNumerics, dtype: DTypeLike) -> jax.Array:
    """The values that `quantize_to_int` made integers of.

    Args:
        q: Integers of any shape and dtype.
        numerics: What they were rounded with.
        dtype: A float dtype for the result.

    Returns:
        What `quantize` returns in `dtype` for the same input, bit for bit, except that -0.0 and NaN became 0.

    Raises:
        TypeError: q is not made of integers, or dtype is not a float dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> int8 = IntNumerics.symmetric(8)
        >>> from_int(jnp.array([-127, 3], jnp.int8), int8, jnp.bfloat16)
        Array([-127, 3], dtype=bfloat16)
    """
    check_numerics(numerics, q)
    q = _checks.integers("q", q)
    return _centres(q, 0.0 if numerics.preserve_zero else 0.5, _checks.float_dtype("dtype", dtype))


@functools.partial(jax.jit, static_argnums=(1, 2))  # so that 0.5 is part of a program, and not sent to the device
def _centres(q: jax.Array, offset: float, dtype: np.dtype) -> jax.Array:
    values = q.astype(wider(dtype, np.dtype(np.float32)))
    return (values + jnp.asarray(offset, values.dtype) if offset else values).astype(dtype)
