"""Branches, predicates, barriers, shuffles and votes of `tools.ptx` (PTX ISA, 9.3, 9.5, 9.7.9.6, 9.7.12, 9.7.13)."""

import numpy as np
import pytest
from ptx_launch import hold, module, run
from ptx_manual import pairs

from tools import ptx

pytestmark = pytest.mark.tools

DECLARED = "\t.reg .pred %p, %q;\n\t.reg .b32 %t, %i, %n, %s, %o, %a, %b;\n\t.reg .b64 %x, %y, %g;"
THREAD = "\tmov.u32 %t, %tid.x;\n\tld.param.u64 %x, [p_o];\n\tcvta.to.global.u64 %x, %x;\n"
THREAD += "\tmul.wide.u32 %y, %t, 4;\n\tadd.s64 %g, %x, %y;\n"
STORE = "\tst.global.b32 [%g], %o;"


def threads(body: str, count: int, declarations: str = "") -> np.ndarray:
    """What `count` threads of one block leave in %o; %t is the thread, %g its address."""
    out = np.zeros(count, np.uint32)
    text = module(THREAD + body + "\n" + STORE, ["p_o"], DECLARED + declarations)
    ptx.run(text, out, grid=(1, 1, 1), block=(count, 1, 1), outputs=(0,))
    return out


def test_guards_leave_the_other_threads_as_they_were() -> None:
    """9.3: "@{!}p instruction", which executes where the predicate is True (with `!`, False)."""
    (a,) = pairs([0, 1])
    body = "setp.ne.u32 %p, %a, 0;\nmov.b32 %o, 7;\n@%p add.s32 %o, %o, 1;\n@!%p add.s32 %o, %o, 10;"
    hold("@p and @!p", run(body, [a], [32], 32), [17, 8], [a])


def test_threads_that_part_come_together_again() -> None:
    # 9.5: "If threads execute down different control flow paths, the threads are called divergent"; each does its own.
    body = """
    setp.lt.u32 %p, %t, 10;
    @%p bra $LESS;
    setp.lt.u32 %q, %t, 20;
    @!%q bra $MOST;
    mov.b32 %o, 2;
    bra.uni $JOIN;
$LESS:
    mov.b32 %o, 1;
    bra $JOIN;
$MOST:
    mov.b32 %o, 3;
$JOIN:
    shl.b32 %i, %t, 4;
    or.b32 %o, %o, %i;"""
    t = np.arange(64)
    np.testing.assert_array_equal(threads(body, 64), np.where(t < 10, 1, np.where(t < 20, 2, 3)) | t << 4)


def test_a_loop_runs_as_often_as_each_thread_says() -> None:
    body = """
    mov.b32 %o, 0;
    mov.b32 %i, 0;
$LOOP:
    setp.ge.u32 %p, %i, %t;
    @%p bra $DONE;
    and.b32 %a, %i, 1;
    setp.eq.u32 %q, %a, 1;
    @%q bra $ODD;
    add.s32 %o, %o, %i;
$ODD:
    add.s32 %i, %i, 1;
    bra $LOOP;
$DONE:"""
    np.testing.assert_array_equal(threads(body, 70), [sum(i for i in range(t) if i % 2 == 0) for t in range(70)])


def test_labels_in_an_inner_scope_and_branches_backward() -> None:
    body = "{\n\t.reg .b32 %inner;\n\tmov.u32 %inner, 5;\n$BACK:\n\tsub.s32 %inner, %inner, 1;\n"
    body += "\tsetp.ne.s32 %p, %inner, 0;\n\t@%p bra $BACK;\n\tadd.s32 %o, %inner, %t;\n}"
    np.testing.assert_array_equal(threads(body, 32), np.arange(32))


