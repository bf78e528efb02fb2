"""Loads, stores, addresses and special registers of `tools.ptx` (PTX ISA, 5, 6.4, 9.4.1, 9.7.9 and 10)."""

import numpy as np
import pytest
from ptx_launch import HEADER, module

from tools import ptx

pytestmark = pytest.mark.tools
DECLARED = (
    "\t.reg .pred %p;\n\t.reg .b16 %h<8>;\n\t.reg .b32 %t, %r<8>;\n\t.reg .b64 %x, %y, %z, %d<8>;\n\t.reg .f32 %f<4>;"
)
POINTERS = "\tld.param.u64 %x, [p_in];\n\tcvta.to.global.u64 %x, %x;\n\tld.param.u64 %y, [p_out];\n"
POINTERS += "\tcvta.to.global.u64 %y, %y;\n"
BYTES = np.array([0x80, 0xFF, 0x7F, 0x01, 0xFE, 0x00, 0x81, 0x12] * 8, np.uint8)


def once(body: str, source: np.ndarray, size: int, more: str = "", outside: str = "", shared: int = 0) -> bytes:
    """What one thread leaves in `size` bytes at %y, from `source` at %x."""
    out = np.zeros(size, np.uint8)
    text = module(POINTERS + body, ["p_in", "p_out"], DECLARED + more, outside=outside)
    ptx.run(text, source, out, grid=(1, 1, 1), block=(1, 1, 1), outputs=(1,), shared=shared)
    return out.tobytes()


