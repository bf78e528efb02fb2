"""The search of `python -m tools.tune`: which operations there are, and what is tried for each."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import arrays, machine
from bench.timing import Jitted, Spares
from intnumerics.kernels import Draw, QuantSpec, reference
from intnumerics.kernels.gpu import tuning
from intnumerics.kernels.gpu.tuning import Configuration
from intnumerics.kernels.pallas_triton import operations as pallas_triton

PER_THREAD, WARPS = (8, 16, 32, 64), (1, 2, 4, 8, 16)  # elements of a thread, and warps of a block
BLOCKS = (1024, 16384)  # the smallest and the largest
NOISE = 0.02  # of measurements: what is less is not taken for a gain
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))
MASKED = dataclasses.replace(NEAREST, with_mask=True)

Measure = Callable[[Sequence[Jitted]], list[float]]


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """An operation as the table names it, on arrays of one dtype, and how it is run with a configuration."""

    operation: str
    dtype: str
    takes: tuple[str, ...]
    function: Callable[..., Any]

    @property
    def name(self) -> str:
        return f"{self.operation}, {self.dtype}"


def _quantize(spec: QuantSpec, x: jax.Array, noise: jax.Array | None = None, **how: Any) -> Any:
    return pallas_triton.quantize(x, noise, spec, **how)


def _from_x(g: jax.Array, x: jax.Array, **how: Any) -> jax.Array:
    return pallas_triton.clip_gradient_from_x(g, x, NEAREST, **how)


def cases(size: int, dtypes: Iterable[str]) -> Iterator[Case]:
    """Every operation in each dtype, on arrays of one size."""
    draw = Draw("philox", (size,))
    drawn = [dataclasses.replace(spec, draw=draw) for spec in (NEAREST, INT8, MASKED)]
    passes = [
        *((spec, ("x",)) for spec in (NEAREST, INT8, MASKED)),
        (NEAREST, ("x", "noise")),
        *((spec, ("x", "seed")) for spec in drawn),
    ]
    for dtype in dtypes:
        for spec, takes in passes:
            yield Case(tuning.quantization(spec, len(takes) > 1), dtype, takes, functools.partial(_quantize, spec))
        yield Case(tuning.FROM_MASK, dtype, ("g", "mask"), pallas_triton.clip_gradient_from_mask)
        yield Case(tuning.FROM_X, dtype, ("g", "x"), _from_x)


def make(name: str, seed: int, size: int, dtype: str) -> jax.Array:
    """One of the arrays that cases name."""
    if name == "noise":
        return jax.random.uniform(jax.random.key(seed, impl="rbg"), (size,)) - jnp.float32(0.5)
    if name == "seed":
        return jnp.asarray([seed, 1, 0, 0], jnp.uint32)
    if name == "mask":
        return jax.jit(lambda x: reference.quantize(x, None, MASKED)[1])(arrays.make("x", seed, (size,), dtype))
    return arrays.make(name, seed, (size,), dtype)


# --- the search -------------------------------------------------------------------------------------------------------


def candidates(warps: Iterable[int] = WARPS, per_thread: Iterable[int] = PER_THREAD) -> list[Configuration]:
    """The configurations with these numbers of warps and elements per thread, as far as their blocks are tried."""
    sizes = [(tuning.WARP * w * n, w) for n in per_thread for w in warps]
    return [Configuration(block, w) for block, w in sizes if BLOCKS[0] <= block <= BLOCKS[1]]


def fastest(seconds: Mapping[Configuration, float]) -> Configuration:
    """The one that took the least time; of two the one that was tried first."""
    return min(seconds, key=lambda c: seconds[c])


def gain(comparisons: Sequence[tuple[float, float]]) -> float | None:
    """The median share of the default's time that is saved; None if any comparison shows no more than noise."""
    saved = [1 - other / default for default, other in comparisons]
    return statistics.median(saved) if saved and min(saved) > NOISE else None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found."""

    case: Case
    default: Configuration  # the one without a row in the table
    best: Configuration  # the fastest, the default included
    gain: float | None  # the share of the default's time that it saves, or None if it saves none to speak of
    groups: tuple[Mapping[Configuration, float], ...]  # seconds of those that took turns with each other
    failed: Mapping[Configuration, str]  # why others were not measured: they did not compile
    wrong: Mapping[Configuration, str]  # those whose results are not those of the default


def search(
    case: Case, size: int, measure: Measure, comparisons: int, interpret: bool = False, compilers: int = 1
) -> Found:
    """Finds the fastest configuration of a case, on arrays of `size` elements.

    Args:
        case: What is measured.
        size: Elements of its arrays.
        measure: Seconds of a call of each program, in turns with the others.
        comparisons: How often the best is compared with the default.
        interpret: Whether the kernels are interpreted, as is done without a GPU.
        compilers: How many programs are compiled at a time.
    """
    default = tuning.configuration(None, case.dtype, case.operation, size)
    programs = Programs(case, size, default, interpret, compilers)

    def times(others: list[Configuration]) -> dict[Configuration, float]:
        return programs.times(list(dict.fromkeys([default, *others])), measure)

    first = times(candidates((default.warps,)))
    of_best = fastest(first)
    second = times(candidates(per_thread=(of_best.block // of_best.threads,)))
    best, pairs = fastest(second), []
    if best != default:
        again = (times([best]) for _ in range(comparisons))
        pairs = [(seconds[default], seconds[best]) for seconds in again]
    return Found(case, default, best, gain(pairs), (first, second), programs.failed, programs.wrong)


class Programs:
    """The programs of a case, compiled when they are first asked for; those that give other bits are not used."""

    def __init__(self, case: Case, size: int, default: Configuration, interpret: bool, compilers: int = 1) -> None:
        self.case, self.interpret, self.compilers, self.spares = case, interpret, compilers, Spares()
        types = jax.eval_shape(lambda: [make(name, 0, size, case.dtype) for name in case.takes])
        sets = arrays.sets(types, machine.last_level_cache())
        self.inputs = [tuple(make(name, seed, size, case.dtype) for name in case.takes) for seed in range(sets)]
        self.ready = {default: self._compiled(default)}
        self.expected = self.ready[default].results(0)
        self.failed: dict[Configuration, str] = {}
        self.wrong: dict[Configuration, str] = {}

    def times(self, wanted: Sequence[Configuration], measure: Measure) -> dict[Configuration, float]:
        """Seconds of a call of each that works."""
        known = self.ready | self.failed | self.wrong
        with ThreadPoolExecutor(self.compilers) as threads:
            for c, program in {c: threads.submit(self._compiled, c) for c in wanted if c not in known}.items():
                self._try(c, program)
        usable = [c for c in wanted if c in self.ready]
        return dict(zip(usable, measure([self.ready[c] for c in usable]), strict=True))

    def _compiled(self, c: Configuration) -> Jitted:
        function = functools.partial(self.case.function, configuration=c, interpret=self.interpret)
        return Jitted(f"{c.block}, {c.warps}", function, self.inputs, self.spares, f"tune_{c.block}_{c.warps}")

    def _try(self, c: Configuration, compiling: "Future[Jitted]") -> None:
        """Runs a program once, and keeps it if its bits are those of the default; or why it is not used."""
        try:
            program = compiling.result()
            results = program.results(0)
            differing = int(differing_elements(self.expected, results))
        except Exception as error:  # such as too much shared memory, which some devices say when a kernel starts
            self.failed[c] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
            return
        self.spares.give(results)
        if differing:
            self.wrong[c] = f"WRONG: {differing} elements differ from those of the default"
        else:
            self.ready[c] = program


@jax.jit
def differing_elements(a: Any, b: Any) -> jax.Array:
    """How many elements of two results have other bits."""
    bits = lambda x: jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))  # noqa: E731
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.sum(bits(x) != bits(y)) for x, y in pairs), jnp.int32(0))
