"""The steps of the command for a GPU: in the order of worth, with every result on disk as soon as it is known."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from bench.cases import Case
from bench.gpu import measure, steps, targets
from bench.names import FORMULA, INTERPRETED, OURS, SEED
from bench.operations import operations
from intnumerics.kernels import KERNEL_DTYPES
from intnumerics.kernels.gpu import pallas
from tools import tune
from tools.tune_search import cases as tuner_cases

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent


# --- the order of worth -----------------------------------------------------------------------------------------------


def test_the_cases_of_targets_are_measured_in_the_order_of_their_worth_and_each_target_is_among_them() -> None:
    planned, of_rows = measure.of_targets(), (*targets.ROWS, *targets.AFTER_NORM)
    found = [(case.operation.name, case.dtype, case.size) for case in planned if case.operation.name not in of_rows]
    assert len(found) == len(set(found))
    assert found[0] == ("quantize to int8 with HashUniform", "bfloat16", 1 << 28)
    assert {size for _, _, size in found} == {1 << 28, 1 << 26}
    assert {one[1:] for one in found[: len(measure.FIRST)]} == {("bfloat16", 1 << 28)}
    for name in measure.FIRST:  # of one operation the largest size first
        order = [(dtype, size) for n, dtype, size in found if n == name]
        assert order.index(("float32", 1 << 28)) < order.index(("float32", 1 << 26))
    measured = {(case.operation.name, case.dtype) for case in planned}
    for target in (target for target in targets.TARGETS if isinstance(target, targets.Speed)):
        assert {(name, dtype) for name in target.operations for dtype in target.dtypes} <= measured
    known = {name for operation in operations() for name in operation.others}
    assert {FORMULA, SEED, *targets.GENERATORS} <= known


def test_rows_are_measured_early_with_noise_and_without_for_much_and_for_the_few_rows_of_decoding() -> None:
    planned = [(case.operation.name, case.dtype, case.shape) for case in measure.of_targets()]
    rows = [one for one in planned if one[0] in (*targets.ROWS, *targets.AFTER_NORM)]
    assert len(targets.ROWS) == 2
    shapes = ((16384, 4096), (8192, 8192), (128, 4096), (1, 8192))
    assert {one for one in rows if one[0] in targets.ROWS} == {
        (name, dtype, shape) for name in targets.ROWS for dtype in targets.DTYPES for shape in shapes
    }
    first = planned.index(rows[0])
    assert planned[first : first + len(rows) // 2] == [one for one in rows if one[1] == "bfloat16"]
    assert first == len(measure.FIRST)


def test_only_implementations_that_have_an_operation_are_measured() -> None:
    [rows] = [operation for operation in operations() if operation.name == targets.ROWS[0]]
    named = ("xla", "jax_triton", INTERPRETED)
    ours = [name for name in rows.variants(named) if name.startswith(OURS)]
    assert f"{OURS}, xla" in ours
    assert f"{OURS}, jax_triton" not in ours
    [other] = [operation for operation in operations() if operation.name == targets.NOISY]
    assert [name for name in other.variants(named) if name.startswith(OURS)] == [OURS, *(f"{OURS}, {n}" for n in named)]


def test_the_tuner_tries_the_kernels_of_the_most_valuable_cases_first_and_then_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pallas, "has_triton", lambda: True)
    found = [case.name for case in tune.in_order(1024)]
    both = ("pallas_triton", "pallas_mosaic_gpu")
    every = {f"{name}: {case.operation}, {case.dtype}" for name in both for case in tuner_cases(1024, KERNEL_DTYPES)}
    assert len(found) == len(every)
    assert set(found) == every
    assert found[:6] == [f"{name}: {operation}, bfloat16" for operation in tune.FIRST for name in both]


def test_a_kernel_that_jax_has_removed_is_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pallas, "has_triton", lambda: False)
    assert {case.implementation for case in tune.in_order(1024)} == {"pallas_mosaic_gpu"}


# --- cases ------------------------------------------------------------------------------------------------------------


def test_each_case_is_on_disk_after_it_is_measured_one_that_fails_ends_nothing_and_only_that_is_run_again(
    tmp_path: pathlib.Path,
) -> None:
    path, todo, ran = tmp_path / steps.BENCH, measure.of_targets()[:3], list[Case]()

    def run(case: Case) -> dict[str, Any]:
        on_disk = [row["operation"] for row in steps.read(path).get("cases", [])]
        assert on_disk == [one.operation.name for one in todo[: len(ran)]]
        ran.append(case)
        if len(ran) == 2:
            raise RuntimeError("no memory")
        return case.key | {"results": {OURS: {"median_s": 1.0}}}

    assert not measure.measure(path, todo, run, {})
    assert [row.get("error") for row in steps.read(path)["cases"]] == [None, "RuntimeError: no memory", None]
    assert measure.measure(path, todo, run, {})
    assert ran == [*todo, todo[1]]
    assert not any("error" in row for row in steps.read(path)["cases"])


def test_a_case_that_ended_the_process_is_measured_after_all_others(tmp_path: pathlib.Path) -> None:
    path, todo, ran = tmp_path / steps.BENCH, measure.of_targets()[:3], list[Case]()

    def run(case: Case) -> dict[str, Any]:
        ran.append(case)
        if ran == todo[:1]:
            raise KeyboardInterrupt  # as little is done after it as after a crash
        return case.key | {"results": {OURS: {"median_s": 1.0}}}

    with pytest.raises(KeyboardInterrupt):
        measure.measure(path, todo, run, {})
    assert measure.measure(path, todo, run, {})
    assert ran[1:] == [todo[1], todo[2], todo[0]]


# --- the tests that are marked ----------------------------------------------------------------------------------------


def test_the_files_that_are_searched_for_marked_tests_are_all_that_have_some(request: pytest.FixtureRequest) -> None:
    """Of the tests of this run, whichever they are."""
    found = {item.path for item in request.session.items if item.get_closest_marker("gpu")}
    assert found <= {ROOT / name for name in steps.MARKED[2:]}
    assert all((ROOT / name).exists() for name in steps.MARKED[2:])


INNER = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_a(n):
    assert n != 2, "not these"

def test_b():
    pytest.skip("needs another card")

@pytest.fixture
def broken():
    yield
    raise RuntimeError("not taken down")

def test_c(broken):
    pass
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_outcome_of_each_test_is_on_disk_and_what_passed_is_not_run_again(
    workers: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    path = tmp_path / steps.TESTS

    def run(*words: str) -> tuple[int, list[tuple[str, str]]]:
        known = len(steps.lines(path))
        plugin = ("-p", "bench.gpu.marked_tests", "--results-to", str(path), "--known", str(known), "-n", workers)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plugin, *words],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        lines = steps.lines(path)[known:]
        return done.returncode, [(line["test"].partition("::")[2], line["outcome"]) for line in lines]

    rest = [("test_a[2]", "failed"), ("test_b", "skipped"), ("test_c", "passed"), ("test_c", "failed")]
    assert run() == (1, [("test_a[1]", "passed"), *rest])
    why = [line.get("why", "") for line in steps.lines(path)]
    assert "not these" in why[1]
    assert "needs another card" in why[2]
    path.write_text(path.read_text() + '\n{"test": "cut o')
    assert run() == (1, rest)
    assert run("-k", "test_a and 1") == (0, [("test_a[1]", "passed")])
