"""What `tools.ptx` knows has a judge in the tests beside this one; what it does not know it names, with the line."""

import re

import numpy as np
import pytest
from ptx_launch import HEADER, line_of, module, names

from tools import ptx
from tools.ptx.instructions import FORMS

pytestmark = pytest.mark.tools
DECLARED = "\t.reg .pred %p, %q;\n\t.reg .b16 %h<4>;\n\t.reg .b32 %t, %r<8>;\n\t.reg .b64 %x, %y, %d<4>;"
START = "\tld.param.u64 %x, [p_in];\n\tld.param.u64 %y, [p_out];\n\tmov.u32 %t, %tid.x;\n"
START += "\tmov.b16 %h0, 1;\n\tmov.b64 %d0, 1;\n"
START += "\tsetp.eq.b32 %q, %t, 0;\n"

INTEGER, BITS, EIGHT = "[us](16|32|64)", "b(16|32|64)", "[us](8|16|32|64)"
ORDER = "(eq|ne|lt|le|gt|ge)"
JUDGED = [
    # test_ptx_integers.py
    rf"(add|sub|min|max|(mul|mad)\.(lo|hi))\.{INTEGER}",
    r"(mul|mad)\.wide\.[us](16|32)",
    r"(add|min|max)\.[us]16x2",
    r"(min|max)\.relu\.s32",
    r"(abs|neg)\.s(16|32|64)",
    r"bfe\.[us](32|64)",
    r"prmt\.b32",
    r"(add|sub)\.sat\.s32",
    # test_ptx_logic.py
    rf"(and|or|xor|not)\.(pred|{BITS})",
    rf"shl\.{BITS}",
    rf"shr\.({BITS}|{INTEGER})",
    r"shf\.[lr]\.(wrap|clamp)\.b32",
    rf"setp\.(eq|ne)(\.(and|or|xor))?\.{BITS}",
    rf"setp\.{ORDER}(\.(and|or|xor))?\.{INTEGER}",
    r"setp\.(lo|ls|hi|hs)(\.(and|or|xor))?\.u(16|32|64)",
    rf"selp\.({BITS}|{INTEGER}|f32|f64)",
    # test_ptx_floats.py
    r"(add|sub|mul)(\.r[nzmp])?(\.ftz)?(\.sat)?\.f32",
    r"(add|sub|mul)(\.rn)?(\.ftz)?(\.sat)?\.f16(x2)?",
    r"(add|sub|mul)(\.rn)?\.(bf16|bf16x2|f64)",
    r"fma\.r[nzmp](\.ftz)?(\.sat)?\.f32",
    r"fma\.rn(\.ftz)?(\.sat)?\.f16(x2)?",
    r"fma\.rn\.bf16(x2)?",
    r"div\.r[nzmp](\.ftz)?\.f32",
    r"rcp\.rn\.f64",
    r"copysign\.f(32|64)",
    # test_ptx_comparisons.py
    r"(min|max)(\.ftz)?(\.NaN)?\.(f32|f16|f16x2)",
    r"(min|max)(\.NaN)?\.bf16(x2)?",
    r"(min|max|abs|neg)\.f64",
    r"(abs|neg)(\.ftz)?\.(f32|f16|f16x2)",
    r"(abs|neg)\.bf16(x2)?",
    rf"setp\.({ORDER}u?|num|nan)(\.(and|or|xor))?(\.ftz)?\.(f32|f16|f16x2)",
    rf"setp\.({ORDER}u?|num|nan)(\.(and|or|xor))?\.(bf16|bf16x2|f64)",
    # test_ptx_conversions.py
    rf"cvt(\.sat)?\.{EIGHT}\.{EIGHT}",
    rf"cvt\.r[nzmp]\.(f16|bf16|f32)\.{EIGHT}",
    r"cvt\.r[nzmp]\.f64\.[us](8|16|32)",
    r"cvt\.rn\.f64\.[us]64",
    rf"cvt\.r[nzmp]i(\.ftz)?(\.sat)?\.{EIGHT}\.f32",
    rf"cvt\.r[nzmp]i(\.sat)?\.{EIGHT}\.(f16|bf16|f64)",
    r"cvt(\.r[nzmp]i)?(\.ftz)?(\.sat)?\.f32\.f32",
    r"cvt(\.r[nzmp]i)?(\.sat)?\.(f16\.f16|f64\.f64)",
    r"cvt\.r[nzmp]i\.bf16\.bf16",
    r"cvt(\.ftz)?(\.sat)?\.(f32\.(f16|bf16)|f64\.f32)",
    r"cvt(\.sat)?\.f64\.(f16|bf16)",
    r"cvt\.r[nzmp](\.ftz)?(\.sat)?\.(f16\.f32|f32\.f64)",
    r"cvt\.r[nzmp](\.sat)?\.f16\.(bf16|f64)",
    r"cvt\.r[nzmp]\.bf16\.(f16|f64)",
    r"cvt\.(rn|rz)\.bf16\.f32",
    r"cvt\.(rn|rz)(\.relu)?\.(f16|bf16)(x2)?\.f32",
]


