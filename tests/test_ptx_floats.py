"""Float arithmetic of `tools.ptx` against exact fractions rounded once (PTX ISA, 9.7.3 and 9.7.4).

9.7.3: "Single-precision instructions return an unspecified NaN", 9.7.4: "Half-precision instructions return an
unspecified NaN": so any NaN equals any NaN here.
"""

import itertools
import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from ptx_launch import hold, run
from ptx_manual import BF16, F16, F32, F64, FORMATS, ROUNDINGS, Format, exact, pairs, saturate

pytestmark = pytest.mark.tools


def arithmetic(form: Format, operation: str, mode: str, ftz: bool, sat: bool, *bits: int) -> int | None:
    """The bits of one result; None where the manual leaves them open."""
    if ftz:  # "flushes subnormal inputs and results to sign-preserving zero"
        bits = tuple(form.flush(b) for b in bits)
    value, negative = exact(operation, *(form.decode(b) for b in bits), mode=mode)
    result = form.encode(value, mode, negative)
    if ftz:
        if result & ~form.sign == 1 << form.mantissa and abs(value) < Fraction(2) ** (1 - form.bias):
            return None  # below the normal numbers before it is rounded, not after: is it a subnormal result?
        result = form.flush(result)
    if sat:
        return None if result == form.sign else saturate(form, result)  # the sign of a clamped -0.0 is open
    return result


def modifiers(form: Format, modes: tuple[str, ...]) -> Iterator[tuple[str, bool, bool]]:
    """What the manual lets stand between operation and type: 9.7.3.3 for f32 and f64, 9.7.4.1 for f16 and bf16."""
    small = form.name in ("f32", "f16")
    yield from itertools.product(modes, (False, True) if small else (False,), (False, True) if small else (False,))


def spelled(operation: str, mode: str, ftz: bool, sat: bool, kind: str) -> str:
    return ".".join([operation, *([mode] if mode else []), *(["ftz"] if ftz else []), *(["sat"] if sat else []), kind])


def halves(bits: np.ndarray) -> np.ndarray:
    """Two 16-bit numbers in one register: the lower is `bits`, the upper is `bits` in another order."""
    return bits | bits[::-1] << np.uint64(16)


def lower_then_upper(got: list[int]) -> list[int]:
    return [g & 0xFFFF for g in got] + [g >> 16 for g in got[::-1]]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("operation", ["add", "sub", "mul"])
def test_arithmetic_rounds_the_exact_result_once(operation: str, kind: str) -> None:
    # 9.7.3.3 add: ".rn mantissa LSB rounds to nearest even", ".rz towards zero", ".rm towards negative infinity", ".rp
    # towards positive infinity"; "An add instruction with no rounding modifier defaults to round-to-nearest-even";
    # "add.sat.f32 clamps the result to [0.0, 1.0]. NaN results are flushed to +0.0f."
    form = FORMATS[kind]
    values = form.values()
    a, b = pairs(values, values)
    for mode, ftz, sat in modifiers(form, ("", *ROUNDINGS) if kind == "f32" else ("", "rn")):
        want = [arithmetic(form, operation, mode or "rn", ftz, sat, int(x), int(y)) for x, y in zip(a, b, strict=True)]
        name = spelled(operation, mode, ftz, sat, kind)
        body = f"{name} %o, %a, %b;"
        hold(body, run(body, [a, b], [form.width] * 2, form.width), want, [a, b], kind)
        if form.width == 16:
            body = f"{name}x2 %o, %a, %b;"
            got = lower_then_upper(run(body, [halves(a), halves(b)], [32, 32], 32))
            hold(body, got, want * 2, [np.tile(a, 2), np.tile(b, 2)], kind)


