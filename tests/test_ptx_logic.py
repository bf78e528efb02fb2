"""Logic, shifts, comparisons of integers and selection in `tools.ptx` (PTX ISA, 9.7.6, 9.7.8)."""

import operator

import numpy as np
import pytest
from ptx_launch import hold, run
from ptx_manual import integer, integers, pairs

pytestmark = pytest.mark.tools
SHIFTS = [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 0x80000000, 0xFFFFFFFF]
LOGIC = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("operation", LOGIC)
def test_logic_is_bit_by_bit(operation: str, width: int) -> None:
    """9.7.8.1 and: "Compute the bit-wise and operation for the bits in a and b"; so or, xor."""
    a, b = pairs(integers(width), integers(width))
    body = f"{operation}.b{width} %o, %a, %b;"
    want = [LOGIC[operation](int(x), int(y)) for x, y in zip(a, b, strict=True)]
    hold(body, run(body, [a, b], [width, width], width), want, [a, b])


@pytest.mark.parametrize("width", [16, 32, 64])
def test_not_inverts(width: int) -> None:
    """9.7.8.4 not: "d = ~a"."""
    (a,) = pairs(integers(width))
    body = f"not.b{width} %o, %a;"
    hold(body, run(body, [a], [width], width), [~int(x) & (1 << width) - 1 for x in a], [a])


@pytest.mark.parametrize("kind", ["b16", "b32", "b64"])
def test_shl_fills_with_zeros_and_clamps_its_amount(kind: str) -> None:
    """9.7.8.8 shl: "Shift amounts greater than the register width N are clamped to N"; b is unsigned, of 32 bits."""
    width = int(kind[1:])
    a, b = pairs(integers(width), SHIFTS)
    want = [int(x) << min(int(y), width) & (1 << width) - 1 for x, y in zip(a, b, strict=True)]
    body = f"shl.{kind} %o, %a, %b;"
    hold(body, run(body, [a, b], [width, 32], width), want, [a, b])


@pytest.mark.parametrize("kind", [f"{letter}{width}" for letter in "bus" for width in (16, 32, 64)])
def test_shr_fills_with_the_sign_only_if_signed_and_clamps_its_amount(kind: str) -> None:
    """9.7.8.9 shr: "Signed shifts fill with the sign bit, unsigned and untyped shifts fill with 0"; clamped as shl."""
    width = int(kind[1:])
    a, b = pairs(integers(width), SHIFTS)
    want = [integer(int(x), kind) >> min(int(y), width) & (1 << width) - 1 for x, y in zip(a, b, strict=True)]
    body = f"shr.{kind} %o, %a, %b;"
    hold(body, run(body, [a, b], [width, 32], width), want, [a, b])


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
@pytest.mark.parametrize("direction", ["l", "r"])
def test_shf_shifts_the_pair_of_its_operands(direction: str, mode: str) -> None:
    # 9.7.8.7 shf: "n = (.mode == .clamp) ? min(c, 32) : c & 0x1f"; "Operand b holds bits 63:32 and operand a holds bits
    # 31:0"; .l gives "the most-significant 32-bits of the result", .r the least.
    values = [0, 1, 0x80000000, 0xFFFFFFFF, 0x01234567, 0x89ABCDEF]
    a, b, c = pairs(values, values, SHIFTS)
    want = []
    for x, y, z in zip(a, b, c, strict=True):
        n = min(int(z), 32) if mode == "clamp" else int(z) & 31
        pair = int(y) << 32 | int(x)
        want.append(pair << n >> 32 & 0xFFFFFFFF if direction == "l" else pair >> n & 0xFFFFFFFF)
    body = f"shf.{direction}.{mode}.b32 %o, %a, %b, %c;"
    hold(body, run(body, [a, b, c], [32, 32, 32], 32), want, [a, b, c])


COMPARE = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
INTEGER_COMPARISONS = [(c, k) for c in COMPARE for k in ("u16", "u32", "u64", "s16", "s32", "s64")]
INTEGER_COMPARISONS += [(c, k) for c in UNSIGNED for k in ("u16", "u32", "u64")]
INTEGER_COMPARISONS += [(c, k) for c in ("eq", "ne") for k in ("b16", "b32", "b64")]


@pytest.mark.parametrize(("comparison", "kind"), INTEGER_COMPARISONS)
def test_setp_compares_integers_in_the_width_and_sign_of_the_type(comparison: str, kind: str) -> None:
    """9.7.6.2 setp: "lo, ls, hi, and hs for lower, lower-or-same, higher, and higher-or-same"; "q = BoolOp(!t, c)"."""
    width = int(kind[1:])
    a, b = pairs(integers(width), integers(width))
    compare = getattr(operator, COMPARE.get(comparison) or UNSIGNED[comparison])
    want = [1 if compare(integer(int(x), kind), integer(int(y), kind)) else 2 for x, y in zip(a, b, strict=True)]
    body = f"""setp.{comparison}.{kind} %p|%q, %a, %b;
        selp.b32 %r0, 1, 0, %p;
        selp.b32 %r1, 2, 0, %q;
        or.b32 %o, %r0, %r1;"""
    hold(body, run(body, [a, b], [width, width], 32), want, [a, b])


