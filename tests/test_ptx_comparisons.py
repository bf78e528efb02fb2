"""min, max, abs, neg, setp and set of floats in `tools.ptx` (PTX ISA, 9.7.3.9 to 12, 9.7.4.5 to 8, 9.7.6, 9.7.7)."""

import operator

import numpy as np
import pytest
from ptx_launch import hold, run
from ptx_manual import BF16, F16, FORMATS, Format, pairs

from tests.test_ptx_floats import halves, lower_then_upper

pytestmark = pytest.mark.tools


def order(form: Format, bits: int) -> int:
    """Numbers in their order, with "-0.0 < +0.0" (9.7.3.11: "note: -0.0 < +0.0 here")."""
    return ~(bits & ~form.sign) if bits & form.sign else bits


def least(form: Format, operation: str, nan: bool, ftz: bool, a: int, b: int) -> int:
    # 9.7.3.11, min_num: "if (isNaN(x) && isNaN(y)) z = NaN; else if (isNaN(x)) z = y; else if (isNaN(y)) z = x";
    # min_nan: "if (isNaN(x) || isNaN(y)) z = NaN".
    if ftz:
        a, b = form.flush(a), form.flush(b)
    if form.is_nan(a) or form.is_nan(b):
        if nan or (form.is_nan(a) and form.is_nan(b)):
            return form.canonical
        return b if form.is_nan(a) else a
    pick = min if operation == "min" else max
    return pick(a, b, key=lambda bits: order(form, bits))


def minimum_forms() -> list[tuple[str, str, bool, bool]]:
    forms = [(o, k, n, False) for o in ("min", "max") for k in FORMATS for n in (False, True) if not (n and k == "f64")]
    return forms + [(o, k, n, True) for o in ("min", "max") for k in ("f32", "f16") for n in (False, True)]


@pytest.mark.parametrize(("operation", "kind", "nan", "ftz"), minimum_forms())
def test_min_and_max_drop_a_nan_unless_told_otherwise(operation: str, kind: str, nan: bool, ftz: bool) -> None:
    # 9.7.3.11 min: "If .NaN modifier is specified, then the result is canonical NaN if any of the inputs is NaN"; "If
    # values of both inputs are 0.0, then +0.0 > -0.0".
    form = FORMATS[kind]
    a, b = pairs(form.values(), form.values())
    want = [least(form, operation, nan, ftz, int(x), int(y)) for x, y in zip(a, b, strict=True)]
    name = f"{operation}{'.ftz' * ftz}{'.NaN' * nan}.{kind}"
    body = f"{name} %o, %a, %b;"
    got = run(body, [a, b], [form.width] * 2, form.width)
    hold(body, got, want, [a, b], kind)
    if nan:
        assert len({g for g in got if form.is_nan(g)}) == 1, "a canonical NaN has one encoding"
    if form.width == 16:
        body = f"{name}x2 %o, %a, %b;"
        got = lower_then_upper(run(body, [halves(a), halves(b)], [32, 32], 32))
        hold(body, got, want * 2, [np.tile(a, 2), np.tile(b, 2)], kind)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("operation", ["min", "max"])
def test_the_canonical_nan_is_positive_with_every_bit_of_the_mantissa_set(operation: str, kind: str) -> None:
    # The manual writes no bits beside "canonical NaN" here; CUDA's headers do: CUDART_NAN_F is 0x7fffffff,
    # CUDART_NAN_FP16 and CUDART_NAN_BF16 are 0x7FFF.
    form = FORMATS[kind]
    a, b = pairs([n | s for n in form.nans() for s in (0, form.sign)], [form.bias << form.mantissa])
    got = run(f"{operation}.NaN.{kind} %o, %a, %b;", [a, b], [form.width] * 2, form.width)
    assert set(got) == {form.canonical}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("operation", ["abs", "neg"])
