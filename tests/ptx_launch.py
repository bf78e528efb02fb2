"""Small PTX modules around a few instructions, and what they leave in memory: for the tests of `tools.ptx`."""

import re

import numpy as np
from ptx_manual import FORMATS

from tools import ptx

HEADER = ".version 8.7\n.target sm_90a\n.address_size 64\n"


def module(body: str, parameters: list[str], declarations: str = "", align: int = 16, outside: str = "") -> str:
    """A module with one entry, `main`, that has a pointer for each of `parameters`."""
    pointers = ",\n".join(f".param .u64 .ptr .global .align {align} {name}" for name in parameters)
    return f"{HEADER}{outside}\n.visible .entry main(\n{pointers}\n)\n{{\n{declarations}\n{body}\n\tret;\n}}\n"


def elementwise(body: str, widths: list[int], result: int, register: dict[str, str] | None = None) -> str:
    """A module: thread i loads element i of each operand into %a, %b, ..., runs `body`, and stores %o."""
    types = {"result": f"b{max(result, 16)}"} | (register or {})
    names = "abcef"[: len(widths)]
    declared = [f"\t.reg .{types.get(n, f'b{max(w, 16)}')} %{n};" for n, w in zip(names, widths, strict=True)]
    declared += [f"\t.reg .{types['result']} %o;", "\t.reg .pred %p, %q, %s;", "\t.reg .b16 %h<4>;"]
    declared += ["\t.reg .b32 %i, %t, %n, %r<4>;", "\t.reg .b64 %x, %y, %d<4>;"]
    lines = ["mov.u32 %i, %ctaid.x;", "mov.u32 %n, %ntid.x;", "mov.u32 %t, %tid.x;", "mad.lo.s32 %i, %i, %n, %t;"]
    for name, width in [*zip(names, widths, strict=True), ("o", result)]:
        lines += [f"ld.param.u64 %x, [p_{name}];", "cvta.to.global.u64 %x, %x;"]
        lines += [f"mul.wide.u32 %y, %i, {width // 8};", "add.s64 %x, %x, %y;"]
        if name != "o":
            lines.append(f"ld.global.b{width} %{name}, [%x];")
    lines += [*body.strip().splitlines(), f"st.global.b{result} [%x], %o;"]
    text = "\n".join(f"\t{line.strip()}" for line in lines)
    return module(text, [f"p_{n}" for n in [*names, "o"]], "\n".join(declared))


def run(body: str, operands: list[np.ndarray], widths: list[int], result: int, **types: str) -> list[int]:
    """What `body` leaves in %o for each element of the operands (bits, as unsigned integers)."""
    count = len(operands[0])
    block = min(1024, -(-count // 32) * 32)
    grid = -(-count // block)
    padded = [np.resize(o, grid * block).astype(f"u{w // 8}") for o, w in zip(operands, widths, strict=True)]
    out = np.zeros(grid * block, f"u{result // 8}")
    text = elementwise(body, widths, result, types or None)
    ptx.run(text, *padded, out, grid=(grid, 1, 1), block=(block, 1, 1), outputs=(len(padded),))
    return [int(bits) for bits in out[:count]]


def hold(body: str, got: list[int], want: list[int | None], operands: list[np.ndarray], kind: str = "") -> None:
    """Fails with the first elements that differ; None is left open, and any NaN of the float `kind` equals any."""
    form = FORMATS.get(kind)
    wrong = []
    for at, (mine, theirs) in enumerate(zip(got, want, strict=True)):
        if theirs is None or mine == theirs or (form and form.is_nan(mine) and form.is_nan(theirs)):
            continue
        wrong.append(f"({', '.join(hex(int(o[at])) for o in operands)}) -> {mine:#x}, not {theirs:#x}")
    assert not wrong, f"{body.strip()}: {len(wrong)} of {len(got)} differ: {'; '.join(wrong[:6])}"


def line_of(text: str, instruction: str) -> int:
    """The number, from 1, of the only line that holds `instruction`."""
    lines = [at for at, line in enumerate(text.splitlines(), 1) if instruction in line]
    assert len(lines) == 1, f"{instruction} is on lines {lines}"
    return lines[0]


def names(error: BaseException, **where: int) -> None:
    """Fails unless the message says each of `where`: block=, thread= or line= with its number."""
    for what, number in where.items():
        assert re.search(rf"{what}\D{{0,4}}{number}\b", str(error)), f"no {what} {number} in: {error}"
