"""The integer dtypes of results."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ._checks import dtype_of
from ._error_values import shown

INTEGERS = tuple(jnp.dtype(d) for d in (jnp.int2, jnp.int4, jnp.int8, jnp.int16, jnp.int32))


def integer_dtype(value: Any, lowest: float, highest: float) -> np.dtype:
    """The dtype for integers from `lowest` to `highest`; None means the smallest of int8, int16 and int32."""
    fitting = _fitting(lowest, highest)
    if not math.isfinite(highest) or not fitting:
        raise ValueError(
            f"the buckets reach from {lowest} to {highest} in the dtype of x, which no integer dtype holds: "
            "use noise_dtype=jnp.float32, fewer bits, or a wider x"
        )
    if value is None:
        return next(dtype for dtype in fitting if dtype.name not in ("int2", "int4"))
    dtype = dtype_of(value)
    if dtype is None or dtype not in INTEGERS:
        names = ", ".join(known.name for known in INTEGERS)
        reason = ", for buckets have signs" if dtype is not None and dtype.name.startswith("uint") else ""
        raise ValueError(
            f"dtype={shown(value)} is none of {names}{reason}: use one of them, or None for the smallest from int8 on"
        )
    if dtype not in fitting:
        raise ValueError(
            f"dtype={dtype.name} is too small for the buckets from {lowest:g} to {highest:g}: "
            f"use {fitting[0].name}, or None for the smallest from int8 on"
        )
    return dtype


def smallest(lowest: float, highest: float) -> np.dtype:
    """The smallest dtype for integers from `lowest` to `highest`, int2 and int4 included.

    Example:
        >>> smallest(-7, 7), smallest(-8, 7), smallest(-8, 8), smallest(0, 40_000)
        (dtype(int4), dtype(int4), dtype('int8'), dtype('int32'))
    """
    return _fitting(lowest, highest)[0]


def _fitting(lowest: float, highest: float) -> list[np.dtype]:
    return [d for d in INTEGERS if int(jnp.iinfo(d).min) <= lowest and highest <= int(jnp.iinfo(d).max)]


def written_as(dtype: np.dtype) -> np.dtype:
    """The dtype that implementations write for integers of a dtype: at least a byte per element."""
    return dtype if dtype.name not in ("int2", "int4") else np.dtype(np.int8)
