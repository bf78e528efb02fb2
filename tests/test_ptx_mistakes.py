"""What `tools.ptx` refuses: accesses that a kernel may not make, races, and what it does not know."""

import numpy as np
import pytest
from ptx_launch import line_of, module, names

from tools import ptx
from tools.ptx import machine

pytestmark = pytest.mark.tools
DECLARED = "\t.reg .pred %p;\n\t.reg .b16 %h<4>;\n\t.reg .b32 %t, %c, %r<8>;\n\t.reg .b64 %x, %y, %z, %d<4>;"
DECLARED += "\n\t.shared .align 16 .b8 tile[512];"
START = "\tld.param.u64 %x, [p_in];\n\tcvta.to.global.u64 %x, %x;\n\tld.param.u64 %y, [p_out];\n"
START += "\tcvta.to.global.u64 %y, %y;\n"
START += "\tmov.u32 %t, %tid.x;\n\tmov.u32 %c, %ctaid.x;\n"
MINE = "\tmul.wide.u32 %z, %t, 4;\n\tadd.s64 %d0, %x, %z;\n\tadd.s64 %d1, %y, %z;\n"


def kernel(body: str, align: int = 16) -> str:
    return module(START + body, ["p_in", "p_out"], DECLARED, align=align)


def launch(
    body: str, count: int = 32, blocks: int = 1, size: int = 32, outputs: tuple[int, ...] = (1,), align: int = 16
) -> np.ndarray:
    out = np.zeros(size, np.uint32)
    ptx.run(
        kernel(body, align),
        np.arange(size, dtype=np.uint32),
        out,
        grid=(blocks, 1, 1),
        block=(count, 1, 1),
        outputs=outputs,
    )
    return out


def refuses(error: type[Exception], body: str, at: str, **launched: object) -> None:
    """Fails unless the launch raises and names the line; block= and thread= are what else it is to name."""
    where = {key: launched.pop(key) for key in ("block", "thread") if key in launched}
    with pytest.raises(error) as caught:
        launch(body, **launched)
    assert isinstance(caught.value, ptx.Error)
    names(caught.value, line=line_of(kernel(body), at), **where)


@pytest.mark.parametrize("offset", [-4, 128, 4096, 1 << 40])
@pytest.mark.parametrize("access", ["ld.global.b32 %r0, [%d2]", "st.global.b32 [%d2], %t"])
def test_outside_of_a_buffer(access: str, offset: int) -> None:
    """Before it, behind it, far away."""
    body = f"\tsetp.eq.s32 %p, %t, 7;\n\tselp.b64 %z, {offset}, 0, %p;\n\tadd.s64 %d2, %x, %z;\n"
    body += "\t@!%p mul.wide.u32 %z, %t, 4;\n\t@!%p add.s64 %d2, %x, %z;\n"
    refuses(ptx.AccessError, f"{body}\t{access};", access, thread=7, block=0)


def test_half_outside_of_a_buffer() -> None:
    body = "\tld.global.v2.b32 {%r0, %r1}, [%x+24];"
    launch(body, count=1, size=8)
    refuses(ptx.AccessError, body, "ld.global.v2", count=1, size=7, thread=0, block=0)


def test_between_buffers_no_address_leads_from_one_to_the_next() -> None:
    """Whatever is next to a buffer is not another buffer."""
    for step in (-1, 1):
        body = f"\tadd.s64 %z, %y, {step * 128};\n\tld.global.b32 %r0, [%z];"
        refuses(ptx.AccessError, body, "ld.global.b32", count=1, thread=0)


@pytest.mark.parametrize(
    ("access", "offset"),
    [
        ("ld.global.b16 %h0", 1),
        ("ld.global.b32 %r0", 2),
        ("ld.global.b64 %d2", 4),
        ("ld.global.v2.b32 {%r0, %r1}", 4),
        ("ld.global.v4.b32 {%r0, %r1, %r2, %r3}", 8),
        ("ld.global.v2.b64 {%d2, %d3}", 8),
        ("ld.shared.b32 %r0", 2),
    ],
)
def test_misaligned_for_its_width(access: str, offset: int) -> None:
    # 6.4.1: "The address must be naturally aligned to a multiple of the access size": "the total number of bytes
    # accessed", so "the access size of ld.v4.b32 is 16 bytes".
    base = "tile" if "shared" in access else "%x"
    store = "\tst.shared.v2.b64 [tile], {%x, %x};\n" if "shared" in access else ""
    refuses(ptx.AccessError, f"{store}\t{access}, [{base}+{offset}];", access, count=1, thread=0, block=0)


