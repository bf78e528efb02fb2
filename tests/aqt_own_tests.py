"""Runs AQT's own tests: `python aqt_own_tests.py ours|theirs|wrong TEST...`, by whose class is in use.

Prints what became of each test as JSON. A TEST is the name of a module below `aqt.jax.v2`, or of a test in it, or what
the names of several begin with.
"""

import importlib
import io
import json
import sys
import types
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aqt", reason="needs AQT, which `make test-aqt` installs")  # where pytest looks for doctests here

from absl import flags
from absl.testing import absltest

PACKAGE = "aqt.jax.v2."


class Outcomes(unittest.TestResult):
    """What became of each test."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self.of[test.id()] = "passed"

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self.of[test.id()] = "failed"

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self.of[test.id()] = "failed"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.of[test.id()] = "skipped"

    def addSubTest(self, test: unittest.TestCase, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err:
            self.of[test.id()] = "failed"


def use_ours(wrong: bool) -> None:
    """Puts our class in the place of AQT's, for all that asks for it from now on; or one that is wrong on purpose."""
    from aqt.jax.v2.numerics import int_numerics

    from intnumerics import aqt

    class Wrong(aqt.IntSymmetric):
        def vjp_fwd(self, x: Any, context: Any) -> Any:
            y, residual = aqt.IntSymmetric.vjp_fwd(self, x, context)
            return 3 * y, residual

    int_numerics.IntSymmetric = Wrong if wrong else aqt.IntSymmetric


def stand_in_for_google3() -> None:
    """Some of AQT's tests import Google's name of absl."""
    for name in ("google3", "google3.testing", "google3.testing.pybase"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["google3.testing.pybase"].__dict__["googletest"] = absltest


def tests_of(name: str) -> Iterator[unittest.TestCase]:
    """The tests of a module whose names begin with a name."""
    parts = name.split(".")
    module = next(i for i, part in enumerate(parts) if part.endswith("_test")) + 1
    loaded = importlib.import_module(PACKAGE + ".".join(parts[:module]))
    suites = [unittest.defaultTestLoader.loadTestsFromModule(loaded)]
    while suites:
        for test in suites.pop():
            if isinstance(test, unittest.TestSuite):
                suites.append(test)
            elif test.id().startswith(PACKAGE + name):
                yield test


def main(which: str, *names: str) -> None:
    printed, sys.stdout = sys.stdout, io.StringIO()  # AQT's tests print
    flags.FLAGS(sys.argv[:1])
    stand_in_for_google3()
    if which != "theirs":
        use_ours(wrong=which == "wrong")
    outcomes = Outcomes()
    for name in names:
        unittest.TestSuite(tests_of(name)).run(outcomes)
    for _, trace in outcomes.failures + outcomes.errors:
        print(trace, file=sys.stderr)
    print(json.dumps(outcomes.of), file=printed)


if __name__ == "__main__":
    main(*sys.argv[1:])
