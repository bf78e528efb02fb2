"""`cvt`: from one type to another."""

import numpy as np

from . import floats
from .computing import clamped, exactly, extremes
from .forms import Compute, Form, Parts, family
from .kinds import Kind

ROUNDS = ("rn", "rz", "rm", "rp")
TO_WHOLE = ("rni", "rzi", "rmi", "rpi")


@family("cvt")
def conversion(parts: Parts) -> Form:
    source, result = parts.kind("usf"), parts.kind("usf")
    if source.lanes > 1 or (result.lanes > 1 and not (result.letter == "f" and source.name == "f32")):
        raise parts.unsupported()
    to_whole, mode = parts.take(*TO_WHOLE), parts.take(*ROUNDS)
    ftz = "f32" in (source.name, result.name) and parts.has("ftz")
    sat, relu = parts.has("sat"), result.element_bits == 16 and source.name == "f32" and parts.has("relu")
    if "f" not in (source.letter, result.letter):
        if to_whole or mode:
            raise parts.unsupported()
        return Form((result,), (source,), between_integers(source, result, sat), is_relaxed=True)
    if source.letter != "f":
        if not mode or to_whole:
            raise parts.unsupported()
        compute = of_integers(result, mode[1], sat)
        return Form((result,), (source,), compute, is_relaxed=True)
    if result.letter != "f":
        if not to_whole or mode:
            raise parts.unsupported()
        compute = to_integers(source, result, to_whole[1], ftz)
        return Form((result,), (source,), compute, is_relaxed=True)
    is_exact = source.name == result.name or result.element_bits > source.bits
    if is_exact == bool(mode) or (to_whole and source.name != result.name):
        raise parts.unsupported()

    def between_floats(*numbers: np.ndarray) -> np.ndarray:
        wide = [(floats.flushed(a) if ftz and source.name == "f32" else a).astype(np.float64) for a in numbers]
        if to_whole:
            wide = [floats.NEAREST[to_whole[1]](a) for a in wide]
        found = [floats.rounded(a, result, mode[1] if mode else "n") for a in wide]
        found = [floats.flushed(a) if ftz and result.name == "f32" else a for a in found]
        found = [finish(a, relu, sat) for a in found]
        return np.stack(np.broadcast_arrays(*found[::-1]), axis=-1) if result.lanes > 1 else found[0]

    return Form((result,), (source,) * result.lanes, between_floats)


def finish(numbers: np.ndarray, relu: bool, sat: bool) -> np.ndarray:
    if relu:  # NaN stays
        numbers = np.where(numbers < 0, np.zeros_like(numbers), numbers)
    return floats.saturated(numbers) if sat else numbers


def between_integers(source: Kind, result: Kind, sat: bool) -> Compute:
    return exactly(clamped(int, result), result) if sat else lambda a: a.astype(result.dtype)


def of_integers(result: Kind, mode: str, sat: bool) -> Compute:
    def compute(a: np.ndarray) -> np.ndarray:
        low = a & np.array(0xFFFFFFFF).astype(a.dtype)  # both halves of 64 bits are exact in float64
        high = (a - low).astype(np.float64)
        total = high + low if result.name == "f64" else floats.exact_sum(high, low.astype(np.float64), mode)
        return finish(floats.rounded(total, result, mode), False, sat)

    return compute


def to_integers(source: Kind, result: Kind, mode: str, ftz: bool) -> Compute:
    """Rounded to whole numbers and clamped to the range of the type."""
    low, high = extremes(result)
    nan = 0 if source.name != "f64" and result.bits != 64 else 1 << (result.bits - 1)

    def compute(a: np.ndarray) -> np.ndarray:
        a = floats.flushed(a) if ftz and source.name == "f32" else a
        whole = floats.NEAREST[mode](a.astype(np.float64))
        inside = (whole >= low) & (whole < float(high + 1))
        found = np.where(inside, whole, 0).astype(result.dtype)
        found = np.where(whole >= float(high + 1), result.dtype(high), np.where(whole < low, result.dtype(low), found))
        return np.where(np.isnan(whole), np.array(nan, f"u{result.bits // 8}").view(result.dtype), found)

    return compute
