"""Arithmetic on floats: every result is that of exact numbers, rounded once.

Sums and products are computed in float64 so that the result, rounded to any narrower format, is that of the exact
number: if float64 cannot hold a sum, the neighbour with an odd last bit stands for it ("round to odd"). Boldo and
Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008. Quotients of
numbers of 24 bits need no such care: Figueroa, "When is double rounding innocuous?", 1995.
"""

from collections.abc import Callable

import ml_dtypes
import numpy as np

from .kinds import UNSIGNED, Kind

Compute = Callable[..., np.ndarray]
TO_WHOLE = {"n": np.rint, "z": np.trunc, "m": np.floor, "p": np.ceil}  # by the letter of .rn, .rz, .rm and .rp
EQUAL = {"eq": np.equal, "ne": np.not_equal}
COMPARE = {**EQUAL, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
UNORDERED = {"num": False, "nan": True}  # whether it is true of NaN, and false of numbers


def canonical(kind: Kind) -> np.ndarray:
    """The NaN that instructions return: all bits but the sign; in float64 only the first of the mantissa."""
    bits = np.dtype(kind.dtype).itemsize * 8
    return np.array(0x7FF8 << 48 if bits == 64 else (1 << (bits - 1)) - 1, UNSIGNED[bits]).view(kind.dtype)


def rounded(wide: np.ndarray, kind: Kind, mode: str = "n") -> np.ndarray:
    """Numbers in float64 rounded to a type."""
    result = wide.astype(kind.dtype)
    if kind.name != "f64" and (kind.name != "f32" or mode != "n"):  # what NumPy rounds so itself, in less time
        limits = ml_dtypes.finfo(kind.dtype)
        exponent = np.maximum(np.frexp(wide)[1] - 1, limits.minexp)
        unit = np.ldexp(1.0, exponent - limits.nmant)  # of the last bit
        near = TO_WHOLE[mode](wide / unit) * unit
        goes_on = (mode == "n") | ((mode == "p") & (wide > 0)) | ((mode == "m") & (wide < 0))
        end = np.copysign(np.where(goes_on, np.inf, float(limits.max)), wide)
        near = np.where((np.abs(near) > float(limits.max)) & np.isfinite(wide), end, near)
        result = near.astype(np.float32).astype(kind.dtype)  # exact; ml_dtypes would go through float32 and round
    return np.where(np.isnan(wide), canonical(kind), result)


def exact_sum(a: np.ndarray, b: np.ndarray, mode: str) -> np.ndarray:
    """a + b, to be rounded: Knuth's TwoSum, and then round to odd."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    if mode == "m":  # a sum that is exactly 0 is -0, unless both are +0
        total = np.where((total == 0) & (np.signbit(a) | np.signbit(b)), -0.0, total)
    is_even = np.ascontiguousarray(total).view(np.uint64) % 2 == 0
    is_moved = np.isfinite(total) & (error != 0) & is_even
    return np.where(is_moved, np.nextafter(total, np.copysign(np.inf, error)), total)


def flushed(numbers: np.ndarray) -> np.ndarray:
    """Zeros of the same sign for the subnormal numbers of a dtype."""
    least = ml_dtypes.finfo(numbers.dtype).smallest_normal
    return np.where(np.abs(numbers) < least, np.copysign(np.zeros_like(numbers), numbers), numbers)


def saturated(numbers: np.ndarray) -> np.ndarray:
    """Within 0 and 1; NaN is +0."""
    return np.where(numbers > 0, np.minimum(numbers, 1), 0).astype(numbers.dtype)


WIDE: dict[str, Compute] = {  # of numbers in float64, and the rounding mode
    "add": exact_sum,
    "sub": lambda a, b, mode: exact_sum(a, -b, mode),
    "mul": lambda a, b, mode: a * b,
    "fma": lambda a, b, c, mode: exact_sum(a * b, c, mode),
    "div": lambda a, b, mode: a / b,
}
OF_FLOAT64 = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


def arithmetic(name: str, kind: Kind, mode: str, ftz: bool = False, sat: bool = False) -> Compute:
    """An operation of `WIDE` on numbers of a type."""

    def compute(*numbers: np.ndarray) -> np.ndarray:
        if kind.name == "f64":
            return rounded(OF_FLOAT64[name](*numbers), kind)
        numbers = tuple(map(flushed, numbers)) if ftz else numbers
        result = rounded(WIDE[name](*(a.astype(np.float64) for a in numbers), mode=mode), kind, mode)
        result = flushed(result) if ftz else result
        return saturated(result) if sat else result

    return compute


def extreme(kind: Kind, is_min: bool, keeps_nan: bool, ftz: bool) -> Compute:
    """The minimum or maximum, with -0 below +0; of a number and NaN the number, unless `keeps_nan`."""

    def compute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = np.broadcast_arrays(*((flushed(a), flushed(b)) if ftz else (a, b)))
        first = np.where(a == b, np.signbit(a) == is_min, a < b if is_min else a > b)
        found = np.where(first | np.isnan(b), a, b)
        has_nan = np.isnan(a) | np.isnan(b) if keeps_nan else np.isnan(a) & np.isnan(b)
        return np.where(has_nan, canonical(kind), found)

    return compute


def compare(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A comparison; those of three letters are true of NaN, but for `num`, which says that there is none."""
    unordered = np.isnan(a) | np.isnan(b)
    if name in UNORDERED:
        return unordered == UNORDERED[name]
    true = COMPARE[name[:2]](a, b)
    return true & ~unordered if len(name) == 2 else true | unordered
