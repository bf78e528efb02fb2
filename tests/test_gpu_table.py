"""The files that the command for a GPU leaves, and its table: each target met or not, or why it was not measured."""

import json
import pathlib
from typing import Any

import pytest
from gpu_call import ABOUT, FOLDER, bench_of, verdict, write

from bench.gpu import judge, plan, rehearsal, store, summary, targets
from bench.names import COMPILED, OURS, SEED

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_folder_is_named_with_the_card_and_the_versions() -> None:
    assert store.folder_name(ABOUT) == FOLDER


def test_there_are_no_more_files_than_may_be_nor_deeper_nor_otherwise_named(tmp_path: pathlib.Path) -> None:
    assert len(store.FILES) <= store.MOST_FILES == 8
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in store.FILES:
        (folder / name).touch()
    assert store.complaints(tmp_path) == []
    (folder / "one more").touch()
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    assert store.complaints(tmp_path) == [
        "10 files, and 8 are allowed",
        f"{FOLDER}/a/b/file is more than 2 folders deep",
        f"{FOLDER}/one more has other signs in its name than letters, digits, '.', '_' and '-'",
    ]


def test_what_a_killed_process_was_about_to_write_is_no_file_of_ours(tmp_path: pathlib.Path) -> None:
    store.write(tmp_path / store.RUN, {"a": 1})
    (tmp_path / f"{store.BENCH}.new").write_text("{")
    (tmp_path / store.TESTS).write_text('{"test": "a", "outcome": "passed"}\n{"test": "b", "outc')
    store.tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.RUN, store.TESTS]
    assert store.lines(tmp_path / store.TESTS) == [{"test": "a", "outcome": "passed"}]


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_target_is_met_or_not_by_its_worst_case(tmp_path: pathlib.Path) -> None:
    times = {"copy": 0.9, "copy, inverting the bits": 1.0, OURS: 1.0, f"{OURS}, pallas": 1.0, SEED: 2.0}
    found = verdict(write(tmp_path, bench_of(times)), "near copy speed")
    assert found.status == judge.SO_FAR  # of two cases one was measured
    assert found.measured.startswith("0.90x at worst (quantize to int8 with PhiloxUniform, bfloat16 [268435456])")
    assert found.measured.endswith("1 of 2 cases")
    slow = bench_of(times | {f"{OURS}, pallas": 1.01})
    assert verdict(write(tmp_path, slow), "near copy speed").status == judge.NOT_MET
    alone = bench_of(times)
    alone["planned"] = alone["planned"][:1]
    assert verdict(write(tmp_path, alone), "near copy speed").status == judge.MET


def test_a_speed_is_compared_with_what_its_target_names(tmp_path: pathlib.Path) -> None:
    times = {OURS: 1.0, f"{OURS}, xla": 1.0, f"{OURS}, pallas": 0.8, SEED: 2.0, targets.GENERATORS[1]: 0.9}
    folder = write(tmp_path, bench_of(times | {f"{COMPILED}, rand_like": 0.4}))
    assert verdict(folder, "None is the quickest").measured.startswith("0.80x at worst")
    assert verdict(folder, "None is not slower than the formula").measured.startswith("2.00x at worst")
    assert verdict(folder, "any of jax's generators").measured.startswith("1.12x at worst")
    assert verdict(folder, "torch.compile").measured.startswith("0.50x at worst")


def test_why_a_target_was_not_measured_is_said(tmp_path: pathlib.Path) -> None:
    late = {"status": "late", "why": "killed at its limit"}
    folder = write(tmp_path, {}, headline=late, tuner={"status": "not run", "why": "no time was left"})
    assert verdict(folder, "near copy speed").measured == "step headline late: killed at its limit"
    assert verdict(folder, "the tuner").measured == "step tuner not run: no time was left"
    assert verdict(folder, "each kernel").measured == "step smoke was not run"
    bench = bench_of({"copy": 1.0, OURS: 1.0, SEED: 1.0})
    assert verdict(write(tmp_path, bench), "torch.compile").measured == "PyTorch: not installed"
    bench["cases"][0]["results"][f"{OURS}, pallas"] = {"left_out": "would need about 100 GiB"}
    found = verdict(write(tmp_path, bench), "near copy speed")
    assert (found.status, found.measured) == (judge.NOT_MEASURED, f"{OURS}, pallas: would need about 100 GiB")
    assert "not measured" in summary.text(folder)


def test_what_is_wrong_makes_its_target_not_met(tmp_path: pathlib.Path) -> None:
    bench = bench_of({"copy": 1.0, OURS: 1.0})
    bench["cases"][0]["results"][OURS]["wrong"] = "3 of 65536 values differ from NumPy's"
    folder = write(tmp_path, bench)
    row = {"implementation": "pallas", "operation": "quantize", "dtype": "float32", "wrong": "2 elements differ"}
    store.write(folder / store.SMOKE, {"planned": 1, "kernels": [row]})
    (folder / store.TESTS).write_text(
        "".join(
            json.dumps(line) + "\n"
            for line in (
                {"collected": 3},
                {"test": "a", "outcome": "failed", "why": "once"},
                {"test": "b", "outcome": "skipped", "why": "needs jax-triton"},
                {"test": "c", "outcome": "failed", "why": "bits differ"},
                {"test": "a", "outcome": "passed"},
            )
        )
    )
    assert verdict(folder, "each result that is timed").status == judge.NOT_MET
    assert "pallas, quantize, float32: 2 elements differ" in verdict(folder, "each kernel").measured
    tests = verdict(folder, "the tests marked gpu")
    assert tests.status == judge.NOT_MET
    assert tests.measured == "2 of 2 tests, 1 skipped (needs jax-triton); 1 wrong, the first: c: bits differ"


def test_every_line_of_the_table_names_the_card(tmp_path: pathlib.Path) -> None:
    text = summary.text(write(tmp_path, bench_of({"copy": 1.0, OURS: 1.0, SEED: 1.0})))
    rows = [line for line in text.splitlines() if " | " in line and not line.startswith("target |")]
    assert len(rows) == len(targets.TARGETS) + len(plan.STEPS) + 1
    assert all(ABOUT["device"] in row for row in rows)


def test_a_rehearsal_that_left_something_out_fails(tmp_path: pathlib.Path) -> None:
    ran: dict[str, Any] = {name: {"status": "ran"} for name in plan.NAMES}
    folder = write(tmp_path, bench_of({"copy": 1.0, OURS: 1.0}), **(ran | {"tuner": {"status": "late", "why": "slow"}}))
    found = rehearsal.complaints(folder)
    assert "step 4 tuner: late: slow" in found
    assert any(line.startswith("each kernel gives the bits of the reference: not measured") for line in found)
    assert any(line.startswith("None is not slower than the formula: not measured") for line in found)
    assert f"{store.SMOKE} is missing" in found
    assert not any("torch.compile" in line for line in found)


def test_the_page_names_the_steps_and_the_files() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    for step in plan.STEPS:
        assert f"| {step.number} | `{step.name}` |" in page
    for name in store.FILES:
        assert f"`{name}`" in page
    modules = {path.stem for path in (ROOT / "bench" / "gpu").glob("*.py")}
    assert {step.module for step in plan.STEPS} <= modules


def test_what_the_tuner_changed_is_told_with_the_time_before_and_after(tmp_path: pathlib.Path) -> None:
    kernel = f"{OURS}, pallas"
    bench = bench_of({kernel: 2e-3}) | {"again": bench_of({kernel: 1e-3})["cases"]}
    text = summary.text(write(tmp_path, bench))
    assert f"[268435456] | {kernel} | 2 ms before the tuner, 1 ms after" in text
