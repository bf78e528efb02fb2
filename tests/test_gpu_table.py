"""The table of the command for a GPU: each target met or not by its worst case, or why it was not measured."""

import json
import pathlib
import re
from typing import Any

import pytest

from bench.gpu import __main__ as command
from bench.gpu import steps, table, targets
from bench.names import COMPILED, OURS, ROWS, SEED
from bench.results import title, write

pytestmark = pytest.mark.tools

FILES = (steps.RUN, steps.BENCH, steps.TESTS, steps.ROWS, steps.LOG, steps.TABLE)
ROOT = pathlib.Path(__file__).parent.parent
CARD = "NVIDIA H100 80GB HBM3"
XLA, PALLAS, MOSAIC = (f"{OURS}, {name}" for name in ("xla", "pallas_triton", "pallas_mosaic_gpu"))
CASE = "quantize to int8 with PhiloxUniform, bfloat16 [268435456]"
SECOND = "quantize to int8 with PhiloxUniform, bfloat16 [67108864]"
FAILED = {"error": "XlaRuntimeError: no such instruction"}
LEFT_OUT = {"left_out": "would need about 100 GiB"}
WRONG = "3 of 65536 values differ"


def wrong(seconds: float) -> dict[str, Any]:
    return {"median_s": seconds, "wrong": WRONG}


def timed(by: str, device: float, wall: float, **queue: float) -> dict[str, Any]:
    return {"median_s": wall, "quartiles_s": [wall, wall], "device_s": device, "device_by": by} | queue


def folder_of(
    folder: pathlib.Path, *cases: dict[str, Any], rehearsal: bool = False, **ended: dict[str, str]
) -> pathlib.Path:
    """A folder with up to two cases, both planned: of each variant its seconds, or what else is known of it."""
    keys = [{"operation": targets.NOISY, "dtype": "bfloat16", "shape": [1 << n]} for n in (28, 26)]
    measured = []
    for given, key in zip(cases, keys, strict=False):
        found = {name: {"median_s": t} if isinstance(t, float) else t for name, t in given.items()}
        measured.append(key | {"least_bytes": 8, "baseline": SEED, "results": found})
    known, ran = {"device": CARD, "rehearsal": rehearsal}, {name: {"status": "ran"} for name in steps.SHARES}
    write(folder / steps.RUN, {"about": known, "known": known, "steps": ran | ended})
    bench = {"cases": measured, "planned": [*map(title, keys)], "skipped": ["PyTorch: not installed"]}
    write(folder / steps.BENCH, bench | {"pallas": "pallas_triton", "pallas_is_a_choice": True})
    return folder


def add(folder: pathlib.Path, **facts: Any) -> pathlib.Path:
    """The folder, with other facts about its run."""
    write(folder / steps.BENCH, steps.read(folder / steps.BENCH) | facts)
    return folder


def verdict(folder: pathlib.Path, words: str) -> tuple[str, str]:
    """The verdict on the target that has these words in its name."""
    return next((status, measured) for target, status, measured in table.verdicts(folder) if words in target.name)


def test_a_target_is_met_or_not_by_its_worst_case_and_only_so_far_if_one_was_not_measured(
    tmp_path: pathlib.Path,
) -> None:
    times = {"copy": 0.9, "copy, inverting the bits": 1.0, OURS: 1.0, PALLAS: 1.0, SEED: 2.0}
    one = verdict(folder_of(tmp_path, times), "near copy speed")
    assert one == (table.SO_FAR, f"0.90x at worst ({CASE}), 0.90x at best; 1 of 2 cases by wall time")
    assert verdict(folder_of(tmp_path, times, times), "near copy speed")[0] == table.MET
    status, measured = verdict(folder_of(tmp_path, times, times | {PALLAS: 1.01}), "near copy speed")
    assert status == table.NOT_MET
    assert measured.startswith(f"0.89x at worst ({SECOND}), 0.90x at best")


def test_a_speed_is_compared_with_what_its_target_names(tmp_path: pathlib.Path) -> None:
    times = {OURS: 1.0, f"{OURS}, xla": 1.0, PALLAS: 0.8, SEED: 2.0, targets.GENERATORS[1]: 0.9}
    folder = folder_of(tmp_path, times | {f"{COMPILED}, rand_like": 0.4})
    assert verdict(folder, "None is the quickest of ours in bfloat16")[1].startswith("0.80x at worst")
    assert verdict(folder, "None is not slower than the formula")[1].startswith("2.00x at worst")
    assert verdict(folder, "any of jax's generators")[1].startswith("1.12x at worst")
    assert verdict(folder, "torch.compile")[1].startswith("0.50x at worst")


