"""Skips the tests whose device or compiler is not here, and says which one is missing."""

import functools
import importlib.util
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator

# Several CPU devices, for tests of sharding: read when JAX starts.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import compilers
import jax
import pytest
import triton_interpreter


@functools.cache
def missing_device(platform: str) -> str | None:
    """Why no device of the platform can be used, or None if one can."""
    try:
        jax.devices(platform)
    except RuntimeError:
        return f"needs a {platform.upper()}; JAX found {jax.default_backend()} only"
    return None


@functools.cache
def missing_compiler() -> str | None:
    """Why nothing can be compiled ahead of time, or None if it can."""
    wanted = {"libtpu": "libtpu", "jax_cuda13_plugin": "jax-cuda13-plugin"}
    missing = [package for module, package in wanted.items() if importlib.util.find_spec(module) is None]
    return f"needs {' and '.join(missing)}; `make test-aot` installs it" if missing else None


def reason_to_skip(item: pytest.Item) -> str | None:
    if item.get_closest_marker("mesh") and len(jax.devices("cpu")) < 8:
        return "needs 8 CPU devices, for which this file asks JAX"
    for platform in ("gpu", "tpu"):
        if item.get_closest_marker(platform) and (reason := missing_device(platform)):
            return reason
    if item.get_closest_marker("interpreted") and (reason := triton_interpreter.reason_to_skip()):
        return reason
    if item.get_closest_marker("jax_triton") and importlib.util.find_spec("jax_triton") is None:
        return "needs jax-triton: pip install 'intnumerics[triton]'"
    return missing_compiler() if item.get_closest_marker("aot") else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if reason := reason_to_skip(item):
        pytest.skip(reason)


MANY = 40  # cases of one test


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thin",
        action="store_true",
        help=f"of each test with more than {MANY} cases run about half: always the same, every value among them",
    )


def thinned(cases: list[pytest.Item]) -> list[pytest.Item]:
    """About half of the cases of a test, so that each value of each parameter is in one of them."""
    kept = [case for case in cases if zlib.crc32(case.nodeid.encode()) & 1]

    def values(case: pytest.Item) -> set[tuple[str, int]]:
        return {(name, id(value)) for name, value in getattr(case, "callspec").params.items()}  # noqa: B009

    covered = set[tuple[str, int]]().union(*map(values, kept))
    for case in cases:
        if not values(case) <= covered:
            kept.append(case)
            covered |= values(case)
    return kept


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--thin"):
        return
    tests = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    kept = {case for cases in tests.values() for case in (thinned(cases) if len(cases) > MANY else cases)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest) -> Iterator[compilers.Compilers]:
    """What the `report` of any test asks for, all begun when the first of them runs."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    running = compilers.Compilers(params["report"] for params in calls if params.get("report") in compilers.ARGUMENTS)
    yield running
    running.close()
