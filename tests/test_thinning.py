"""What `--thin` leaves out of the cases of a test: most of them, and no value of a parameter and no row of a table.

Of a parameter with many values, each of several runs has its share.
"""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

FIXTURE = ["of a fixture", "another"]


class Case:
    """A case of a test with a table of two columns, a parameter and a fixture with parameters; some are skipped."""

    def __init__(self, n: int, row: tuple[str, bool], size: int, fixture: str, reason: str | None = None) -> None:
        self.nodeid = f"test_{n}[{row}-{size}-{fixture}]"
        self.reason_to_skip = reason
        params = {"name": row[0], "flag": row[1], "size": size, "fixture": fixture}
        self.callspec = SimpleNamespace(params=params)

    def iter_markers(self, name: str) -> Any:
        assert name == "parametrize"
        return [SimpleNamespace(args=("name, flag", [])), SimpleNamespace(args=(["size"], []))]

    def choices(self) -> list[Any]:
        (name, flag, size, fixture) = self.callspec.params.values()
        return [(name, flag), size, fixture]


@pytest.fixture
def thinned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    [conftest] = [plugin for plugin in request.config.pluginmanager.get_plugins() if hasattr(plugin, "thinned")]
    monkeypatch.setattr(conftest, "reason_to_skip", lambda case: case.reason_to_skip)
    return conftest.thinned


ROWS = [("a", True), ("a", False), ("b", True)]


def test_every_row_and_value_stays_and_no_case_that_adds_none(thinned: Any) -> None:
    for n in range(20):
        cases = [Case(n, *values) for values in itertools.product(ROWS, range(12), FIXTURE)]
        cases.append(Case(n, ROWS[0], 99, FIXTURE[0]))  # a value that one case alone has
        kept = thinned(cases, 0, 1)
        assert len(kept) == 13
        for place in range(3):
            assert {case.choices()[place] for case in kept} == {case.choices()[place] for case in cases}


def test_of_a_long_table_each_run_has_its_share_and_of_a_short_one_all(thinned: Any) -> None:
    cases = [Case(0, *values) for values in itertools.product(ROWS, range(12), FIXTURE)]
    runs = [thinned(cases, i, 3) for i in range(3)]
    sizes = [{case.choices()[1] for case in run} for run in runs]
    assert set[int]().union(*sizes) == set(range(12))
    for run in runs:
        assert len(run) == 4
        assert {case.choices()[0] for case in run} == set(ROWS)
        assert {case.choices()[2] for case in run} == set(FIXTURE)


def test_a_long_table_of_distinct_cases_stays_whole_in_each_run(thinned: Any) -> None:
    rows = [(name, flag) for name in "abcd" for flag in (True, False)]
    cases = [Case(0, row, size, fixture) for row in rows for size in range(6) for fixture in FIXTURE]
    for i in range(2):
        assert {case.choices()[0] for case in thinned(cases, i, 2)} == set(rows)


def test_a_case_that_is_skipped_stands_for_no_other(thinned: Any) -> None:
    skipped = [Case(0, row, size, FIXTURE[0], reason="needs a TPU") for row, size in itertools.product(ROWS, range(4))]
    run = [Case(0, row, 0, FIXTURE[0]) for row in ROWS]
    assert set(thinned(skipped + run, 0, 1)) == set(run)
    assert thinned(skipped, 0, 1) == skipped[:1], "one is left to say why none runs"