def test_a_register_of_inner_braces_is_another_one() -> None:
    """NVIDIA's "Inline PTX Assembly in CUDA": braces make the names of an `asm` unique, however often it is there."""
    body = "\tmov.b32 %o, 1;\n\tmov.b32 %a, 2;\n"
    for number in (10, 20):
        body += f"\t{{\n\t.reg .b32 %a, s<2>;\n\t.reg .pred q;\n\tmov.b32 %a, {number};\n\tadd.s32 s1, %a, %t;\n"
        body += "\tsetp.lt.u32 q, %t, 16;\n\t@!q mov.b32 s1, 0;\n\t{\n\t.reg .b32 s1;\n\tmov.b32 s1, 7;\n\t}\n"
        body += "\tadd.s32 %o, %o, s1;\n\t}\n"
    body += "\tadd.s32 %o, %o, %a;"
    t = np.arange(32)
    np.testing.assert_array_equal(threads(body, 32), np.where(t < 16, 3 + 30 + 2 * t, 3))


def test_what_inner_braces_declare_holds_nothing_at_first() -> None:
    body = "\t{\n\t.reg .b32 s;\n\tmov.b32 s, 1;\n\t}\n\t{\n\t.reg .b32 s;\n\tmov.b32 %o, s;\n\t}"
    with pytest.raises(ptx.AccessError, match="nobody wrote"):
        threads(body, 32)


@pytest.mark.parametrize("leave", ["ret", "exit"])
def test_threads_that_leave_do_no_more(leave: str) -> None:
    # 9.7.12: "Ends execution of a thread"; "A return instruction executed in a top-level entry routine will terminate
    # thread execution".
    body = f"\tmov.b32 %o, 9;\n\tsetp.gt.u32 %p, %t, 3;\n\t@%p {leave};"
    out = np.full(64, 5, np.uint32)
    ptx.run(module(f"{THREAD}{body}\n{STORE}", ["p_o"], DECLARED), out, grid=(1, 1, 1), block=(64, 1, 1))
    np.testing.assert_array_equal(out, np.where(np.arange(64) > 3, 5, 9))


BARRIERS = ["bar.sync 0", "barrier.sync 0", "bar.sync 1", "barrier.sync.aligned 3", "bar.sync 2, 96"]
BARRIERS += ["mov.b32 %n, 5; bar.sync %n, 96", "mov.b32 %n, 96; bar.sync 5, %n"]


@pytest.mark.parametrize("barrier", BARRIERS)
def test_shared_memory_behind_a_barrier_is_what_the_others_wrote(barrier: str) -> None:
    # 9.7.13.1 bar: "prior memory accesses requested by this thread are performed relative to all threads
    # participating"; "a specifies a logical barrier resource as an immediate constant or register with value 0 through
    # 15. Operand b specifies the number of threads participating in the barrier."
    body = f"""
    shl.b32 %a, %t, 2;
    mov.b32 %b, tile;
    add.s32 %a, %a, %b;
    st.shared.b32 [%a], %t;
    {barrier};
    sub.s32 %i, 95, %t;
    shl.b32 %i, %i, 2;
    add.s32 %i, %i, %b;
    ld.shared.b32 %o, [%i];"""
    np.testing.assert_array_equal(threads(body, 96, "\n\t.shared .align 4 .b8 tile[384];"), np.arange(96)[::-1])


def test_threads_that_exited_count_as_arrived() -> None:
    """9.7.12 exit: "If the exiting threads are holding up the barrier, the barrier is released"."""
    body = "\tmov.b32 %o, 1;\n\tsetp.ge.u32 %p, %t, 40;\n\t@%p exit;\n\tbar.sync 0;"
    out = np.zeros(64, np.uint32)
    ptx.run(module(f"{THREAD}{body}\n{STORE}", ["p_o"], DECLARED), out, grid=(1, 1, 1), block=(64, 1, 1))
    np.testing.assert_array_equal(out, [1] * 40 + [0] * 24)


def test_threads_at_a_barrier_stay_there_while_others_pass_behind_it() -> None:
    """9.7.13.1: the threads that wait go on behind the barrier, with the first instruction there."""
    body = """
    mov.b32 %o, 1;
    setp.ge.u32 %p, %t, 32;
    setp.ge.s32 %q, %t, 0;
    @%p bra $BEHIND;
    bar.sync 0;
$BEHIND:
    @%q bra $END;
    mov.b32 %o, 2;
$END:"""
    np.testing.assert_array_equal(threads(body, 64), [1] * 64)


