"""The steps of the command for a GPU: in the order of worth, with every result on disk as soon as it is known."""

import itertools
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

from bench import libraries
from bench.gpu import marked_tests, measure, pytest_plugin, store, targets, task, tuner, worth
from bench.gpu.measure import Measuring
from bench.gpu.rows import load
from bench.names import FORMULA, SEED
from bench.operations import operations
from intnumerics.kernels import KERNEL_DTYPES
from intnumerics.kernels.gpu import tuning
from intnumerics.kernels.gpu.tuning import Configuration
from tools import tune
from tools.tune_search import cases as tuner_cases

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent


# --- the order of worth -----------------------------------------------------------------------------------------------


def test_the_headline_cases_are_measured_in_the_order_of_their_worth() -> None:
    found = [(case.operation.name, case.dtype, case.size) for case in worth.headline()]
    assert len(found) == len(set(found))
    assert found[0] == ("quantize to int8 with PhiloxUniform", "bfloat16", 1 << 28)
    assert {dtype for _, dtype, _ in found} == {"float32", "bfloat16"}
    assert {size for _, _, size in found} == {1 << 28, 1 << 26}
    first = found[: len(worth.FIRST)]
    assert all((dtype, size) == ("bfloat16", 1 << 28) for _, dtype, size in first)
    names = {name for name, _, _ in first}
    assert {"quantize to int8", "backward from the mask", "backward from x"} < names
    assert {"gelu, quantize to int8, dot", "quantize with PhiloxUniform, keeping the mask"} < names
    for name in worth.FIRST:  # of one operation and size bfloat16 first, of one dtype the largest size
        order = [(dtype, size) for n, dtype, size in found if n == name]
        assert order[0] == ("bfloat16", 1 << 28)
        assert order.index(("float32", 1 << 28)) < order.index(("float32", 1 << 26))


def test_every_target_is_of_operations_that_are_measured() -> None:
    measured = {(case.operation.name, case.dtype) for case in worth.headline()}
    for target in targets.TARGETS:
        if isinstance(target, targets.Speed):
            assert {(name, dtype) for name in target.operations for dtype in target.dtypes} <= measured
        assert target.why
    assert [target.name for target in targets.TARGETS] == list(dict.fromkeys(t.name for t in targets.TARGETS))
    known = {name for operation in operations() for name in operation.others}
    assert {FORMULA, SEED, *targets.GENERATORS} <= known


def test_the_rows_of_the_tuner_are_those_of_the_operations() -> None:
    rows = {case.operation for case in tuner_cases(1024, ["float32"])}
    assert set(worth.ROWS.values()) <= rows
    again = list(worth.again([("bfloat16", "quantize to int8, noise drawn")]))
    assert {case.dtype for case in again} == {"bfloat16"}
    assert {case.operation.name for case in again} == {targets.NOISY, targets.CHAINS[1], targets.CHAINS[3]}


def test_the_tuner_tries_the_kernels_of_the_most_valuable_cases_first_and_then_all_others() -> None:
    found = [(case.operation, case.dtype) for case in tuner.in_order(1024)]
    assert sorted(found) == sorted((case.operation, case.dtype) for case in tuner_cases(1024, KERNEL_DTYPES))
    assert found[:2] == [("quantize to int8, noise drawn", "bfloat16"), ("quantize to int8", "bfloat16")]
    dtypes = [dtype for _, dtype in found]
    assert dtypes == sorted(dtypes, key=["bfloat16", "float32", "float16"].index)


