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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thin",
        action="store_true",
        help="run few of the cases of each test, always the same, with every value of every parameter among them",
    )


def choices(case: pytest.Item) -> set[tuple[tuple[str, int], ...]]:
    """What each `parametrize`, and each fixture with parameters, chose for a case: a row of a table is one choice."""
    params: dict[str, object] = getattr(case, "callspec").params  # noqa: B009
    rows = [mark.args[0] for mark in case.iter_markers("parametrize")]
    named = [[name.strip() for name in row.split(",")] if isinstance(row, str) else list(row) for row in rows]
    of_fixtures = [[name] for name in params if not any(name in names for names in named)]
    return {tuple((name, id(params[name])) for name in names) for names in [*named, *of_fixtures]}


def thinned(cases: list[pytest.Item]) -> list[pytest.Item]:
    """Few of the cases that can run here, such that each choice is in one of them."""
    kept = list[pytest.Item]()
    missing = {case: choices(case) for case in cases if not reason_to_skip(case)}
    while missing:
        # Among equals not the first, which would pair the same two choices in many tests.
        best = max(missing, key=lambda case: (len(missing[case]), zlib.crc32(case.nodeid.encode())))
        kept.append(best)
        covered = missing[best]
        missing = {case: rest for case, found in missing.items() if (rest := found - covered)}
    return kept or cases[:1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--thin"):
        return
    tests = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    kept = {case for cases in tests.values() for case in (thinned(cases) if len(cases) > 1 else cases)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest) -> Iterator[compilers.Compilers]:
    """What the `report` of any test asks for, all begun when the first of them runs."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    running = compilers.Compilers(params["report"] for params in calls if params.get("report") in compilers.ARGUMENTS)
    yield running
    running.close()