def test_abs_and_neg_change_only_the_sign(operation: str, kind: str) -> None:
    # 9.7.3.9 abs: "d = |a|"; 9.7.3.10 neg: "d = -a"; "NaN inputs yield an unspecified NaN"; "abs.ftz.f32 flushes
    # subnormal inputs and results to sign-preserving zero".
    form = FORMATS[kind]
    (a,) = pairs(form.values())
    for ftz in (False, True) if kind in ("f32", "f16") else (False,):
        want = [form.flush(int(x)) if ftz else int(x) for x in a]
        want = [w & ~form.sign if operation == "abs" else w ^ form.sign for w in want]
        body = f"{operation}{'.ftz' * ftz}.{kind} %o, %a;"
        hold(body, run(body, [a], [form.width], form.width), want, [a], kind)
        if form.width == 16:
            body = f"{operation}{'.ftz' * ftz}.{kind}x2 %o, %a;"
            got = lower_then_upper(run(body, [halves(a)], [32], 32))
            hold(body, got, want * 2, [np.tile(a, 2)], kind)


ORDERED = ("eq", "ne", "lt", "le", "gt", "ge")
COMPARISONS = (*ORDERED, *(f"{c}u" for c in ORDERED), "num", "nan")


def compared(form: Format, comparison: str, a: int, b: int) -> bool:
    """9.3.1.2, tables 23 to 25: "a < b && !isNaN(a) && !isNaN(b)" is lt, "a < b || isNaN(a) || isNaN(b)" is ltu."""
    unordered = form.is_nan(a) or form.is_nan(b)
    if comparison in ("num", "nan"):
        return unordered == (comparison == "nan")
    if unordered:
        return comparison not in ORDERED
    return getattr(operator, comparison[:2])(form.decode(a), form.decode(b))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("comparison", COMPARISONS)
def test_setp_orders_numbers_and_knows_nan(comparison: str, kind: str) -> None:
    # 9.7.6.2 setp: "If either operand is NaN, the result is False" (ordered), "True" (unordered); "setp.ftz flushes
    # subnormal inputs to sign-preserving zero". 9.7.7.2: of .f16x2 p is the lower half's, q the upper's.
    form = FORMATS[kind]
    a, b = pairs(form.values(), form.values())
    second = "" if form.width == 16 else "|%q"  # 9.7.7.2: "setp.CmpOp.bf16 p, a, b;" has one destination
    for ftz in (False, True) if kind in ("f32", "f16") else (False,):
        change = form.flush if ftz else int
        want = [int(compared(form, comparison, change(int(x)), change(int(y)))) for x, y in zip(a, b, strict=True)]
        name = f"setp.{comparison}{'.ftz' * ftz}.{kind}"
        body = f"{name} %p{second}, %a, %b;\nselp.b32 %o, 1, 0, %p;"
        hold(name, run(body, [a, b], [form.width] * 2, 32), want, [a, b])
        if second:
            body = f"{name} %p|%q, %a, %b;\nselp.b32 %o, 1, 0, %q;"
            hold(name, run(body, [a, b], [form.width] * 2, 32), [1 - w for w in want], [a, b])
        else:
            body = (
                f"{name}x2 %p|%q, %a, %b;\nselp.b32 %r0, 1, 0, %p;\nselp.b32 %r1, 65536, 0, %q;\nor.b32 %o, %r0, %r1;"
            )
            got = lower_then_upper(run(body, [halves(a), halves(b)], [32, 32], 32))
            hold(f"{name}x2", got, want * 2, [np.tile(a, 2), np.tile(b, 2)])


@pytest.mark.parametrize("form", [F16, BF16], ids=lambda form: form.name)
def test_setp_of_halves_combines_each_with_the_predicate(form: Format) -> None:
    """9.7.7.2: "p = BoolOp(t[0], c); q = BoolOp(t[1], c)", with "{!}c"."""
    few = [0, form.sign, form.bias << form.mantissa, form.infinity, form.infinity | 1]
    lower, upper, b, c = pairs(few, few, few, [0, 1])
    for name, bool_op in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor)):
        want = []
        for x, y, z, t in zip(lower, upper, b, c, strict=True):
            halves_true = [compared(form, "leu", int(half), int(z)) for half in (x, y)]
            want.append(bool_op(halves_true[0], not t) + 2 * bool_op(halves_true[1], not t))
        body = f"""setp.ne.u32 %s, %c, 0;
            setp.leu.{name}.{form.name}x2 %p|%q, %a, %b, !%s;
            selp.b32 %r0, 1, 0, %p;
            selp.b32 %r1, 2, 0, %q;
            or.b32 %o, %r0, %r1;"""
        operands = [lower | upper << np.uint64(16), b | b << np.uint64(16), c]
        hold(name, run(body, operands, [32, 32, 32], 32), want, operands)