@pytest.mark.parametrize(("align", "fits"), [(4, False), (8, False), (16, True), (256, True)])
def test_alignment_that_the_parameter_does_not_promise(align: int, fits: bool) -> None:
    body = "\tld.global.v4.b32 {%r0, %r1, %r2, %r3}, [%x];"
    if fits:
        launch(body, count=1, align=align)
    else:
        refuses(ptx.AccessError, body, "ld.global.v4", count=1, align=align, thread=0)


@pytest.mark.parametrize(("align", "fits"), [(4, False), (8, False), (16, True)])
def test_alignment_that_a_variable_does_not_promise(align: int, fits: bool) -> None:
    """Nor are variables aligned by more than they ask for."""
    outside = f".shared .align {align} .b8 pad[1];\n.shared .align {align} .b8 mine[64];\n"
    outside += f".const .align {align} .b8 table[16] = {{1}};\n"
    for access in ("st.shared.v4.b32 [mine], {%t, %t, %t, %t}", "ld.const.v4.b32 {%r0, %r1, %r2, %r3}, [table]"):
        text = module(f"{START}\t{access};", ["p_in", "p_out"], DECLARED, outside=outside)
        buffers = np.zeros(4, np.uint32), np.zeros(4, np.uint32)
        if fits:
            ptx.run(text, *buffers, grid=(1,), block=(1,))
        else:
            with pytest.raises(ptx.AccessError) as caught:
                ptx.run(text, *buffers, grid=(1,), block=(1,))
            names(caught.value, line=line_of(text, access), thread=0, block=0)


@pytest.mark.parametrize("access", ["ld.const.b32 %r0, [%x]", "ld.param.b32 %r0, [%x]", "ld.global.b32 %r0, [p_in]"])
def test_an_address_of_another_state_space(access: str) -> None:
    refuses(ptx.AccessError, f"\t{access};", access, count=1, thread=0, block=0)


def test_a_null_pointer() -> None:
    body = kernel("\tld.global.b32 %r0, [%x];")
    with pytest.raises(ptx.AccessError) as caught:
        ptx.run(body, None, np.zeros(4, np.uint32), grid=(1, 1, 1), block=(1, 1, 1))
    names(caught.value, line=line_of(body, "ld.global.b32"), thread=0, block=0)


def test_an_output_that_nobody_wrote() -> None:
    body = "\tsetp.ne.s32 %p, %c, 1;\n\t@%p exit;\n" + MINE + "\tld.global.b32 %r0, [%d1];"
    refuses(ptx.AccessError, body, "ld.global.b32", blocks=2, thread=0, block=1)
    launch(body, blocks=2, outputs=())
    launch(MINE + "\tst.global.b32 [%d1], %t;\n\tld.global.b32 %r0, [%d1];")
    partly = MINE + "\tst.global.b16 [%d1], %t;\n\tld.global.b32 %r0, [%d1];"
    refuses(ptx.AccessError, partly, "ld.global.b32", count=1, thread=0)


def test_shared_memory_that_nobody_wrote() -> None:
    body = "\tst.shared.b32 [tile], 1;\n\tld.shared.b32 %r0, [tile+4];"
    refuses(ptx.AccessError, body, "ld.shared.b32", count=1, thread=0, block=0)


def test_shared_memory_does_not_outlive_its_block() -> None:
    body = "\tsetp.ne.s32 %p, %c, 0;\n\t@%p bra $READ;\n\tst.shared.b32 [tile], 1;\n\tret;\n$READ:\n"
    body += "\tld.shared.b32 %r0, [tile];"
    refuses(ptx.AccessError, body, "ld.shared.b32", count=1, blocks=2, block=1, thread=0)


def test_shared_memory_ends_with_its_variable() -> None:
    refuses(ptx.AccessError, "\tst.shared.b32 [tile+512], %t;", "st.shared.b32", count=1, thread=0)


