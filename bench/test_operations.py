"""Each way to do each operation, as a benchmark of pytest-benchmark; what belongs together is a group."""

import itertools
from typing import Any

from bench import arrays, machine, results, runner
from bench.cases import Case, implementations
from bench.timing import Patience, Spares, Sweep


def test_operation(benchmark: Any, case: Case, variant: str) -> None:
    cache, variants = machine.last_level_cache(), case.operation.variants(implementations(machine.platform_name()))
    pool = arrays.pool(variants[variant].takes, case.shape, case.dtype, cache)
    one, turns = runner.make(variant, variants[variant], pool, Spares(), "bench"), itertools.count()
    benchmark.group, benchmark.extra_info["device"] = results.title(case.key), machine.device_name()
    benchmark.pedantic(lambda: one.call(next(turns)), setup=Sweep(cache), rounds=Patience().least, warmup_rounds=1)