def products_that_tie(form: Format) -> list[tuple[int, int, int]]:
    """Products half way between two numbers, with an addend far too small for any intermediate format to keep.

    Rounding the product first, or the sum to float64 or float32 first, gives another result.
    """
    bits = form.mantissa + 1
    triples = []
    for a in range(2 ** (bits // 2) + 1, 2 ** (bits // 2) + 60, 2):
        b = -(-(2**bits) // a) | 1
        if (a * b).bit_length() == bits + 1:
            for scale in (0, -2):
                encoded = [form.encode(Fraction(n) * Fraction(2) ** scale) for n in (a, b)]
                triples += [
                    (encoded[0] | sign, encoded[1], tiny) for sign in (0, form.sign) for tiny in (0, 1, form.sign | 1)
                ]
    assert triples
    return triples


def products_near_a_tie(form: Format) -> list[tuple[int, int, int]]:
    # (1 + h) (1 - h + hh) = 1 + hhh: times half an ulp it is barely more than a tie beside 1, and beside a subnormal.
    h = Fraction(1, 2 ** ((form.mantissa + 1) // 2))
    one, half = form.encode(Fraction(1)), form.mantissa + 1
    triples = []
    for sign, addend in itertools.product((1, -1), (one, one + 1, one | form.sign, one + 1 | form.sign)):
        a, b = (1 + h) / 2 ** (half // 2), (1 - h + h * h) / 2 ** (half - half // 2)
        triples.append((form.encode(sign * a), form.encode(b), addend))
    lowest = Fraction(2) ** (1 - form.bias - form.mantissa)
    for sign, addend in itertools.product((1, -1), (0, 1, 2, (1 << form.mantissa) - 2, (1 << form.mantissa) - 1)):
        small = Fraction(2) ** -(form.bias - 2)
        a, b = (1 + h) * small, (1 - h + h * h) * lowest / small / 2
        triples += [
            (form.encode(sign * a), form.encode(b), addend),
            (form.encode(sign * a), form.encode(b), addend | form.sign),
        ]
    return triples


def random_triples(form: Format, count: int) -> list[tuple[int, int, int]]:
    """Numbers whose product and addend are of near exponents, so that they cancel or carry."""
    rng = random.Random(form.width + form.mantissa)
    triples = []
    for _ in range(count):
        a, b = (rng.randrange(-form.bias // 2, form.bias // 2) for _ in range(2))
        c = min(max(a + b + rng.randrange(-form.mantissa - 3, form.mantissa + 3), 1 - form.bias), form.bias)
        triple = (
            rng.getrandbits(form.mantissa) | e + form.bias << form.mantissa | form.sign * rng.getrandbits(1)
            for e in (a, b, c)
        )
        triples.append(tuple(triple))
    return triples


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_fma_rounds_once(kind: str) -> None:
    # 9.7.3.6 fma: "computes the product of a and b to infinite precision and then adds c to this product, again in
    # infinite precision. The resulting value is then rounded"; 9.7.4.4: "with no loss of precision".
    form = FORMATS[kind]
    few = form.values()
    few = few[:4] + few[8:11] + few[18:20] + few[36:41]
    triples = list(itertools.product(few, repeat=3))
    triples += products_that_tie(form) + products_near_a_tie(form) + random_triples(form, 600)
    a, b, c = (np.array(column, np.uint64) for column in zip(*triples, strict=True))
    for mode, ftz, sat in modifiers(form, ROUNDINGS if kind == "f32" else ("rn",)):
        want = [arithmetic(form, "fma", mode, ftz, sat, *map(int, row)) for row in zip(a, b, c, strict=True)]
        name = spelled("fma", mode, ftz, sat, kind)
        body = f"{name} %o, %a, %b, %c;"
        hold(body, run(body, [a, b, c], [form.width] * 3, form.width), want, [a, b, c], kind)
        if form.width == 16:
            body = f"{name}x2 %o, %a, %b, %c;"
            got = lower_then_upper(run(body, [halves(a), halves(b), halves(c)], [32] * 3, 32))
            hold(body, got, want * 2, [np.tile(o, 2) for o in (a, b, c)], kind)


def test_the_triples_of_fma_tell_one_rounding_from_two() -> None:
    """The test of the test: rounding the product first, or the sum to float64 first, is seen."""
    for form in (F32, F16, BF16):
        first = second = 0
        for a, b, c in products_that_tie(form) + products_near_a_tie(form):
            x, y, z = map(form.decode, (a, b, c))
            once = form.encode(*exact("fma", x, y, z)[:1])
            product = form.decode(form.encode(exact("mul", x, y)[0]))
            first += form.encode(exact("add", product, z)[0]) != once
            wider = F32 if form.width == 16 and form.name == "f16" else F64
            second += form.encode(wider.decode(wider.encode(exact("fma", x, y, z)[0]))) != once
        assert first, form.name
        assert second, form.name


@pytest.mark.parametrize("mode", ROUNDINGS)
def test_div_rounds_the_quotient(mode: str) -> None:
    """9.7.3.8 div: "div.rnd.f32 // IEEE 754 compliant rounding"; "div.ftz.f32 flushes subnormal inputs and results"."""
    a, b = pairs(F32.values(), F32.values())
    rng = random.Random(8)
    a, b = (np.concatenate([o, np.array([rng.getrandbits(32) for _ in range(700)], np.uint64)]) for o in (a, b))
    for ftz in (False, True):
        want = [arithmetic(F32, "div", mode, ftz, False, int(x), int(y)) for x, y in zip(a, b, strict=True)]
        body = f"{spelled('div', mode, ftz, False, 'f32')} %o, %a, %b;"
        hold(body, run(body, [a, b], [32, 32], 32), want, [a, b], "f32")


def test_rcp_of_float64_rounds_the_reciprocal() -> None:
    """9.7.3.13 rcp: "rcp.rnd.f64 // IEEE 754 compliant rounding"."""
    form = FORMATS["f64"]
    [a], one = pairs(form.values()), int(np.float64(1).view(np.uint64))
    want = [arithmetic(form, "div", "rn", False, False, one, int(x)) for x in a]
    body = "rcp.rn.f64 %o, %a;"
    hold(body, run(body, [a], [64], 64), want, [a], "f64")


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_copysign_takes_the_sign_of_its_first_operand(kind: str) -> None:
    """9.7.3.2 copysign: "Copy sign bit of a into value of b, and return the result as d"."""
    form = FORMATS[kind]
    a, b = pairs(form.values(), form.values())
    want = [(int(x) & form.sign) | (int(y) & ~form.sign) for x, y in zip(a, b, strict=True)]
    body = f"copysign.{kind} %o, %a, %b;"
    hold(body, run(body, [a, b], [form.width] * 2, form.width), want, [a, b], kind)