def test_every_form_that_computes_has_a_judge() -> None:
    """A form in the table that no pattern here matches was not held to the manual: add it to the tests first."""
    assert len(FORMS) > 500
    without = [form for form in FORMS if not any(re.fullmatch(pattern, form) for pattern in JUDGED)]
    assert not without, without


def test_every_judge_has_a_form() -> None:
    assert not [pattern for pattern in JUDGED if not any(re.fullmatch(pattern, form) for form in FORMS)]


def launch(instruction: str) -> str:
    text = module(f"{START}\t{instruction};", ["p_in", "p_out"], DECLARED)
    ptx.run(text, np.zeros(8, np.uint32), np.zeros(8, np.uint32), grid=(1, 1, 1), block=(1, 1, 1))
    return text


def refused(instruction: str) -> None:
    text = module(f"{START}\t{instruction};", ["p_in", "p_out"], DECLARED)
    with pytest.raises(ptx.UnsupportedError) as caught:
        launch(instruction)
    names(caught.value, line=line_of(text, f"\t{instruction};"))
    assert instruction.split()[0] in str(caught.value)


LEFT_OUT = [
    "div.s32 %r0, %t, %t",
    "rem.u32 %r0, %t, %t",
    "popc.b32 %r0, %t",
    "clz.b32 %r0, %t",
]
LEFT_OUT += ["brev.b32 %r0, %t", "bfi.b32 %r0, %t, %t, 1, 1", "cnot.b32 %r0, %t", "lop3.b32 %r0, %t, %t, %t, 128"]
LEFT_OUT += ["set.lt.u32.s32 %r0, %t, %t", "rcp.rn.f32 %r0, %t", "sqrt.rn.f32 %r0, %t", "fma.rn.f64 %d0, %d0, %d0, %d0"]
LEFT_OUT += [
    "max.relu.s16x2 %r0, %t, %t",
    "mad.rn.f32 %r0, %t, %t, %t",
    "sub.u16x2 %r0, %t, %t",  # 9.7.1.2: of 16, 32 or 64 bits
    "add.sat.u16x2 %r0, %t, %t",
]
LEFT_OUT += ["atom.global.add.u32 %r0, [%y], 1", "cvt.rn.satfinite.e4m3x2.f32 %h0, %t, %t", "mov.u32 %r0, %clock"]
LEFT_OUT += [
    "ld.local.b32 %r0, [%x]",
    "st.async.b32 [%y], %t",
    "cvta.shared.u64 %d0, %d0",
    "bar.sync 0, 64",  # of more threads than the block has
    "bar.sync 0, %t",
    "elect.sync %r0, -1",
    "fence.acq_rel.gpu",
    "bar.red.popc.u32 %r0, 0, %q",
]
APPROXIMATE = [
    "div.full.f32 %r0, %t, %t",
    "div.approx.f32 %r0, %t, %t",
    "rcp.approx.ftz.f32 %r0, %t",
    "ex2.approx.f32 %r0, %t",
]
APPROXIMATE += [
    "sqrt.approx.f32 %r0, %t",
    "rsqrt.approx.f32 %r0, %t",
    "lg2.approx.f32 %r0, %t",
    "tanh.approx.f32 %r0, %t",
]
APPROXIMATE += ["sin.approx.f32 %r0, %t", "cos.approx.f32 %r0, %t"]