UNWRITTEN = (
    "\tsetp.lt.u32 %p, %t, 5;\n\t@%p mov.b32 %r0, 4;\n\tadd.s32 %r1, %r0, 0;\n"  # of threads 5 and on, so too %r1
)
DEPENDS = {
    "a store": (MINE + "\tst.global.b32 [%d1], %r1;", "st.global"),
    "one part of a store": (MINE + "\tst.global.v2.b16 [%d1], {%h0, %h1};", "st.global"),
    "an address": ("\tcvt.u64.u32 %d2, %r1;\n\tadd.s64 %d2, %d2, %x;\n\tld.global.b32 %r3, [%d2];", "ld.global"),
    "a shared address": ("\tst.shared.b32 [%r1], 1;", "st.shared"),
    "a guard": ("\tsetp.eq.s32 %p, %r1, 4;\n\t@%p mov.b32 %r2, 1;", "@%p mov.b32 %r2"),
    "a branch": ("\tsetp.eq.s32 %p, %r1, 4;\n\t@!%p bra $END;\n$END:", "bra $END"),
    "a vote": ("\tsetp.eq.s32 %p, %r1, 4;\n\tvote.sync.any.pred %p, %p, -1;", "vote.sync"),
    "a lane": ("\tshfl.sync.idx.b32 %r2, %t, %r1, 31, -1;", "shfl.sync"),
}


@pytest.mark.parametrize("case", DEPENDS)
def test_what_a_thread_does_may_not_depend_on_a_register_that_was_not_written(case: str) -> None:
    body, at = DEPENDS[case]
    parts = "\tmov.b16 %h0, 1;\n\tcvt.u16.u32 %h1, %r1;\n"
    refuses(ptx.AccessError, UNWRITTEN + parts + body, at, thread=5, block=0)
    written = UNWRITTEN.replace("@%p mov", "mov").replace("mov.b32 %r0, 4", "and.b32 %r0, %t, 4") + parts + body
    if case != "a shared address":  # which all threads write, all the same
        launch(written)


def test_a_shuffle_brings_along_that_a_register_was_not_written() -> None:
    body = UNWRITTEN + "\tshfl.sync.idx.b32 %r2, %r1, {}, 31, -1;\n" + MINE + "\tst.global.b32 [%d1], %r2;"
    launch(body.format(4))
    refuses(ptx.AccessError, body.format(5), "st.global", thread=0)


def test_a_register_that_was_not_written_may_be_moved_about_and_guarded() -> None:
    """Compilers do so where a value does not matter."""
    launch(UNWRITTEN + MINE + "\tsetp.lt.u32 %p, %t, 5;\n\tmov.b32 %r2, %r1;\n\t@%p st.global.b32 [%d1], %r2;")
    launch(UNWRITTEN + MINE + "\tmov.b32 %r1, 1;\n\tst.global.b32 [%d1], %r1;")


RACES = {"global": "\tst.global.b32 [%y], {};", "shared": "\tst.shared.b32 [tile], {};"}


@pytest.mark.parametrize("space", RACES)
def test_two_threads_of_a_block_write_different_values_to_one_place(space: str) -> None:
    # 8.7.1: "Two conflicting memory operations are said to be in a data-race if they are not related in causality order
    # and they are not morally strong." That the same value is no race is the choice of this tool.
    refuses(ptx.RaceError, RACES[space].format("%t"), f"st.{space}.b32", block=0)
    launch(RACES[space].format("7"))
    apart = "\tsetp.lt.u32 %p, %t, 32;\n\t@%p bra $A;\n\tst.{0}.b32 [{1}], 5;\n\tbra $END;\n$A:\n"
    apart += "\tst.{0}.b32 [{1}], 6;\n$END:"
    with pytest.raises(ptx.RaceError):
        launch(apart.format(space, "%y" if space == "global" else "tile"), count=64)


@pytest.mark.parametrize("space", RACES)
def test_a_barrier_between_two_writes_orders_them(space: str) -> None:
    store = RACES[space].format("%t")
    body = (
        "\tsetp.eq.u32 %p, %t, 3;\n\t@%p"
        + store
        + "\n\tbar.sync 0;\n\tsetp.eq.u32 %p, %t, 40;\n\t@%p"
        + store.replace("%t", "%r0")
    )
    launch("\tmov.b32 %r0, 99;\n" + body, count=64)
    without = body.replace("\tbar.sync 0;\n", "")
    with pytest.raises(ptx.RaceError):
        launch("\tmov.b32 %r0, 99;\n" + without, count=64)


