"""The steps of the command for a GPU: in the order of worth, with every result on disk as soon as it is known."""

import itertools
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

from bench.gpu import marked_tests, measure, steps, store, targets
from bench.gpu.steps import Rows, Task
from bench.names import FORMULA, OURS, SEED
from bench.operations import operations
from intnumerics.kernels import KERNEL_DTYPES
from tools import tune
from tools.tune_search import cases as tuner_cases

pytestmark = pytest.mark.tools

ROOT = pathlib.Path(__file__).parent.parent


# --- the order of worth -----------------------------------------------------------------------------------------------


def test_the_headline_cases_are_measured_in_the_order_of_their_worth_and_each_target_is_among_them() -> None:
    found = [(case.operation.name, case.dtype, case.size) for case in measure.headline()]
    assert len(found) == len(set(found))
    assert found[0] == ("quantize to int8 with PhiloxUniform", "bfloat16", 1 << 28)
    assert {size for _, _, size in found} == {1 << 28, 1 << 26}
    assert {one[1:] for one in found[: len(measure.FIRST)]} == {("bfloat16", 1 << 28)}
    for name in measure.FIRST:  # of one operation the largest size first
        order = [(dtype, size) for n, dtype, size in found if n == name]
        assert order.index(("float32", 1 << 28)) < order.index(("float32", 1 << 26))
    measured = {(name, dtype) for name, dtype, _ in found}
    for target in (target for target in targets.TARGETS if isinstance(target, targets.Speed)):
        assert {(name, dtype) for name in target.operations for dtype in target.dtypes} <= measured
    known = {name for operation in operations() for name in operation.others}
    assert {FORMULA, SEED, *targets.GENERATORS} <= known


def test_the_tuner_tries_the_kernels_of_the_most_valuable_cases_first_and_then_all_others() -> None:
    found = [(case.operation, case.dtype) for case in tune.in_order(1024)]
    assert sorted(found) == sorted((case.operation, case.dtype) for case in tuner_cases(1024, KERNEL_DTYPES))
    assert found[:3] == [(name, "bfloat16") for name in tune.FIRST]


# --- rows -------------------------------------------------------------------------------------------------------------


def jobs(ran: list[str], **bodies: Any) -> list[tuple[dict[str, Any], Any]]:
    """A job for each name, which returns or raises what is given for it."""

    def job(name: str, body: Any) -> dict[str, Any]:
        ran.append(name)
        if isinstance(body, Exception):
            raise body
        return {"results": {OURS: {"median_s": 1.0} | ({"wrong": body()} if callable(body) else {})}}

    known = {"dtype": "bfloat16", "shape": [8], "results": {}}
    return [
        ({"operation": name} | known, lambda name=name, body=body: job(name, body)) for name, body in bodies.items()
    ]


def rows(folder: pathlib.Path, seconds: float = 60.0, start: int = 0) -> Rows:
    store.write(folder / store.RUN, {"about": ABOUT, "rehearsal": False, "steps": {}})
    return Rows(Task("headline", str(folder), time.time() + steps.MARGIN + seconds, start=start))


ABOUT: dict[str, Any] = {"device": "a card", "versions": {}, "system": "Linux", "commit": "c0ffee", "clocks": {}}


def found_in(folder: pathlib.Path) -> dict[str, str | None]:
    return {row["operation"]: row.get("error") for row in store.read(folder / store.BENCH)["cases"]}


def test_each_row_is_on_disk_after_its_job_and_one_that_fails_does_not_end_the_step(tmp_path: pathlib.Path) -> None:
    ran: list[str] = []
    seen = lambda: str(sorted(found_in(tmp_path)))  # noqa: E731
    rows(tmp_path).run(jobs(ran, a=None, b=RuntimeError("no memory"), c=seen))
    assert ran == ["a", "b", "c"]
    assert found_in(tmp_path) == {"a": None, "b": "RuntimeError: no memory", "c": None}
    assert store.read(tmp_path / store.BENCH)["cases"][2]["results"][OURS]["wrong"] == "['a', 'b']"
    table = (tmp_path / store.TABLE).read_text()
    assert "NOT MET | each result that is timed is right | 2 of 3 cases; 2 wrong" in table
    rows(tmp_path).run(jobs(ran, a=None, b=None, c=None))  # as `--from` does
    assert ran == ["a", "b", "c", "b"]
    assert found_in(tmp_path)["b"] is None


def test_no_job_is_begun_without_time_for_it(tmp_path: pathlib.Path) -> None:
    ran: list[str] = []
    rows(tmp_path, seconds=-1.0).run(jobs(ran, a=None))
    assert ran == []


def test_what_a_process_ended_with_is_told_and_the_next_goes_on_after_it(tmp_path: pathlib.Path) -> None:
    ran: list[str] = []
    first = rows(tmp_path)
    first.document["running"] = {"headline": jobs(ran, a=None)[0][0]}
    first.write()
    rows(tmp_path, start=1).run(jobs(ran, a=None, b=None))
    assert ran == ["b"]
    assert found_in(tmp_path) == {"a": "the process ended while it ran this", "b": None}


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


@pytest.mark.parametrize("workers", ["0", "1"])
def test_of_each_distinct_test_one_runs_first_and_what_passed_is_not_run_again(
    workers: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    results = tmp_path / "results.jsonl"

    def run(*words: str) -> list[dict[str, Any]]:
        before = len(store.lines(results))
        plugin = ("-p", "bench.gpu.marked_tests", "--results-to", str(results), "-n", workers, "--maxschedchunk", "1")
        subprocess.run(
            [sys.executable, "-m", "pytest", *plugin, *words],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        return store.lines(results)[before:]

    assert run("--of-each", "0") == []
    first = run()
    assert [(line["test"].partition("::")[2], line["outcome"]) for line in first] == [
        ("test_b", "skipped"),
        ("test_a[1-pallas on a GPU]", "passed"),
        ("test_a[1-xla on a GPU]", "passed"),
        ("test_a[2-pallas on a GPU]", "passed"),
        ("test_a[2-xla on a GPU]", "failed"),
    ]
    assert "needs another card" in first[0]["why"]
    assert "not these" in first[-1]["why"]
    assert [line["outcome"] for line in run()] == ["skipped", "failed"]


def test_a_worker_that_lost_its_device_ends_after_a_test_failed_and_no_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(steps, "end", ended.append)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    for well, outcome in itertools.product((True, False), ("passed", "failed")):
        monkeypatch.setattr(steps, "is_well", lambda well=well: well)
        marked_tests.pytest_runtest_logreport(
            pytest.TestReport("a test", ("a file", 1, "a test"), {}, outcome, None, "call")  # pyright: ignore[reportArgumentType]
        )
        assert ended == ([] if well or outcome == "passed" else [steps.DEVICE_LOST])
