"""Compares a function with a baseline in one run, and prints the ratios after pytest-benchmark's own table."""

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import pytest

from bench import RATIO

ROUNDS = 31
RATIOS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATIOS] = []


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Keeps of the machine what a reader of stored results needs."""
    kept = {"cpu": machine_info["cpu"].get("brand_raw"), "cores": machine_info["cpu"].get("count")}
    machine_info.clear()
    machine_info.update(kept, device=jax.devices()[0].device_kind, jax=jax.__version__)


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Leaves out of stored results what repeats the name, and the single times."""
    del output_json["commit_info"]
    for row in output_json["benchmarks"]:
        for key in ("fullname", "group", "param", "params", "options"):
            del row[key]
        row["stats"].pop("data", None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[RATIOS]:
        terminalreporter.section(
            "speed as a multiple of that of FJFormer's formula under jit, the median of alternating calls"
        )
        terminalreporter.write_line("\n".join(config.stash[RATIOS]))


def fresh(arrays: tuple[jax.Array, ...], donate: bool) -> tuple[jax.Array, ...]:
    """The arrays for one call; what it may overwrite is copied."""
    return jax.block_until_ready((arrays[0].copy(), *arrays[1:])) if donate else arrays


def seconds(function: Callable[..., Any], *arrays: jax.Array) -> float:
    """The time of one call."""
    begin = time.perf_counter()
    jax.block_until_ready(function(*arrays))
    return time.perf_counter() - begin


class Compare(Protocol):
    def __call__(
        self, ours: Callable[..., Any], baseline: Callable[..., Any], *arrays: jax.Array, donate: bool = False
    ) -> None: ...


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Compare:
    """Measures a function beside the baseline, on the same arrays, the first of them donated if asked for.

    Calls alternate between the two within one round, and `ratio` is the median over rounds of the baseline's time by
    the function's: the machine may be busy, but it is equally so for both.
    """

    def run(ours: Callable[..., Any], baseline: Callable[..., Any], *arrays: jax.Array, donate: bool = False) -> None:
        functions = [jax.jit(f, donate_argnums=(0,) if donate else ()) for f in (baseline, ours)]
        pairs = [[seconds(f, *fresh(arrays, donate)) for f in functions] for _ in range(ROUNDS + 2)][2:]
        ratio = statistics.median(a / b for a, b in pairs)
        benchmark.extra_info |= {
            RATIO: round(ratio, 2),
            "nanoseconds an element": round(statistics.median(b for _, b in pairs) / arrays[0].size * 1e9, 3),
            "of the formula": round(statistics.median(a for a, _ in pairs) / arrays[0].size * 1e9, 3),
            "elements": arrays[0].size,
        }
        request.config.stash[RATIOS].append(f"{ratio:6.2f}  {benchmark.name}")
        benchmark.pedantic(
            lambda *arrays: jax.block_until_ready(functions[1](*arrays)),
            setup=lambda: (fresh(arrays, donate), {}),
            rounds=ROUNDS,
        )

    return run