def test_blocks_part_and_loop_each_on_its_own() -> None:
    body = """
    mov.u32 %n, %ctaid.x;
    mad.lo.s32 %i, %n, 32, %t;
    mul.wide.u32 %y, %i, 4;
    add.s64 %g, %x, %y;
    mov.b32 %o, 0;
    mov.b32 %a, 0;
$LOOP:
    setp.gt.u32 %p, %a, %n;
    @%p bra $END;
    add.s32 %o, %o, %t;
    add.s32 %a, %a, 1;
    bra $LOOP;
$END:"""
    out = np.zeros(5 * 32, np.uint32)
    ptx.run(module(f"{THREAD}{body}\n{STORE}", ["p_o"], DECLARED), out, grid=(5, 1, 1), block=(32, 1, 1), outputs=(0,))
    np.testing.assert_array_equal(out.reshape(5, 32), np.arange(1, 6)[:, None] * np.arange(32))


def test_barriers_that_never_meet_are_a_deadlock() -> None:
    """9.7.13.1: "wait for non-exited threads of all other warps participating in the barrier to arrive"."""
    apart = "\tmov.b32 %o, 0;\n\tsetp.lt.u32 %p, %t, 32;\n\t@%p bra $A;\n\tbar.sync 1;\n\tbra $END;\n$A:\n"
    apart += "\tbar.sync 2;\n$END:"
    out = np.zeros(64, np.uint32)
    with pytest.raises(ptx.DeadlockError):
        ptx.run(module(f"{THREAD}{apart}\n{STORE}", ["p_o"], DECLARED), out, grid=(1, 1, 1), block=(64, 1, 1))


def test_blocks_pass_their_barriers_each_on_its_own() -> None:
    """9.7.13.1: "Each CTA instance has sixteen barriers": block n loops over n + 1 of them, then its threads store."""
    body = """
    mov.u32 %n, %ctaid.x;
    mad.lo.s32 %i, %n, 64, %t;
    mul.wide.u32 %y, %i, 4;
    add.s64 %g, %x, %y;
    mov.b32 %o, 0;
$LOOP:
    bar.sync %n;
    add.s32 %o, %o, 1;
    setp.le.u32 %p, %o, %n;
    @%p bra $LOOP;"""
    out = np.zeros(5 * 64, np.uint32)
    ptx.run(module(f"{THREAD}{body}\n{STORE}", ["p_o"], DECLARED), out, grid=(5, 1, 1), block=(64, 1, 1), outputs=(0,))
    np.testing.assert_array_equal(out.reshape(5, 64), np.arange(1, 6)[:, None] * np.ones(64))


def test_a_barrier_orders_what_a_block_does_to_global_memory_and_not_what_others_do() -> None:
    body = """
    mov.u32 %n, %ctaid.x;
    mad.lo.s32 %i, %n, {stride}, %t;
    mul.wide.u32 %y, %i, 4;
    add.s64 %g, %x, %y;
    st.global.b32 [%g], %t;
    bar.sync 0;
    mad.lo.s32 %i, %n, {stride}, 63;
    sub.s32 %i, %i, %t;
    mul.wide.u32 %y, %i, 4;
    add.s64 %y, %x, %y;
    ld.global.b32 %o, [%y];
    bar.sync 0;"""
    out = np.zeros(3 * 64, np.uint32)
    launch = {"grid": (3, 1, 1), "block": (64, 1, 1)}
    text = module(f"{THREAD}{body.format(stride=64)}\n{STORE}", ["p_o"], DECLARED)
    ptx.run(text, out, **launch)
    np.testing.assert_array_equal(out.reshape(3, 64), np.tile(np.arange(64)[::-1], (3, 1)))
    text = module(f"{THREAD}{body.format(stride=32)}\n{STORE}", ["p_o"], DECLARED)
    with pytest.raises(ptx.RaceError):
        ptx.run(text, out, **launch)


def test_grids_depend_on_none_here() -> None:
    # 9.7.12 griddepcontrol: ".wait causes the executing thread to wait until all prerequisite grids in flight have
    # completed": there are none.
    body = "\tgriddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;\n\tmov.b32 %o, %t;"
    np.testing.assert_array_equal(threads(body, 32), np.arange(32))