@pytest.mark.parametrize("instruction", [*LEFT_OUT, *APPROXIMATE])
def test_what_ptx_has_and_this_does_not_is_named_with_its_line(instruction: str) -> None:
    """Approximations among them: their bits are a device's."""
    refused(instruction)


NOT_PTX = [
    "frobnicate.b32 %r0, %t",
    "add.s33 %r0, %t, %t",
    "add.wrong.s32 %r0, %t, %t",
    "mul.s32 %r0, %t, %t",  # 9.7.1.3: ".mode = { .hi, .lo, .wide }"
    "mul.wide.s64 %d0, %d0, %d0",  # 9.7.1.3: "The .wide suffix is supported only for 16- and 32-bit integer types."
    "shf.l.b32 %r0, %t, %t, %t",  # 9.7.8.7: ".mode = { .clamp, .wrap }"
    "max.NaN.s32 %r0, %t, %t",
    "add.ftz.s32 %r0, %t, %t",
    "add.sat.bf16 %h0, %h0, %h0",  # 9.7.4.1: "add{.rnd}.bf16 d, a, b;"
    "add.ftz.bf16 %h0, %h0, %h0",
    "add.rz.f16 %h0, %h0, %h0",  # 9.7.4.1: ".rnd = { .rn }"
    "fma.f32 %r0, %t, %t, %t",  # 9.7.3.6: "Rounding modifiers (no default)"
    "div.f32 %r0, %t, %t",  # 9.7.3.8: "one of .approx, .full, or .rnd is required"
    "min.NaN.f64 %d0, %d0, %d0",  # 9.7.3.11: "min.f64 d, a, b;"
    "min.ftz.bf16 %h0, %h0, %h0",
    "abs.u32 %r0, %t",  # 9.7.1.10: ".type = { .s16, .s32, .s64 }"
    "setp.below.s32 %p, %t, %t",
    "setp.lo.s32 %p, %t, %t",  # 9.7.6.2: "For unsigned values, the comparison operators lo, ls, hi, and hs"
    "setp.lt.b32 %p, %t, %t",  # 9.7.6.2: "The untyped, bit-size comparisons are eq and ne."
    "setp.num.s32 %p, %t, %t",
    "shl.s32 %r0, %t, %t",  # 9.7.8.8: ".type = { .b16, .b32, .b64 }"
    "and.s32 %r0, %t, %t",
    "cvt.f32.s32 %r0, %t",  # 9.7.9.21: "Floating-point rounding is required ... for integer-to-float conversions"
    "cvt.f16.f32 %h0, %t",  # and "for float-to-float conversions that result in loss of precision"
    "cvt.s32.f32 %r0, %t",  # 9.7.9.21: "Integer rounding is required for float-to-integer conversions"
    "cvt.rn.f32.f16 %r0, %h0",  # 9.7.9.21: "Floating-point rounding is illegal in all other instances."
    "cvt.rni.f32.f16 %r0, %h0",  # 9.7.9.21: "The operands must be of the same size."
    "cvt.rni.f32.s32 %r0, %t",
    "cvt.sat.s32.s16 %r0, %h0",  # 9.7.9.21: "the .sat modifier is illegal in cases where saturation is not possible"
    "cvt.sat.u32.u32 %r0, %t",
    "cvt.rn.sat.bf16.f32 %h0, %t",  # 9.7.9.21: .sat "Applies to .f16, .f32, and .f64 types."
    "cvt.rni.sat.bf16.bf16 %h0, %h0",
    "cvt.rp.bf16x2.f32 %r0, %t, %t",  # 9.7.9.21: ".frnd2 = { .rn, .rz }"
    "cvt.rn.ftz.bf16x2.f32 %r0, %t, %t",
    "cvt.rn.ftz.f16.f64 %h0, %d0",  # 9.7.9.21: ".ftz can only be specified when either .dtype or .atype is .f32"
    "ld.global.weird.b32 %r0, [%x]",
    "st.param.b32 [p_in], %t",  # 5.1.6.1: kernel parameters are "read-only variables"
    "mov.s32.b32 %r0, %t",
    "shfl.sync.sideways.b32 %r0, %t, 1, 31, -1",
    "shfl.sync.bfly.b32 %r0, %t, 1, 31",
    "vote.sync.all.pred %p, %q",
    "vote.sync.most.pred %p, %q, -1",
    "bar.sync 16",  # 9.7.13.1: "with value 0 through 15"
    "add.s32 %r0, %t",
    "add.s32 %r0, %t, %t, %t",
    "add.s32 %r0|%r1, %t, %t",
    "add.s32 %r0, %t, %d0",
    "add.s32 %r0, %t, %q",
    "add.s32 %missing, %t, %t",
    "bra $NOWHERE",
    "ret.later",
    "add.s32 %r0, !%t, 1",
    "add.s32 %r0, [%t], 1",
    "mov.s64 %d0, %d1+4",
    "add.f32 %r0, %t, 0d3FF0000000000000",  # of 64 bits
    "add.f16 %h0, %h0, 0f3F800000",
]


