"""Quantization by a scale in plain NumPy, written for the tests from what the scale is defined to be.

`flush` computes as a CPU under XLA and a TPU may, where subnormal numbers count as 0.
"""

import dataclasses

import numpy as np
import oracle

from intnumerics.kernels import QuantSpec, Scaling

GROWTH = 6  # units in the last place by which a scale that must fit is larger


def ulps(x: np.ndarray, by: int) -> np.ndarray:
    """x, which is positive, `by` units in the last place larger."""
    return (x.view(f"int{8 * x.itemsize}") + by).view(x.dtype)


def wide(x: np.ndarray) -> np.ndarray:
    """x in the dtype of a scale: float64 for float64, else float32."""
    return x.astype(np.promote_types(np.float32, x.dtype))


def scale_of(maximum: np.ndarray, scaling: Scaling) -> np.ndarray:
    """`maximum * fraction * (1 / in_buckets)`, larger if it must fit, then rounded up if to a power of 2."""
    kind, dtype = np.finfo(maximum.dtype), maximum.dtype
    in_buckets, largest = np.asarray(scaling.in_buckets, dtype), 1 / kind.tiny
    with np.errstate(all="ignore"):
        maximum = maximum * np.asarray(scaling.fraction, dtype)
        scale = np.minimum(maximum * (np.ones((), dtype) / in_buckets), largest)
        if scaling.fits:
            is_exact = (np.frexp(scale)[0] == 0.5) & (scale * in_buckets == maximum)
            scale = np.where(is_exact, scale, np.minimum(ulps(scale, GROWTH), largest))
        if scaling.power_of_two:
            mantissa, exponent = np.frexp(scale)
            scale = np.where(mantissa == 0.5, scale, np.ldexp(np.ones((), dtype), exponent))
        return np.where(maximum < in_buckets * kind.tiny * 2, np.ones((), dtype), scale).astype(dtype)


def inverse_of(scale: np.ndarray) -> np.ndarray:
    """`1 / scale` rounded to nearest, of the nearest scale whose reciprocal is a normal number; NaN for NaN."""
    kind = np.finfo(scale.dtype)
    with np.errstate(invalid="ignore"):  # NaN with the bit that signals
        magnitude = np.clip(np.abs(scale).astype(np.float64), float(kind.tiny), float(1 / kind.tiny))
        return np.copysign(1 / magnitude, scale).astype(scale.dtype)


def expanded(scale: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A scale for each element."""
    repeats = shape[-1] // scale.shape[-1] if scale.shape[-1] > 1 else 1
    return np.broadcast_to(np.repeat(scale, repeats, axis=-1), shape)


def product(a: np.ndarray, b: np.ndarray, flush: bool) -> np.ndarray:
    """`a * b`, rounded; to flush is to ask whether the exact product is subnormal, which may be rounded to a normal."""
    with np.errstate(all="ignore"):
        if not flush:
            return a * b
        a, b = oracle.flushed(a), oracle.flushed(b)
        return oracle.flushed(a.astype(np.float64) * b.astype(np.float64)).astype(a.dtype)


def in_buckets(x: np.ndarray, scale: np.ndarray, flush: bool = False) -> np.ndarray:
    """The product with the reciprocal, rounded."""
    x = wide(x)
    return product(x, inverse_of(expanded(scale.astype(x.dtype), x.shape)), flush)


def quantize_by_scale(
    x: np.ndarray, scale: np.ndarray, noise: np.ndarray | None, spec: QuantSpec, flush: bool = False
) -> np.ndarray:
    """The formula of x in buckets, with noise that broadcasts; a float result times the scale, and then cast once."""
    y = in_buckets(x, scale, flush)
    noise = None if noise is None else np.broadcast_to(noise, y.shape)
    y = oracle.quantize(y, noise, dataclasses.replace(spec, noise_dtype=None))
    if spec.integer_dtype is not None:
        return y
    y = product(y, expanded(scale.astype(y.dtype), y.shape), flush)
    with np.errstate(all="ignore"):
        return y.astype(x.dtype)


def largest_finite(x: np.ndarray, block: int | None) -> np.ndarray:
    """The largest finite magnitude of each slice, 0 if there is none, with the number of slices for the last axis."""
    slices = (x.shape[-1] // block, block) if block else (1, x.shape[-1])
    magnitude = np.abs(wide(x)).reshape(*x.shape[:-1], *slices)
    return np.max(np.where(np.isfinite(magnitude), magnitude, 0), axis=-1, initial=0)


def quantize_by_absmax(
    x: np.ndarray,
    noise: np.ndarray | None,
    spec: QuantSpec,
    scaling: Scaling,
    block: int | None,
    flush: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The result and the scales of the slices' largest finite magnitudes."""
    scale = scale_of(largest_finite(x, block), scaling)
    return quantize_by_scale(x, scale, noise, spec, flush), scale


def mask(x: np.ndarray, scale: np.ndarray, spec: QuantSpec, flush: bool = False) -> np.ndarray:
    """Where x in buckets, before the noise, is within the bound."""
    return oracle.mask(in_buckets(x, scale, flush), dataclasses.replace(spec, noise_dtype=None))
