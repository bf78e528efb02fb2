"""Each way to do each operation, as a benchmark of pytest-benchmark; what belongs together is a group."""

import itertools
from typing import Any

import pytest

from bench import arrays, machine, runner
from bench.cases import Case, implementations
from bench.timing import Patience, Spares, Sweep


@pytest.fixture(scope="session")
def sweep() -> Sweep:
    return Sweep(machine.last_level_cache())


def test_operation(benchmark: Any, case: Case, variant: str, sweep: Sweep) -> None:
    variants = case.operation.variants(implementations(machine.platform_name()))
    pool = arrays.pool(variants[variant].takes, case.shape, case.dtype, machine.last_level_cache())
    one = runner.prepare(variant, variants[variant], pool, Spares(), "bench")
    turns = itertools.count()
    benchmark.group = case.name
    benchmark.pedantic(lambda: one.call(next(turns)), setup=sweep, rounds=Patience().least, warmup_rounds=1)
