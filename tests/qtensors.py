"""QTensors made in NumPy, and the values that they stand for."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from original import numerics

from intnumerics import IntNumerics, QTensor


def spread(scale: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A scale for each element of an array of `shape`."""
    for axis, n in enumerate(scale.shape):
        scale = np.repeat(scale, shape[axis] // n if n else 1, axis)
    assert scale.shape == shape
    return scale


def dequantized(qvalue: Any, scale: Any, n: IntNumerics, dtype: Any) -> np.ndarray:
    """The formula in NumPy."""
    qvalue, scale = np.asarray(qvalue), np.asarray(scale)
    y = qvalue.astype(scale.dtype) + np.asarray(0 if n.preserve_zero else 0.5, scale.dtype)
    with np.errstate(over="ignore"):  # float16 ends early
        return (y * spread(scale, qvalue.shape)).astype(dtype)


def made(
    shape: tuple[int, ...],
    scale: tuple[int, ...],
    n: IntNumerics | None = None,
    dtype: Any = np.float32,
    stored: Any = jnp.int8,
) -> tuple[QTensor, np.ndarray]:
    """A QTensor of arrays of JAX, with scales that all differ, and its values."""
    n, rng = n or numerics(8), np.random.default_rng(3)
    bound = min(2 ** (n.bits - 1) - 1, jnp.iinfo(stored).max)
    qvalue = rng.integers(-bound, bound, shape, endpoint=True).astype(stored)
    of_each = rng.uniform(0.1, 3, scale).astype(np.float64 if dtype == np.float64 else np.float32)
    values = dequantized(qvalue, of_each, n, dtype)
    return QTensor(jnp.asarray(qvalue), jnp.asarray(of_each), n, dtype), values
