"""Skips the tests whose device or compiler is not here, and says which one is missing."""

import functools
import importlib.util
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator

# Several CPU devices, for tests of sharding: read when JAX starts.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

# As in a JAX that has removed what it deprecates: `"pallas"` is then Mosaic GPU on CUDA, from JAX 0.11 on.
if os.environ.get("TEST_WITHOUT_PALLAS_TRITON"):
    sys.modules["jax.experimental.pallas.triton"] = None  # type: ignore[assignment]

import compilers
import jax
import numpy as np
import pytest
import triton_interpreter

from intnumerics.kernels.gpu import pallas

FEW = 4  # points of a grid


@functools.cache
def missing_device(platform: str) -> str | None:
    """Why no device of the platform can be used, or None if one can."""
    try:
        jax.devices(platform)
    except RuntimeError:
        return f"needs a {platform.upper()}; JAX found {jax.default_backend()} only"
    return None


@functools.cache
def missing_compiler(*modules: str) -> str | None:
    """Why nothing can be compiled ahead of time, or None if it can."""
    missing = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    return f"needs {' and '.join(missing)}; `make test-aot` installs it" if missing else None


def reason_to_skip(item: pytest.Item) -> str | None:
    if item.get_closest_marker("mesh") and len(jax.devices("cpu")) < 8:
        return "needs 8 CPU devices, for which this file asks JAX"
    for platform in ("gpu", "tpu"):
        if item.get_closest_marker(platform) and (reason := missing_device(platform)):
            return reason
    if item.get_closest_marker("interpreted") and (reason := triton_interpreter.reason_to_skip()):
        return reason
    if item.get_closest_marker("pallas_triton") and not pallas.has_triton():
        return "needs the Triton lowering of Pallas, which this JAX does not have"
    if item.get_closest_marker("jax_triton") and importlib.util.find_spec("jax_triton") is None:
        return "needs jax-triton: pip install 'intnumerics[triton]'"
    if item.get_closest_marker("ptx"):
        return missing_compiler("jax_cuda13_plugin")
    return missing_compiler("libtpu", "jax_cuda13_plugin") if item.get_closest_marker("aot") else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if reason := reason_to_skip(item):
        pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thin",
        metavar="I/N",
        type=lambda text: tuple(map(int, text.split("/"))),
        help="run few of the cases of each test, always the same, with every value of a parameter among them; but of "
        f"more than {FEW} shapes or numbers only each N-th, from the I-th on",
    )


def choices(case: pytest.Item) -> dict[tuple[str, ...], tuple[int, ...]]:
    """What each `parametrize`, and each fixture with parameters, chose for a case: a row of a table is one choice."""
    params: dict[str, object] = getattr(case, "callspec").params  # noqa: B009
    rows = [mark.args[0] for mark in case.iter_markers("parametrize")]
    named = [[name.strip() for name in row.split(",")] if isinstance(row, str) else list(row) for row in rows]
    of_fixtures = [[name] for name in params if not any(name in names for names in named)]
    return {tuple(names): tuple(id(params[name]) for name in names) for names in [*named, *of_fixtures]}


def is_number(value: object) -> bool:
    """Whether a value is a point of a grid, as a shape is: what a test does with its neighbour, it does with it."""
    if isinstance(value, tuple | list):
        return all(map(is_number, value))
    return value is None or isinstance(value, int | float | np.dtype)


def thinned(cases: list[pytest.Item], i: int, n: int) -> list[pytest.Item]:
    """Few of the cases that can run here, such that each choice is in one of them, or of a long grid each `n`-th."""
    kept = list[pytest.Item]()
    chosen = {case: choices(case) for case in cases if not reason_to_skip(case)}
    values = defaultdict[tuple[str, ...], dict[tuple[int, ...], list[object]]](dict)
    for case, found in chosen.items():
        for names, choice in found.items():
            values[names][choice] = [getattr(case, "callspec").params[name] for name in names]  # noqa: B009
    wanted = set[tuple[tuple[str, ...], tuple[int, ...]]]()
    for names, of in values.items():
        is_long_grid = len(of) > FEW and is_number([*of.values()])
        wanted |= {(names, choice) for choice in ([*of][i::n] if is_long_grid else of)}
    missing = {case: set(found.items()) & wanted for case, found in chosen.items()}
    while missing := {case: rest for case, rest in missing.items() if rest}:
        # Among equals not the first, which would pair the same two choices in many tests.
        best = max(missing, key=lambda case: (len(missing[case]), zlib.crc32(case.nodeid.encode())))
        kept.append(best)
        covered = missing[best]
        missing = {case: found - covered for case, found in missing.items()}
    return kept or cases[:1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not (share := config.getoption("--thin")):
        return
    tests = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append(item)
    kept = {case for cases in tests.values() for case in (thinned(cases, *share) if len(cases) > 1 else cases)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest) -> Iterator[compilers.Compilers]:
    """What the `report` of any test asks for, all begun when the first of them runs."""
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    running = compilers.Compilers(params["report"] for params in calls if params.get("report") in compilers.ARGUMENTS)
    yield running
    running.close()
