"""What the command for a GPU says of results that are wrong, kernels that fail, and times of different kinds."""

import json
import pathlib
from typing import Any

import pytest
from gpu_call import ABOUT, FOLDER, bench_of, verdict, write

from bench import results
from bench.gpu import __main__ as command
from bench.gpu import judge, store, summary, targets
from bench.names import COMPILED, OURS, SEED

pytestmark = pytest.mark.tools

PALLAS = f"{OURS}, pallas"
CASE = "quantize to int8 with PhiloxUniform, bfloat16 [268435456]"
SECOND = "quantize to int8 with PhiloxUniform, bfloat16 [67108864]"


def two_cases(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A document with both cases that are planned: of each variant its seconds, or what else is known of it."""
    bench = bench_of({})
    measured = []
    for given, planned in zip((first, second), bench["planned"], strict=True):
        found = {name: {"median_s": t} if isinstance(t, float) else t for name, t in given.items()}
        measured.append(planned | {"least_bytes": 8, "baseline": SEED, "results": found})
    return bench | {"cases": measured}


def wrong(seconds: float) -> dict[str, Any]:
    return {"median_s": seconds, "wrong": "3 of 65536 values differ"}


FAILED, LEFT_OUT = {"error": "XlaRuntimeError: no such instruction"}, {"left_out": "would need about 100 GiB"}


# --- each result that is timed is right -------------------------------------------------------------------------------


def test_results_are_right_only_where_ours_was_timed(tmp_path: pathlib.Path) -> None:
    bench = two_cases({OURS: 1.0, SEED: 1.0}, {OURS: LEFT_OUT, SEED: 1.0})
    found = verdict(write(tmp_path, bench), "each result that is timed")
    assert (found.status, found.measured) == (judge.SO_FAR, "1 of 2 cases")
    bench = two_cases({OURS: LEFT_OUT, SEED: 1.0}, {SEED: 1.0, "copy": 1.0})
    assert verdict(write(tmp_path, bench), "each result that is timed").status == judge.NOT_MEASURED


def test_a_kernel_of_ours_that_fails_and_a_case_that_fails_are_no_right_results(tmp_path: pathlib.Path) -> None:
    bench = two_cases({OURS: 1.0, PALLAS: FAILED}, {OURS: 1.0, SEED: FAILED})
    found = verdict(write(tmp_path, bench), "each result that is timed")
    assert (found.status, found.measured) == (
        judge.NOT_MET,
        f"2 of 2 cases; 1 wrong, the first: {CASE}, {PALLAS}: failed: XlaRuntimeError: no such instruction",
    )
    bench = two_cases({OURS: 1.0}, {})
    bench["cases"][1]["error"] = "RuntimeError: out of memory"
    found = verdict(write(tmp_path, bench), "each result that is timed")
    assert found.status == judge.NOT_MET
    assert found.measured == f"1 of 2 cases; 1 wrong, the first: {SECOND}: failed: RuntimeError: out of memory"
    alone = two_cases({OURS: FAILED}, {OURS: FAILED})
    found = verdict(write(tmp_path, alone), "each result that is timed")
    assert found.status == judge.NOT_MET
    assert found.measured.startswith("0 of 2 cases; 2 wrong")


def test_cases_beside_the_planned_ones_do_not_count_for_them(tmp_path: pathlib.Path) -> None:
    bench = bench_of({OURS: 1.0})  # one of two that are planned
    small = [bench["cases"][0] | {"shape": [1 << n]} for n in (12, 15, 18)]
    bench |= {"cases": [*bench["cases"], *small], "again": bench["cases"]}
    found = verdict(write(tmp_path, bench), "each result that is timed")
    assert (found.status, found.measured) == (judge.SO_FAR, "4 of 5 cases, and 1 again after the tuner")
    bench["again"] = [bench["cases"][0] | {"results": {OURS: wrong(1.0)}}]
    found = verdict(write(tmp_path, bench), "each result that is timed")
    assert found.status == judge.NOT_MET
    assert found.measured.endswith(f"1 wrong, the first: {CASE}, {OURS}: wrong: 3 of 65536 values differ")


# --- speeds -----------------------------------------------------------------------------------------------------------


def test_a_wrong_kernel_has_no_speed(tmp_path: pathlib.Path) -> None:
    folder = write(tmp_path, two_cases({PALLAS: 1.0, "copy": 1.0}, {PALLAS: wrong(1.0), "copy": 1.0}))
    found = verdict(folder, "near copy speed")
    assert found.status == judge.NOT_MET
    assert found.measured == (
        f"1.00x at worst ({CASE}), 1.00x at best; 1 of 2 cases; 1 by the wall's clock; "
        f"1 failed, the first: {SECOND}, {PALLAS}: wrong: 3 of 65536 values differ"
    )
    both = two_cases({PALLAS: wrong(1.0), "copy": 1.0}, {PALLAS: wrong(1.0), "copy": 1.0})
    found = verdict(write(tmp_path, both), "near copy speed")
    assert found.status == judge.NOT_MET
    assert found.measured.startswith(f"0 of 2 cases; 2 failed, the first: {CASE}, {PALLAS}: wrong: 3 of 65536")


def test_the_best_of_ours_is_one_that_is_right(tmp_path: pathlib.Path) -> None:
    times = {f"{OURS}, xla": 2.0, PALLAS: wrong(0.5), COMPILED: 1.0}
    found = verdict(write(tmp_path, two_cases(times, times)), "torch.compile")
    assert found.status == judge.NOT_MET
    assert found.measured.startswith("0.50x at worst")
    assert f"2 not compared, the first: {CASE}, {PALLAS}: wrong: 3 of 65536 values differ" in found.measured


@pytest.mark.parametrize(
    ("words", "other"),
    [
        ("None is not slower than the formula", SEED),
        ("any of jax's generators", targets.GENERATORS[1]),
        ("torch.compile", f"{COMPILED}, rand_like"),
    ],
)
def test_a_wrong_baseline_is_not_compared(words: str, other: str, tmp_path: pathlib.Path) -> None:
    ours = {OURS: 1.0, PALLAS: 1.0}
    slow = verdict(write(tmp_path, two_cases(ours | {other: 2.0}, ours | {other: 0.1})), words)
    assert slow.status == judge.NOT_MET
    found = verdict(write(tmp_path, two_cases(ours | {other: 2.0}, ours | {other: wrong(0.1)})), words)
    assert found.status == judge.SO_FAR
    assert found.measured.startswith(f"2.00x at worst ({CASE}), 2.00x at best; 1 of 2 cases")
    assert found.measured.endswith(f"1 not compared, the first: {SECOND}, {other}: wrong: 3 of 65536 values differ")
    all_wrong = verdict(write(tmp_path, two_cases(ours | {other: wrong(2.0)}, ours)), words)
    assert all_wrong.status == judge.NOT_MEASURED
    assert all_wrong.measured == f"{other}: wrong: 3 of 65536 values differ"


def test_a_kernel_that_fails_in_some_cases_does_not_meet_its_target(tmp_path: pathlib.Path) -> None:
    bench = two_cases({PALLAS: 1.0, "copy": 1.0}, {PALLAS: FAILED, "copy": 1.0})
    found = verdict(write(tmp_path, bench), "near copy speed")
    assert found.status == judge.NOT_MET
    assert found.measured.endswith(
        f"; 1 failed, the first: {SECOND}, {PALLAS}: failed: XlaRuntimeError: no such instruction"
    )
    bench = two_cases({PALLAS: 1.0, "copy": 1.0}, {})
    bench["cases"][1]["error"] = "RuntimeError: out of memory"
    found = verdict(write(tmp_path, bench), "near copy speed")
    assert found.status == judge.NOT_MET
    assert found.measured.endswith(f"; 1 failed, the first: {SECOND}: failed: RuntimeError: out of memory")


def test_a_baseline_that_fails_and_a_case_that_is_left_out_are_only_named(tmp_path: pathlib.Path) -> None:
    times = {PALLAS: 1.0, COMPILED: 2.0}
    found = verdict(write(tmp_path, two_cases(times, times | {COMPILED: FAILED})), "torch.compile")
    assert found.status == judge.SO_FAR
    assert found.measured.endswith(
        f"; 1 not compared, the first: {SECOND}, {COMPILED}: failed: XlaRuntimeError: no such instruction"
    )
    found = verdict(write(tmp_path, two_cases(times, {PALLAS: LEFT_OUT, COMPILED: FAILED})), "torch.compile")
    assert found.status == judge.SO_FAR


# --- times of different kinds -----------------------------------------------------------------------------------------


def timed(by: str, device: float, wall: float, **queue: float) -> dict[str, Any]:
    return {"median_s": wall, "quartiles_s": [wall, wall], "device_s": device, "device_by": by} | queue


def test_only_times_of_one_kind_are_compared_and_the_table_says_by_which_clock(tmp_path: pathlib.Path) -> None:
    ours = {PALLAS: timed("profiler", 1.0, 4.0)}
    case = two_cases(ours | {SEED: timed("profiler", 3.0, 6.0), COMPILED: timed("queue", 9.0, 5.0)}, {})["cases"][0]
    assert results.times(case, PALLAS, SEED) == (1.0, 3.0, "device")
    assert results.times(case, PALLAS, COMPILED) == (4.0, 5.0, "wall")
    shown = {line.split("  ")[1]: line for line in results.table(case).splitlines()[2:]}
    assert shown[PALLAS].endswith("  3.00x")
    assert shown[COMPILED].endswith("  1.20x (wall)")
    found = verdict(write(tmp_path, bench_of({}) | {"cases": [case]}), "torch.compile")
    assert found.measured == f"1.25x at worst ({CASE}), 1.25x at best; 1 of 2 cases; 1 by the wall's clock"
    case["results"][PALLAS]["queue_s"], case["results"][COMPILED]["queue_s"] = 2.0, 9.0
    assert results.times(case, PALLAS, COMPILED) == (2.0, 9.0, "queue")
    found = verdict(write(tmp_path, bench_of({}) | {"cases": [case]}), "torch.compile")
    assert found.measured == f"4.50x at worst ({CASE}), 4.50x at best; 1 of 2 cases; 1 by queues"
    found = verdict(tmp_path, "any of jax's generators")
    assert found.measured == f"3.00x at worst ({CASE}), 3.00x at best; 1 of 2 cases"


# --- the tuner and the tests ------------------------------------------------------------------------------------------


def test_a_kernel_that_the_tuner_failed_with_was_not_tried(tmp_path: pathlib.Path) -> None:
    tried = {"name": "quantize, bfloat16", "row": "Row(...)", "wrong": []}
    failed = {"name": "quantize, float32", "row": None, "wrong": [], "failed": "ValueError: no"}
    folder = write(tmp_path, {})
    store.write(folder / store.TUNER, {"planned": 27, "cases": [tried, failed]})
    found = verdict(folder, "the tuner")
    assert (found.status, found.measured) == (
        judge.NOT_MET,
        "1 of 27 kernels tried, 1 of them with a better row; "
        "1 wrong, the first: quantize, float32: failed: ValueError: no",
    )
    store.write(folder / store.TUNER, {"planned": 27, "cases": [failed]})
    found = verdict(folder, "the tuner")
    assert (found.status, found.measured) == (
        judge.NOT_MET,
        "0 of 27 kernels tried; 1 wrong, the first: quantize, float32: failed: ValueError: no",
    )


def write_tests(folder: pathlib.Path, *lines: dict[str, Any]) -> judge.Verdict:
    (folder / store.TESTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return verdict(folder, "the tests marked gpu")


def test_why_all_tests_were_skipped_is_said(tmp_path: pathlib.Path) -> None:
    folder = write(tmp_path, {}, tests={"status": "ran"})
    skipped = {"outcome": "skipped", "why": "needs jax-triton"}
    found = write_tests(folder, {"collected": 2}, {"test": "a.py::a"} | skipped, {"test": "a.py::b"} | skipped)
    assert found.status == judge.NOT_MEASURED
    assert found.measured == "step tests ran, and found nothing of it, 2 skipped (needs jax-triton)"


def test_a_file_that_could_not_be_collected_once_counts_until_it_is_collected(tmp_path: pathlib.Path) -> None:
    folder = write(tmp_path, {})
    broken = {"test": "tests/test_a.py", "outcome": "failed", "why": "not collected: ImportError: no"}
    of_b, of_a = ({"test": f"tests/test_{name}.py::test", "outcome": "passed"} for name in "ba")
    once = (broken, {"collected": 1}, of_b)
    message = "2 of 2 tests; 1 wrong, the first: tests/test_a.py: not collected: ImportError: no"
    assert write_tests(folder, *once).measured == message
    assert write_tests(folder, *once, *once).measured == message  # it was not mended
    found = write_tests(folder, *once, {"collected": 2}, of_a)
    assert (found.status, found.measured) == (judge.MET, "2 of 2 tests")
    found = write_tests(folder, *once, {"collected": 2})  # mended, and no time was left
    assert (found.status, found.measured) == (judge.SO_FAR, "1 of 2 tests")
    found = write_tests(folder, broken, {"collected": 1}, of_a)  # the first run collected nothing at all
    assert (found.status, found.measured) == (judge.MET, "1 of 1 tests")
    assert write_tests(folder, {"collected": 1}, of_a, *once).status == judge.NOT_MET  # broken since


# --- the exit status --------------------------------------------------------------------------------------------------


def exit_status(out: pathlib.Path, monkeypatch: pytest.MonkeyPatch, bench: dict[str, Any], bits: str) -> int:
    """The status of a call whose steps leave a document of the benchmark, and say this of a kernel's bits."""

    def run(call: command.Call) -> None:
        row = {"implementation": "pallas", "operation": "quantize", "dtype": "float32", "wrong": bits}
        store.write(call.folder / store.SMOKE, {"planned": 2, "kernels": [row]})
        store.write(call.folder / store.BENCH, bench)

    monkeypatch.setattr(command, "probe", lambda *_: ABOUT)
    monkeypatch.setattr(command.Call, "run", run)
    return command.main(["--out", str(out)])


def test_the_status_tells_that_something_is_wrong_but_not_that_time_ran_out_or_that_it_is_slow(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = bench_of({PALLAS: 9.0, "copy": 1.0})
    assert exit_status(tmp_path / "slow", monkeypatch, slow, bits="") == 0
    assert "| NOT MET | Philox bfloat16 to int8, pallas" in summary.text(tmp_path / "slow" / FOLDER)
    assert exit_status(tmp_path / "bits", monkeypatch, slow, bits="2 elements differ") == 1
    fails = two_cases({OURS: 1.0, PALLAS: FAILED}, {OURS: 1.0})
    assert exit_status(tmp_path / "fails", monkeypatch, fails, bits="") == 1
