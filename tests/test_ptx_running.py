"""What `tools.ptx.run` takes and gives: entries, launches, counts, a trace, and bad arguments."""

import doctest
from collections.abc import Sequence

import numpy as np
import pytest
from ptx_launch import HEADER, line_of

from tools import ptx
from tools.ptx import running

pytestmark = pytest.mark.tools
ENTRY = """.visible .entry {name}(
    .param .u64 .ptr .global .align 16 {name}_param_0,
    .param .u32 {name}_param_1
)
.maxntid 64, 1, 1
{{
    .reg .pred %p;
    .reg .b32 %r<5>;
    .reg .b64 %rd<4>;

    ld.param.b64 %rd1, [{name}_param_0];
    ld.param.b32 %r1, [{name}_param_1];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    shl.b32 %r4, %r3, 5;
    or.b32 %r2, %r2, %r4;
    mul.wide.u32 %rd3, %r2, 4;
    add.s64 %rd2, %rd2, %rd3;   // the place of this thread
    setp.lt.u32 %p, %r2, 40;
    @%p st.global.b32 [%rd2], {value};
    /* a comment
       of two lines */
    ret;
}}
"""
ONE = HEADER + ENTRY.format(name="one", value="%r1")
TWO = ONE + ENTRY.format(name="two", value="%r2")


def run(text: str, **more: object) -> tuple[np.ndarray, ptx.Execution]:
    out = np.zeros(64, np.uint32)
    done = ptx.run(text, out, np.uint32(7), grid=(2, 1, 1), block=(32, 1, 1), **more)
    return out, done


def test_buffers_are_changed_in_place_and_guards_hold() -> None:
    out, _ = run(ONE)
    np.testing.assert_array_equal(out, [7] * 40 + [0] * 24)


def test_an_entry_is_chosen_by_name() -> None:
    np.testing.assert_array_equal(run(TWO, entry="two")[0], [*range(40), *[0] * 24])
    np.testing.assert_array_equal(run(TWO, entry="one")[0], [7] * 40 + [0] * 24)
    with pytest.raises(ValueError, match="entry"):
        run(TWO)
    with pytest.raises(ValueError, match="three"):
        run(TWO, entry="three")


@pytest.mark.parametrize(
    ("blocks", "want"), [((0,), [7] * 32 + [0] * 32), ((1,), [0] * 32 + [7] * 8 + [0] * 24), ((), [0] * 64)]
)
def test_some_blocks_only(blocks: Sequence[int], want: list[int]) -> None:
    np.testing.assert_array_equal(run(ONE, blocks=blocks)[0], want)


def test_counts_are_of_threads_that_executed_an_instruction() -> None:
    counts = run(ONE)[1].counts
    assert counts["mul.wide.u32"] == 64
    assert counts["st.global.b32"] == 40
    assert counts["mov.u32"] == 128
    assert counts["ret"] == 64


def test_a_trace_is_what_one_thread_executed_in_order() -> None:
    done = run(ONE, trace=(1, 3))[1]
    lines = [step.line for step in done.trace]
    assert lines == sorted(lines)
    assert lines[0] == line_of(ONE, "ld.param.b64")
    assert line_of(ONE, "@%p st.global") in lines
    at = next(step for step in done.trace if step.line == line_of(ONE, "or.b32"))
    assert "or.b32" in at.text
    assert "35" in str(at.writes) or "0x23" in str(at.writes)
    assert line_of(ONE, "@%p st.global") not in [step.line for step in run(ONE, trace=(1, 20))[1].trace]
    assert not run(ONE)[1].trace


def test_nothing_is_left_behind_by_a_launch_before() -> None:
    text = ONE
    first, second = run(text)[0], run(text)[0]
    np.testing.assert_array_equal(first, second)


WRONG = {
    "too few": (lambda out: (out,), {}, "buffer|parameter"),
    "too many": (lambda out: (out, np.uint32(1), out), {}, "buffer|parameter"),
    "not an array": (lambda out: ([1, 2, 3], np.uint32(1)), {}, "param_0"),
    "not contiguous": (lambda out: (out[::2], np.uint32(1)), {}, "param_0"),
    "a scalar of another width": (lambda out: (out, np.uint64(1)), {}, "param_1"),
    "an array for a scalar": (lambda out: (out, out), {}, "param_1"),
    "a Python number for a scalar": (lambda out: (out, 1.5), {}, "param_1"),
    "no block": (None, {"block": (0, 1, 1)}, "block"),
    "a block too large": (None, {"block": (1025, 1, 1)}, "block"),
    "four axes": (None, {"grid": (1, 1, 1, 1)}, "grid"),
    "a negative grid": (None, {"grid": (-1, 1, 1)}, "grid"),
    "a grid of floats": (None, {"grid": (1.5, 1, 1)}, "grid"),
    "negative shared memory": (None, {"shared": -1}, "shared"),
    "a block that is not there": (None, {"blocks": (2,)}, "blocks"),
    "an output that is not there": (None, {"outputs": (5,)}, "outputs"),
    "alignments of some buffers": (None, {"alignments": (16,)}, "alignments"),
    "a trace of no thread": (None, {"trace": (0, 64)}, "trace"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_arguments_are_refused_before_anything_runs(case: str) -> None:
    buffers, more, named = WRONG[case]
    out = np.zeros(64, np.uint32)
    given = buffers(out) if buffers else (out, np.uint32(1))
    with pytest.raises((ValueError, TypeError), match=named) as caught:
        ptx.run(ONE, *given, **{"grid": (2, 1, 1), "block": (32, 1, 1)} | more)
    assert not isinstance(caught.value, ptx.Error)
    assert not out.any()


def test_a_read_only_array_may_be_read_and_not_written() -> None:
    constant = np.broadcast_to(np.zeros(1, np.uint32), (64,)).copy()
    constant.flags.writeable = False
    with pytest.raises(ptx.AccessError):
        ptx.run(ONE, constant, np.uint32(7), grid=(2, 1, 1), block=(32, 1, 1))


def test_a_block_larger_than_the_kernel_was_compiled_for() -> None:
    """11.3: .maxntid has the most threads that a block may have, .reqntid how many it has."""
    with pytest.raises(ValueError, match=r"maxntid|64"):
        ptx.run(ONE, np.zeros(128, np.uint32), np.uint32(1), grid=(1, 1, 1), block=(96, 1, 1))
    required = ONE.replace(".maxntid 64", ".reqntid 64")
    with pytest.raises(ValueError, match=r"reqntid|64"):
        ptx.run(required, np.zeros(64, np.uint32), np.uint32(1), grid=(1, 1, 1), block=(32, 1, 1))


def test_errors_have_one_base() -> None:
    for error in (ptx.UnsupportedError, ptx.AccessError, ptx.RaceError, ptx.DeadlockError):
        assert issubclass(error, ptx.Error)
    assert issubclass(ptx.Error, Exception)


def test_the_example_of_run_runs() -> None:
    done = doctest.testmod(running)
    assert (done.failed, done.attempted > 0) == (0, True)