def test_why_a_target_was_not_measured_is_said(tmp_path: pathlib.Path) -> None:
    late = folder_of(tmp_path, bench={"status": "late", "why": "killed at its limit"})
    for words in ("near copy speed", "each result that is timed"):
        assert verdict(late, words) == (table.NOT_MEASURED, "step bench late: killed at its limit")
    folder = folder_of(tmp_path, {"copy": 1.0, OURS: 1.0, PALLAS: LEFT_OUT})
    assert verdict(folder, "near copy speed") == (table.NOT_MEASURED, f"{PALLAS}: left_out: would need about 100 GiB")


@pytest.mark.parametrize("bad", [wrong(1.0), FAILED], ids=["wrong", "failed"])
def test_a_kernel_that_is_wrong_or_fails_has_no_speed_and_meets_no_target(
    bad: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    folder = folder_of(tmp_path, {PALLAS: 1.0, "copy": 1.0}, {PALLAS: bad, OURS: 1.0, "copy": 1.0})
    for words in ("near copy speed", "each result that is timed"):
        status, measured = verdict(folder, words)
        assert status == table.NOT_MET
        assert f"1 wrong, the first: {SECOND}: {PALLAS}: " in measured
    assert command.complaints(folder, rehearsal=False)
    case = {PALLAS: bad, f"{OURS}, xla": 2.0, "copy": 1.0, COMPILED: 1.0}
    both = folder_of(tmp_path, case, case)
    status, measured = verdict(both, "near copy speed")
    assert status == table.NOT_MET
    assert measured.startswith(f"0 of 2 cases; 2 wrong, the first: {CASE}: {PALLAS}: ")
    assert verdict(both, "torch.compile")[1].startswith("0.50x at worst")  # by the best of ours that is right


@pytest.mark.parametrize("bad", [wrong(0.1), FAILED], ids=["wrong", "failed"])
def test_a_baseline_that_is_wrong_or_fails_is_not_compared(bad: dict[str, Any], tmp_path: pathlib.Path) -> None:
    for words, other in (
        ("None is not slower than the formula", SEED),
        ("any of jax's generators", targets.GENERATORS[1]),
        ("torch.compile", f"{COMPILED}, rand_like"),
    ):
        ours = {OURS: 1.0, PALLAS: 1.0}
        folder = folder_of(tmp_path, ours | {other: 2.0}, ours | {other: bad})
        status, measured = verdict(folder, words)
        assert status == table.SO_FAR
        assert measured.startswith(f"2.00x at worst ({CASE}), 2.00x at best; 1 of 2 cases")
        assert f"not compared: {other}: " in measured
        assert (verdict(folder, "each result that is timed")[0] == table.NOT_MET) == ("wrong" in bad)


def test_only_times_of_one_kind_are_compared_and_the_table_says_by_which_clock(tmp_path: pathlib.Path) -> None:
    times = {PALLAS: timed("profiler", 1.0, 4.0), COMPILED: timed("queue", 9.0, 5.0)}
    assert verdict(folder_of(tmp_path, times), "torch.compile")[1].endswith("1.25x at best; 1 of 2 cases by wall time")
    times = {PALLAS: timed("profiler", 1.0, 4.0, queue_s=2.0), COMPILED: timed("queue", 9.0, 5.0, queue_s=9.0)}
    assert verdict(folder_of(tmp_path, times), "torch.compile")[1].endswith("4.50x at best; 1 of 2 cases by queue time")


def test_the_last_outcome_of_a_test_counts_and_a_run_that_failed_is_not_met(
    tmp_path: pathlib.Path,
) -> None:
    def found(*lines: tuple[str, str, str], **ended: dict[str, str]) -> tuple[str, str]:
        with (folder_of(tmp_path, **ended) / steps.TESTS).open("a") as file:
            for test, outcome, why in lines:
                file.write("\n" + json.dumps({"test": test, "outcome": outcome, "why": why}))
            file.write('\n{"test": "c", "outc')
        return verdict(tmp_path, "the tests marked gpu")

    skipped = "1 skipped (needs jax-triton)"
    first = [("a", "failed", "once"), ("b", "skipped", "needs jax-triton"), ("c", "failed", "bits differ")]
    assert found(*first, ("a", "passed", ""))[1] == f"1 of 2 tests; {skipped}; 1 wrong, the first: c: bits differ"
    assert found()[0] == table.NOT_MET
    assert found(("c", "passed", "")) == (table.MET, f"2 of 2 tests; {skipped}")
    late = {"status": "late", "why": "killed"}
    assert found(tests=late) == (table.SO_FAR, f"2 of 2 tests; {skipped}; step tests late: killed")
    assert found(tests={"status": "failed", "why": "exit status 3"})[0] == table.NOT_MET
    assert command.complaints(tmp_path, rehearsal=False)


def test_slow_is_not_wrong_and_a_rehearsal_fails_if_anything_was_left_out_and_has_no_speeds(
    tmp_path: pathlib.Path,
) -> None:
    slow = {PALLAS: 9.0, OURS: 9.0, "copy": 1.0, SEED: 1.0}
    folder = folder_of(tmp_path, slow, slow, rehearsal=True, tuner={"status": "late", "why": "slow"})
    assert verdict(folder, "near copy speed")[0] == table.NOT_MET
    assert command.complaints(folder, rehearsal=False) == []
    found = command.complaints(folder, rehearsal=True)
    assert "step tuner late: slow" in found
    assert any(line.startswith("the tests marked gpu pass: not measured") for line in found)
    assert not any("torch.compile" in line for line in found)
    text = table.text(folder)
    assert "A REHEARSAL on a CPU" in text
    assert "| rehearsed | Philox bfloat16 to int8, pallas" in text


# --- which compiler ---------------------------------------------------------------------------------------------------

TO_EDIT = "MOSAIC_IS_FASTER in kernels/gpu/pallas.py"


def advice(folder: pathlib.Path) -> str:
    """What the last line of the table says, with a test that passed."""
    (folder / steps.TESTS).write_text(json.dumps({"test": "a", "outcome": "passed"}))
    return table.text(folder).splitlines()[-1]


def test_a_target_of_pallas_is_of_the_one_that_it_is_on_the_card(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path, {"copy": 1.0, PALLAS: 1.0, MOSAIC: 2.0})
    assert verdict(folder, "near copy speed")[1].startswith("1.00x at worst")
    assert verdict(add(folder, pallas="pallas_mosaic_gpu"), "near copy speed")[1].startswith("0.50x at worst")
    assert verdict(folder, "Mosaic is not slower than Triton")[1].startswith("0.50x at worst")


def test_mosaics_time_over_tritons_is_said_for_each_operation_where_both_were_timed(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path, {PALLAS: 1.0, MOSAIC: 0.5}, {PALLAS: 2.0, MOSAIC: 2.5})
    shares = "0.50 of 2^28 elements by wall time; 1.25 of 2^26 elements by wall time"
    line = f"Mosaic's time over Triton's | {CARD} | {targets.NOISY}, bfloat16 | {shares}"
    assert line in table.text(folder).splitlines()
    folder = folder_of(tmp_path, {PALLAS: 1.0, MOSAIC: wrong(0.5)}, {MOSAIC: 2.5})
    assert "Mosaic's time over Triton's" not in table.text(folder)


@pytest.mark.parametrize(
    ("pallas", "seconds", "said"),
    [
        ("pallas_triton", (0.98, 0.985), f'should be pallas_mosaic_gpu: .*; add "{CARD}" to {TO_EDIT}'),
        ("pallas_triton", (0.5, 1.9), "should be pallas_mosaic_gpu: Mosaic takes 0.975 of Triton's time"),
        ("pallas_triton", (0.5, 2.1), "stays pallas_triton: Mosaic takes 1.025 of Triton's time"),
        ("pallas_triton", (0.995, 0.99), "stays pallas_triton: "),
        ("pallas_mosaic_gpu", (1.0, 1.0), "stays pallas_mosaic_gpu: "),
        ("pallas_mosaic_gpu", (1.1, 1.0), f'should be pallas_triton: .*; take "{CARD}" out of {TO_EDIT}'),
    ],
)
def test_the_one_that_is_quicker_by_more_than_a_hundredth_in_the_geometric_mean_should_be_pallas(
    pallas: str, seconds: tuple[float, float], said: str, tmp_path: pathlib.Path
) -> None:
    folder = add(folder_of(tmp_path, *({PALLAS: 1.0, MOSAIC: s} for s in seconds)), pallas=pallas)
    assert re.search(rf'^which compiler \| {CARD} \| "pallas" {said}', advice(folder))


def test_pallas_stays_what_it_is_if_a_result_is_wrong_or_jax_leaves_no_choice_or_nothing_was_compared(
    tmp_path: pathlib.Path,
) -> None:
    quick = {PALLAS: 1.0, MOSAIC: 0.5}
    folder = folder_of(tmp_path, quick, {PALLAS: 1.0, MOSAIC: wrong(0.5)})
    assert '"pallas" stays pallas_triton until all results are right: ' in advice(folder)
    folder = folder_of(tmp_path, quick, tests={"status": "failed", "why": "exit status 1"})
    assert '"pallas" stays pallas_triton until all results are right: ' in advice(folder)
    folder = add(folder_of(tmp_path, quick), pallas_is_a_choice=False)
    assert '"pallas" stays pallas_triton on this JAX: ' in advice(folder)
    assert advice(folder_of(tmp_path, {PALLAS: 1.0})).endswith("stays pallas_triton: no case was timed with both")
    assert advice(folder_of(tmp_path, quick, rehearsal=True)).endswith("| rehearsed")


def rows_folder(folder: pathlib.Path, *cases: dict[str, Any]) -> pathlib.Path:
    """A folder with two cases of rows in bfloat16."""
    keys = [{"operation": targets.ROWS[0], "dtype": "bfloat16", "shape": s} for s in ([16384, 4096], [1, 8192])]
    add(folder_of(folder), cases=[k | {"baseline": ROWS, "results": c} for k, c in zip(keys, cases, strict=True)])
    (folder / steps.TESTS).write_text(json.dumps({"test": "a", "outcome": "passed"}))
    return folder


def on_rows(folder: pathlib.Path) -> str:
    [line] = [line for line in table.text(folder).splitlines() if line.startswith("which for rows | ")]
    return line


def test_which_of_ours_should_quantize_rows_is_said_in_a_line_with_the_cases_where_another_is_quicker(
    tmp_path: pathlib.Path,
) -> None:
    def case(xla: float, triton: float, mosaic: float) -> dict[str, Any]:
        return {name: {"median_s": s} for name, s in ((XLA, xla), (PALLAS, triton), (MOSAIC, mosaic))}

    folder = rows_folder(tmp_path, case(4.0, 2.0, 1.0), case(1.0, 2.0, 1.0))
    means = "of XLA's time, the mean of 2 cases, pallas_triton 1.00, pallas_mosaic_gpu 0.50"
    start = f'which for rows | {CARD} | None should be pallas_mosaic_gpu and "pallas" pallas_mosaic_gpu'
    assert on_rows(folder) == (
        f"{start}: {means}; quicker than pallas_mosaic_gpu is no other in any case; edit of_absmax in "
        "intnumerics/_fastest.py"
    )
    said = on_rows(rows_folder(tmp_path, case(4.0, 2.0, 1.0), case(1.0, 0.9, 1.0)))
    where = f"{targets.ROWS[0]}, bfloat16 [1, 8192]"
    assert f"; quicker than pallas_mosaic_gpu is pallas_triton in {where} (0.90 of its time); " in said
    folder = rows_folder(tmp_path, case(1.0, 2.0, 3.0), case(1.0, 2.0, 3.0))
    assert 'None should be xla and "pallas" pallas_triton: of XLA' in on_rows(folder)


def test_of_rows_a_kernel_that_is_wrong_is_not_advised_and_nothing_is_if_only_one_was_timed(
    tmp_path: pathlib.Path,
) -> None:
    def case(mosaic: dict[str, Any]) -> dict[str, Any]:
        return {XLA: {"median_s": 4.0}, PALLAS: {"median_s": 2.0}, MOSAIC: mosaic}

    folder = rows_folder(tmp_path, case({"median_s": 1.0}), case(wrong(1.0)))
    assert 'None should be pallas_triton and "pallas" pallas_triton once all results are right' in on_rows(folder)
    only = {XLA: {"median_s": 4.0}}
    assert on_rows(rows_folder(tmp_path, only, only)).endswith("no case was timed with XLA and a kernel")


def test_how_many_rows_of_the_tuner_each_was_timed_with_is_said(tmp_path: pathlib.Path) -> None:
    folder = add(folder_of(tmp_path, {PALLAS: 1.0, MOSAIC: 0.5}), rows={"pallas_triton": 14, "pallas_mosaic_gpu": 0})
    assert "; rows of kernels/gpu/tuning.py for this card: pallas_triton 14, pallas_mosaic_gpu 0; " in advice(folder)


def test_the_page_names_the_steps_and_the_files() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    assert all(f"| `{name}` |" in page for name in (*steps.SHARES, *FILES))
