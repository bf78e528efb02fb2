"""pytest-benchmark over the same cases as `python -m bench`: for its JSON, its comparisons and its histograms.

pytest bench --benchmark-only --benchmark-autosave
pytest bench --benchmark-only --benchmark-compare --size 24 -k "Philox and bfloat16"
"""

import pytest

from bench import cases, machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--size", type=int, default=20, help="elements of x, as a power of 2 (default: 20)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    platform = machine.platform_name()
    found = [
        pytest.param(case, name, id=f"{case.operation.name}, {case.dtype}: {name}")
        for case in cases.select(platform, [metafunc.config.getoption("--size")])
        for name in case.operation.variants(cases.implementations(platform))
    ]
    metafunc.parametrize(("case", "variant"), found)
