"""Integer instructions of `tools.ptx` against Python's integers (PTX ISA, 9.7.1: "Integer Arithmetic Instructions")."""

import numpy as np
import pytest
from ptx_launch import hold, run
from ptx_manual import clamp, integer, integers, pairs

pytestmark = pytest.mark.tools
KINDS = ("u16", "u32", "u64", "s16", "s32", "s64")


# 9.7.1.3 mul: "d = t<2n-1..n>; // for .hi variant", "d = t<n-1..0>; // for .lo variant", of the product t of 2n bits.
BINARY = {
    "add": lambda a, b, n: a + b,
    "sub": lambda a, b, n: a - b,
    "mul.lo": lambda a, b, n: a * b,
    "mul.hi": lambda a, b, n: a * b >> n,
    "min": lambda a, b, n: min(a, b),
    "max": lambda a, b, n: max(a, b),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", BINARY)
def test_binary_arithmetic_is_that_of_integers_in_the_width_and_sign_of_the_type(operation: str, kind: str) -> None:
    width = int(kind[1:])
    a, b = pairs(integers(width), integers(width))
    want = [BINARY[operation](integer(int(x), kind), integer(int(y), kind), width) for x, y in zip(a, b, strict=True)]
    body = f"{operation}.{kind} %o, %a, %b;"
    got = run(body, [a, b], [width, width], width)
    hold(body, got, [w & (1 << width) - 1 for w in want], [a, b])


@pytest.mark.parametrize("kind", ["u16", "s16"])
@pytest.mark.parametrize("operation", ["add", "min", "max"])
def test_packed_arithmetic_is_that_of_each_half(operation: str, kind: str) -> None:
    """9.7.1.1 add: ".type = { .u16, .u32, .u64, .s16, .s32, .s64, .u16x2, .s16x2 }"; 9.7.1.12 min, 9.7.1.13 max."""
    a, b = pairs(integers(16), integers(16))
    a, b = (np.concatenate([(x << 16) | x[::-1], (x[::-1] << 16) | x]) for x in (a, b))

    def half(x: int, y: int) -> int:
        return BINARY[operation](integer(x, kind), integer(y, kind), 16) & 0xFFFF

    want = [half(x >> 16, y >> 16) << 16 | half(x, y) for x, y in zip(map(int, a), map(int, b), strict=True)]
    body = f"{operation}.{kind}x2 %o, %a, %b;"
    hold(body, run(body, [a, b], [32, 32], 32), want, [a, b])


@pytest.mark.parametrize("operation", ["min", "max"])
def test_relu_takes_0_for_a_negative_result(operation: str) -> None:
    """9.7.1.12 min, 9.7.1.13 max: ".relu Clamps the result to 0 if negative"."""
    a, b = pairs(integers(32), integers(32))
    signed = [(integer(int(x), "s32"), integer(int(y), "s32")) for x, y in zip(a, b, strict=True)]
    want = [max(BINARY[operation](x, y, 32), 0) for x, y in signed]
    body = f"{operation}.relu.s32 %o, %a, %b;"
    hold(body, run(body, [a, b], [32, 32], 32), want, [a, b])


@pytest.mark.parametrize("operation", ["add", "sub"])
def test_saturation_limits_a_sum_to_the_extremes_of_s32(operation: str) -> None:
    """9.7.1.1 add: ".sat limits result to MININT..MAXINT (no overflow) for the size of the operation"."""
    a, b = pairs(integers(32), integers(32))
    want = []
    for x, y in zip(a, b, strict=True):
        x, y = integer(int(x), "s32"), integer(int(y), "s32")
        want.append(clamp(x + y if operation == "add" else x - y, "s32") & 0xFFFFFFFF)
    body = f"{operation}.sat.s32 %o, %a, %b;"
    hold(body, run(body, [a, b], [32, 32], 32), want, [a, b])


@pytest.mark.parametrize("kind", ["u16", "u32", "s16", "s32"])
def test_wide_products_are_whole(kind: str) -> None:
    """9.7.1.3: "If .wide is specified, then d is twice as wide as a and b to receive the full result"."""
    width = int(kind[1:])
    a, b = pairs(integers(width), integers(width))
    want = [integer(int(x), kind) * integer(int(y), kind) & (1 << 2 * width) - 1 for x, y in zip(a, b, strict=True)]
    body = f"mul.wide.{kind} %o, %a, %b;"
    hold(body, run(body, [a, b], [width, width], 2 * width), want, [a, b])


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(m, k) for m in ("lo", "hi", "wide") for k in KINDS if not (m == "wide" and k[1:] == "64")],
)
def test_mad_adds_to_the_half_of_the_product_or_to_all_of_it(mode: str, kind: str) -> None:
    """9.7.1.4 mad: "d = t + c; // for .wide", "d = t<2n-1..n> + c; // for .hi", "d = t<n-1..0> + c; // for .lo"."""
    width = int(kind[1:])
    wide = width * (1 + (mode == "wide"))
    a, b, c = pairs(integers(width), integers(width)[::2], integers(wide)[::3])
    want = []
    for x, y, z in zip(a, b, c, strict=True):
        product = integer(int(x), kind) * integer(int(y), kind)
        want.append((product >> width if mode == "hi" else product) + int(z) & (1 << wide) - 1)
    body = f"mad.{mode}.{kind} %o, %a, %b, %c;"
    hold(body, run(body, [a, b, c], [width, width, wide], wide), want, [a, b, c])


