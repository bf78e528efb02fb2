"""The forms of `cvt`, which are added to `FORMS`."""

import itertools
import operator

import numpy as np

from . import floats
from .instructions import F32, FORMS, MODES, Compute, Form, exactly, flags
from .kinds import KINDS, Kind

INTEGERS = [KINDS[f"{letter}{bits}"] for letter in "us" for bits in (8, 16, 32, 64)]
FLOATS = [KINDS[name] for name in ("f16", "bf16", "f32", "f64")]
HALVES = [KINDS[name] for name in ("f16", "bf16", "f16x2", "bf16x2")]
ROUNDS = [mode for mode in MODES if mode]


def of_integers(result: Kind, mode: str) -> Compute:
    def compute(a: np.ndarray) -> np.ndarray:
        low = a & np.array(0xFFFFFFFF).astype(a.dtype)  # both halves of 64 bits are exact in float64
        high, low = (a - low).astype(np.float64), low.astype(np.float64)
        return floats.rounded(high + low if result.name == "f64" else floats.exact_sum(high, low, mode), result, mode)

    return compute


def to_integers(source: Kind, result: Kind, mode: str, ftz: bool = False) -> Compute:
    """Rounded to whole numbers and clamped to the range of the type."""
    low, end = int(np.iinfo(result.dtype).min), float(int(np.iinfo(result.dtype).max) + 1)
    nan = np.array(0 if source.name != "f64" and result.bits != 64 else 1 << (result.bits - 1), f"u{result.bits // 8}")

    def compute(a: np.ndarray) -> np.ndarray:
        whole = floats.TO_WHOLE[mode]((floats.flushed(a) if ftz else a).astype(np.float64))
        found = np.where((whole >= low) & (whole < end), whole, 0).astype(result.dtype)
        found = np.where(whole >= end, np.iinfo(result.dtype).max, np.where(whole < low, low, found))
        return np.where(np.isnan(whole), nan.view(result.dtype), found.astype(result.dtype))

    return compute


def of_floats(
    source: Kind, result: Kind, mode: str, to_whole: str = "", ftz: bool = False, sat: bool = False, relu: bool = False
) -> Compute:
    """From one or two floats."""

    def convert(a: np.ndarray) -> np.ndarray:
        wide = (floats.flushed(a) if ftz and source is F32 else a).astype(np.float64)
        number = floats.rounded(floats.TO_WHOLE[to_whole](wide) if to_whole else wide, result, mode)
        number = floats.flushed(number) if ftz and result is F32 else number
        number = np.where(number < 0, np.zeros_like(number), number) if relu else number  # keeps NaN; .sat does not
        return floats.saturated(number) if sat else number

    if result.lanes == 1:
        return convert
    return lambda high, low: np.stack(np.broadcast_arrays(convert(low), convert(high)), axis=-1)


def define(modifiers: str, result: Kind, source: Kind, compute: Compute, low: int = 64) -> None:
    form = Form((result,), (source,) * result.lanes, compute, not result.letter == source.letter == "f", low)
    FORMS[f"cvt{modifiers}.{result.name}.{source.name}"] = form


for source, result in itertools.product(INTEGERS, INTEGERS):
    define("", result, source, np.positive, low=result.bits)  # which wraps when it is stored
    if not np.can_cast(source.dtype, result.dtype):
        define(".sat", result, source, exactly(operator.pos, result, clamps=True))
for integer, number in itertools.product(INTEGERS, FLOATS):
    for mode in ROUNDS:
        if mode == ".rn" or number.name != "f64" or integer.bits < 64:
            define(mode, number, integer, of_integers(number, MODES[mode]))
        for (ftz, *ftz_), sat in itertools.product(flags(".ftz") if number is F32 else flags(), ("", ".sat")):
            compute = to_integers(number, integer, MODES[mode], *ftz_)  # which are clamped in any case
            define(f"{mode}i{ftz}{sat}", integer, number, compute)
for source, result in itertools.product(FLOATS, FLOATS):
    is_exact, is_bf16 = source is result or result.bits > source.bits, result.name == "bf16"
    modes = ["", *(f"{mode}i" for mode in ROUNDS)] if source is result else [""] if is_exact else ROUNDS
    ftz_flags = flags(".ftz") if F32 in (source, result) and not is_bf16 else flags()
    for mode, (ftz, *ftz_), (sat, *sat_) in itertools.product(modes, ftz_flags, flags() if is_bf16 else flags(".sat")):
        if is_bf16 and (mode == "" or (source is F32 and mode not in (".rn", ".rz"))):
            continue
        whole = mode[2:3] if mode.endswith("i") else ""
        compute = of_floats(source, result, MODES.get(mode, "n"), whole, any(ftz_), sat=any(sat_))
        define(f"{mode}{ftz}{sat}", result, source, compute)
for result, mode, (relu, is_relu) in itertools.product(HALVES, (".rn", ".rz"), flags(".relu")):
    define(f"{mode}{relu}", result, F32, of_floats(F32, result, MODES[mode], relu=is_relu))