@pytest.mark.parametrize("instruction", NOT_PTX)
def test_what_ptx_does_not_have_is_named_with_its_line(instruction: str) -> None:
    refused(instruction)


@pytest.mark.parametrize("instruction", ["mov.f32 %r0, 0.5", "mov.b32 %r0, (1+2)", "mov.u32 %r0, WARP_SZ"])
def test_an_operand_of_another_form_is_refused_with_its_line(instruction: str) -> None:
    """4.5.2 and 4.5.3 have decimal floats and constant expressions; compilers write neither."""
    text = module(f"{START}\t{instruction};", ["p_in", "p_out"], DECLARED)
    with pytest.raises(ptx.UnsupportedError) as caught:
        launch(instruction)
    names(caught.value, line=line_of(text, f"\t{instruction};"))


@pytest.mark.parametrize("directive", [".weird 3", '.pragma "nounroll"; .weird 3', ".local .align 4 .b8 depot[8]"])
def test_an_unknown_directive_in_a_kernel_is_named_with_its_line(directive: str) -> None:
    text = module(f"{START}\t{directive};", ["p_in", "p_out"], DECLARED)
    with pytest.raises(
        ptx.UnsupportedError, match=directive.split()[-2 if "weird" in directive else 0].replace(".", "[.]")
    ) as caught:
        launch(directive)
    names(caught.value, line=line_of(text, directive))


@pytest.mark.parametrize(
    ("twice", "name"),
    [
        ("$HERE:\n\tmov.b32 %r0, 1;\n$HERE:", "$HERE"),
        (".reg .b32 %t;", "%t"),
        ("{\n\t.reg .b32 %u;\n\t.reg .b64 %u;\n}", "%u"),
        (".shared .b8 tile[4];\n.shared .b8 tile[8];", "tile"),
    ],
)
def test_a_name_that_is_declared_twice_is_refused(twice: str, name: str) -> None:
    with pytest.raises(ptx.UnsupportedError, match=f"[{name[0]}]{name[1:]} for the second time"):
        launch(twice)


def test_a_text_that_ends_too_early_is_refused() -> None:
    text = module(f"{START}\tret;", ["p_in", "p_out"], DECLARED)
    for end in (text.rindex("}"), text.rindex("ret;") + 2):
        with pytest.raises(ptx.UnsupportedError):
            ptx.run(text[:end], None, None, grid=(1,), block=(1,))


@pytest.mark.parametrize("directive", [".weird;", ".func helper()\n{\n\tret;\n}", ".alias a, b;"])
def test_an_unknown_directive_of_a_module_is_named_with_its_line(directive: str) -> None:
    word = directive.split()[0].rstrip(";")
    with pytest.raises(ptx.UnsupportedError, match=word.replace(".", "[.]")) as caught:
        ptx.run(f"{HEADER}{directive}\n.visible .entry main()\n{{\n\tret;\n}}\n", grid=(1, 1, 1), block=(1, 1, 1))
    names(caught.value, line=HEADER.count("\n") + 1)
