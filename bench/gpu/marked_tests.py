"""Steps smoke and tests: the tests marked `gpu`, in parallel, one of each distinct kernel first.

This is a plugin of pytest as well, which puts the tests in order, and each result on the disk as soon as it is known.
"""

import importlib.util
import json
import os
import pathlib
import sys
from collections import Counter
from typing import Any

import pytest

from bench.gpu import steps, store
from bench.gpu.steps import Task

WORKERS, REHEARSAL_WORKERS = 8, 2
# Where such tests are, for to import the others takes time; a test holds that these are all.
FILES = tuple(f"tests/test_{name}.py" for name in ("kernels", "parts", "stream_kernels", "triton"))
QUICK = "pallas-gpu and (every_shape or infinity or cotangent or shared or begins)"  # to interpret
# In the order of their worth: kernels that nothing but a device runs, then what is compiled by XLA alone.
IMPLEMENTATIONS = ("pallas", "jax_triton", "xla", "reference")
NOT_COLLECTED = "not collected: see the log"


def command(task: Task) -> list[str]:
    """The arguments of pytest."""
    of_each = 1 if task.name == "smoke" else 2 if task.rehearsal else sys.maxsize
    interpreted = ("tests/test_kernels.py", "tests/test_stream_kernels.py", "-k", QUICK)
    workers = min(REHEARSAL_WORKERS if task.rehearsal else WORKERS, os.cpu_count() or 1)
    has_xdist = importlib.util.find_spec("xdist") is not None  # each worker is given one test at a time, in order
    return [
        *(interpreted if task.rehearsal else ("-m", "gpu", *FILES)),
        *(("-n", str(workers), "--dist", "load", "--maxschedchunk", "1") if has_xdist else ()),
        *("-p", "bench.gpu.marked_tests", "--results-to", str(task.folder / store.TESTS), "--of-each", str(of_each)),
        *("-p", "no:cacheprovider", "--continue-on-collection-errors", "--tb", "short", "-q"),
        *("-W", "default"),  # a warning of a driver or a plugin costs no test
    ]


def main() -> None:
    """Runs the step; that tests fail is a result, and not a failure of the step."""
    task = Task.given()
    path = task.folder / store.TESTS
    kept = [line for line in store.lines(path) if line.get("why") != NOT_COLLECTED]  # which is tried anew
    store.write(path, "".join(json.dumps(line) + "\n" for line in kept))
    status = pytest.main(command(task))
    is_done = status == pytest.ExitCode.NO_TESTS_COLLECTED and bool(kept)
    sys.exit(0 if is_done or status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else int(status))


# --- the plugin -------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results-to", type=pathlib.Path, help="a line of JSON per test; what passed is not run again")
    parser.addoption("--of-each", type=int, default=sys.maxsize, help="so many cases of each distinct test at most")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # of pytest-xdist; the process that started it is told what happens here
        config.pluginmanager.register(Recorder(config.getoption("--results-to")), "recorder")


def kind(item: pytest.Item) -> tuple[str, str]:
    """What makes a test distinct: its function and its implementation."""
    words = item.name.partition("[")[2].replace("-", " ").split()
    return item.nodeid.partition("[")[0], next((name for name in IMPLEMENTATIONS if name in words), "")


@pytest.hookimpl(trylast=True)  # after `-m` and `-k` have left out what is not asked for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One test of each kind first, then another of each."""
    recorder = config.pluginmanager.get_plugin("recorder")
    passed = set(recorder.passed if recorder else config.workerinput["passed"])  # pyright: ignore[reportAttributeAccessIssue]
    seen, placed = Counter[tuple[str, str]](), []
    for item in items:
        of_kind = kind(item)
        worth = IMPLEMENTATIONS.index(of_kind[1]) if of_kind[1] else -1
        if seen[of_kind] < config.getoption("--of-each") and item.nodeid not in passed:
            placed.append((seen[of_kind], worth, item))
        seen[of_kind] += 1
    items[:] = [item for *_, item in sorted(placed, key=lambda one: one[:2])]


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Ends a worker of pytest-xdist that has lost its device, and so fails every test; another takes its place."""
    if report.failed and "PYTEST_XDIST_WORKER" in os.environ and not steps.is_well():
        steps.end(steps.DEVICE_LOST)


class Recorder:
    """Adds a line for each test."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.passed = [line["test"] for line in store.lines(path) if line["outcome"] == "passed"]

    def add(self, **line: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["passed"] = self.passed  # a worker that takes the place of another must collect the same

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.add(test=report.nodeid, outcome="failed", why=NOT_COLLECTED)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(crash, "message", "")
            said = {} if report.passed else {"why": " ".join((why or report.longreprtext).split())[:300]}
            self.add(test=report.nodeid, outcome=report.outcome, **said)


if __name__ == "__main__":
    main()
