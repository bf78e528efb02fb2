"""cvt of `tools.ptx` against Python's integers and exact fractions (PTX ISA, 9.7.9.21: "cvt")."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from ptx_launch import hold, run
from ptx_manual import FORMATS, ROUNDINGS, Format, clamp, integer, integers, mode_round, pairs, saturate

pytestmark = pytest.mark.tools
INTEGERS = [f"{letter}{width}" for letter in "us" for width in (8, 16, 32, 64)]
INTEGRAL = ("rni", "rzi", "rmi", "rpi")


def held(kind: str) -> int:
    """The width of the narrowest register for a type."""
    return max(16, int(kind.lstrip("busf")) if kind[0] in "us" else FORMATS[kind].width)


def extended(value: int, kind: str, width: int) -> int:
    """9.4.1: "If the corresponding instruction type is signed integer, the data is sign-extended; otherwise zero"."""
    return integer(value & (1 << int(kind[1:])) - 1, kind) & (1 << width) - 1


@pytest.mark.parametrize("source", INTEGERS)
def test_integers_are_chopped_or_extended_by_their_own_sign(source: str) -> None:
    # 9.4.1: "the source data is truncated (chopped)"; sign extension to a wider type is by the sign of the source, to a
    # wider register by the sign of the destination's type.
    for register in sorted({held(source), 32, 64}):
        if register < held(source):
            continue
        (a,) = pairs([*integers(register), *integers(8)])
        for destination in INTEGERS:
            for result in (width for width in (16, 32, 64) if width >= held(destination)):
                want = [extended(integer(int(x), source), destination, result) for x in a]
                body = f"cvt.{destination}.{source} %o, %a;"
                hold(f"{body} b{register} to b{result}", run(body, [a], [register], result), want, [a])


def narrows(destination: str, source: str) -> bool:
    """Whether the destination cannot hold all of the source: else ".sat is illegal" (9.7.9.21)."""
    width, sign = int(source[1:]), source[0] == "s"
    extremes = (-(1 << width - 1), (1 << width - 1) - 1) if sign else (0, (1 << width) - 1)
    return any(clamp(value, destination) != value for value in extremes)


@pytest.mark.parametrize("source", INTEGERS)
def test_sat_limits_integers_to_the_destination(source: str) -> None:
    """9.7.9.21: ".sat limits the result to MININT..MAXINT for the size of the operation", signed and unsigned."""
    (a,) = pairs([*integers(held(source)), *integers(int(source[1:]))])
    for destination in (d for d in INTEGERS if narrows(d, source)):
        result = held(destination)
        want = [extended(clamp(integer(int(x), source), destination), destination, result) for x in a]
        body = f"cvt.sat.{destination}.{source} %o, %a;"
        hold(body, run(body, [a], [held(source)], result), want, [a])


@pytest.mark.parametrize("source", INTEGERS)
def test_integers_become_floats_with_one_rounding(source: str) -> None:
    # 9.7.9.21: "Floating-point rounding is required for ... integer-to-float conversions"; .rn is "to nearest, with
    # ties to even".
    width = int(source[1:])
    near = [(1 << bits) + d for bits in range(7, width) for d in (-1, 0, 1)]
    ties = [((1 << p) + k) << s for p in (8, 11, 24, 53) for k in (1, 3) for s in (0, 1, 2) if p + s < width]
    ties += [t + d for t in ties for d in (-1, 1)]
    values = {v & (1 << width) - 1 for v in [*integers(width), *near, *ties, *(-t for t in ties), *(-n for n in near)]}
    (a,) = pairs(sorted(values))
    for kind, mode in itertools.product(FORMATS, ROUNDINGS):
        if kind == "f64" and width == 64 and mode != "rn":
            continue  # left out: test_ptx_forms.py
        form = FORMATS[kind]
        want = [form.encode(Fraction(integer(int(x), source)), mode) for x in a]
        body = f"cvt.{mode}.{kind}.{source} %o, %a;"
        hold(body, run(body, [a], [held(source)], form.width), want, [a], kind)


def near_integers(form: Format) -> np.ndarray:
    """Bits of numbers about integers, halves and the extremes of each integer type, and the values that matter."""
    numbers = {Fraction(n, 4) for n in range(-20, 21)}
    for width in (7, 8, 15, 16, 31, 32, 63, 64):
        numbers |= {
            sign * (Fraction(2) ** width + d) for sign in (1, -1) for d in (-1, -Fraction(1, 2), 0, Fraction(1, 2), 1)
        }
    bits = {form.encode(n, mode) for n in numbers for mode in ("rz", "rm", "rp")}
    return np.array(sorted({*bits, *form.values()}), np.uint64)


def float_to_integer(form: Format, bits: int, mode: str, kind: str) -> int:
    # 9.7.9.21: NaN is "Zero if source is not .f64 and destination is not .s64, .u64. Otherwise 1 << (BitWidth(dst) -
    # 1)"; "the result is clamped to the destination range by default; i.e, .sat is redundant".
    value, width = form.decode(bits), int(kind[1:])
    if math.isnan(value):
        return 1 << width - 1 if form.name == "f64" or width == 64 else 0
    if math.isinf(value):
        value = Fraction(2) ** 70 * (1 if value > 0 else -1)
    return clamp(mode_round(Fraction(value), mode), kind) & (1 << width) - 1


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", INTEGRAL)
def test_floats_become_integers_by_the_rounding_asked_for_and_clamp(mode: str, kind: str) -> None:
    # 9.7.9.21: ".rni round to nearest integer, choosing even integer if source is equidistant"; .rzi "in the direction
    # of zero"; .rmi "of negative infinity"; .rpi "of positive infinity"; "cvt.ftz.dtype.f32: subnormal inputs are
    # flushed".
    form = FORMATS[kind]
    a = near_integers(form)
    for destination, sat in itertools.product(INTEGERS, ("", ".sat")):
        result = held(destination)
        for ftz in ("", ".ftz") if kind == "f32" else ("",):
            change = form.flush if ftz else int
            want = [extended(float_to_integer(form, change(int(x)), mode, destination), destination, result) for x in a]
            body = f"cvt.{mode}{ftz}{sat}.{destination}.{kind} %o, %a;"
            hold(body, run(body, [a], [form.width], result), want, [a])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", INTEGRAL)
def test_floats_round_to_integral_floats(mode: str, kind: str) -> None:
    # 9.7.9.21: "The result is an integral value, stored in floating-point format" (-0.3 to -0.0: IEEE 754, 6.3);
    # "cvt.ftz.f32.f32 ... with integer rounding, subnormal inputs are flushed to sign-preserving zero"; with .sat it is
    # then in [0.0, 1.0] (the sign of a clamped -0.0 is open).
    form = FORMATS[kind]
    a = near_integers(form)
    rounded = {}
    for bits in map(int, a):
        value = form.decode(bits)
        whole = math.isfinite(value) and form.encode(
            Fraction(mode_round(Fraction(value), mode)), "rn", bool(bits & form.sign)
        )
        rounded[bits] = whole if math.isfinite(value) else bits
    for ftz, sat in itertools.product(
        (False, True) if kind == "f32" else (False,), (False, True) if kind != "bf16" else (False,)
    ):
        want = [rounded.get(form.flush(int(x)) if ftz else int(x), int(x) & form.sign) for x in a]
        if sat:
            want = [None if w == form.sign else saturate(form, w) for w in want]
        body = f"cvt.{mode}{'.ftz' * ftz}{'.sat' * sat}.{kind}.{kind} %o, %a;"
        hold(body, run(body, [a], [form.width], form.width), want, [a], kind)


def about(source: Format, destination: Format) -> np.ndarray:
    """Bits of the source on both sides of numbers of the destination and of the ties between those."""
    bits = set(source.values())
    for low in destination.values():
        if low & ~destination.sign < destination.infinity:
            here = Fraction(destination.decode(low))
            ulp = Fraction(
                destination.decode(
                    (low & ~destination.sign) + 1
                    if low & ~destination.sign < destination.infinity - 1
                    else low & ~destination.sign
                )
            ) - abs(here)
            for target in (here, here + ulp / 2, here + ulp / 4):
                near = source.encode(target, "rz")
                bits |= {near, near + 1, near - 1 if near & ~source.sign else near}
    rng = random.Random(source.width * destination.width)
    return np.array(sorted({*bits, *(rng.getrandbits(source.width) for _ in range(300))}), np.uint64)


def float_to_float(source: Format, destination: Format, mode: str, ftz: bool, bits: int) -> int | None:
    # 9.7.9.21: ".ftz may be specified to flush single-precision subnormal inputs and results to sign-preserving zero
    # ... applies only to single precision (.f32) inputs and results".
    if ftz and source.name == "f32":
        bits = source.flush(bits)
    value = source.decode(bits)
    result = destination.encode(value, mode)
    if ftz and destination.name == "f32":
        if result & ~destination.sign == 1 << destination.mantissa and abs(value) < Fraction(2) ** (
            1 - destination.bias
        ):
            return None  # a subnormal result, or not: open
        result = destination.flush(result)
    return result


def float_pairs() -> list[tuple[str, str]]:
    return [(d, s) for d in FORMATS for s in FORMATS if d != s or d != "bf16"]


@pytest.mark.parametrize(("destination", "source"), float_pairs())
def test_floats_become_other_floats_with_one_rounding(destination: str, source: str) -> None:
    # 9.7.9.21: "Floating-point rounding is required for float-to-float conversions that result in loss of precision";
    # .sat "limits the result to the range [0.0, 1.0]. NaN results are flushed to positive zero" (.f16, .f32, .f64).
    d, s = FORMATS[destination], FORMATS[source]
    a = about(s, d)
    loses = d.mantissa < s.mantissa or d.bias < s.bias
    packs = source == "f32" and destination in ("f16", "bf16")  # "cvt.frnd2{.relu}{.satfinite}.bf16.f32": no .ftz, .sat
    for mode in ROUNDINGS if loses else ("",):
        if destination == "bf16" and source == "f32" and mode in ("rm", "rp"):
            continue  # .frnd2 = { .rn, .rz }
        for ftz in (
            (False, True) if "f32" in (destination, source) and not (packs and destination == "bf16") else (False,)
        ):
            for sat in (False, True) if destination != "bf16" else (False,):
                want = [float_to_float(s, d, mode or "rn", ftz, int(x)) for x in a]
                if sat:
                    want = [None if w in (None, d.sign) else saturate(d, w) for w in want]
                modifier = ("." + mode if mode else "") + ".ftz" * ftz + ".sat" * sat
                body = f"cvt{modifier}.{destination}.{source} %o, %a;"
                hold(body, run(body, [a], [s.width], d.width), want, [a], destination)


def packed(form: Format, mode: str, relu: bool, bits: int) -> int | None:
    """9.7.9.21: ".relu clamps the result to 0 if negative. NaN results are converted to canonical NaN"."""
    result = form.encode(FORMATS["f32"].decode(bits), mode)
    if relu and result & form.sign:
        return None if result == form.sign else 0  # whether -0.0 is negative is open
    return result


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("mode", ["rn", "rz"])
def test_pairs_of_floats_are_packed_with_the_first_in_the_upper_half(mode: str, kind: str) -> None:
    # 9.7.9.21: "the value converted from input a is stored in the upper half of d and the value converted from input b
    # is stored in the lower half of d".
    form = FORMATS[kind]
    a = about(FORMATS["f32"], form)
    b = np.roll(a, 7)
    for relu in (False, True):
        want = [packed(form, mode, relu, int(x)) for x in a]
        modifier = mode + ".relu" * relu
        body = f"cvt.{modifier}.{kind}x2.f32 %o, %a, %b;"
        got = run(body, [a, b], [32, 32], 32)
        hold(f"upper of {body}", [g >> 16 for g in got], want, [a], kind)
        hold(f"lower of {body}", [g & 0xFFFF for g in got], [want[i - 7] for i in range(len(a))], [b], kind)
        body = f"cvt.{modifier}.{kind}.f32 %o, %a;"
        got = run(body, [a], [32], 16)
        hold(body, got, want, [a], kind)
        if relu:
            nans = {g for g, x in zip(got, a, strict=True) if FORMATS["f32"].is_nan(int(x))}
            assert nans == {form.canonical}


def test_every_half_becomes_its_float_and_comes_back() -> None:
    """9.7.9.21: a conversion without loss takes no rounding; all 65,536 bit patterns of f16 and bf16."""
    a = np.arange(65536, dtype=np.uint64)
    for kind in ("f16", "bf16"):
        form = FORMATS[kind]
        body = f"cvt.f32.{kind} %o, %a;"
        wide = run(body, [a], [16], 32)
        hold(body, wide, [FORMATS["f32"].encode(form.decode(int(x))) for x in a], [a], "f32")
        body = f"cvt.rn.{kind}.f32 %o, %a;"
        hold(body, run(body, [np.array(wide, np.uint64)], [32], 16), [int(x) for x in a], [a], kind)
