"""Shuffles, votes and barriers of the threads of a warp in `tools.ptx` (PTX ISA, 9.7.9.6, 9.7.13.2, 9.7.13.9)."""

import functools
import operator
from collections.abc import Callable

import numpy as np
import pytest
from ptx_launch import line_of, module, names
from ptx_manual import signed
from test_ptx_control import DECLARED, STORE, THREAD, threads

from tools import ptx

pytestmark = pytest.mark.tools


def shuffled(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """9.7.9.6: the lane read, and whether it is in range."""
    b, clamp, mask = b & 31, c & 31, c >> 8 & 31
    most, least = (lane & mask) | (clamp & ~mask), lane & mask
    source = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": least | (b & ~mask)}[mode]
    inside = source >= most if mode == "up" else source <= most
    return (source if inside else lane), inside


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shfl_reads_the_lane_of_the_manual_and_says_whether_it_is_in_range(mode: str) -> None:
    # 9.7.9.6 shfl.sync: "maxLane = (lane[4:0] & mask[4:0]) | (cval[4:0] & ~mask[4:0])"; ".up: j = lane - bval; pval =
    # (j >= maxLane)"; ".down: j = lane + bval; pval = (j <= maxLane)"; "if (!pval) j = lane; // copy from own lane".
    lanes = np.arange(32)
    for b in (0, 1, 2, 5, 16, 31, 33):
        for c in (0, 31, 7, 0x1800, 0x181F, 0x1C1F, 0x1E00, 0x1F1F, 0x101F):
            body = f"""
    mad.lo.s32 %a, %t, 3, 100;
    shfl.sync.{mode}.b32 %s|%p, %a, {b}, {c}, 0xffffffff;
    selp.b32 %i, 4096, 0, %p;
    or.b32 %o, %s, %i;"""
            want = [3 * (w // 32 * 32 + shuffled(mode, w % 32, b, c)[0]) + 100 for w in range(64)]
            want = [v | 4096 * shuffled(mode, w % 32, b, c)[1] for w, v in enumerate(want)]
            np.testing.assert_array_equal(threads(body, 64), want, f"{mode} {b} {c:#x}")
    assert lanes.size == 32


def test_shfl_takes_a_lane_for_each_thread_and_needs_no_predicate() -> None:
    body = "\txor.b32 %b, %t, 21;\n\tshfl.sync.idx.b32 %o, %t, %b, 31, -1;"
    np.testing.assert_array_equal(threads(body, 32), np.arange(32) ^ 21)


def test_shfl_exchanges_where_only_the_members_are() -> None:
    # 9.7.9.6: the executing thread waits until "all non-exited threads corresponding to membermask" have executed the
    # same instruction (the words of 9.7.13.9 vote.sync).
    body = """
    mov.b32 %o, %t;
    setp.ge.u32 %p, %t, 16;
    @%p bra $REST;
    shfl.sync.bfly.b32 %o, %t, 1, 31, 0xffff;
$REST:"""
    t = np.arange(32)
    np.testing.assert_array_equal(threads(body, 32), np.where(t < 16, t ^ 1, t))


@pytest.mark.parametrize(("mode", "formula"), [("all", all), ("any", any), ("uni", lambda v: len(set(v)) == 1)])
def test_votes(mode: str, formula: Callable[..., bool]) -> None:
    # 9.7.13.9 vote.sync: ".all True if source predicate is True for all non-exited threads in membermask", .any for
    # some, ".uni True if source predicate has the same value in all non-exited threads in membermask".
    for limit in (0, 1, 17, 31, 32):
        for negated in ("", "!"):
            body = f"\tsetp.lt.u32 %p, %t, {limit};\n\tvote.sync.{mode}.pred %q, {negated}%p, 0xffffffff;\n"
            body += "\tselp.b32 %o, 1, 0, %q;"
            want = formula([(t < limit) != bool(negated) for t in range(32)])
            np.testing.assert_array_equal(threads(body, 32), [want] * 32, f"{limit} {negated}")


@pytest.mark.parametrize("kind", ["u32", "s32", "b32"])
def test_redux_gives_all_members_the_result_of_all(kind: str) -> None:
    # 9.7.13.11 redux.sync: "performs a reduction operation .op on the 32 bit source register src across all non-exited
    # threads in the membermask. The result of the reduction operation is written to the 32 bit destination register
    # dst"; ".add, .min, .max: arithmetic", for .u32 and .s32; ".and, .or, .xor: bitwise" for .b32.
    formulas = {
        "arithmetic": {"add": lambda v: sum(v) % 2**32, "min": min, "max": max},
        "bits": {
            "and": lambda v: functools.reduce(operator.and_, v),
            "or": lambda v: functools.reduce(operator.or_, v),
            "xor": lambda v: functools.reduce(operator.xor, v),
        },
    }
    values = [(t * 0x9E3779B1 + 0x7F000000) % 2**32 for t in range(64)]
    for operation, formula in formulas["bits" if kind == "b32" else "arithmetic"].items():
        body = f"""
    mad.lo.s32 %a, %t, 0x9E3779B1, 0x7F000000;
    mov.b32 %o, %a;
    and.b32 %i, %t, 31;
    setp.ge.u32 %p, %i, 20;
    @%p bra $REST;
    redux.sync.{operation}.{kind} %o, %a, 0xfffff;
$REST:"""
        as_numbers = [signed(v, 32) if kind == "s32" else v for v in values]
        found = [formula(as_numbers[warp : warp + 20]) % 2**32 for warp in (0, 32)]
        want = [v if t % 32 >= 20 else found[t // 32] for t, v in enumerate(values)]
        np.testing.assert_array_equal(threads(body, 64), want, operation)


def test_a_ballot_has_a_bit_for_each_lane() -> None:
    # 9.7.13.9: "vote.sync.ballot.b32 simply copies the predicate from each thread in membermask into the corresponding
    # bit position of destination register d"; "A thread not specified in membermask will contribute a 0".
    body = "\tand.b32 %i, %t, 5;\n\tsetp.eq.u32 %p, %i, 1;\n\tvote.sync.ballot.b32 %o, %p, -1;"
    want = sum(1 << t for t in range(32) if t & 5 == 1)
    np.testing.assert_array_equal(threads(body, 64), [want] * 64)
    body = "\tsetp.lt.u32 %p, %t, 4;\n\tmov.b32 %o, 0;\n\t@%p bra $VOTE;\n\tbra $END;\n$VOTE:\n"
    body += "\tvote.sync.ballot.b32 %o, %p, 15;\n$END:"
    np.testing.assert_array_equal(threads(body, 32), [15] * 4 + [0] * 28)


def test_one_member_is_elected_the_same_one_for_a_mask() -> None:
    # 9.7.13.15 elect.sync: "elects one predicated active leader thread from among a set of threads specified by
    # membermask. laneid of the elected thread is returned"; "p is set to True for the leader thread, and False for all
    # other threads"; "the same leader thread is elected for the same membermask every time". Which one is left open.
    leaders = {}
    for result in ("%s", "_"):
        for mask in (0xFFFFFFFF, 0xFFFFFF00, 0x80000001, 0x80000000, 0x00F00000):
            body = f"\tmov.b32 %o, 0;\n\tmov.b32 %s, 0;\n\tmov.b32 %i, {mask};\n\tshr.u32 %i, %i, %t;\n"
            body += "\tand.b32 %i, %i, 1;\n\tsetp.eq.u32 %q, %i, 0;\n\t@%q bra $END;\n"
            body += f"\telect.sync {result}|%p, {mask};\n\tselp.b32 %o, 256, 128, %p;\n\tor.b32 %o, %o, %s;\n$END:"
            found = threads(body, 32)
            members = np.flatnonzero(mask >> np.arange(32) & 1)
            assert (np.delete(found, members) == 0).all()
            [leader] = np.flatnonzero(found & 256)
            assert leader == leaders.setdefault(mask, leader)
            assert leader in members
            lane = leader if result == "%s" else 0
            np.testing.assert_array_equal(found[members], np.where(members == leader, 256, 128) | lane)


def test_an_election_is_of_each_warp_and_its_members_are_there() -> None:
    # 9.7.13.15: "wait until all threads in the membermask execute the elect instruction"; "The behavior of elect.sync
    # is undefined if the executing thread is not in membermask."
    found = threads("\telect.sync %s|%p, -1;\n\tselp.b32 %o, 1, 0, %p;", 96)
    assert found.reshape(3, 32).sum(axis=1).tolist() == [1, 1, 1]
    for mask, active in ((-1, 4), (7, 4)):
        body = f"\tmov.b32 %o, 0;\n\tsetp.ge.u32 %q, %t, {active};\n\t@%q bra $END;\n"
        body += f"\telect.sync %s|%p, {mask};\n$END:"
        with pytest.raises(ptx.DeadlockError):
            threads(body, 32)


@pytest.mark.parametrize("count", [20, 32, 96])
def test_warps_are_of_one_block(count: int) -> None:
    """10: a warp is of one block, the last one perhaps not full: lanes, votes and shuffles of blocks are apart."""
    body = f"""
    mov.u32 %n, %ctaid.x;
    mad.lo.s32 %i, %n, {count}, %t;
    mul.wide.u32 %y, %i, 4;
    add.s64 %g, %x, %y;
    mad.lo.s32 %a, %n, 1000, %t;
    shfl.sync.bfly.b32 %b, %a, 1, 31, -1;
    mov.u32 %s, %laneid;
    setp.ge.s32 %p, %t, 0;
    vote.sync.ballot.b32 %o, %p, -1;
    setp.lt.u32 %p, %t, 3;
    vote.sync.ballot.b32 %i, %p, -1;
    xor.b32 %o, %o, %i;
    mad.lo.s32 %o, %o, 7, %b;
    mad.lo.s32 %o, %o, 7, %s;"""
    out = np.zeros(3 * count, np.uint32)
    ptx.run(
        module(f"{THREAD}{body}\n{STORE}", ["p_o"], DECLARED), out, grid=(3, 1, 1), block=(count, 1, 1), outputs=(0,)
    )
    want = []
    for block in range(3):
        for t in range(count):
            here = (1 << min(32, count - t // 32 * 32)) - 1
            bits = here ^ (7 if t < 32 else 0)
            want.append(((bits * 7 + block * 1000 + (t ^ 1)) * 7 + t % 32) & 0xFFFFFFFF)
    np.testing.assert_array_equal(out, want)


def test_a_barrier_of_a_warp_orders_its_memory() -> None:
    """9.7.13.2: "can store to memory, execute bar.warp.sync, and then safely read values stored by other threads"."""
    body = """
    shl.b32 %a, %t, 2;
    mov.b32 %b, tile;
    add.s32 %a, %a, %b;
    st.shared.b32 [%a], %t;
    bar.warp.sync 0xffffffff;
    xor.b32 %i, %t, 3;
    shl.b32 %i, %i, 2;
    add.s32 %i, %i, %b;
    ld.shared.b32 %o, [%i];"""
    np.testing.assert_array_equal(threads(body, 64, "\n\t.shared .align 4 .b8 tile[256];"), np.arange(64) ^ 3)


def test_a_shuffle_whose_members_are_elsewhere_is_a_deadlock() -> None:
    body = """
    mov.b32 %o, 0;
    setp.ge.u32 %p, %t, 16;
    @%p bra $WAIT;
    shfl.sync.bfly.b32 %o, %t, 1, 31, -1;
$WAIT:
    bar.sync 0;"""
    text = module(f"{THREAD}{body}\n{STORE}", ["p_o"], DECLARED)
    with pytest.raises(ptx.DeadlockError) as caught:
        ptx.run(text, np.zeros(32, np.uint32), grid=(1, 1, 1), block=(32, 1, 1))
    names(caught.value, line=line_of(text, "shfl.sync"), block=0, thread=0)


def test_a_thread_that_is_not_among_the_members_may_not_shuffle() -> None:
    """9.7.9.6, as of vote.sync: "undefined if the executing thread is not in the membermask"."""
    with pytest.raises(ptx.Error, match="thread 8"):
        threads("\tshfl.sync.bfly.b32 %o, %t, 1, 31, 0xff;", 32)


def test_a_lane_that_does_not_execute_the_shuffle_has_no_value() -> None:
    # 9.7.9.5: "results are undefined in divergent control flow within a warp, if an active thread sources a register
    # from an inactive thread".
    with pytest.raises(ptx.Error, match="thread 9"):
        threads("\tshfl.sync.down.b32 %o, %t, 1, 31, -1;", 10)
