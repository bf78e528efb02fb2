"""Measures a case: every way to do it, in turns, beside a copy of as many bytes; and checks the results."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import arrays, device_time, machine
from bench.cases import Case
from bench.results import COPIES, Measured, Result
from bench.timing import Eager, Jitted, Patience, Prepared, Spares, Sweep, alternate
from bench.variant import Variant

SHARE_OF_MEMORY = 0.7


@dataclasses.dataclass
class Runner:
    """What outlives a case.

    Attributes:
        implementations: Names of ours to measure, beside `implementation=None`.
        patience: How long a case is measured.
        longest: The longest that one call may take, in seconds; one that would take longer is left out.
        compilers: How many programs are compiled at a time.
        queue_on_cpu: Whether a CPU has a time of the device too, to try out how that is found.
    """

    implementations: tuple[str, ...]
    patience: Patience
    longest: float
    compilers: int = 1
    queue_on_cpu: bool = False

    def __post_init__(self) -> None:
        self.cache = machine.last_level_cache()
        self.sweep = Sweep(self.cache)
        self.speed: dict[tuple[Any, ...], float] = {}  # seconds an element of what was measured last

    def run(self, case: Case) -> Measured:
        """What came of each way to do it, and of the copy."""
        variants, results = self._affordable(case)
        names = _names(case, variants)
        types = arrays.types(names, case.shape, case.dtype)
        least = _least_bytes(case, types)
        if reason := _too_large(case, types, arrays.sets(types, self.cache)):
            return measured(case, least, {name: {"left_out": reason} for name in variants} | results)
        pool = arrays.pool(names, case.shape, case.dtype, self.cache)
        spares = Spares()
        prepared = _copies(least, len(pool), spares)
        ready, failed = self._prepared(variants, pool, spares)
        prepared, results = prepared + ready, results | failed
        wrong = check(case, variants, prepared[len(COPIES) :])
        times = alternate(prepared, self.patience, self.sweep)
        on_device = device_time.of(prepared, self.queue_on_cpu)
        for one, seconds in zip(prepared, times, strict=True):
            found = results[one.name] = _statistics(seconds)
            if one.name in on_device.seconds:
                found |= {"device_s": rounded(on_device.seconds[one.name]), "device_by": on_device.how[one.name]}
                found |= {"queue_s": rounded(on_device.queued[one.name])}
            found |= {"wrong": wrong[one.name]} if wrong.get(one.name) else {}
            self.speed[_kind(case, one.name)] = found["median_s"] / case.size
        order = [*COPIES, *case.operation.variants(self.implementations)]
        document = measured(case, least, {name: results[name] for name in order if name in results})
        return document | ({"device_time": on_device.why} if on_device.why else {})

    def _prepared(
        self, variants: Mapping[str, Variant], pool: Sequence[Mapping[str, Any]], spares: Spares
    ) -> tuple[list[Prepared], dict[str, Result]]:
        """The variants, ready; and why others are not: one may be unable to, and its row says so."""
        labels = {name: f"bench_{i}" for i, name in enumerate(variants)}
        ready: list[Prepared] = []
        failed: dict[str, Result] = {}
        with ThreadPoolExecutor(self.compilers) as threads:
            compiled = {
                name: threads.submit(make, name, variant, pool, spares, labels[name])
                for name, variant in variants.items()
                if variant.kind == "jit"
            }
            for name, variant in sorted(variants.items(), key=lambda pair: pair[0] in compiled):
                try:  # what is not compiled by the threads first: PyTorch compiles when it is called
                    one = compiled[name].result() if name in compiled else make(name, variant, pool, spares, "")
                    one.call(0)
                except Exception as error:
                    failed[name] = {"error": _one_line(error)}
                else:
                    ready.append(one)
        return ready, failed

    def _affordable(self, case: Case) -> tuple[dict[str, Variant], dict[str, Result]]:
        """The variants whose calls are short enough, by the speed on the size before; why the others are not there."""
        kept, left_out = {}, {}
        for name, variant in case.operation.variants(self.implementations).items():
            expected = self.speed.get(_kind(case, name), 0.0) * case.size
            if expected > self.longest:
                left_out[name] = {"left_out": f"a call would take about {expected:.2g} s"}
            else:
                kept[name] = variant
        return kept, left_out


def _kind(case: Case, name: str) -> tuple[Any, ...]:
    return case.operation.name, case.dtype, len(case.shape), name


def measured(case: Case, least: int, results: dict[str, Result]) -> Measured:
    """The document of a case."""
    return {
        "operation": case.operation.name,
        "dtype": case.dtype,
        "shape": list(case.shape),
        "least_bytes": least,
        "baseline": case.operation.baseline,
        "results": results,
    }


def _least_bytes(case: Case, types: Mapping[str, Any]) -> int:
    """What must be read and written at least: what ours takes and returns."""
    taken = [types[name] for name in case.operation.takes]
    return arrays.size_in_bytes(taken) + arrays.size_in_bytes(jax.eval_shape(case.operation.ours(None), *taken))


def _names(case: Case, variants: Mapping[str, Variant]) -> tuple[str, ...]:
    """The arrays that there must be."""
    return tuple(sorted({*case.operation.takes, *(name for variant in variants.values() for name in variant.takes)}))


def check(case: Case, variants: Mapping[str, Variant], prepared: Sequence[Prepared]) -> dict[str, str]:
    """What is wrong with the first result of each variant, or nothing."""
    names = {*_names(case, variants), "activation" if "activation" in case.operation.takes else "x"}
    first = arrays.first_rows(tuple(sorted(names)), 0, case.shape, case.dtype)
    expected = np.asarray(case.operation.expected(first), np.float32).reshape(-1)
    found = {}
    for one in prepared:
        try:
            result = arrays.rows(jax.tree.leaves(one.call(0))[0], case.shape)
        except Exception as error:
            found[one.name] = f"could not be compared: {_one_line(error)}"
            continue
        found[one.name] = variants[one.name].agrees(result.astype(np.float32).reshape(-1), expected)
    return found


def prepare(name: str, variant: Variant, pool: Sequence[Mapping[str, Any]], spares: Spares, label: str) -> Prepared:
    """Makes a variant ready for the arrays of a pool, and calls it once, so that what it cannot do is known."""
    one = make(name, variant, pool, spares, label)
    one.call(0)
    return one


def make(name: str, variant: Variant, pool: Sequence[Mapping[str, Any]], spares: Spares, label: str) -> Prepared:
    """Makes a variant ready for the arrays of a pool."""
    inputs = [tuple(one[taken] for taken in variant.takes) for one in pool]
    if variant.kind == "jit":
        return Jitted(name, variant.function, inputs, spares, label)
    if variant.kind == "eager":
        return Eager(name, variant.function, inputs)
    from bench.torch_timing import Torch

    return Torch(name, variant.function, inputs)


def _copies(least: int, count: int, spares: Spares) -> list[Prepared]:
    """What reads half the bytes and writes half: XLA's copy, and a pass of its own, which a profile can name."""
    words = max(1, least // 8)
    inputs = [(jnp.full(words, seed, jnp.uint32),) for seed in range(count)]
    functions = zip(COPIES, (jnp.copy, jnp.invert), strict=True)
    return [Jitted(name, f, inputs, spares, f"bench_copy_{f.__name__}") for name, f in functions]


def _too_large(case: Case, types: Mapping[str, Any], sets: int) -> str:
    """Why a case does not fit in the memory, if it does not: the inputs, a copy's, results, and noise as an array."""
    need = 2 * sets * arrays.size_in_bytes(types) + 4 * 4 * case.size
    free = machine.free_memory()
    if need <= SHARE_OF_MEMORY * free:
        return ""
    share, need_gib, free_gib = f"{SHARE_OF_MEMORY:.0%}", need / 2**30, free / 2**30
    return f"would need about {need_gib:.1f} GiB, more than {share} of the {free_gib:.1f} that are free"


def _statistics(seconds: Sequence[float]) -> Result:
    low, _, high = statistics.quantiles(seconds, n=4)
    return {
        "median_s": rounded(statistics.median(seconds)),
        "quartiles_s": [rounded(low), rounded(high)],
        "rounds": len(seconds),
    }


def rounded(seconds: float) -> float:
    """Four digits, of which a clock gives fewer."""
    return float(f"{seconds:.4g}")


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