@pytest.mark.parametrize("kind", ["s16", "s32", "s64"])
@pytest.mark.parametrize("operation", ["abs", "neg"])
def test_abs_and_neg_stay_in_the_width(operation: str, kind: str) -> None:
    """9.7.1.10 abs: "d = |a|"; 9.7.1.11 neg: "d = -a". Of MININT that is MININT again, modulo the width."""
    width = int(kind[1:])
    (a,) = pairs(integers(width))
    change = abs if operation == "abs" else int.__neg__
    want = [change(integer(int(x), kind)) & (1 << width) - 1 for x in a]
    body = f"{operation}.{kind} %o, %a;"
    hold(body, run(body, [a], [width], width), want, [a])


FIELD = [0, 1, 5, 8, 16, 31, 32, 33, 63, 64, 65, 255, 256, 0xFFFFFFFF]  # positions and lengths


@pytest.mark.parametrize("kind", ["u32", "u64", "s32", "s64"])
def test_bfe_takes_a_field_and_extends_its_sign(kind: str) -> None:
    """9.7.1.19 bfe: "d[i] = (i<len && pos+i<=msb) ? a[pos+i] : sbit", "pos = b & 0xff", "len = c & 0xff"."""
    width = int(kind[1:])
    msb = width - 1
    a, b, c = pairs(integers(width)[::2], FIELD, FIELD)

    def field(x: int, position: int, length: int) -> int:
        position, length = position & 255, length & 255
        sign = 0 if kind[0] == "u" or length == 0 else x >> min(position + length - 1, msb) & 1
        bits = [x >> position + i & 1 if i < length and position + i <= msb else sign for i in range(width)]
        return sum(bit << i for i, bit in enumerate(bits))

    want = [field(int(x), int(y), int(z)) for x, y, z in zip(a, b, c, strict=True)]
    body = f"bfe.{kind} %o, %a, %b, %c;"
    hold(body, run(body, [a, b, c], [width, 32, 32], width), want, [a, b, c])


def test_prmt_copies_bytes_or_their_signs() -> None:
    # 9.7.1.21 prmt: "The 3 lsbs of the selection value specify which of the 8 source bytes", {b, a} from b7 to b0;
    # "msb=0 means copy the literal value; msb=1 means replicate the sign".
    selections = [
        0x0000,
        0x3210,
        0x7654,
        0x1032,
        0x5410,
        0x7632,
        0x8888,
        0xFEDC,
        0xBA98,
        0x3B2A,
        0xF0E1,
        0x9999,
        0x4440,
    ]
    a, b, c = pairs([0x80FF017F, 0x01807FFE, 0, 0xFFFFFFFF], [0x7F80FF00, 0x12345678], [*selections, 0xABCD3210])

    def permuted(x: int, y: int, control: int) -> int:
        source = (y << 32 | x).to_bytes(8, "little")
        out = bytearray()
        for i in range(4):
            nibble = control >> 4 * i & 15
            byte = source[nibble & 7]
            out.append((0xFF if byte & 0x80 else 0) if nibble & 8 else byte)
        return int.from_bytes(out, "little")

    want = [permuted(*map(int, row)) for row in zip(a, b, c, strict=True)]
    hold("prmt", run("prmt.b32 %o, %a, %b, %c;", [a, b, c], [32, 32, 32], 32), want, [a, b, c])


def test_immediates_are_read_in_every_base_and_sign() -> None:
    """4.5.1: integers in hexadecimal, octal, decimal and binary; 4.5.2: 0f and 8 digits are the bits of a float."""
    (a,) = pairs([5, 0xFFFFFFFF])
    literals = {
        "0x1F": 31,
        "0x1FU": 31,
        "017": 15,
        "0b101": 5,
        "-7": -7,
        "42U": 42,
        "0f3F800000": 0x3F800000,
        "0": 0,
        "4294967295": -1,
    }
    for literal, value in literals.items():
        hold(literal, run(f"mov.b32 %o, {literal};", [a], [32], 32), [value & 0xFFFFFFFF] * 2, [a])
    got = run("add.s32 %o, %a, -6;", [a], [32], 32)
    hold("add", got, [0xFFFFFFFF, 0xFFFFFFF9], [a])
    got = run("mov.b64 %o, 0d3FF0000000000000;", [a], [32], 64)
    hold("0d", got, [0x3FF0000000000000] * 2, [a])
    got = run("mov.u16 %o, -1;", [np.zeros(1, np.uint32)], [32], 16)
    hold("mov.u16", got, [0xFFFF], [a])