@pytest.mark.parametrize("kind", [f"{letter}{width}" for letter in "bus" for width in (8, 16, 32, 64)])
def test_a_load_extends_to_its_register_by_the_sign_of_its_type(kind: str) -> None:
    # 9.4.1: "If the corresponding instruction type is signed integer, the data is sign-extended; otherwise, the data is
    # zero-extended." So ld.s8 into a .b32 register, ld.b8 into a .b16 register.
    size = int(kind[1:]) // 8
    for register, width in (("%h0", 16), ("%r0", 32), ("%d0", 64)):
        if width < 8 * size:
            continue
        for at in range(0, 32, size):
            body = f"\tld.global.{kind} {register}, [%x+{at}];\n\tst.global.b{width} [%y], {register};"
            want = int.from_bytes(BYTES[at : at + size].tobytes(), "little", signed=kind[0] == "s")
            got = once(body, BYTES, width // 8)
            assert got == want.to_bytes(width // 8, "little", signed=want < 0), f"{kind} at {at} into b{width}"


@pytest.mark.parametrize(
    ("width", "register", "from_width"), [(8, "%h0", 16), (8, "%r0", 32), (16, "%r0", 32), (32, "%d0", 64)]
)
def test_a_store_chops_its_register(width: int, register: str, from_width: int) -> None:
    """9.4.1: "the source data is truncated (chopped) to the appropriate number of bits"; the bytes beside it stay."""
    body = f"\tld.global.b{from_width} {register}, [%x];\n\tmov.b64 %d1, -1;\n\tst.global.b64 [%y], %d1;\n"
    body += f"\tst.global.b{width} [%y], {register};"
    kept = width // 8
    assert once(body, BYTES, 8) == BYTES[:kept].tobytes() + b"\xff" * (8 - kept)


VECTORS = [(n, w, r) for w, r in ((8, "%h"), (16, "%h"), (32, "%r"), (64, "%d")) for n in (2, 4) if n * w <= 128]


@pytest.mark.parametrize(("count", "width", "register"), VECTORS)
def test_vectors_are_loaded_and_stored_in_order(count: int, width: int, register: str) -> None:
    """9.7.9.8 ld: ".vec = { .v2, .v4 }"; 5.4.2: the first element has the lowest address."""
    names = ", ".join(f"{register}{i}" for i in range(count))
    back = ", ".join(f"{register}{i}" for i in reversed(range(count)))
    body = f"\tld.global.v{count}.b{width} {{{names}}}, [%x+16];\n\tst.global.v{count}.b{width} [%y], {{{back}}};"
    size = width // 8
    parts = [BYTES[16 + size * i : 16 + size * (i + 1)].tobytes() for i in range(count)]
    assert once(body, BYTES, size * count) == b"".join(reversed(parts))


HINTS = ["ld.global.nc.b32", "ld.global.ca.b32", "ld.global.L1::no_allocate.b32", "ld.global.nc.L1::no_allocate.b32"]
HINTS += ["ld.global.L1::evict_last.b32", "ld.global.L2::128B.b32", "ld.global.nc.L1::evict_first.L2::256B.b32"]
HINTS += ["ld.global.cg.b32", "ld.global.f32", "ld.global.u32", "ld.volatile.global.b32"]


@pytest.mark.parametrize("form", HINTS)
def test_hints_of_a_load_change_nothing(form: str) -> None:
    """9.7.9.8: "treated as a performance hint only"."""
    body = f"\t{form} %r0, [%x+4];\n\tst.global.b32 [%y], %r0;"
    assert once(body, BYTES, 4) == BYTES[4:8].tobytes()


@pytest.mark.parametrize(
    "form", ["st.global.cs.b32", "st.global.L1::evict_first.b32", "st.global.wb.b32", "st.global.f32"]
)
def test_hints_of_a_store_change_nothing(form: str) -> None:
    assert once(f"\tld.global.b32 %r0, [%x];\n\t{form} [%y], %r0;", BYTES, 4) == BYTES[:4].tobytes()


def test_registers_may_be_typed() -> None:
    """6.4: ".reg .f32", ".reg .u32": what the type of a register is changes no bits."""
    more = "\n\t.reg .u32 %u;\n\t.reg .s32 %s;\n\t.reg .f64 %w;\n\t.reg .u16 %v;"
    body = "\tld.global.f32 %f0, [%x];\n\tmov.b32 %u, %f0;\n\tmov.s32 %s, %u;\n\tst.global.u32 [%y], %s;\n"
    body += "\tld.global.f64 %w, [%x+8];\n\tst.global.f64 [%y+8], %w;\n\tld.global.u16 %v, [%x+2];\n"
    body += "\tst.global.u16 [%y+4], %v;\n"
    body += "\tst.global.u16 [%y+6], %v;"
    want = BYTES[:4].tobytes() + BYTES[2:4].tobytes() * 2 + BYTES[8:16].tobytes()
    assert once(body, BYTES, 16, more) == want


def test_addresses_have_offsets_of_both_signs() -> None:
    """6.4.1: "[reg+imm]", and "ld.local.b32 x,[p+-8]; // negative offset" (9.7.9.8)."""
    body = "\tadd.s64 %z, %x, 16;\n\tld.global.b32 %r0, [%z+-8];\n\tld.global.b32 %r1, [%z+4];\n"
    body += "\tld.global.b32 %r2, [%z];\n"
    body += "\tst.global.b32 [%y], %r0;\n\tst.global.b32 [%y+4], %r1;\n\tst.global.b32 [ %y + 8 ], %r2;"
    assert once(body, BYTES, 12) == BYTES[8:12].tobytes() + BYTES[20:24].tobytes() + BYTES[16:20].tobytes()


def test_shared_memory_is_reached_by_name_and_by_address() -> None:
    """9.7.9.4 mov: "mov places the non-generic address of the variable", with an offset or without."""
    more = "\n\t.shared .align 8 .b8 tile[64];"
    body = """
    ld.global.b64 %d0, [%x];
    st.shared.b64 [tile], %d0;
    st.shared.b32 [tile+8], 77;
    mov.u32 %r0, tile;
    ld.shared.b32 %r1, [%r0+8];
    mov.u64 %d1, tile;
    ld.shared.b64 %d3, [%d1];
    mov.u64 %d4, tile+4;
    ld.shared.b32 %r2, [%d4];
    st.global.b64 [%y], %d3;
    st.global.b32 [%y+8], %r1;
    st.global.b32 [%y+12], %r2;"""
    assert once(body, BYTES, 16, more) == BYTES[:8].tobytes() + bytes([77, 0, 0, 0]) + BYTES[4:8].tobytes()


def test_dynamic_shared_memory_is_as_large_as_the_launch_says() -> None:
    """5.1.8 and 10.3: ".extern .shared .b8 name[]" takes its size from the launch."""
    outside = ".extern .shared .align 16 .b8 dynamic[];"
    body = "\tld.global.b32 %r0, [%x];\n\tmov.b32 %r1, dynamic;\n\tst.shared.b32 [%r1+28], %r0;\n"
    body += "\tld.shared.b32 %r2, [dynamic+28];\n\tst.global.b32 [%y], %r2;"
    assert once(body, BYTES, 4, outside=outside, shared=32) == BYTES[:4].tobytes()
    with pytest.raises(ptx.AccessError):
        once(body, BYTES, 4, outside=outside, shared=28)


def test_constants_and_global_variables_have_their_initial_values() -> None:
    """5.4.4: .const and .global variables have initial values, and zeros behind them."""
    outside = ".const .align 4 .b32 table[3] = {5, 0xFFFFFFFF, 7};\n.global .align 4 .b8 text[8] = {95, 67, 85};"
    body = "\tld.const.b32 %r0, [table+4];\n\tst.global.b32 [%y], %r0;\n\tld.global.b32 %r1, [text];\n"
    body += "\tst.global.b32 [%y+4], %r1;\n"
    body += "\tmov.u64 %d0, table;\n\tld.const.u32 %r2, [%d0+8];\n\tst.global.b32 [%y+8], %r2;"
    assert once(body, BYTES, 12, outside=outside) == b"\xff" * 4 + bytes([95, 67, 85, 0]) + bytes([7, 0, 0, 0])


def test_parameters_of_every_width_are_read_by_value() -> None:
    """5.1.6.1: parameters of a kernel are read with ld.param."""
    kinds = ["u64", "s64", "f64", "u32", "s32", "f32", "u16", "s16", "u8", "s8"]  # so that each is aligned
    values = [np.uint64(2**64 - 2), np.int64(-(2**40)), np.float64(1.5), np.uint32(2**32 - 1), np.int32(-70000)]
    values += [np.float32(-0.0), np.uint16(60000), np.int16(-300), np.uint8(200), np.int8(-3)]
    parameters = ",\n".join(["\t.param .u64 .ptr .global .align 16 out", *(f"\t.param .{k} p_{k}" for k in kinds)])
    body, at = "", 0
    for kind in kinds:
        width = int(kind[1:])
        register = {8: "%h0", 16: "%h0", 32: "%r0", 64: "%d0"}[width]
        body += f"\tld.param.b{width} {register}, [p_{kind}];\n\tst.global.b{width} [%y+{at}], {register};\n"
        at += width // 8
    text = (
        f"{HEADER}.visible .entry main(\n{parameters}\n)\n{{\n{DECLARED}\n\tld.param.b64 %y, [out];\n{body}\tret;\n}}\n"
    )
    out = np.zeros(at, np.uint8)
    ptx.run(text, out, *values, grid=(1, 1, 1), block=(1, 1, 1), outputs=(0,))
    assert out.tobytes() == b"".join(value.tobytes() for value in values)


HALF = "mov.b16 %h0, 9; mov.b32 %r0, {%h0, %h1}; shfl.sync.idx.b32 %r1, %r0, 0, 31, -1; mov.b32 {%h2, %h3}, %r1; "
KNOWN = ["st.global.b16 [%y], %h2", "st.global.b16 [%y], %r1", "mov.b32 {%h3, _}, %r1; st.global.b16 [%y], %h3"]
KNOWN += [f"cvt.u16.{kind} %h3, %r1; st.global.b16 [%y], %h3" for kind in ("u32", "s32")]
UNKNOWN = ["st.global.b16 [%y], %h3", "st.global.b32 [%y], %r1", "mov.b32 {_, %h2}, %r1; st.global.b16 [%y], %h2"]
UNKNOWN += ["cvt.sat.u16.u32 %h2, %r1; st.global.b16 [%y], %h2", "add.s32 %r1, %r1, 1; st.global.b16 [%y], %r1"]
UNKNOWN += ["cvt.u64.u32 %d0, %r1; st.global.b16 [%y], %d0", "mov.b32 %r2, %r1; st.global.b32 [%y], %r2"]


@pytest.mark.parametrize(
    ("case", "is_known"), [*((case, True) for case in KNOWN), *((case, False) for case in UNKNOWN)]
)
def test_a_register_may_hold_something_in_one_half_only(case: str, is_known: bool) -> None:
    """Not of the manual: compilers exchange 16 bits in a register whose other half, like %h1 here, nobody wrote."""
    body = f"\t{HALF}{case};".replace("; ", ";\n\t")
    if is_known:
        assert once(body, BYTES, 2) == bytes([9, 0])
    else:
        with pytest.raises(ptx.AccessError, match="nobody wrote"):
            once(body, BYTES, 4)


def test_special_registers_count_threads_and_blocks_with_x_fastest() -> None:
    # 10.1 to 10.4: %tid, %ntid, %ctaid, %nctaid; 10.3 %laneid; a warp is of threads in the order of x, then y, then z.
    block, grid = (5, 4, 3), (2, 3, 2)
    registers = [f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"] + ["%laneid"]
    body = """
    mov.u32 %r0, %tid.z; mov.u32 %r1, %tid.y; mad.lo.s32 %r0, %r0, 4, %r1;
    mov.u32 %r1, %tid.x; mad.lo.s32 %r0, %r0, 5, %r1;
    mov.u32 %r2, %ctaid.z; mov.u32 %r1, %ctaid.y; mad.lo.s32 %r2, %r2, 3, %r1;
    mov.u32 %r1, %ctaid.x; mad.lo.s32 %r2, %r2, 2, %r1;
    mad.lo.s32 %r0, %r2, 60, %r0;
    mul.wide.u32 %z, %r0, 52;
    add.s64 %y, %y, %z;\n"""
    for at, register in enumerate(registers):
        body += f"\tmov.u32 %r3, {register};\n\tst.global.b32 [%y+{4 * at}], %r3;\n"
    out = np.zeros((*grid[::-1], *block[::-1], 13), np.uint32)
    ptx.run(module(POINTERS + body, ["p_in", "p_out"], DECLARED), None, out, grid=grid, block=block, outputs=(1,))
    cz, cy, cx, tz, ty, tx = np.indices(out.shape[:-1])
    want = [tx, ty, tz, *block, cx, cy, cz, *grid, (tx + 5 * ty + 20 * tz) % 32]
    for at, (register, values) in enumerate(zip(registers, want, strict=True)):
        np.testing.assert_array_equal(out[..., at], np.broadcast_to(values, out.shape[:-1]), register)


@pytest.mark.parametrize("align", [4, 8, 16, 128, 256])
def test_a_buffer_is_aligned_as_its_parameter_promises_and_no_more(align: int) -> None:
    """Not of the manual: an access that needs more than the promise is to fail here, as it may on a device."""
    body = POINTERS + f"\tand.b64 %z, %y, {2 * align - 1};\n\tst.global.b32 [%y], %z;"
    out = np.zeros(1, np.uint32)
    text = module(body, ["p_in", "p_out"], DECLARED, align=align)
    ptx.run(text, None, out, grid=(1, 1, 1), block=(1, 1, 1), outputs=(1,))
    assert out[0] == align


def test_a_pointer_without_a_promise_is_aligned_to_four_bytes() -> None:
    """5.1.6.3: "If no alignment is specified, the memory pointed to is assumed to be aligned to a 4 byte boundary"."""
    for parameter in (".param .u64 .ptr .global p_out", ".param .u64 .ptr p_out"):
        body = f"{DECLARED}\n\tld.param.u64 %y, [p_out];\n\tand.b64 %z, %y, 7;\n\tst.global.b32 [%y], %z;\n\tret;"
        out = np.zeros(1, np.uint32)
        text = f"{HEADER}.visible .entry main(\n\t{parameter}\n)\n{{\n{body}\n}}\n"
        ptx.run(text, out, grid=(1, 1, 1), block=(1, 1, 1), outputs=(0,))
        assert out[0] == 4