def test_rows_are_read_back_from_a_copy_of_the_table(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = tuning.Row("a card", "bfloat16", "quantize", Configuration(2048, 2), "some day")
    path = tmp_path / store.ROWS
    path.write_text(tune.rewritten(tune.PATH.read_text(), [row]))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert load(path) == (row,)
    assert [file.name for file in tmp_path.rglob("*")] == [store.ROWS]  # for a ninth file would be one too many


# --- the tests that are marked ----------------------------------------------------------------------------------------


def test_the_files_that_are_searched_for_marked_tests_are_all_that_have_some(request: pytest.FixtureRequest) -> None:
    """Of the tests of this run, whichever they are."""
    found = {item.path for item in request.session.items if item.get_closest_marker("gpu")}
    assert found <= {ROOT / name for name in marked_tests.FILES}
    assert all((ROOT / name).exists() for name in marked_tests.FILES)


INNER = """
import pytest

@pytest.mark.parametrize("where", ["xla on a GPU", "pallas on a GPU"])
@pytest.mark.parametrize("n", [1, 2])
def test_a(n, where):
    assert (n, where) != (2, "xla on a GPU"), "not these"

def test_b():
    pytest.skip("needs another card")
"""


def test_of_each_distinct_test_one_runs_first_and_what_passed_is_not_run_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    results = tmp_path / "results.jsonl"

    def run(*words: str) -> list[dict[str, Any]]:
        before = len(store.lines(results))
        subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "bench.gpu.pytest_plugin", "--results-to", str(results), *words],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        return store.lines(results)[before:]

    first = run()
    assert first[0] == {"collected": 5}
    assert [(line["test"].partition("::")[2], line["outcome"]) for line in first[1:]] == [
        ("test_b", "skipped"),
        ("test_a[1-pallas on a GPU]", "passed"),
        ("test_a[1-xla on a GPU]", "passed"),
        ("test_a[2-pallas on a GPU]", "passed"),
        ("test_a[2-xla on a GPU]", "failed"),
    ]
    assert first[1]["why"] == "needs another card"
    assert "not these" in first[-1]["why"]
    second = run("--but", str(results))
    assert [line.get("outcome") for line in second] == [None, "skipped", "failed"]
    third = run("--of-each", "1")
    assert third[0] == {"collected": 3}


# --- measuring --------------------------------------------------------------------------------------------------------


class Stub:
    """A runner that measures nothing; some cases raise, or end the process."""

    def __init__(self, *raising: int) -> None:
        self.raising, self.ran = raising, []

    def run(self, case: Any) -> dict[str, Any]:
        self.ran.append(case.name)
        if len(self.ran) in self.raising:
            raise RuntimeError("out of memory")
        found = {"operation": case.operation.name, "dtype": case.dtype, "shape": list(case.shape)}
        times = {"median_s": 1.0, "quartiles_s": [1.0, 1.0]}
        return found | {"least_bytes": 1, "baseline": FORMULA, "results": {"copy": times}, "device_time": ["a reason"]}


def measuring(folder: pathlib.Path, runner: Stub, seconds: float = 60.0, **fields: Any) -> Measuring:
    until = time.time() + task.MARGIN + seconds
    found = Measuring(task.Task("headline", folder, until, rehearsal=True, **fields))
    found.runner = runner
    return found


def names_in(folder: pathlib.Path) -> list[str]:
    found = store.read(folder / store.BENCH)["cases"]
    return [f"{c['operation']}, {c['dtype']} [{', '.join(map(str, c['shape']))}]" for c in found]


def test_what_was_measured_is_on_disk_after_every_case_and_a_case_that_fails_does_not_end_the_step(
    tmp_path: pathlib.Path,
) -> None:
    cases = list(worth.headline(rehearsal=True))[:3]
    measuring(tmp_path, runner := Stub(2)).run(cases)
    assert names_in(tmp_path) == runner.ran == [case.name for case in cases]
    report = store.read(tmp_path / store.BENCH)
    assert [case.get("error") for case in report["cases"]] == [None, "RuntimeError: out of memory", None]
    assert report["device_time"] == ["a reason"]
    assert report["running"] == {}
    measuring(tmp_path, again := Stub()).run(cases)  # as `--from headline` does
    assert again.ran == [cases[1].name]


def test_no_case_is_begun_without_time_for_it(tmp_path: pathlib.Path) -> None:
    measuring(tmp_path, runner := Stub(), seconds=-1.0).run(list(worth.headline(rehearsal=True)))
    assert runner.ran == []
    assert names_in(tmp_path) == []


