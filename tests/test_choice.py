"""`implementation=None` is what was measured fastest: its choice, now, against every stored result."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import pytest

from bench import arrays, results
from bench.operations import OURS, operations
from intnumerics import dispatch

pytestmark = pytest.mark.tools

NEAR = 1.05  # of the time of the best
STORED = list(results.load())
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


@functools.cache
def chosen(name: str, platform: str, dtype: str, shape: tuple[int, ...]) -> str:
    """What runs an operation on arrays of a shape, where nobody says."""
    operation = BY_NAME[name]
    types = arrays.types(operation.takes, shape, dtype)
    program = jax.make_jaxpr(operation.ours(None))(*(types[name] for name in operation.takes))
    names = {
        dispatch.fastest(call, platform, tuple(avals), False, False).name for call, avals in calls_in(program.jaxpr)
    }
    [name] = names
    return name


def too_slow(run: results.Report) -> list[str]:
    """The cases in which another implementation than the chosen one is faster by more than times differ by chance."""
    platform = run["platform"]
    found = []
    for case in run["cases"]:
        ours = {name: r for name, r in case["results"].items() if name.startswith(f"{OURS}, ") and "median_s" in r}
        seconds = {name.removeprefix(f"{OURS}, "): results.best_seconds(case, name) for name in ours}
        seconds.pop("eager", None)
        if not seconds:
            continue
        pick = chosen(case["operation"], platform, case["dtype"], tuple(case["shape"]))
        best = min(seconds, key=lambda name: seconds[name])
        low, high = (ours[f"{OURS}, {name}"]["quartiles_s"][i] for name, i in ((pick, 0), (best, 1)))
        if seconds[pick] > NEAR * seconds[best] and low > high:
            found.append(f"{results.title(case)}: {pick} takes {seconds[pick] / seconds[best]:.2f} times {best}'s time")
    return found


def test_there_are_results_to_choose_by() -> None:
    assert STORED


@every_run
def test_the_choice_is_within_a_twentieth_of_the_best_alone_and_in_chains(run: results.Report) -> None:
    assert not too_slow(run)


@every_run
def test_a_run_has_every_operation_at_sizes_from_small_to_large(run: results.Report) -> None:
    """And is of the code's operations, and right."""
    platform = run["platform"]
    names = {name for name, o in BY_NAME.items() if not o.platforms or platform in o.platforms}
    assert {case["operation"] for case in run["cases"]} == names
    assert not run["settings"]["quick"]
    for name in names:
        sizes = {results.elements(case) for case in run["cases"] if case["operation"] == name}
        assert min(sizes) <= 1 << 12
        assert max(sizes) >= 1 << 24
    assert not [results.title(c) for c in run["cases"] for r in c["results"].values() if "wrong" in r]


def test_a_choice_that_is_slower_is_found() -> None:
    """On made-up times."""
    quartiles = {"quick": [0.9, 1.1], "slow": [1.9, 2.1]}
    times = {kind: {"median_s": sum(q) / 2, "quartiles_s": q, "rounds": 7} for kind, q in quartiles.items()}
    case = {"operation": "quantize to int8", "dtype": "bfloat16", "shape": [4096], "least_bytes": 1, "baseline": "none"}
    by_name = lambda xla, reference: {f"{OURS}, xla": times[xla], f"{OURS}, reference": times[reference]}  # noqa: E731
    for xla, reference, count in (("quick", "slow", 0), ("slow", "quick", 1)):
        run = {"platform": "cpu", "cases": [case | {"results": by_name(xla, reference)}]}
        assert len(too_slow(run)) == count


def test_the_calls_in_a_chain_are_found() -> None:
    assert chosen("gelu, quantize to int8, dot", "cpu", "bfloat16", (4, 8, 1024)) == "xla"


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
    assert chosen(name, "cpu", dtype, (elements,)) == expected