@pytest.mark.parametrize("negated", ["", "!"])
@pytest.mark.parametrize("operation", LOGIC)
def test_setp_combines_its_comparison_with_a_predicate(operation: str, negated: str) -> None:
    """9.7.6.2: "p = BoolOp(t, c); q = BoolOp(!t, c)", with "{!}c"."""
    a, b, c = pairs([1, 2], [1, 2], [0, 1])
    want = []
    for x, y, z in zip(a, b, c, strict=True):
        t, third = bool(x < y), bool(z) != bool(negated)
        want.append(LOGIC[operation](t, third) + 2 * LOGIC[operation](not t, third))
    body = f"""setp.ne.s32 %s, %c, 0;
        setp.lt.{operation}.u32 %p|%q, %a, %b, {negated}%s;
        selp.b32 %r0, 1, 0, %p;
        selp.b32 %r1, 2, 0, %q;
        or.b32 %o, %r0, %r1;"""
    hold(body, run(body, [a, b, c], [32, 32, 32], 32), want, [a, b, c])


COMBINED = [f"{letter}{width}" for letter in "bus" for width in (16, 32, 64)] + ["f16", "bf16", "f32", "f64"]


@pytest.mark.parametrize("kind", COMBINED)
def test_setp_combines_comparisons_of_every_type(kind: str) -> None:
    """9.7.6.2: "p = BoolOp(t, c)"; the bits 1 are a subnormal of a float type, not 0."""
    width = int(kind.lstrip("busf"))
    a, b, c = pairs([0, 1], [0, 1], [0, 1])
    for operation, formula in LOGIC.items():
        body = f"setp.ne.u32 %s, %c, 0;\nsetp.ne.{operation}.{kind} %p, %a, %b, %s;\nselp.b32 %o, 1, 0, %p;"
        want = [int(formula(bool(x != y), bool(z))) for x, y, z in zip(a, b, c, strict=True)]
        hold(body, run(body, [a, b, c], [width, width, 32], 32), want, [a, b, c])


@pytest.mark.parametrize("operation", LOGIC)
def test_logic_of_predicates(operation: str) -> None:
    """9.7.8.1: ".type = { .pred, .b16, .b32, .b64 }"; 9.7.8.4 not.pred, and mov.pred copies."""
    a, b = pairs([0, 1], [0, 1])
    want = [LOGIC[operation](int(x), int(y)) + 2 * (1 - int(x)) for x, y in zip(a, b, strict=True)]
    body = f"""setp.ne.u32 %p, %a, 0;
        setp.ne.u32 %q, %b, 0;
        {operation}.pred %s, %p, %q;
        not.pred %q, %p;
        mov.pred %p, %s;
        selp.b32 %r0, 1, 0, %p;
        selp.b32 %r1, 2, 0, %q;
        add.s32 %o, %r0, %r1;"""
    hold(body, run(body, [a, b], [32, 32], 32), want, [a, b])


@pytest.mark.parametrize("kind", [f"{letter}{width}" for letter in "bus" for width in (16, 32, 64)] + ["f32", "f64"])
def test_selp_takes_the_first_where_true(kind: str) -> None:
    """9.7.6.3 selp: "d = (c == 1) ? a : b", whole bits, NaN and all."""
    width = int(kind[1:])
    some = integers(width)[::3]
    a, b, c = pairs([*some, 0x7FF4000000000001 >> 64 - width], some, [0, 1])
    want = [int(x if z else y) for x, y, z in zip(a, b, c, strict=True)]
    body = f"setp.ne.u32 %p, %c, 0;\nselp.{kind} %o, %a, %b, %p;"
    hold(body, run(body, [a, b, c], [width, width, 32], width), want, [a, b, c])


def test_mov_packs_and_unpacks_with_the_first_element_lowest() -> None:
    """9.7.9.4 mov: "d = a.x | (a.y << 16)" of two .b16 into .b32; "{r, _}" leaves a part out."""
    a, b = pairs(integers(16), integers(16))
    want = [int(x) | int(y) << 16 for x, y in zip(a, b, strict=True)]
    hold("pack 2 x 16", run("mov.b32 %o, {%a, %b};", [a, b], [16, 16], 32), want, [a, b])
    a, b = pairs(integers(32), integers(32))
    want = [int(x) | int(y) << 32 for x, y in zip(a, b, strict=True)]
    hold("pack 2 x 32", run("mov.b64 %o, {%a, %b};", [a, b], [32, 32], 64), want, [a, b])
    hold("unpack low", run("mov.b64 {%r0, %r1}, %a;\nmov.b32 %o, %r0;", [a], [64], 32), [int(x) for x in a], [a])
    wide = np.array(want, np.uint64)
    got = run("mov.b64 {_, %r1}, %a;\nmov.b32 %o, %r1;", [wide], [64], 32)
    hold("unpack high", got, [int(x) >> 32 for x in wide], [wide])
    body = "mov.b64 {%h0, %h1, %h2, %h3}, %a;\nmov.b64 %o, {%h3, %h2, %h1, %h0};"
    swapped = [int(x) >> 48 | (int(x) >> 32 & 0xFFFF) << 16 | (int(x) >> 16 & 0xFFFF) << 32 for x in wide]
    swapped = [part | (int(x) & 0xFFFF) << 48 for part, x in zip(swapped, wide, strict=True)]
    hold("unpack 4 x 16", run(body, [wide], [64], 64), swapped, [wide])
    body = "mov.b32 {%h0, %h1}, %a;\nmov.b32 %o, {%h1, %h0};"
    (halves,) = pairs(integers(32))
    hold("swap", run(body, [halves], [32], 32), [int(x) >> 16 | (int(x) & 0xFFFF) << 16 for x in halves], [halves])
