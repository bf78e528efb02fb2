"""Measures a case: every way to do it, in turns, beside a copy of as many bytes, and checks the results."""

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
from bench.timing import Jitted, Patience, Prepared, Spares, Sweep, Torch, alternate
from bench.variant import Variant

SHARE_OF_MEMORY = 0.7

Pool = Sequence[Mapping[str, Any]]
Variants = Mapping[str, Variant]


@dataclasses.dataclass
class Runner:
    """Measures cases, and keeps what the next case needs."""

    implementations: tuple[str, ...]  # names of ours to measure, beside `implementation=None`
    patience: Patience
    longest: float  # seconds of a call; one that would take longer is left out
    compilers: int = 1  # how many programs are compiled at a time
    queue_on_cpu: bool = False  # whether a queue is timed on a CPU too, to try it out

    def __post_init__(self) -> None:
        self.cache = machine.last_level_cache()
        self.sweep = Sweep(self.cache)
        self.speed: dict[tuple[str, ...], float] = {}  # seconds per element of what was measured last

    def run(self, case: Case) -> Measured:
        """What came of each way to do it, and of the copy."""
        every = case.operation.variants(self.implementations)
        types = arrays.types({name for variant in every.values() for name in variant.takes}, case.shape, case.dtype)
        taken = [types[name] for name in case.operation.takes]
        least = arrays.size_in_bytes((taken, jax.eval_shape(case.operation.ours(None), *taken)))
        found, why = self._left_out(case, every, types), []
        if variants := {name: variant for name, variant in every.items() if name not in found}:
            why = self._measure(case, variants, arrays.pool(types, case.shape, case.dtype, self.cache), least, found)
        return (
            case.key
            | {
                "least_bytes": least,
                "baseline": case.operation.baseline,
                "results": {name: found[name] for name in (*COPIES, *every) if name in found},
            }
            | ({"device_time": why} if why else {})
        )

    def _left_out(self, case: Case, every: Variants, types: Mapping[str, Any]) -> dict[str, Result]:
        """The variants that are not measured, and why: for lack of memory, or by the speed on the size before."""
        # The inputs and those of a copy, the results, and noise as an array.
        need = 2 * arrays.sets(types, self.cache) * arrays.size_in_bytes(types) + 4 * 4 * case.size
        most, found = SHARE_OF_MEMORY * machine.free_memory(), {}
        for name in every:
            seconds = case.size * self.speed.get((case.operation.name, case.dtype, name), 0.0)
            if need > most:
                found[name] = {"left_out": f"needs about {need / 2**30:.1f} GiB of {most / 2**30:.1f} that it may take"}
            elif seconds > self.longest:
                found[name] = {"left_out": f"a call would take about {seconds:.2g} s"}
        return found

    def _measure(self, case: Case, variants: Variants, pool: Pool, least: int, found: dict[str, Result]) -> list[str]:
        """Puts into `found` what came of each variant; returns why not all device times are a profiler's."""
        spares = Spares()
        copies, ready = _copies(least, len(pool), spares), self._prepared(variants, pool, spares, found)
        wrong = check(case, variants, ready, pool[0])
        prepared = copies + ready
        times = alternate([one.call for one in prepared], self.patience, self.sweep)
        on_device, why = device_time.of(prepared, self.queue_on_cpu)
        for one, seconds in zip(prepared, times, strict=True):
            result = found[one.name] = _statistics(seconds)
            timed = on_device.get(one.name, {})
            result |= {key: rounded(value) if key.endswith("_s") else value for key, value in timed.items()}
            result |= {"wrong": wrong[one.name]} if wrong.get(one.name) else {}
            self.speed[case.operation.name, case.dtype, one.name] = result["median_s"] / case.size
        return why

    def _prepared(self, variants: Variants, pool: Pool, spares: Spares, found: dict[str, Result]) -> list[Prepared]:
        """The variants, ready; one may be unable to run, and its result says why."""
        # First PyTorch, which compiles when it is called, while the threads compile the others.
        names, ready = sorted(variants, key=lambda name: variants[name].kind == "jit"), []
        with ThreadPoolExecutor(self.compilers) as threads:
            made = [
                threads.submit(make, name, variants[name], pool, spares, f"bench_{i}") for i, name in enumerate(names)
            ]
            for name, one in zip(names, made, strict=True):
                try:
                    one.result().call(0)
                    ready.append(one.result())
                except Exception as error:
                    found[name] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        return ready


def check(case: Case, variants: Variants, prepared: Sequence[Prepared], inputs: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with the results of each variant for the first inputs, as far as NumPy says what they are."""
    expected = jax.tree.leaves(case.operation.expected(arrays.first_rows(inputs, case.shape)))
    found = {}
    for one in prepared:
        variant, leaves = variants[one.name], jax.tree.leaves(one.call(0))
        checks = zip((variant.agrees, variant.scales_agree), leaves, expected, strict=False)
        wrong = (agrees(_flat(arrays.rows(leaf, case.shape)), _flat(wanted)) for agrees, leaf, wanted in checks)
        found[one.name] = "; ".join(filter(None, wrong))
    return found


def _flat(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float32).reshape(-1)


def make(name: str, variant: Variant, pool: Pool, spares: Spares, label: str) -> Prepared:
    inputs = [tuple(one[taken] for taken in variant.takes) for one in pool]
    if variant.kind == "jit":
        return Jitted(name, variant.function, inputs, spares, label)
    return Torch(name, variant.function, inputs)


def _copies(least: int, count: int, spares: Spares) -> list[Prepared]:
    """What reads half the bytes and writes half: XLA's copy, and a pass of its own, which a profile can name."""
    words = max(1, least // 8)
    inputs = [(jnp.full(words, seed, jnp.uint32),) for seed in range(count)]
    functions = zip(COPIES, (jnp.copy, jnp.invert), strict=True)
    return [Jitted(name, f, inputs, spares, f"bench_copy_{f.__name__}") for name, f in functions]


def _statistics(seconds: Sequence[float]) -> Result:
    low, median, high = map(rounded, statistics.quantiles(seconds, n=4))
    return {"median_s": median, "quartiles_s": [low, high], "rounds": len(seconds)}


def rounded(seconds: float) -> float:
    """Four digits, of which a clock gives fewer."""
    return float(f"{seconds:.4g}")
