"""The search of `python -m tools.tune`: which kernels there are, and what is tried for each."""

import dataclasses
import functools
import importlib
import itertools
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
from intnumerics.kernels.gpu import pallas, tuning
from intnumerics.kernels.gpu.pallas import Compiler
from intnumerics.kernels.gpu.tuning import Configuration

# Elements of a thread, which Triton holds in registers all at once, and Mosaic in turns of eight; and warps of a block,
# which for Mosaic are those of a warpgroup.
PER_THREAD: dict[Compiler, tuple[int, ...]] = {
    "pallas_triton": (8, 16, 32, 64),
    "pallas_mosaic_gpu": (8, 16, 32, 64, 128),
}
WARPS: dict[Compiler, tuple[int, ...]] = {"pallas_triton": (1, 2, 4, 8, 16), "pallas_mosaic_gpu": (4,)}
BLOCKS = (1024, 16384)  # the smallest and the largest
NOISE = 0.02  # of measurements: what is less is not taken for a gain
NEAREST = QuantSpec(127.0, clip=True, rounding="half_to_even")
INT8 = dataclasses.replace(NEAREST, integer_dtype=np.dtype(np.int8))
MASKED = dataclasses.replace(NEAREST, with_mask=True)

Measure = Callable[[Sequence[Jitted]], list[float]]


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A kernel: an implementation of an operation as the table names it, on arrays of one dtype.

    Attributes:
        implementation: The implementation.
        operation: The operation.
        dtype: Name of the dtype of x, or of the gradient.
        takes: The names of the arrays, see `make`.
        function: Runs it with `configuration` and `interpret`.
        reference: The same in plain jnp, whose bits it must give.
    """

    implementation: Compiler
    operation: str
    dtype: str
    takes: tuple[str, ...]
    function: Callable[..., Any]
    reference: Callable[..., Any]

    @property
    def name(self) -> str:
        return f"{self.implementation}: {self.operation}, {self.dtype}"


def implementations() -> tuple[Compiler, ...]:
    """Those that this JAX can compile, the one that is `"pallas"` first."""
    there: list[Compiler] = [name for name in PER_THREAD if name != "pallas_triton" or pallas.has_triton()]
    return tuple(sorted(there, key=lambda name: name != pallas.compiler()))


def _room(name: str) -> Any:
    return importlib.import_module(f"intnumerics.kernels.{name}")


def _quantize(name: str, x: jax.Array, noise: jax.Array | None = None, *, spec: QuantSpec, **how: Any) -> Any:
    return _room(name).quantize(x, noise, spec, **how)


def _from_mask(name: str, g: jax.Array, mask: jax.Array, **how: Any) -> jax.Array:
    return _room(name).clip_gradient_from_mask(g, mask, **how)


def _from_x(name: str, g: jax.Array, x: jax.Array, **how: Any) -> jax.Array:
    return _room(name).clip_gradient_from_x(g, x, NEAREST, **how)


def cases(size: int, dtypes: Iterable[str]) -> Iterator[Case]:
    """Every operation in each dtype by each implementation, on arrays of one size."""
    draw = Draw("philox", (size,))
    drawn = [dataclasses.replace(spec, draw=draw) for spec in (NEAREST, INT8, MASKED)]
    passes = [
        *((spec, ("x",)) for spec in (NEAREST, INT8, MASKED)),
        (NEAREST, ("x", "noise")),
        *((spec, ("x", "seed")) for spec in drawn),
    ]
    of = functools.partial
    functions = [
        *((tuning.quantization(spec, len(takes) > 1), takes, of(_quantize, spec=spec)) for spec, takes in passes),
        (tuning.FROM_MASK, ("g", "mask"), _from_mask),
        (tuning.FROM_X, ("g", "x"), _from_x),
    ]
    for dtype, (operation, takes, function) in itertools.product(dtypes, functions):
        for name in implementations():
            yield Case(name, operation, dtype, takes, of(function, name), of(function, "reference"))


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


def candidates(
    implementation: Compiler, warps: Iterable[int] | None = None, per_thread: Iterable[int] | None = None
) -> list[Configuration]:
    """The configurations with these numbers of warps and elements per thread, as far as their blocks are tried."""
    ways = itertools.product(per_thread or PER_THREAD[implementation], warps or WARPS[implementation])
    sizes = [(tuning.WARP * w * n, w) for n, w in ways]
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
    wrong: Mapping[Configuration, str]  # those whose results are not those of the reference


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
    default = tuning.configuration(case.implementation, None, case.dtype, case.operation, size)
    programs = Programs(case, size, interpret, compilers)

    def times(others: list[Configuration]) -> dict[Configuration, float]:
        return programs.times(list(dict.fromkeys([default, *others])), measure)

    groups = [times(candidates(case.implementation, (default.warps,)))]
    if default not in groups[0]:
        return Found(case, default, default, None, (), programs.failed, programs.wrong)
    best = fastest(groups[0])
    others = candidates(case.implementation, per_thread=(best.block // best.threads,))
    if others != [best]:
        groups.append(times(others))
        best = fastest(groups[1])
    pairs = list[tuple[float, float]]()
    if best != default:
        again = (times([best]) for _ in range(comparisons))
        pairs = [(seconds[default], seconds[best]) for seconds in again]
    return Found(case, default, best, gain(pairs), tuple(groups), programs.failed, programs.wrong)


class Programs:
    """The programs of a case, compiled when they are first asked for; those that give wrong bits are not used."""

    def __init__(self, case: Case, size: int, interpret: bool, compilers: int = 1) -> None:
        self.case, self.interpret, self.compilers, self.spares = case, interpret, compilers, Spares()
        types = jax.eval_shape(lambda: [make(name, 0, size, case.dtype) for name in case.takes])
        sets = arrays.sets(types, machine.last_level_cache())
        self.inputs = [tuple(make(name, seed, size, case.dtype) for name in case.takes) for seed in range(sets)]
        self.ready: dict[Configuration, Jitted] = {}
        self.failed: dict[Configuration, str] = {}
        self.wrong: dict[Configuration, str] = {}

    @functools.cached_property
    def expected(self) -> Any:
        """What the reference gives for the first inputs."""
        return jax.block_until_ready(jax.jit(self.case.reference)(*self.inputs[0]))

    def times(self, wanted: Sequence[Configuration], measure: Measure) -> dict[Configuration, float]:
        """Seconds of a call of each that works."""
        known = self.ready | self.failed | self.wrong
        with ThreadPoolExecutor(self.compilers) as threads:
            reference = threads.submit(lambda: self.expected)  # beside the others
            programs = {c: threads.submit(self._compiled, c) for c in wanted if c not in known}
            reference.result()
            for c, program in programs.items():
                self._try(c, program)
        usable = [c for c in wanted if c in self.ready]
        return dict(zip(usable, measure([self.ready[c] for c in usable]), strict=True))

    def _compiled(self, c: Configuration) -> Jitted:
        function = functools.partial(self.case.function, configuration=c, interpret=self.interpret)
        return Jitted(f"{c.block}, {c.warps}", function, self.inputs, self.spares, f"tune_{c.block}_{c.warps}")

    def _try(self, c: Configuration, compiling: "Future[Jitted]") -> None:
        """Runs a program once, and keeps it if its bits are those of the reference; or why it is not used."""
        try:
            program = compiling.result()
            results = program.results(0)
            differing = int(differing_elements(self.expected, results))
        except Exception as error:  # such as too much shared memory, which some devices say when a kernel starts
            self.failed[c] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
            return
        self.spares.give(results)
        if differing:
            self.wrong[c] = f"WRONG: {differing} elements differ from those of the reference"
        else:
            self.ready[c] = program


@jax.jit
def differing_elements(a: Any, b: Any) -> jax.Array:
    """How many elements of two results have other bits."""
    bits = lambda x: jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))  # noqa: E731
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum((jnp.sum(bits(x) != bits(y)) for x, y in pairs), jnp.int32(0))
