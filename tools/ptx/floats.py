"""Arithmetic on floats: every result is that of exact numbers, rounded once.

Sums and products are computed in float64 so that the result, rounded to any narrower format, is that of the exact
number: if float64 cannot hold a sum, the neighbour with an odd last bit stands for it ("round to odd"). Boldo and
Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008. Quotients and
square roots of numbers of 24 bits need no such care: Figueroa, "When is double rounding innocuous?", 1995.
"""

from collections.abc import Callable

import ml_dtypes
import numpy as np

from .kinds import UNSIGNED, Kind

NEAREST = {"n": np.rint, "z": np.trunc, "m": np.floor, "p": np.ceil}  # by the letter of .rn, .rz, .rm and .rp


def canonical(kind: Kind) -> np.ndarray:
    """The NaN that instructions return: all bits but the sign."""
    bits = kind.element_bits
    mantissa = (1 << 51) - 1 if bits == 64 else 0  # 0x7ff8000000000000, which the manual does not state
    return np.array((1 << (bits - 1)) - 1 - mantissa, UNSIGNED[bits]).view(kind.dtype)


def rounded(wide: np.ndarray, kind: Kind, mode: str = "n") -> np.ndarray:
    """Numbers in float64 rounded to a type."""
    if kind.name == "f64":
        result = wide
    else:
        format = ml_dtypes.finfo(kind.dtype)
        exponent = np.maximum(np.frexp(wide)[1] - 1, format.minexp)
        unit = np.ldexp(1.0, exponent - format.nmant)  # of the last bit
        near = NEAREST[mode](wide / unit) * unit
        largest = float(format.max)
        end = np.inf if mode == "n" else largest
        over = (np.abs(near) > largest) & np.isfinite(wide)
        away = (mode == "p") & (wide > 0) | (mode == "m") & (wide < 0)
        near = np.where(over, np.copysign(np.where(away, np.inf, end), wide), near)
        result = near.astype(np.float32).astype(kind.dtype)  # exact, and ml_dtypes has no other way
    return np.where(np.isnan(wide), canonical(kind), result)


def odd(total: np.ndarray, error: np.ndarray) -> np.ndarray:
    """A sum in float64 and what it lacks, as the neighbour of the exact sum that is odd, unless it is exact."""
    inexact = np.isfinite(total) & (error != 0)
    even = np.ascontiguousarray(total).view(np.uint64) % 2 == 0
    return np.where(inexact & even, np.nextafter(total, np.copysign(np.inf, error)), total)


def exact_sum(a: np.ndarray, b: np.ndarray, mode: str) -> np.ndarray:
    """a + b, to be rounded: Knuth's TwoSum."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    if mode == "m":  # a sum that is exactly 0 is -0 unless both are +0
        total = np.where((total == 0) & (np.signbit(a) | np.signbit(b)), -0.0, total)
    return odd(total, error)


def flushed(numbers: np.ndarray) -> np.ndarray:
    """Zeros of the same sign for the subnormal numbers of a dtype."""
    least = ml_dtypes.finfo(numbers.dtype).smallest_normal
    return np.where(np.abs(numbers) < least, np.copysign(np.zeros_like(numbers), numbers), numbers)


def saturated(numbers: np.ndarray) -> np.ndarray:
    """Within 0 and 1; NaN is +0."""
    return np.where(numbers > 0, np.minimum(numbers, 1), 0).astype(numbers.dtype)


WIDE: dict[str, Callable[..., np.ndarray]] = {  # of numbers in float64, and the rounding mode
    "add": exact_sum,
    "sub": lambda a, b, mode: exact_sum(a, -b, mode),
    "mul": lambda a, b, mode: a * b,
    "fma": lambda a, b, c, mode: exact_sum(a * b, c, mode),
    "mad": lambda a, b, c, mode: exact_sum(a * b, c, mode),
    "div": lambda a, b, mode: a / b,
    "rcp": lambda a, mode: 1 / a,
    "sqrt": lambda a, mode: np.sqrt(a),
}
OF_FLOAT64 = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "rcp": np.reciprocal, "sqrt": np.sqrt}


def arithmetic(name: str, kind: Kind, mode: str, ftz: bool, sat: bool) -> Callable[..., np.ndarray]:
    """An operation of `WIDE` on numbers of a type."""

    def compute(*numbers: np.ndarray) -> np.ndarray:
        if kind.name == "f64":
            return rounded(OF_FLOAT64[name](*numbers), kind)
        if ftz:
            numbers = tuple(map(flushed, numbers))
        result = rounded(WIDE[name](*(a.astype(np.float64) for a in numbers), mode=mode), kind, mode)
        result = flushed(result) if ftz else result
        return saturated(result) if sat else result

    return compute


def smaller(a: np.ndarray, b: np.ndarray, kind: Kind, keeps_nan: bool, ftz: bool) -> np.ndarray:
    """The minimum, with -0 below +0; of a number and NaN the number, unless `keeps_nan`."""
    a, b = (flushed(a), flushed(b)) if ftz else (a, b)
    a, b = np.broadcast_arrays(a, b)
    least = np.where((a < b) | ((a == b) & np.signbit(a)), a, b)
    least = np.where(np.isnan(b), a, np.where(np.isnan(a), b, least))
    either, both = np.isnan(a) | np.isnan(b), np.isnan(a) & np.isnan(b)
    return np.where(either if keeps_nan else both, canonical(kind), least)


def larger(a: np.ndarray, b: np.ndarray, kind: Kind, keeps_nan: bool, ftz: bool) -> np.ndarray:
    """The maximum; see `smaller`."""
    least = smaller(-a, -b, kind, keeps_nan, ftz)
    return np.where(np.isnan(least), canonical(kind), -least)


def compare(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A comparison of floats; those with a `u` at the end are true of NaN."""
    unordered = np.isnan(a) | np.isnan(b)
    if name in ("num", "nan"):
        return unordered == (name == "nan")
    return COMPARE[name[:2]](a, b) & ~unordered if len(name) == 2 else COMPARE[name[:2]](a, b) | unordered


COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
