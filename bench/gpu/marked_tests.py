"""A plugin of pytest: each result is on disk as soon as it is known, and a test that passed is not run again."""

import json
import pathlib

import pytest

from bench.gpu import steps


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results-to", type=pathlib.Path, required=True, help="a file with a line of JSON per test")
    parser.addoption("--known", type=int, required=True, help="so many of its lines are of earlier runs")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist reports to the process that started it
        config.pluginmanager.register(Recorder(config.option.results_to))


@pytest.hookimpl(trylast=True)  # after `-m` and `-k` have left out what is not asked for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = steps.lines(config.option.results_to)[: config.option.known]
    last = {line["test"]: line["outcome"] for line in known}
    # If all passed, one runs again, because pytest fails if no test is left.
    items[:] = [item for item in items if last.get(item.nodeid) != "passed"] or items[:1]


class Recorder:
    """Adds a line for each test."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(crash, "message", "")
            line = {"test": report.nodeid, "outcome": report.outcome}
            line |= {} if report.passed else {"why": " ".join((why or report.longreprtext).split())[:300]}
            with self.path.open("a") as file:
                file.write("\n" + json.dumps(line))  # on a line of its own, even if the last one was cut off
