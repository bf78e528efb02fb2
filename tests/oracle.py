"""The formula in plain NumPy, written for the tests, and what it means that two arrays agree."""

import itertools

import ml_dtypes
import numpy as np

from intnumerics.kernels import QuantSpec

DTYPES = tuple(np.dtype(d) for d in (np.float32, ml_dtypes.bfloat16, np.float16))
BITS = (1, 2, 4, 8, 9, 16, 22)
SMALLEST_NORMAL = 2.0**-126


def edge(bits: float, preserve_zero: bool) -> float:
    """The far edge of the last bucket."""
    return 2.0 ** (bits - 1) - (0.5 if preserve_zero else 0.0)


def quantize(x: np.ndarray, noise: np.ndarray | None, spec: QuantSpec) -> np.ndarray:
    """`(x + noise).astype(x.dtype)`, clip, round half to even or floor + 0.5; for an integer result without the 0.5."""
    dtype = x.dtype
    with np.errstate(all="ignore"):
        y = x if spec.noise_dtype is None else x.astype(np.promote_types(np.float32, dtype))
        if noise is not None:
            wide = np.float64 if np.float64 in (y.dtype, noise.dtype) else np.float32
            y = (y.astype(wide) + noise.astype(wide)).astype(y.dtype)
        bound = np.asarray(spec.bound, y.dtype)
        if spec.clip:  # comparisons, for NumPy leaves open which zero is the larger
            y = np.where(y < -bound, -bound, np.where(y > bound, bound, y))
        if spec.rounding == "half_to_even":
            y = np.rint(y)
        elif spec.rounding == "floor_plus_half":
            y = np.floor(y)
            if spec.integer_dtype is None:
                y = y + np.asarray(0.5, y.dtype)
        if spec.integer_dtype is None:
            return y.astype(dtype)
        return np.where(np.isnan(y), 0, y).astype(spec.integer_dtype)


def mask(x: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """The clip mask: True where `-bound <= x <= bound`."""
    with np.errstate(all="ignore"):
        y = x if spec.noise_dtype is None else x.astype(np.promote_types(np.float32, x.dtype))
        bound = np.asarray(spec.bound, y.dtype)
        return (-bound <= y) & (y <= bound)


def packed_mask(x: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """The clip mask, one bit per element."""
    return np.packbits(mask(x, spec), axis=-1, bitorder="little")


def flushed(x: np.ndarray) -> np.ndarray:
    """x with zeros of the same sign for subnormal numbers, as arithmetic takes them on a CPU under XLA and a TPU."""
    with np.errstate(all="ignore"):
        wide = x.astype(np.promote_types(np.float32, x.dtype))
        return np.where(np.abs(wide) < SMALLEST_NORMAL, np.copysign(np.zeros_like(wide), wide), wide).astype(x.dtype)


def specs(bits: int) -> list[QuantSpec]:
    """All different descriptions that the switches of a numerics of `bits` give, with float results."""
    found = []
    for zero, clip, rounds in itertools.product((False, True), repeat=3):
        rounding = ("half_to_even" if zero else "floor_plus_half") if rounds else None
        found.append(QuantSpec(edge(bits, zero) - (0.5 if rounds else 0.0), clip, rounding))
    return found


def values(spec: QuantSpec, dtype: np.dtype) -> np.ndarray:
    """Numbers at which an implementation could go wrong: bucket edges and their neighbours, ties, zeros, extremes."""
    last = int(min(spec.bound, 260))
    near = np.arange(-last - 2, last + 3) / 1.0
    centres = np.concatenate([near, near + 0.5, near + 0.25, [spec.bound, -spec.bound, spec.bound + 0.5]])
    kind = ml_dtypes.finfo(dtype)
    extremes = [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        -0.0,
        *(
            s * float(v)
            for s in (1, -1)
            for v in (
                kind.max,
                kind.smallest_normal,
                kind.smallest_subnormal,
                kind.eps,
                2.0**22 + 1,
                2.0**23 + 1,
                2.0**24,
                0.1,
            )
        ),
    ]
    with np.errstate(all="ignore"):
        x = np.concatenate([centres, extremes]).astype(dtype)
        up, down = (np.nextafter(x, np.asarray(to, dtype)) for to in (np.inf, -np.inf))
    return np.concatenate([x, up, down, np.arange(-x.size % 8).astype(dtype)])


def assert_same_bits(actual: object, expected: object) -> None:
    """Same shape, same dtype, same bits; any NaN equals any NaN."""
    a, b = np.asarray(actual), np.asarray(expected)
    assert a.shape == b.shape, f"shape {a.shape} is not {b.shape}"
    assert a.dtype == b.dtype, f"dtype {a.dtype} is not {b.dtype}"
    as_bits = np.dtype(f"u{a.dtype.itemsize}")
    same = a.view(as_bits) == b.view(as_bits)
    if not np.issubdtype(a.dtype, np.integer) and a.dtype != bool:
        with np.errstate(invalid="ignore"):  # bfloat16's functions warn of NaN
            same |= np.isnan(a) & np.isnan(b)
    where = np.argwhere(~same)
    assert same.all(), f"{len(where)} of {a.size} differ, at {where[:3].tolist()}: {a[~same][:3]} is not {b[~same][:3]}"
