"""Stochastic rounding to smaller floats in NumPy, written for the tests: by a table of all numbers of a dtype.

float64 holds every number of the dtypes here, the differences of neighbours, which are powers of 2, and the fractions.
"""

import ml_dtypes
import numpy as np

BFLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2 = map(np.dtype, ("bfloat16", "float8_e4m3fn", "float8_e5m2"))
FLOAT32, FLOAT16 = map(np.dtype, (np.float32, np.float16))
TO = {
    FLOAT32: (BFLOAT16, FLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2),
    BFLOAT16: (FLOAT8_E4M3FN, FLOAT8_E5M2),
    FLOAT16: (FLOAT8_E4M3FN, FLOAT8_E5M2),
}
PAIRS = [(source, dtype) for source, dtypes in TO.items() for dtype in dtypes]


def unsigned(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}")


def wide(x: np.ndarray) -> np.ndarray:
    """The numbers in float64."""
    with np.errstate(invalid="ignore"):  # a signaling NaN becomes a quiet one
        return x.astype(np.float64)


def held(dtype: np.dtype) -> np.ndarray:
    """All finite numbers that are not negative, in order, in float64; the index of each is its bits."""
    end = int(np.asarray(ml_dtypes.finfo(dtype).max, dtype).view(unsigned(dtype))) + 1
    return np.arange(end).astype(unsigned(dtype)).view(dtype).astype(np.float64)


def neighbours(x: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The bits of the neighbour of |x| towards zero, and how far |x| is from it in gaps; beyond the range 1."""
    numbers, magnitude = held(dtype), np.abs(np.where(np.isfinite(wide(x)), wide(x), 0))
    below = np.searchsorted(numbers, magnitude, side="right") - 1
    gaps = np.append(np.diff(numbers), numbers[-1] - numbers[-2])
    return below, np.minimum((magnitude - numbers[below]) / gaps[below], 1)


def cast(x: np.ndarray, up: np.ndarray, dtype: np.dtype, overflow: str) -> np.ndarray:
    """The numbers of a dtype, if each x that is not between two equal neighbours goes up or down as `up` says."""
    below, fraction = neighbours(x, dtype)
    x, kind = wide(x), ml_dtypes.finfo(dtype)
    has_infinity = dtype != FLOAT8_E4M3FN
    beyond = np.inf if has_infinity else np.nan
    numbers = np.append(held(dtype), kind.max if overflow == "saturate" else beyond)
    value = numbers[np.minimum(below + (up & (fraction > 0)) + (fraction >= 1), len(numbers) - 1)]
    of_infinity = np.inf if has_infinity else numbers[-1]
    value = np.where(np.isnan(x), np.nan, np.where(np.isinf(x), of_infinity, value))
    with np.errstate(invalid="ignore"):
        return np.copysign(value, x).astype(dtype)


def by_draws(x: np.ndarray, h: np.ndarray, dtype: np.dtype, overflow: str = "saturate") -> np.ndarray:
    """The numbers of a dtype that draws of 16 bits decide on."""
    _, fraction = neighbours(x, dtype)
    return cast(x, np.floor(fraction * 65536) + h >= 65536, dtype, overflow)


def draws_of(noise: object) -> np.ndarray:
    """The draws that noise of 16 bits is made of."""
    return np.floor((np.asarray(noise, np.float64) + 0.5) * 65536).astype(np.int64)


def numbers(source: np.dtype) -> np.ndarray:
    """Numbers of a dtype with every exponent, both signs, and some mantissas; of a 16-bit dtype more of them."""
    bits = 8 * source.itemsize
    mantissa = int(ml_dtypes.finfo(source).nmant)
    last, half = (1 << mantissa) - 1, 1 << (mantissa - 1)
    some = {0, 1, half - 1, half, half + 1, last}
    some |= {0x7FFF, 0x8000, 0x8001, 0x2AAAAA, 0x123456, 0x0FFFFF} if bits == 32 else {3, half // 2, half // 8}
    exponents = np.arange(1 << (bits - mantissa)) << mantissa  # with the sign
    return (exponents[:, None] | np.asarray(sorted(some))).reshape(-1).astype(unsigned(source)).view(source)