def test_two_blocks_write_different_values_to_one_place() -> None:
    refuses(ptx.RaceError, "\tst.global.b32 [%y], %c;", "st.global.b32", blocks=2, count=1, block=1)
    assert launch("\tst.global.b32 [%y], 6;", blocks=2)[0] == 6


def test_overlapping_writes_of_different_widths_are_one_place() -> None:
    body = "\tsetp.eq.u32 %p, %t, 0;\n\t@%p st.global.b32 [%y], 258;\n\t@!%p st.global.b8 [%y+1], 9;"
    with pytest.raises(ptx.RaceError):
        launch(body, count=2)
    launch(body.replace(", 9;", ", 1;"), count=2)


def test_a_read_of_what_another_thread_wrote_without_a_barrier() -> None:
    # 9.7.9.8 ld: "The effects of this instruction become visible to other threads only when synchronization is
    # established by other means".
    body = "\tshl.b32 %r0, %t, 2;\n\tmov.b32 %r1, tile;\n\tadd.s32 %r0, %r0, %r1;\n\tst.shared.b32 [%r0], %t;\n{}"
    body += "\txor.b32 %r2, %t, 33;\n\tshl.b32 %r2, %r2, 2;\n\tadd.s32 %r2, %r2, %r1;\n\tld.shared.b32 %r3, [%r2];"
    refuses(ptx.RaceError, body.format(""), "ld.shared.b32", count=64, block=0)
    launch(body.format("\tbar.sync 0;\n"), count=64)
    with pytest.raises(ptx.RaceError):  # that of a warp does not reach the other warp
        launch(body.format("\tbar.warp.sync -1;\n"), count=64)


def test_a_write_over_what_another_thread_read_without_a_barrier() -> None:
    body = "\tsetp.eq.u32 %p, %t, 0;\n\t@%p st.shared.b32 [tile], 5;\n\tbar.sync 0;\n\tld.shared.b32 %r0, [tile];\n{}"
    body += "\tsetp.eq.u32 %p, %t, 9;\n\t@%p st.shared.b32 [tile], 6;"
    launch(body.format("\tbar.sync 0;\n"))
    with pytest.raises(ptx.RaceError):
        launch(body.format(""))


def test_a_barrier_of_a_warp_orders_only_its_members() -> None:
    """9.7.13.2: "guarantee memory ordering among threads participating in barrier"."""
    body = "\tsetp.eq.u32 %p, %t, 0;\n\t@%p st.shared.b32 [tile], 5;\n\tsetp.ge.u32 %p, %t, 16;\n\t@%p bra $REST;\n"
    body += "\tbar.warp.sync {};\n$REST:\n\tsetp.eq.u32 %p, %t, {};\n\t@%p ld.shared.b32 %r0, [tile];"
    launch(body.format("0xffff", 3))
    with pytest.raises(ptx.RaceError):
        launch(body.format("0xffff", 20))


def test_a_block_reads_what_another_block_wrote() -> None:
    # 2.2: "Multiple CTAs may execute concurrently and in parallel, or sequentially, depending on the platform."
    body = "\tsetp.eq.s32 %p, %c, 0;\n\t@%p st.global.b32 [%y], 5;\n\t@!%p ld.global.b32 %r0, [%y];"
    with pytest.raises(ptx.RaceError):
        launch(body, blocks=2, count=1)


def test_a_place_in_a_later_block_is_named_by_its_own_numbers() -> None:
    body = "\tsetp.eq.s32 %p, %c, 2;\n\tsetp.eq.and.s32 %p, %t, 5, %p;\n\t@%p st.global.b32 [%y+-8], %t;"
    refuses(ptx.AccessError, body, "st.global.b32", blocks=4, block=2, thread=5)
    body = "\tsetp.ne.s32 %p, %c, 3;\n\t@%p mov.b32 %r0, 1;\n\tsetp.eq.s32 %p, %r0, 1;\n\t@%p mov.b32 %r1, 1;"
    refuses(ptx.AccessError, body, "@%p mov.b32 %r1", blocks=4, block=3, thread=0)


def test_a_loop_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LIMIT", 1000)
    body = "\tmov.b32 %r0, 0;\n$LOOP:\n\tadd.s32 %r0, %r0, 1;\n\tsetp.lt.s32 %p, %r0, {};\n\t@%p bra $LOOP;"
    launch(body.format(300))
    with pytest.raises(ptx.DeadlockError, match=r"thread 0, line \d+ .*1000 instructions"):
        launch(body.format(400))
