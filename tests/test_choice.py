"""`implementation=None` is what was measured fastest: its choice, now, against every stored result."""

import functools
from collections.abc import Iterator
from typing import Any, get_args
from unittest import mock

import jax
import pytest

from bench import arrays, results
from bench.gpu import compilers
from bench.gpu.targets import MOSAIC, NONE_IS_A_KERNEL, TRITON
from bench.names import OURS
from bench.operations import operations
from bench.results import COPIES
from intnumerics import _dispatch
from intnumerics.kernels.gpu import pallas, tuning

pytestmark = pytest.mark.tools

NEAR = 1.05  # of the time of the best
CHAINS = ("gelu", "layer norm")  # what the operations of several steps begin with
STORED = [(path, run) for path, run in results.load() if run["cases"]]
every_run = pytest.mark.parametrize("run", [pytest.param(run, id=f"{p.parent.name} {p.stem}") for p, run in STORED])


def calls_in(jaxpr: Any) -> Iterator[Any]:
    """The calls of this package in a program, with the types of their arrays."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "intnumerics":
            yield equation.params["call"], [variable.aval for variable in equation.invars]
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from calls_in(inner)


BY_NAME = {operation.name: operation for operation in operations()}


def compiler_of(run: results.Report) -> pallas.Compiler:
    """The row that `"pallas"` is on the GPU of a run, with a JAX that has both compilers, if both were timed."""
    has_both = any(MOSAIC in case["results"] for case in run["cases"])
    return "pallas_mosaic_gpu" if has_both and run["device"] in pallas.MOSAIC_IS_FASTER else "pallas_triton"


@functools.cache
def chosen(
    name: str,
    platform: str,
    device: str,
    dtype: str,
    shape: tuple[int, ...],
    compiler: pallas.Compiler = "pallas_triton",
) -> str:
    """What runs an operation on arrays of a shape on a device, where nobody says; `"pallas"` is `compiler` on a GPU."""
    operation = BY_NAME[name]
    types = arrays.types(operation.takes, shape, dtype)
    program = jax.make_jaxpr(operation.ours(None))(*(types[name] for name in operation.takes))
    with (
        mock.patch.object(tuning, "device_kind", return_value=device if platform == "cuda" else None),
        mock.patch.object(pallas, "compiler", return_value="pallas_mosaic_gpu"),  # which every JAX has
    ):
        names = {
            _dispatch.choose(call, platform, avals, partitioned=False, elsewhere=False).name
            for call, avals in calls_in(program.jaxpr)
        }
    [name] = names
    return compiler if name == "pallas_mosaic_gpu" else name


def seconds_of_ours(case: results.Measured, compiler: pallas.Compiler) -> dict[str, float]:
    """The time of each implementation that was measured, of those that need no package beside JAX.

    Of Pallas' two compilers only the one that `"pallas"` is for every operation counts.
    """
    others = {"eager", "jax_triton", *get_args(pallas.Compiler)} - {compiler}
    names = (name for name, r in case["results"].items() if name.startswith(f"{OURS}, ") and "median_s" in r)
    found = {name.removeprefix(f"{OURS}, "): results.best_seconds(case, name) for name in names}
    return {name: seconds for name, seconds in found.items() if seconds and name not in others}


def differ(case: results.Measured, slow: str, quick: str) -> bool:
    """Whether two times differ by more than chance, where no profiler told them."""
    slow_result, quick_result = (case["results"][f"{OURS}, {name}"] for name in (slow, quick))
    return "device_s" in slow_result or slow_result["quartiles_s"][0] > quick_result["quartiles_s"][1]


def quantization_in(operation: str) -> str:
    """The quantization in an operation, which may be a chain."""
    first, *rest = operation.split(", ", 1)
    return rest[0].replace(", dot", "") if first in CHAINS else operation


def saved_elsewhere(run: results.Report, case: results.Measured, pick: str, best: str) -> float:
    """The seconds that a choice which is slower here saves in sum where the same quantization is used in other ways.

    By itself XLA may be slower than a kernel, and in a chain it saves a pass at least: a kernel keeps the neighbours
    apart, whose array is then written and read. In a chain a kernel may be slower, and save more by itself or in
    another chain.
    """
    if pick == "xla" and quantization_in(case["operation"]) == case["operation"]:
        return results.best_seconds(case, COPIES[0]) or 0.0
    of = lambda c: (quantization_in(c["operation"]), c["dtype"], results.elements(c))  # noqa: E731
    others = [seconds_of_ours(c, compiler_of(run)) for c in run["cases"] if of(c) == of(case) and c is not case]
    return sum(seconds[best] - seconds[pick] for seconds in others if {pick, best} <= seconds.keys())


def too_slow(run: results.Report) -> list[str]:
    """The cases in which another implementation is faster by more than chance, and by more than the choice saves."""
    found, compiler = [], compiler_of(run)
    for case in run["cases"]:
        if not (seconds := seconds_of_ours(case, compiler)):
            continue
        where = (run["platform"], run["device"], case["dtype"], tuple(case["shape"]))
        pick = chosen(case["operation"], *where, compiler)
        best = min(seconds, key=lambda name: seconds[name])
        lost = seconds[pick] - seconds[best]
        if seconds[pick] <= NEAR * seconds[best] or not differ(case, pick, best):
            continue
        if run["platform"] == "cuda" and lost <= saved_elsewhere(run, case, pick, best):
            continue
        found.append(f"{results.title(case)}: {pick} takes {seconds[pick] / seconds[best]:.2f} times {best}'s time")
    return found


def test_there_are_results_to_choose_by() -> None:
    assert STORED


@every_run
def test_the_choice_is_within_a_twentieth_of_the_best_or_on_a_gpu_loses_less_than_it_saves_elsewhere(
    run: results.Report,
) -> None:
    assert not too_slow(run)


@every_run
def test_on_a_gpu_pallas_is_the_compiler_whose_kernels_are_quicker(run: results.Report) -> None:
    if run["platform"] == "cuda":
        now = compiler_of(run)
        best, why = compilers.quicker(run["cases"], now)
        assert now == best, why


def test_what_decides_between_two_compilers_is_what_none_gives_to_a_kernel_on_every_gpu() -> None:
    alone = [name for name, o in BY_NAME.items() if not o.platforms and not name.startswith(CHAINS)]
    for device in ("a GPU", "NVIDIA H200"):
        found = [n for n in alone if chosen(n, "cuda", device, "bfloat16", (1 << 28,)).startswith("pallas")]
        assert sorted(found) == sorted(NONE_IS_A_KERNEL)


@every_run
def test_a_run_is_of_the_codes_operations_and_right(run: results.Report) -> None:
    names = {name for name, o in BY_NAME.items() if not o.platforms or run["platform"] in o.platforms}
    assert {case["operation"] for case in run["cases"]} <= names
    assert not run["settings"]["quick"]
    assert not [results.title(c) for c in run["cases"] for r in c["results"].values() if "wrong" in r]


@every_run
def test_a_run_without_a_limit_of_minutes_has_every_operation_at_sizes_from_small_to_large(run: results.Report) -> None:
    """`make gpu` has such a limit, and measures the most valuable cases first."""
    if "planned" in run:
        assert len({case["operation"] for case in run["cases"]}) >= 4
        return
    for name in {case["operation"] for case in run["cases"]} & set(BY_NAME):  # some are newer than the run
        sizes = {results.elements(case) for case in run["cases"] if case["operation"] == name}
        assert min(sizes) <= 1 << 12
        assert max(sizes) >= 1 << 24


def test_all_operations_have_been_measured_but_for_those_named() -> None:
    rows, norm = "quantize rows to int8 and scales", "layer norm, quantize rows to int8 and scales"
    waiting = {rows, f"{rows} with PhiloxUniform", norm, f"{norm} with PhiloxUniform"}  # for a run of all
    waiting |= {name for name, operation in BY_NAME.items() if operation.platforms == ("tpu",)}
    measured = {case["operation"] for _, run in STORED for case in run["cases"]}
    assert set(BY_NAME) - measured == waiting


def test_a_choice_that_is_slower_is_found() -> None:
    """On made-up times."""
    quartiles = {"quick": [0.9, 1.1], "slow": [1.9, 2.1]}
    times = {kind: {"median_s": sum(q) / 2, "quartiles_s": q, "rounds": 7} for kind, q in quartiles.items()}
    case = {"operation": "quantize to int8", "dtype": "bfloat16", "shape": [4096], "least_bytes": 1, "baseline": "none"}
    by_name = lambda xla, reference: {f"{OURS}, xla": times[xla], f"{OURS}, reference": times[reference]}  # noqa: E731
    for xla, reference, count in (("quick", "slow", 0), ("slow", "quick", 1)):
        run = {"platform": "cpu", "device": "a CPU", "cases": [case | {"results": by_name(xla, reference)}]}
        assert len(too_slow(run)) == count


@pytest.mark.parametrize(
    ("name", "xla", "pallas", "count"),
    [
        ("quantize to int8", 1.9, 1.0, 0),  # XLA loses less than a copy takes
        ("quantize to int8", 2.1, 1.0, 1),
        ("gelu, quantize to int8, dot with PhiloxUniform", 3.0, 3.4, 0),  # the kernel saves half of a second by itself
        ("gelu, quantize to int8, dot with PhiloxUniform", 3.0, 3.6, 1),
    ],
)
def test_on_a_gpu_a_choice_may_lose_what_it_saves_in_another_place(
    name: str, xla: float, pallas: float, count: int
) -> None:
    """On made-up times, of which a copy takes a second, and a kernel saves half of one with noise by itself."""

    def case(name: str, shape: list[int], xla: float, pallas: float) -> dict[str, Any]:
        by_name = {COPIES[0]: 1.0, f"{OURS}, xla": xla, TRITON: pallas, MOSAIC: 0.1}
        found = {name: {"median_s": s, "device_s": s, "quartiles_s": [s, s]} for name, s in by_name.items()}
        return {"operation": name, "dtype": "bfloat16", "shape": shape, "results": found}

    shape = [4, 8, 1024] if name.startswith(CHAINS) else [4 * 8 * 1024]
    alone = case("quantize to int8 with PhiloxUniform", [4 * 8 * 1024], 1.5, 1.0)
    run = {"platform": "cuda", "device": "a GPU", "cases": [case(name, shape, xla, pallas), alone]}
    assert len(too_slow(run)) == count


def test_the_calls_in_a_chain_are_found() -> None:
    assert chosen("gelu, quantize to int8, dot", "cpu", "a CPU", "bfloat16", (4, 8, 1024)) == "xla"


@pytest.mark.parametrize(
    ("name", "dtype", "elements", "expected"),
    [
        ("quantize to int8", "float32", 1 << 16, "reference"),
        ("quantize to int8", "float32", 1 << 17, "xla"),
        ("quantize to int8", "bfloat16", 4096, "xla"),
        ("quantize", "float32", 4096, "xla"),
        ("quantize to int8 with JaxUniform", "float32", 4096, "reference"),
        ("quantize to int8 with PhiloxUniform", "float32", 4096, "xla"),
        ("backward from x", "float32", 4096, "xla"),
        ("backward from x", "bfloat16", 4096, "reference"),
    ],
)
def test_on_a_cpu_the_formula_as_it_stands_is_chosen_where_it_was_measured_to_be_fastest(
    name: str, dtype: str, elements: int, expected: str
) -> None:
    assert chosen(name, "cpu", "a CPU", dtype, (elements,)) == expected
