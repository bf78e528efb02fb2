"""Of each distinct test one case first, and every result on disk as soon as it is known: `-p bench.gpu.pytest_plugin`.

Distinct are tests that differ in their function, or in the implementation that they run.
"""

import json
import pathlib
from collections import Counter
from typing import Any

import pytest

# In the order of their worth: kernels that nothing but a device runs, then what is compiled by XLA alone.
IMPLEMENTATIONS = ("pallas", "jax_triton", "xla", "reference")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench.gpu")
    group.addoption("--results-to", type=pathlib.Path, metavar="PATH", help="a line of JSON for each test is added")
    group.addoption("--but", type=pathlib.Path, metavar="PATH", help="leave out tests that passed in such a file")
    group.addoption("--of-each", type=int, metavar="N", help="so many cases of each distinct test, and no more")


def kind(item: pytest.Item) -> tuple[str, str]:
    """What makes a test distinct: its function and its implementation."""
    words = item.name.partition("[")[2].replace("-", " ").split()
    implementation = next((name for name in IMPLEMENTATIONS if name in words), "")
    return item.nodeid.partition("[")[0], implementation


def in_order(items: list[pytest.Item]) -> list[tuple[int, pytest.Item]]:
    """The tests, one of each kind first, then another of each; with how many of the kind came before it."""
    seen: Counter[tuple[str, str]] = Counter()
    placed = []
    for item in items:
        placed.append((seen[kind(item)], item))
        seen[kind(item)] += 1

    def worth(pair: tuple[int, pytest.Item]) -> tuple[int, int]:
        implementation = kind(pair[1])[1]
        return pair[0], IMPLEMENTATIONS.index(implementation) if implementation else -1

    return sorted(placed, key=worth)


@pytest.hookimpl(trylast=True)  # after `-m` and `-k` have left out what is not asked for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    path, most = config.getoption("--but"), config.getoption("--of-each")
    passed = {line.get("test") for line in read(path) if line.get("outcome") == "passed"} if path else set()
    chosen = [item for place, item in in_order(items) if most is None or place < most]
    kept = [item for item in chosen if item.nodeid not in passed]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a file; the last may have been cut off."""
    from bench.gpu.store import lines

    return lines(path)


class Recorder:
    """Adds a line for each test.

    Args:
        path: The file.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def add(self, **line: Any) -> None:
        """Adds a line."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.add(collected=len(session.items)) if session.items else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        if node.gateway.id == "gw0":
            self.add(collected=len(ids))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.add(test=report.nodeid, outcome="failed", why=f"not collected: {_last_line(report.longreprtext)}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            why = {} if report.passed else {"why": _why(report)}
            self.add(test=report.nodeid, outcome=report.outcome, seconds=round(report.duration, 2), **why)


class Watch:
    """Ends a worker of pytest-xdist that has lost its device, and so fails every test; another takes its place."""

    def __init__(self) -> None:
        self.has_failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.has_failed = report.failed

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        from bench.gpu import task

        if self.has_failed and not task.is_well():
            task.end(task.DEVICE_LOST)


def _why(report: pytest.TestReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return " ".join(str(crash.message if crash else report.longreprtext).split())[:300]


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--results-to")
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(Watch(), "bench.gpu.watch")
    if path and not hasattr(config, "workerinput"):  # the workers of pytest-xdist tell the process that started them
        config.pluginmanager.register(Recorder(path), "bench.gpu.recorder")