def test_the_case_that_a_process_ended_with_is_told_and_one_that_was_late_comes_last(tmp_path: pathlib.Path) -> None:
    cases = list(worth.headline(rehearsal=True))[:3]
    running = {"operation": cases[0].operation.name, "dtype": cases[0].dtype, "shape": list(cases[0].shape)}
    late, ended = tmp_path / "late", tmp_path / "ended"
    for folder in (late, ended):
        folder.mkdir()
        store.write(folder / store.BENCH, {"cases": [], "again": [], "running": {"headline": running}})
    measuring(late, runner := Stub()).run(cases)
    assert runner.ran == [case.name for case in (*cases[1:], cases[0])]
    measuring(ended, runner := Stub(), start=1).run(cases)
    assert runner.ran == [case.name for case in cases[1:]]
    assert store.read(ended / store.BENCH)["cases"][0]["error"] == "the process ended by itself while it ran this case"


def test_a_case_that_failed_in_one_step_is_kept_by_the_next(tmp_path: pathlib.Path) -> None:
    first, second = list(worth.headline(rehearsal=True))[:2]
    measuring(tmp_path, Stub(1)).run([first])
    found = Measuring(task.Task("rest", tmp_path, time.time() + 60, rehearsal=True))
    found.runner = Stub()
    found.run([second])
    assert [case.get("error") for case in store.read(tmp_path / store.BENCH)["cases"]] == [
        "RuntimeError: out of memory",
        None,
    ]


def test_a_case_is_thought_to_take_as_long_as_the_last_ones_and_not_as_the_first(tmp_path: pathlib.Path) -> None:
    found = Measuring(task.Task("headline", tmp_path, time.time() + 60, rehearsal=False))
    assert [found.expected(spent) for spent in ([], [3.0], [30.0], [30.0, 2.0, 4.0], [30.0, 9.0, 1.0, 2.0, 3.0])] == [
        8.0,
        3.0,
        8.0,
        4.0,
        3.0,
    ]


def test_a_case_that_waits_for_ever_is_ended_and_pytorch_left_out(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waiting(Stub):
        def run(self, case: Any) -> dict[str, Any]:
            if not self.ran:
                self.ran.append(case.name)
                time.sleep(30)
            return super().run(case)

    monkeypatch.setattr(measure, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(libraries, "_left_out", {})
    cases = list(worth.headline(rehearsal=True))[:2]
    measuring(tmp_path, Waiting()).run(cases)
    found = store.read(tmp_path / store.BENCH)["cases"]
    assert [case.get("error") for case in found] == ["it took more than 0.2 s", None]
    assert "PyTorch: left out, for a case with it took more than 0.2 s" in libraries.missing()


def test_a_kernel_that_fails_does_not_end_the_tuner_and_is_tried_again_by_the_next_call(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fail(case: Any, *_: Any) -> None:
        tried.append(case.name)
        raise RuntimeError("does not compile")

    monkeypatch.setattr(tuner, "search", fail)
    for _ in range(2):
        step = tuner.Tuning(task.Task("tuner", tmp_path, time.time() + 60, rehearsal=True))
        step.all = tuner.in_order(1024)[:2]
        step.run()
        assert [one["failed"] for one in store.read(tmp_path / store.TUNER)["cases"]] == [
            "RuntimeError: does not compile"
        ] * 2
    assert tried == [case.name for case in tuner.in_order(1024)[:2]] * 2


def test_a_worker_that_lost_its_device_ends_after_a_test_failed_and_no_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(task, "end", ended.append)
    for well, outcome in itertools.product((True, False), ("passed", "failed")):
        monkeypatch.setattr(task, "is_well", lambda well=well: well)
        watch = pytest_plugin.Watch()
        watch.pytest_runtest_logreport(
            pytest.TestReport("a test", ("a file", 1, "a test"), {}, outcome, None, "call")  # pyright: ignore[reportArgumentType]
        )
        watch.pytest_runtest_logfinish()
        assert ended == ([] if well or outcome == "passed" else [task.DEVICE_LOST])
